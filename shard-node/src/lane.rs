//! Runs many requests over few database sessions.
//!
//! A lane is a bounded queue and a few workers, each with a session of its own.
//! A worker takes whatever waits, up to a limit, and does it in one statement: no
//! request waits for others while the lane is idle, and under load the batches
//! grow by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use waypost_runtime::traces::{self, Context, Kind, Span};

use crate::metrics::Metrics;
use crate::store::{Error, LinkStore, Purpose, Session};

/// How long a request may wait and run, if its operation does not say otherwise. The gateway's own deadline is shorter
/// for reads; this one bounds what a stuck database can hold up.
pub const DEADLINE: Duration = Duration::from_secs(2);

/// Items that may wait or run in one lane, if its operation does not say otherwise: some 10 MB at most
/// of keys, and at the rate of a busy shard less than a second of work.
const MAX_ITEMS: usize = 16_384;

/// Between two attempts to reach a database that is away.
const RECONNECT_FIRST: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// One thing to do with a session, to many items at a time. Doing it twice is as good
/// as once, so that a session that was lost while idle can be made up for.
pub trait Operation<S: Session>: Send + Sync + 'static {
    type Item: Send + Sync + 'static;
    type Outcome: Send + 'static;
    /// The label of its metrics.
    const NAME: &'static str;
    const PURPOSE: Purpose;
    /// How many items of several requests share a statement.
    const COALESCE: usize;
    /// How long a request may wait and run.
    const DEADLINE: Duration = DEADLINE;
    /// Items that may wait or run, over all requests.
    const MAX_ITEMS: usize = MAX_ITEMS;

    /// One outcome per item, in order.
    fn run(
        session: &mut S,
        items: &[Self::Item],
    ) -> impl Future<Output = Result<Vec<Self::Outcome>, Error>> + Send;
}

/// Why a lane gave no outcomes. What the database said is logged, once, by the
/// lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("too much is waiting already")]
    Busy,
    #[error("the deadline has passed")]
    Deadline,
    #[error("the database cannot be reached")]
    Unavailable,
    #[error("internal error")]
    Internal,
}

/// The way in. Cheap to clone.
pub struct Lane<S: LinkStore, O: Operation<S::Session>> {
    sender: mpsc::Sender<Job<O::Item, O::Outcome>>,
    room: Arc<Semaphore>,
    waiting: IntGauge,
}

impl<S: LinkStore, O: Operation<S::Session>> Clone for Lane<S, O> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            room: Arc::clone(&self.room),
            waiting: self.waiting.clone(),
        }
    }
}

impl<S: LinkStore, O: Operation<S::Session>> std::fmt::Debug for Lane<S, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane")
            .field("operation", &O::NAME)
            .finish_non_exhaustive()
    }
}

struct Job<I, T> {
    items: Vec<I>,
    reply: oneshot::Sender<Result<Vec<T>, Refusal>>,
    _room: OwnedSemaphorePermit,
    /// Of the request, if it is traced.
    trace: Option<Context>,
}

impl<S: LinkStore, O: Operation<S::Session>> Lane<S, O> {
    /// Starts a lane's workers, which end with `shutdown`.
    #[must_use]
    pub fn start(
        store: &S,
        workers: usize,
        metrics: &Metrics,
        shutdown: &CancellationToken,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(O::MAX_ITEMS);
        let feed = Arc::new(Mutex::new(Feed {
            receiver,
            held: None,
        }));
        let live = Arc::new(AtomicUsize::new(0));
        let most = metrics.sessions_max.with_label_values(&[O::NAME]);
        most.add(workers.cast_signed() as i64);
        for _ in 0..workers {
            let worker = Worker::<S, O> {
                store: store.clone(),
                feed: Arc::clone(&feed),
                session: None,
                live: Arc::clone(&live),
                retry_at: Instant::now(),
                backoff: RECONNECT_FIRST,
                batch_items: metrics.batch_items.with_label_values(&[O::NAME]),
                sessions: metrics.sessions.with_label_values(&[O::NAME]),
                sessions_lost: metrics.sessions_lost.with_label_values(&[O::NAME]),
            };
            let shutdown = shutdown.clone();
            tokio::spawn(async move {
                shutdown.run_until_cancelled(worker.work()).await;
            });
        }
        Self {
            sender,
            room: Arc::new(Semaphore::new(O::MAX_ITEMS)),
            waiting: metrics.queue_items.with_label_values(&[O::NAME]),
        }
    }

