//! The API of a running server, asked until it answers.

use std::str::FromStr;
use std::time::{Duration, Instant};

use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::uri::Scheme;
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::Stop;

/// One request with its answer. A page of links takes the shards part of a second.
const DEADLINE: Duration = Duration::from_secs(30);

/// How long one request is repeated while the server does not answer it: the time of a
/// restart.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long one request is repeated because of the limits on clients, which an import
/// meets all the time unless the operator lifts them.
const LIMITED_PATIENCE: Duration = Duration::from_secs(600);

/// The longest wait before a request is repeated, whatever the server says.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Bytes of an answer: a page of links whose every character is escaped has some 8 MiB.
const MAX_ANSWER: usize = 16 << 20;

/// Where a server is.
#[derive(Debug, Clone)]
pub(super) struct Server(String);

impl FromStr for Server {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|_| "expected http://HOST:PORT")?;
        if uri.scheme() == Some(&Scheme::HTTPS) {
            return Err(
                "only http:// is spoken: ask the server itself, not its proxy, or \
                        through a tunnel (ssh -L)",
            );
        }
        if uri.scheme() != Some(&Scheme::HTTP) || uri.host().is_none() || uri.query().is_some() {
            return Err("expected http://HOST:PORT");
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

/// A server, and who asks it.
#[derive(Debug)]
pub(super) struct Api {
    http: Client<HttpConnector, Full<Bytes>>,
    server: Server,
    authorization: Option<HeaderValue>,
}

/// What the server says.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// `null` if it is no JSON.
    pub(super) body: Value,
    retry_after: Option<Duration>,
}

/// What it is asked.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Option<Bytes>,
    pub(super) idempotency_key: Option<String>,
}

impl Api {
    /// `None` if the token cannot be sent.
    pub(super) fn new(server: Server, token: Option<&str>) -> Option<Self> {
        let authorization = match token {
            Some(token) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        Some(Self {
            http: Client::builder(TokioExecutor::new()).build_http(),
            server,
            authorization,
        })
    }

    /// Asks until there is an answer that stays the same when the call is repeated. Every
    /// call may be: creates have a key.
    pub(super) async fn ask(&self, call: &Call) -> Result<Answer, Stop> {
        let started = Instant::now();
        let mut tries = 0;
        loop {
            tries += 1;
            let (wait, patience, problem) = match self.once(call).await {
                Ok(answer) if answer.status == 429 => {
                    let wait = answer.retry_after.unwrap_or(Duration::from_secs(1));
                    (wait, LIMITED_PATIENCE, answer.problem().1)
                }
                Ok(answer) if matches!(answer.status, 502..=504) => {
                    let wait = answer.retry_after.unwrap_or(Duration::from_secs(1));
                    (wait, PATIENCE, answer.problem().1)
                }
                Ok(answer) => return Ok(answer),
                Err(problem) => (Duration::from_millis(100) * tries, PATIENCE, problem),
            };
            if started.elapsed() > patience {
                return Err(Stop::Unreachable(problem));
            }
            tokio::time::sleep(wait.min(LONGEST_WAIT)).await;
        }
    }

    async fn once(&self, call: &Call) -> Result<Answer, String> {
        let mut request = Request::builder()
            .method(&call.method)
            .uri(format!("{}{}", self.server.0, call.path))
            .header(CONTENT_TYPE, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(key) = &call.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        let body = Full::new(call.body.clone().unwrap_or_default());
        let request = request.body(body).map_err(|error| error.to_string())?;
        let whole = async {
            let answer = self.http.request(request).await.map_err(|error| {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                cause.unwrap_or_else(|| error.to_string())
            })?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            let retry_after = head.headers.get(RETRY_AFTER);
            let seconds = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
            Ok(Answer {
                status: head.status.as_u16(),
                body: serde_json::from_slice(&body).unwrap_or_default(),
                retry_after: seconds.map(Duration::from_secs),
            })
        };
        tokio::time::timeout(DEADLINE, whole)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} seconds", DEADLINE.as_secs())))
    }
}

impl Answer {
    /// The code and the detail of a problem document.
    pub(super) fn problem(&self) -> (String, String) {
        let text = |name: &str| self.body[name].as_str().unwrap_or_default().to_owned();
        (text("code"), text("detail"))
    }

    /// It, as a reason to end.
    pub(super) fn stop(&self) -> Stop {
        let (code, detail) = self.problem();
        Stop::Answered {
            status: self.status,
            code,
            detail,
        }
    }
}
