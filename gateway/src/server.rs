//! The public port: accepting connections, sharing them between slugs and API,
//! and letting them go.

mod connections;
mod stream;

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse as _;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{self, BoxFuture};
use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::service::Service;
use prometheus::IntCounter;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tower::ServiceExt as _;
use waypost_domain::{Slug, SlugRef};
use waypost_runtime::Process;
use waypost_runtime::traces::{self, Sampler, Span};

use crate::api::{self, Code, Problem};
use crate::client::TrustedHops;
use crate::limits::LimitOptions;
use crate::metrics::Metrics;
use crate::redirect::{Redirects, slug_of};
use crate::server::connections::Connections;
use crate::server::stream::Answering;
use crate::trace;
use crate::workers::Workers;

/// Connections that wait to be accepted; what comes in a burst must not be lost.
const BACKLOG: i32 = 4_096;

/// Bytes of path and query, as other servers have it. More is answered 414.
const MAX_TARGET: usize = 8 * 1024;

/// How the public port ends.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
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
    full_connections: IntCounter,
    long_targets: IntCounter,
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
    answering: Answering,
    /// Requests that it may still make.
    left: Cell<u32>,
}

impl Service<Request<Incoming>> for Connection {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        self.left.set(self.left.get().saturating_sub(1));
        let is_last = self.left.get() == 0;
        let span = trace::begin(&self.public.sampler, request.method(), request.headers());
        if span.is_none()
            && !is_last
            && let Some(response) = self.public.answer_held(&request, self.peer)
        {
            self.answering.answered();
            return future::Either::Left(future::ready(Ok(response)));
        }
        self.answering.begins();
        let (public, peer) = (Arc::clone(&self.public), self.peer);
        let answering = self.answering.clone();
        future::Either::Right(Box::pin(async move {
            let response = match span {
                Some(span) => public.answer_traced(request, peer, is_last, span).await,
                None if is_last => public.answer_last(request, peer).await,
                None => public.answer(request, peer).await,
            };
            answering.answered();
            Ok(response)
        }))
    }
}

impl Public {
    /// Answers what needs no waiting: a slug whose link is in memory.
    fn answer_held(&self, request: &Request<Incoming>, peer: SocketAddr) -> Option<Response<Body>> {
        if is_too_long(request) {
            return None;
        }
        let response = self
            .redirects
            .answer_held(slug_asked_for(request)?, request, peer)?;
        Some(self.finished(response.map(Either::Left)))
    }

    /// Answers the last request that a connection may make, and closes it.
    async fn answer_last(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        self.full_connections.inc();
        let mut response = match self.answer_held(&request, peer) {
            Some(response) => response,
            None => self.answer(request, peer).await,
        };
        close(&mut response);
        response
    }

    async fn answer_traced(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        is_last: bool,
        span: Span,
    ) -> Response<Body> {
        let answer = async {
            if slug_asked_for(&request).is_some() {
                trace::routed(request.method(), "/{slug}");
            }
            if is_last {
                return self.answer_last(request, peer).await;
            }
            match self.answer_held(&request, peer) {
                Some(response) => {
                    traces::note("waypost.tier", "l1");
                    response
                }
                None => self.answer(request, peer).await,
            }
        };
        let response = span.within(answer).await;
        trace::answered(&span, response.status());
        response
    }

    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        let response = match slug_asked_for(&request).map(Slug::from) {
            _ if is_too_long(&request) => {
                self.long_targets.inc();
                too_long()
            }
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
        let answer = self.router.clone().oneshot(request);
        let answer = self.runtime.spawn(traces::carried(answer));
        // Who hangs up takes the work along.
        match AbortOnDropHandle::new(answer).await {
            Ok(Ok(response)) => response.map(Either::Right),
            // A panic, which has been reported.
            Err(_) => api::broken().map(Either::Right),
        }
    }

    fn finished(&self, mut response: Response<Body>) -> Response<Body> {
        if self.draining.load(Ordering::Relaxed) {
            close(&mut response);
        }
        response
    }
}

fn close(response: &mut Response<Body>) {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
}

fn is_too_long<B>(request: &Request<B>) -> bool {
    let target = request.uri().path_and_query();
    target.is_some_and(|target| target.as_str().len() > MAX_TARGET)
}

fn too_long() -> Response<Body> {
    Problem::new(
        Code::TargetTooLong,
        format!("The path and query have more than {MAX_TARGET} bytes."),
    )
    .into_response()
    .map(Either::Right)
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
    pub(crate) limits: LimitOptions,
}

/// Serves until the end is asked for and the connections are gone.
pub(crate) async fn serve(
    listener: TcpListener,
    served: Served,
    drain: Drain,
    workers: &Workers,
    metrics: Metrics,
    process: &Process,
) {
    let shutdown = &process.shutdown;
    let public = Arc::new(Public {
        redirects: served.redirects,
        router: served.router,
        trusted_hops: served.trusted_hops,
        full_connections: metrics.limiter("requests_per_connection"),
        long_targets: metrics.limiter("target_length"),
        sampler: process.sampler.clone(),
        runtime: Handle::current(),
        draining: AtomicBool::new(false),
    });
    let connections = Connections::new(workers, &served.limits, served.trusted_hops, metrics);
    tokio::select! {
        () = connections.accept(&listener, &public) => {}
        () = shutdown.requested() => {}
    }
    public.draining.store(true, Ordering::Relaxed);
    let lame_duck = (Instant::now() + drain.lame_duck).min(shutdown.deadline());
    tokio::select! {
        () = connections.accept(&listener, &public) => {}
        () = tokio::time::sleep_until(lame_duck) => {}
    }
    // Who has connected by now is served; who connects later is refused.
    while let Some(Ok((stream, peer))) = listener.accept().now_or_never() {
        connections.start(stream, peer, &public);
    }
    drop(listener);
    let idle_close = (Instant::now() + drain.idle_close).min(shutdown.deadline());
    tokio::select! {
        () = connections.none_left() => return,
        () = tokio::time::sleep_until(idle_close) => {}
    }
    connections.close_idle();
    tokio::select! {
        () = connections.none_left() => {}
        () = tokio::time::sleep_until(shutdown.deadline()) => {
            tracing::warn!(open = connections.count(),
                "closing connections that have not finished in time");
        }
    }
}