    /// Has the items done, and gives one outcome per item, in order.
    ///
    /// # Errors
    /// See [`Refusal`]; what was asked for may have happened all the same.
    pub async fn run(&self, items: Vec<O::Item>) -> Result<Vec<O::Outcome>, Refusal> {
        let count = u32::try_from(items.len()).map_err(|_| Refusal::Busy)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let room = Arc::clone(&self.room)
            .try_acquire_many_owned(count)
            .map_err(|_| Refusal::Busy)?;
        let (reply, outcomes) = oneshot::channel();
        let job = Job {
            items,
            reply,
            _room: room,
            trace: traces::current(),
        };
        self.waiting.add(count.into());
        let outcomes = async {
            self.sender.try_send(job).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => Refusal::Busy,
                mpsc::error::TrySendError::Closed(_) => Refusal::Unavailable,
            })?;
            match timeout(O::DEADLINE, outcomes).await {
                Ok(Ok(outcomes)) => outcomes,
                // The workers have ended.
                Ok(Err(_)) => Err(Refusal::Unavailable),
                Err(_) => Err(Refusal::Deadline),
            }
        };
        let _waiting = Waiting(&self.waiting, count.into());
        outcomes.await
    }
}

/// Counts down even if the caller goes away.
struct Waiting<'a>(&'a IntGauge, i64);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.sub(self.1);
    }
}

struct Feed<I, T> {
    receiver: mpsc::Receiver<Job<I, T>>,
    /// Taken from the queue, and too large for the batch that was being filled.
    held: Option<Job<I, T>>,
}

impl<I, T> Feed<I, T> {
    /// Waits for a job and takes along what else is there, up to `limit` items;
    /// `None` when all senders are gone.
    async fn next(&mut self, limit: usize) -> Option<Vec<Job<I, T>>> {
        let first = match self.held.take() {
            Some(job) => job,
            None => self.receiver.recv().await?,
        };
        let mut count = first.items.len();
        let mut jobs = vec![first];
        while count < limit {
            let Ok(job) = self.receiver.try_recv() else {
                break;
            };
            if job.reply.is_closed() {
                continue;
            }
            if count + job.items.len() > limit {
                self.held = Some(job);
                break;
            }
            count += job.items.len();
            jobs.push(job);
        }
        Some(jobs)
    }
}

type SharedFeed<S, O> = Arc<
    Mutex<
        Feed<
            <O as Operation<<S as LinkStore>::Session>>::Item,
            <O as Operation<<S as LinkStore>::Session>>::Outcome,
        >,
    >,
>;

struct Worker<S: LinkStore, O: Operation<S::Session>> {
    store: S,
    feed: SharedFeed<S, O>,
    session: Option<S::Session>,
    /// Workers of this lane that have a session, idle or at work.
    live: Arc<AtomicUsize>,
    retry_at: Instant,
    backoff: Duration,
    batch_items: Histogram,
    sessions: IntGauge,
    sessions_lost: IntCounter,
}

impl<S: LinkStore, O: Operation<S::Session>> Worker<S, O> {
    async fn work(mut self) {
        loop {
            let feed = Arc::clone(&self.feed);
            let next = async { feed.lock().await.next(O::COALESCE).await };
            // Without a session it can only refuse, and does so faster than those that
            // have one can serve: it must not take what is theirs.
            let is_needed = self.session.is_some() || self.live.load(Ordering::Relaxed) == 0;
            let jobs = tokio::select! {
                jobs = next, if is_needed => jobs,
                // Without a request, too, so that the first one finds a session.
                () = sleep_until(self.retry_at), if self.session.is_none() => {
                    self.connect().await;
                    continue;
                }
            };
            let Some(jobs) = jobs else { return };
            self.answer(jobs).await;
        }
    }

