//! The public port: accepting connections, sharing them between slugs and API,
//! and letting them go.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{self, BoxFuture};
use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tower::ServiceExt as _;
use tracing::Instrument as _;
use waypost_domain::{Slug, SlugRef};
use waypost_runtime::Process;
use waypost_runtime::traces::Sampler;

use crate::client::TrustedHops;
use crate::metrics::Metrics;
use crate::redirect::{Redirects, slug_of};
use crate::trace;
use crate::workers::Workers;

/// Connections that wait to be accepted; what comes in a burst must not be lost.
const BACKLOG: i32 = 4_096;

/// How long a client may take to send a request's head, from the first byte or
/// from the previous answer on: also the longest that a connection stays idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);

/// Bytes of a request's head, and of what is read ahead. A URL of 8 KiB in a
/// query fits.
const MAX_HEAD: usize = 16 * 1024;

const MAX_HEADERS: usize = 64;

/// Between tries when the process has run out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bounds of the public port.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at the same time. One more is closed at once.
    pub connections: usize,
    /// How long new connections are taken after the end was asked for: until load
    /// balancers have noticed.
    pub lame_duck: Duration,
    /// How long idle connections are kept after that, so that a client that is
    /// just sending its next request is still answered.
    pub idle_close: Duration,
}

/// Binds the public port.
///
/// # Errors
/// If the address is taken or not ours.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Answers slugs itself and leaves everything else to the router.
#[derive(Debug)]
struct Public {
    redirects: Redirects,
    router: Router,
    trusted_hops: TrustedHops,
    sampler: Sampler,
    /// Of the process, not of a serving thread.
    runtime: Handle,
    draining: AtomicBool,
}

type Body = Either<Full<Bytes>, axum::body::Body>;

/// The answer of most visitors is there at once; a future that holds the others' as
/// well would be copied, all of its kilobytes, for each request.
type Answer = future::Either<
    future::Ready<Result<Response<Body>, Infallible>>,
    BoxFuture<'static, Result<Response<Body>, Infallible>>,
>;

/// The public port as one connection sees it.
#[derive(Debug)]
struct Connection {
    public: Arc<Public>,
    peer: SocketAddr,
}

impl Service<Request<Incoming>> for Connection {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        let span = trace::span(self.public.sampler, request.method(), request.headers());
        if span.is_none()
            && let Some(response) = self.public.answer_held(&request, self.peer)
        {
            return future::Either::Left(future::ready(Ok(response)));
        }
        let (public, peer) = (Arc::clone(&self.public), self.peer);
        future::Either::Right(Box::pin(async move {
            let Some(span) = span else {
                return Ok(public.answer(request, peer).await);
            };
            let answer = async {
                match public.answer_held(&request, peer) {
                    Some(response) => response,
                    None => public.answer(request, peer).await,
                }
            };
            let response = answer.instrument(span.clone()).await;
            span.record("http.response.status_code", response.status().as_u16());
            Ok(response)
        }))
    }
}

