//! How a generated client reaches its server: over the network, or straight into a
//! service of the same process.

use http::{Request, Response, header};
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt as _};
use waypost_runtime::traces::calls::{Calls, Served};

use crate::auth::ServiceToken;

/// What the generated clients are used with, whichever way it goes. Cheap to
/// clone.
pub type Transport = BoxCloneSyncService<Request<Body>, Response<Body>, Error>;

/// A request did not reach its server, or the answer did not come back.
#[derive(Debug, thiserror::Error)]
#[error("failed to reach the service")]
pub struct Error(#[source] BoxError);

/// Whether no server has spoken: such a status is made of a broken transport, which
/// is its source, whatever its code.
#[must_use]
pub fn is_broken(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// What servers say of an answer in their metrics: see [`outcome`].
pub const OUTCOMES: &[&str] = &[
    "ok",
    "invalid_argument",
    "deadline_exceeded",
    "resource_exhausted",
    "failed_precondition",
    "unavailable",
    "internal",
];

/// The code of an answer as the label of a metric: those that our servers give.
#[must_use]
pub fn outcome(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Unavailable => "unavailable",
        _ => "internal",
    }
}

/// A transport over the network. Each request carries the service token, and the trace
/// that it belongs to.
#[must_use]
pub fn over(channel: Channel, token: &ServiceToken) -> Transport {
    let token = token.header();
    BoxCloneSyncService::new(
        Calls(channel)
            .map_request(move |mut request: Request<Body>| {
                request
                    .headers_mut()
                    .insert(header::AUTHORIZATION, token.clone());
                request
            })
            .map_err(|error| Error(error.into())),
    )
}

/// A transport into a generated server of this process: the messages are encoded
/// and decoded as ever, and no socket is involved.
pub fn in_process<S>(server: S) -> Transport
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    let server = Calls(Served(server));
    BoxCloneSyncService::new(server.map_err(|error: S::Error| Error(error.into())))
}
