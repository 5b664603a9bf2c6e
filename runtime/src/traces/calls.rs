//! Traces across gRPC: a client's span for each call, and a server's that is a part of
//! it. A call that is not part of a traced request, which is nearly every one, passes as
//! it is.

use std::task::{Context as Task, Poll};

use futures_util::future::{BoxFuture, Either};
use http::{HeaderMap, Request, Response};
use tower::{Layer, Service};

use super::{Kind, Span};
use crate::traces;

/// Puts what is called by this into the trace of the caller.
#[derive(Debug, Clone)]
pub struct Calls<S>(pub S);

/// Goes on with the trace of whoever calls a server.
#[derive(Debug, Clone)]
pub struct Served<S>(pub S);

/// The layer that makes [`Served`].
#[derive(Debug, Clone, Copy)]
pub struct ServedLayer;

impl<S> Layer<S> for ServedLayer {
    type Service = Served<S>;

    fn layer(&self, server: S) -> Served<S> {
        Served(server)
    }
}

type Traced<F, R, E> = Either<F, BoxFuture<'static, Result<R, E>>>;

impl<S, A, B: 'static> Service<Request<A>> for Calls<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Error: 'static,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Traced<S::Future, Response<B>, S::Error>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(task)
    }

    fn call(&mut self, mut request: Request<A>) -> Self::Future {
        let Some(parent) = traces::current() else {
            return Either::Left(self.0.call(request));
        };
        let span = Span::under(&parent, Kind::Client, name(&request));
        span.inject(request.headers_mut());
        Either::Right(Box::pin(outcome(span, self.0.call(request))))
    }
}

impl<S, A, B: 'static> Service<Request<A>> for Served<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Error: 'static,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Traced<S::Future, Response<B>, S::Error>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(task)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        // Who asks has decided, and names its own span.
        if traces::asked_for(request.headers()) != Some(true) {
            return Either::Left(self.0.call(request));
        }
        let caller = traces::of_caller(request.headers());
        let span = Span::under(&caller, Kind::Server, name(&request));
        Either::Right(Box::pin(outcome(span, self.0.call(request))))
    }
}

/// As in `waypost.link.v1.LinkService/ResolveBatch`.
fn name<B>(request: &Request<B>) -> String {
    request.uri().path().trim_start_matches('/').to_owned()
}

/// Waits for a call and says how it ended. A future that is dropped before was given up.
async fn outcome<B, E>(
    span: Span,
    call: impl Future<Output = Result<Response<B>, E>>,
) -> Result<Response<B>, E> {
    let mut ends = Ends {
        span,
        status: Some(CANCELLED),
    };
    ends.span.set("rpc.system", "grpc");
    let called = ends.span.within(call).await;
    ends.status = match &called {
        Ok(response) => Some(status(response.headers())),
        Err(_) => None,
    };
    called
}

/// `CANCELLED` of gRPC.
const CANCELLED: i64 = 1;

/// The outcome of a call; no status: the peer was not reached.
struct Ends {
    span: Span,
    status: Option<i64>,
}

impl Drop for Ends {
    fn drop(&mut self) {
        match self.status {
            Some(0) => self.span.set("rpc.grpc.status_code", 0),
            Some(code) => {
                self.span.set("rpc.grpc.status_code", code);
                self.span.failed(code.to_string());
            }
            None => self.span.failed("unreachable"),
        }
    }
}

/// A server that refuses says so in its head; one that answers says at the end that all
/// is well.
fn status(headers: &HeaderMap) -> i64 {
    let status = headers.get("grpc-status");
    let status = status.and_then(|status| status.to_str().ok()?.parse().ok());
    status.unwrap_or(0)
}
