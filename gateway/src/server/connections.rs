//! The connections of the public port, from being accepted to their end.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::stream::{Answering, ClientStream, Patience};
use super::{Connection, Public};
use crate::client::TrustedHops;
use crate::limits::{AddressLimit, AddressPlace, LimitOptions};
use crate::metrics::Metrics;
use crate::workers::Workers;

/// Bytes of a request's head, and of what is read ahead: the longest target and as much
/// again of headers. More is answered 431.
const MAX_HEAD: usize = 16 * 1024;

const MAX_HEADERS: usize = 64;

/// Between tries when the process has run out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The open connections.
pub(super) struct Connections<'a> {
    workers: &'a Workers,
    permits: Arc<Semaphore>,
    by_address: AddressLimit,
    /// That one connection may make.
    requests: u32,
    /// How long a connection waits for its next request.
    idle: Duration,
    patience: Arc<Patience>,
    open: Arc<AtomicUsize>,
    closed: Arc<Notify>,
    close: CancellationToken,
    metrics: Metrics,
}

impl<'a> Connections<'a> {
    pub(super) fn new(
        workers: &'a Workers,
        limits: &LimitOptions,
        trusted_hops: TrustedHops,
        metrics: Metrics,
    ) -> Self {
        Self {
            workers,
            permits: Arc::new(Semaphore::new(limits.connections())),
            by_address: AddressLimit::new(limits.connections_per_address(trusted_hops)),
            requests: limits.requests_per_connection(),
            idle: limits.idle_timeout,
            patience: Arc::new(Patience {
                head: limits.head_timeout,
                send: limits.send_timeout,
                slow_heads: metrics.limiter("head_time"),
                slow_readers: metrics.limiter("send_time"),
            }),
            open: Arc::default(),
            closed: Arc::default(),
            close: CancellationToken::new(),
            metrics,
        }
    }

    /// Accepts for ever.
    pub(super) async fn accept(&self, listener: &TcpListener, public: &Arc<Public>) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => self.start(stream, peer, public),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    pub(super) fn start(&self, stream: TcpStream, peer: SocketAddr, public: &Arc<Public>) {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            self.metrics.connection_refused();
            return;
        };
        let Some(place) = self.by_address.place(peer.ip()) else {
            self.metrics.limited("connections_per_address", 1);
            return;
        };
        // Without it an answer may wait 40 ms for the client's acknowledgement.
        let _ = stream.set_nodelay(true);
        // Taken from the runtime that accepted it, for the one that is to serve it.
        let Ok(stream) = stream.into_std() else {
            return;
        };
        let open = Open::begin(self, permit, place);
        // A child, since each look at a token takes its lock.
        let close = self.close.child_token();
        let (patience, idle) = (Arc::clone(&self.patience), self.idle);
        let service = Connection {
            public: Arc::clone(public),
            peer,
            answering: Answering::default(),
            left: Cell::new(self.requests),
        };
        self.workers.spawn(async move {
            let _open = open;
            if let Ok(stream) = TcpStream::from_std(stream) {
                let stream = ClientStream::new(stream, patience, service.answering.clone());
                serve_connection(stream, service, idle, close).await;
            }
        });
    }

    /// Asks each connection to end after its present answer.
    pub(super) fn close_idle(&self) {
        self.close.cancel();
    }

    pub(super) fn count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) async fn none_left(&self) {
        while self.count() > 0 {
            self.closed.notified().await;
        }
    }
}

/// One open connection, counted for as long as it is there, however it ends: a drain
/// would wait for one that was forgotten.
struct Open {
    open: Arc<AtomicUsize>,
    closed: Arc<Notify>,
    metrics: Metrics,
    _permit: OwnedSemaphorePermit,
    _place: AddressPlace,
}

impl Open {
    fn begin(
        connections: &Connections<'_>,
        permit: OwnedSemaphorePermit,
        place: AddressPlace,
    ) -> Self {
        connections.open.fetch_add(1, Ordering::Relaxed);
        connections.metrics.connection_opened();
        Self {
            open: Arc::clone(&connections.open),
            closed: Arc::clone(&connections.closed),
            metrics: connections.metrics.clone(),
            _permit: permit,
            _place: place,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.connection_closed();
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.closed.notify_one();
    }
}

async fn serve_connection(
    stream: ClientStream,
    service: Connection,
    idle: Duration,
    close: CancellationToken,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        // Not `pipeline_flush`: with it a malformed head gets no answer.
        .half_close(false)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // How a client ends its connection is its own affair.
    let _ = tokio::select! {
        result = connection.as_mut() => result,
        () = close.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
}

/// Whether only the connection that was to be accepted is broken.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