    async fn answer(&mut self, mut jobs: Vec<Job<O::Item, O::Outcome>>) {
        jobs.retain(|job| !job.reply.is_closed());
        if jobs.is_empty() {
            return;
        }
        let counts: Vec<usize> = jobs.iter().map(|job| job.items.len()).collect();
        let mut replies = Vec::with_capacity(jobs.len());
        let mut items = Vec::with_capacity(counts.iter().sum());
        // The permits stay alive until the replies are given.
        let mut rooms = Vec::with_capacity(jobs.len());
        let mut traced = Vec::new();
        for job in jobs {
            traced.extend(job.trace);
            items.extend(job.items);
            replies.push(job.reply);
            rooms.push(job._room);
        }
        self.batch_items.observe(items.len() as f64);
        let spans: Vec<Span> = traced
            .iter()
            .map(|request| Self::span(request, items.len()))
            .collect();
        let outcome = self.run(&items).await;
        if let Err(refusal) = &outcome {
            spans.iter().for_each(|span| span.failed(refusal.name()));
        }
        drop(spans);
        match outcome {
            Ok(outcomes) => {
                let mut outcomes = outcomes.into_iter();
                for (reply, count) in replies.into_iter().zip(counts) {
                    // Nobody waits any more: nothing is lost by not telling.
                    let _ = reply.send(Ok(outcomes.by_ref().take(count).collect()));
                }
            }
            // One request's fault must not be answered to the others.
            Err(Refusal::Internal) if replies.len() > 1 => {
                let mut rest = &items[..];
                for (reply, count) in replies.into_iter().zip(counts) {
                    let (own, others) = rest.split_at(count);
                    rest = others;
                    let _ = reply.send(self.run(own).await);
                }
            }
            Err(refusal) => {
                for reply in replies {
                    let _ = reply.send(Err(refusal));
                }
            }
        }
    }

    /// Of a traced request: its part of a statement that others may share.
    fn span(request: &Context, items: usize) -> Span {
        let span = Span::under(request, Kind::Client, O::NAME);
        span.set("db.system.name", S::SYSTEM);
        span.set("db.operation.name", O::NAME);
        span.set("db.operation.batch.size", items as i64);
        span
    }

    async fn run(&mut self, items: &[O::Item]) -> Result<Vec<O::Outcome>, Refusal> {
        let fresh = self.session.is_none();
        match self.attempt(items).await {
            Err(Refusal::Unavailable) if !fresh => self.attempt(items).await,
            outcome => outcome,
        }
    }

    async fn attempt(&mut self, items: &[O::Item]) -> Result<Vec<O::Outcome>, Refusal> {
        if self.session.is_none() && Instant::now() >= self.retry_at {
            self.connect().await;
        }
        // Taken out, so that it is gone if this future is dropped halfway.
        let mut session = self.session.take().ok_or(Refusal::Unavailable)?;
        match timeout(O::DEADLINE, O::run(&mut session, items)).await {
            Ok(Ok(outcomes)) => {
                self.session = Some(session);
                Ok(outcomes)
            }
            Ok(Err(error)) => {
                if error.breaks_session() {
                    self.lost();
                } else {
                    self.session = Some(session);
                }
                Err(refusal(O::NAME, &error))
            }
            Err(_) => {
                self.lost();
                tracing::warn!(operation = O::NAME, "database took too long");
                Err(Refusal::Deadline)
            }
        }
    }

    fn lost(&self) {
        self.sessions_lost.inc();
        self.sessions.dec();
        self.live.fetch_sub(1, Ordering::Relaxed);
    }

    async fn connect(&mut self) {
        let connected = match timeout(DEADLINE, self.store.connect(O::PURPOSE)).await {
            Ok(Ok(session)) => Some(session),
            Ok(Err(error)) => {
                tracing::warn!(operation = O::NAME, error = %cause(&error), "database unreachable");
                None
            }
            Err(_) => {
                tracing::warn!(operation = O::NAME, "database did not accept in time");
                None
            }
        };
        if connected.is_some() {
            self.live.fetch_add(1, Ordering::Relaxed);
            self.sessions.inc();
            self.backoff = RECONNECT_FIRST;
            self.retry_at = Instant::now();
        } else {
            self.retry_at = Instant::now() + self.backoff;
            self.backoff = (self.backoff * 2).min(RECONNECT_MAX);
        }
        self.session = connected;
    }
}

impl Refusal {
    fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Deadline => "deadline",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}

fn refusal(operation: &'static str, error: &Error) -> Refusal {
    match error {
        Error::Unavailable(_) | Error::Contended(_) | Error::Frozen => {
            tracing::warn!(operation, error = %cause(error), "database refused");
            Refusal::Unavailable
        }
        _ => {
            tracing::error!(operation, error = %cause(error), "statement failed");
            Refusal::Internal
        }
    }
}

/// An error with its source, in one line.
pub(crate) fn cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
