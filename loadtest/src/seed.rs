//! Making the links that a run asks for, in batches, before the clock starts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;

use crate::client::Connection;
use crate::links::Links;
use crate::record::Failure;
use crate::target::Target;
use crate::traffic::{prepared_long_url, request};

/// Links in one call: half of what the API takes.
const BATCH: usize = 500;
/// Calls at a time to each target: enough to keep it busy, few enough not to
/// be shed.
const CALLS_PER_TARGET: usize = 4;
/// A batch commits in tens of milliseconds; a minute means it never will.
const CALL_DEADLINE: Duration = Duration::from_secs(60);
/// Tries of one link, with a pause before each next one.
const ATTEMPTS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(250);

/// Why the links could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The call as a whole failed.
    #[error("create a batch of links at {url}: {failure}")]
    Call {
        /// The target.
        url: url::Url,
        /// What came instead of an answer with status 200.
        failure: Failure,
    },
    /// The answer is not what the API says.
    #[error("read the answer to a batch of links at {0}")]
    Answer(url::Url),
    /// Single links are refused.
    #[error("create links at {url}: status {status} for one of them")]
    Refused {
        /// The target.
        url: url::Url,
        /// Of the first link refused.
        status: u16,
    },
}

#[derive(Debug, Deserialize)]
struct BatchAnswer {
    results: Vec<BatchResult>,
}

#[derive(Debug, Deserialize)]
struct BatchResult {
    status: u16,
    slug: Option<String>,
}

/// Creates `count` links over all targets.
///
/// # Errors
/// When some link is not there after several attempts.
pub async fn create(
    targets: &[Target],
    count: usize,
    authorization: Option<&HeaderValue>,
) -> Result<Links, Error> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut callers = JoinSet::new();
    let callers_wanted = targets.len() * CALLS_PER_TARGET;
    for (place, target) in targets.iter().cycle().take(callers_wanted).enumerate() {
        let caller = Caller {
            connection: Connection::new(target.clone()),
            authorization: authorization.cloned(),
            // One voice is enough, and its count never goes back.
            tells: place == 0,
        };
        callers.spawn(caller.work(Arc::clone(&next), count));
    }
    let mut links = Links::default();
    while let Some(made) = callers.join_next().await {
        for (index, slug) in made.expect("a caller does not panic")? {
            let long_url = prepared_long_url(index);
            let pushed = links.push(&slug, Some(&long_url));
            pushed.ok_or_else(|| Error::Answer(targets[0].url().clone()))?;
        }
    }
    Ok(links)
}

struct Caller {
    connection: Connection,
    authorization: Option<HeaderValue>,
    tells: bool,
}

impl Caller {
    /// Takes batches until all are taken.
    async fn work(
        mut self,
        next: Arc<AtomicUsize>,
        count: usize,
    ) -> Result<Vec<(usize, String)>, Error> {
        let mut made = Vec::new();
        let mut told = Instant::now();
        loop {
            let first = next.fetch_add(BATCH, Ordering::Relaxed);
            if first >= count {
                return Ok(made);
            }
            let batch = (first..count.min(first + BATCH)).collect();
            self.make(batch, &mut made).await?;
            if self.tells && told.elapsed() > Duration::from_secs(1) {
                told = Instant::now();
                eprintln!("links: about {first} of {count} created");
            }
        }
    }

    /// Makes a batch, trying again what was refused for now. A batch whose
    /// answer was lost is made anew: a few links more do no harm.
    async fn make(
        &mut self,
        mut wanted: Vec<usize>,
        made: &mut Vec<(usize, String)>,
    ) -> Result<(), Error> {
        let mut attempt = 1;
        loop {
            let error = match self.call(&wanted).await {
                Ok(results) => {
                    let mut refused = Vec::new();
                    let mut status = 0;
                    for (index, result) in wanted.iter().copied().zip(results) {
                        match result.slug {
                            Some(slug) if result.status == 201 => made.push((index, slug)),
                            _ => {
                                refused.push(index);
                                status = result.status;
                            }
                        }
                    }
                    if refused.is_empty() {
                        return Ok(());
                    }
                    wanted = refused;
                    let url = self.connection.target().url().clone();
                    Error::Refused { url, status }
                }
                Err(error) => error,
            };
            if attempt == ATTEMPTS || !may_pass(&error) {
                return Err(error);
            }
            tokio::time::sleep(PAUSE * attempt).await;
            attempt += 1;
        }
    }

    async fn call(&mut self, wanted: &[usize]) -> Result<Vec<BatchResult>, Error> {
        let links: Vec<_> = wanted
            .iter()
            .map(|&index| json!({ "longUrl": prepared_long_url(index) }))
            .collect();
        let body = json!({ "links": links }).to_string();
        let target = self.connection.target().clone();
        let request = request(
            Method::POST,
            "/api/v1/links/batch",
            Some(body.into()),
            &target,
            self.authorization.as_ref(),
        );
        let url = target.url().clone();
        let exchange = tokio::time::timeout(CALL_DEADLINE, self.connection.exchange(request));
        let answer = match exchange.await {
            Ok(Ok(answer)) if answer.status() == StatusCode::OK => answer,
            Ok(Ok(answer)) => {
                let failure = Failure::Status(answer.status().as_u16());
                return Err(Error::Call { url, failure });
            }
            Ok(Err(failure)) => return Err(Error::Call { url, failure }),
            Err(_) => {
                self.connection.close();
                let failure = Failure::Timeout;
                return Err(Error::Call { url, failure });
            }
        };
        let parsed: BatchAnswer =
            serde_json::from_slice(answer.body()).map_err(|_| Error::Answer(url.clone()))?;
        if parsed.results.len() == wanted.len() {
            Ok(parsed.results)
        } else {
            Err(Error::Answer(url))
        }
    }
}

/// Whether another attempt may go better.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::Call { failure, .. } => match failure {
            Failure::Status(status) => *status == 429 || *status >= 500,
            Failure::Connect | Failure::Transport => true,
            Failure::Timeout | Failure::Overflow | Failure::Location => false,
        },
        Error::Answer(_) => false,
        Error::Refused { status, .. } => *status == 429 || *status >= 500,
    }
}