impl Public {
    /// Answers what needs no waiting: a slug whose link is in memory.
    fn answer_held(&self, request: &Request<Incoming>, peer: SocketAddr) -> Option<Response<Body>> {
        let response = self
            .redirects
            .answer_held(slug_asked_for(request)?, request, peer)?;
        Some(self.finished(response.map(Either::Left)))
    }

    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        let response = match slug_asked_for(&request).map(Slug::from) {
            Some(slug) => self
                .redirects
                .answer(slug, &request, peer)
                .await
                .map(Either::Left),
            None => self.answer_elsewhere(request, peer).await,
        };
        self.finished(response)
    }

    /// Answers on the shared runtime what is no redirect: a batch of a megabyte must not
    /// hold up those whose connections are on this thread.
    async fn answer_elsewhere(
        &self,
        mut request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Response<Body> {
        let client = self.trusted_hops.client(peer, request.headers());
        request.extensions_mut().insert(client);
        let answer = self.runtime.spawn(self.router.clone().oneshot(request));
        // Who hangs up takes the work along.
        match AbortOnDropHandle::new(answer).await {
            Ok(Ok(response)) => response.map(Either::Right),
            // A panic, which has been reported.
            Err(_) => {
                let mut response = Response::new(Either::Left(Full::default()));
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                response
            }
        }
    }

    fn finished(&self, mut response: Response<Body>) -> Response<Body> {
        if self.draining.load(Ordering::Relaxed) {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// The slug that a request reads, if it does.
fn slug_asked_for<B>(request: &Request<B>) -> Option<SlugRef<'_>> {
    matches!(*request.method(), Method::GET | Method::HEAD)
        .then(|| slug_of(request.uri().path()))
        .flatten()
}

/// What is served: slugs, and everything else.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) redirects: Redirects,
    pub(crate) router: Router,
    pub(crate) trusted_hops: TrustedHops,
}

/// Serves until the end is asked for and the connections are gone.
pub(crate) async fn serve(
    listener: TcpListener,
    served: Served,
    limits: Limits,
    workers: &Workers,
    metrics: Metrics,
    process: &Process,
) {
    let shutdown = &process.shutdown;
    let public = Arc::new(Public {
        redirects: served.redirects,
        router: served.router,
        trusted_hops: served.trusted_hops,
        sampler: process.sampler,
        runtime: Handle::current(),
        draining: AtomicBool::new(false),
    });
    let connections = Connections {
        workers,
        permits: Arc::new(Semaphore::new(limits.connections)),
        open: Arc::default(),
        closed: Arc::default(),
        close: CancellationToken::new(),
        metrics,
    };
    tokio::select! {
        () = connections.accept(&listener, &public) => {}
        () = shutdown.requested() => {}
    }
    public.draining.store(true, Ordering::Relaxed);
    let lame_duck = (Instant::now() + limits.lame_duck).min(shutdown.deadline());
    tokio::select! {
        () = connections.accept(&listener, &public) => {}
        () = tokio::time::sleep_until(lame_duck) => {}
    }
    // Who has connected by now is served; who connects later is refused.
    while let Some(Ok((stream, peer))) = listener.accept().now_or_never() {
        connections.start(stream, peer, &public);
    }
    drop(listener);
    let idle_close = (Instant::now() + limits.idle_close).min(shutdown.deadline());
    tokio::select! {
        () = connections.none_left() => return,
        () = tokio::time::sleep_until(idle_close) => {}
    }
    connections.close.cancel();
    tokio::select! {
        () = connections.none_left() => {}
        () = tokio::time::sleep_until(shutdown.deadline()) => {
            tracing::warn!(open = connections.open.load(Ordering::Relaxed),
                "closing connections that have not finished in time");
        }
    }
}

/// The open connections.
struct Connections<'a> {
    workers: &'a Workers,
    permits: Arc<Semaphore>,
    open: Arc<AtomicUsize>,
    closed: Arc<Notify>,
    /// Asks each connection to end after its present answer.
    close: CancellationToken,
    metrics: Metrics,
}

impl Connections<'_> {
    /// Accepts for ever.
    async fn accept(&self, listener: &TcpListener, public: &Arc<Public>) {
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

    fn start(&self, stream: TcpStream, peer: SocketAddr, public: &Arc<Public>) {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            self.metrics.connection_refused();
            return;
        };
        // Without it an answer may wait 40 ms for the client's acknowledgement.
        let _ = stream.set_nodelay(true);
        // Taken from the runtime that accepted it, for the one that is to serve it.
        let Ok(stream) = stream.into_std() else {
            return;
        };
        let open = Open::begin(self, permit);
        // A child, since each look at a token takes its lock.
        let (close, public) = (self.close.child_token(), Arc::clone(public));
        self.workers.spawn(async move {
            let _open = open;
            if let Ok(stream) = TcpStream::from_std(stream) {
                serve_connection(stream, Connection { public, peer }, close).await;
            }
        });
    }

    async fn none_left(&self) {
        while self.open.load(Ordering::Relaxed) > 0 {
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
}

impl Open {
    fn begin(connections: &Connections<'_>, permit: OwnedSemaphorePermit) -> Self {
        connections.open.fetch_add(1, Ordering::Relaxed);
        connections.metrics.connection_opened();
        Self {
            open: Arc::clone(&connections.open),
            closed: Arc::clone(&connections.closed),
            metrics: connections.metrics.clone(),
            _permit: permit,
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

async fn serve_connection(stream: TcpStream, service: Connection, close: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
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
