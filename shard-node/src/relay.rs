//! Tells the shard's changes on: to the open streams at once, to Redis until it
//! acknowledges. Exactly one process per shard does so at a time.
//!
//! The session that reads the outbox is the one that holds the lock, so that a
//! leader which lost its lock cannot read, and one that cannot read sends no
//! heartbeat.
//!
//! What Redis has acknowledged is kept for a while. When its nodes have changed their
//! roles, and when a term begins, of which nobody saw what was before, it is told
//! and applied once more.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use waypost_proto::link as message;

use crate::cache::Cache;
use crate::changes::{Changes, Event, Term};
#[cfg(feature = "cluster")]
use crate::handover::Handover;
use crate::lane::cause;
use crate::lookout::{Lookout, News};
use crate::measure;
use crate::metrics::Metrics;
use crate::purge::Purge;
use crate::store::{Change, Cursor, Error, LinkStore, Place, PrefixOwner, Purpose, Session};

/// How often the outbox is looked at for what other processes wrote.
const POLL: Duration = Duration::from_millis(100);

/// A gateway mistrusts what it holds after 1.5 s of silence: six of these.
const HEARTBEAT: Duration = Duration::from_millis(250);

/// Deadline of each statement; a leader that takes longer gives up its term.
const STATEMENT: Duration = Duration::from_secs(1);

/// How often the others try to become the leader: a lost leader's gateways are
/// without a stream for about this long.
const COMPETE: Duration = Duration::from_millis(250);

/// Changes per statement.
const MAX_CHANGES: u32 = 512;

/// Changes per statement that only marks or removes them: some 50 ms.
const MAX_MARKS: u32 = 4_096;

/// How often changes that were kept long enough are removed.
const FORGET: Duration = Duration::from_secs(10);

/// Between two attempts at a Redis that takes nothing.
const CACHE_RETRY_FIRST: Duration = Duration::from_millis(50);
const CACHE_RETRY_MAX: Duration = Duration::from_secs(1);

/// What a relay works with.
#[derive(Debug)]
pub struct Relay<S> {
    pub store: S,
    pub changes: Changes,
    pub cache: Cache,
    pub metrics: Metrics,
    /// How long after its end an expired link becomes a tombstone.
    pub purge_after: Duration,
    /// Looks after prefixes that are on their way here; none: they never are.
    #[cfg(feature = "cluster")]
    pub(crate) handover: Option<Handover>,
}

impl<S: LinkStore> Relay<S> {
    /// Competes for the lead and relays while it has it, until the shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        shutdown
            .run_until_cancelled(async {
                loop {
                    if let Err(error) = self.compete().await {
                        tracing::warn!(error = %cause(&error), "relay gave up its term");
                    }
                    sleep(COMPETE).await;
                }
            })
            .await;
    }

    /// Returns when another process leads; fails when the session is lost.
    async fn compete(&self) -> Result<(), Error> {
        let mut session = within(self.store.connect(Purpose::Relay)).await?;
        while !within(session.try_lead()).await? {
            sleep(COMPETE).await;
        }
        tracing::info!("relay leads");
        let leading = Leading::begin(&self.metrics);
        let purge = Purge {
            store: &self.store,
            after: self.purge_after,
            changes: &self.changes,
            metrics: &self.metrics,
        };
        let result = tokio::select! {
            result = self.term(&mut session) => result,
            never = purge.run() => match never {},
            never = measure::run(&self.store, &self.metrics) => match never {},
            never = self.keep_settled() => match never {},
        };
        drop(leading);
        result
    }

    async fn keep_settled(&self) -> Infallible {
        #[cfg(feature = "cluster")]
        if let Some(handover) = &self.handover {
            return handover.keep_settled().await;
        }
        std::future::pending().await
    }

    async fn term(&self, session: &mut S::Session) -> Result<(), Error> {
        // What was committed before the term is told to nobody: whoever subscribes
        // from now on reads it from the database.
        let start = within(session.poll(&Cursor::starting_at(i64::MAX), MAX_CHANGES)).await?;
        let mut cursor = Cursor::starting_at(start.floor);
        let mut ownership = Ownership {
            count: start.ownership,
            // Read later: what has changed since is told, if need be twice.
            owners: within(session.ownership()).await?,
        };
        let term = self.changes.begin();
        let mut applying = Applying::default();
        let mut lookout = Lookout::begin(&self.cache);
        let mut again = Again::default();
        let mut forget_at = Instant::now();
        let mut heartbeat_at = Instant::now();
        let mut tick = interval(POLL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.changes.written() => {}
                (done, failed) = applying.finished() => {
                    let puts = &self.metrics.cache_puts;
                    puts.with_label_values(&["ok"]).inc_by(done.len() as u64);
                    puts.with_label_values(&["failed"]).inc_by(failed as u64);
                    if !done.is_empty() {
                        within(session.acknowledge(&done)).await?;
                    }
                }
                News::Changed = lookout.news() => {
                    // Nobody knows which node has acknowledged what is on its way.
                    applying.abandon();
                    again.is_due = true;
                    heartbeat_at = Instant::now();
                }
            }
            if again.is_due {
                let reopened = within(session.reopen(MAX_MARKS)).await?;
                self.metrics.changes_reopened.inc_by(reopened.len() as u64);
                again.reopened(&reopened);
                if !again.is_due {
                    lookout.settle();
                }
            }
            let poll = within(session.poll(&cursor, MAX_CHANGES)).await?;
            // Before a heartbeat that would vouch for links whose owner is another.
            if poll.ownership != ownership.count {
                let owners = within(session.ownership()).await?;
                term.tell(Event::Ownership(ownership.change(poll.ownership, owners)));
            }
            self.tell(&term, &mut cursor, &again, &poll.changes);
            cursor.raise(poll.floor);
            if poll.oldest.is_some() && applying.is_due() && !again.is_due {
                let oldest = within(session.oldest(MAX_CHANGES)).await?;
                // What was committed since the poll is applied as well, so it is told
                // before.
                self.tell(&term, &mut cursor, &again, &oldest);
                applying.begin(&self.cache, oldest);
            }
            let unvouched = lookout.unvouched();
            // While it is not known whether Redis has them still, they are kept.
            if unvouched.is_zero() && Instant::now() >= forget_at {
                let gone = within(session.forget(self.cache.keeps(), MAX_MARKS)).await?;
                let is_all = gone < u64::from(MAX_MARKS);
                forget_at = Instant::now() + if is_all { FORGET } else { POLL };
            }
            if Instant::now() >= heartbeat_at {
                heartbeat_at = Instant::now() + HEARTBEAT;
                let age = poll.oldest.map_or(0, |at| {
                    let age = poll.clock.millis() - at.millis();
                    u64::try_from(age).unwrap_or_default().max(1)
                });
                self.metrics.outbox_age.set(age as f64 / 1_000.0);
                term.tell(Event::Heartbeat(message::Heartbeat {
                    clock_ms: poll.clock.millis(),
                    oldest_unapplied_ms: age.max(unvouched.as_millis() as u64),
                }));
            }
        }
    }

    fn tell(&self, term: &Term, cursor: &mut Cursor, again: &Again, changes: &[Change]) {
        for change in changes {
            if cursor.tell(change) || again.includes(change) {
                // One damaged row must not keep all others from being told.
                let Some(link) = &change.link else {
                    self.metrics
                        .rows_damaged
                        .with_label_values(&["relay"])
                        .inc();
                    continue;
                };
                self.metrics.changes_told.inc();
                term.tell(Event::Changed(message::Link::from(&**link).into()));
            }
        }
    }
}

/// What was told of the owners of prefixes.
struct Ownership {
    count: i64,
    /// Of all prefixes, in their order.
    owners: Vec<PrefixOwner>,
}

impl Ownership {
    /// Takes what holds now, and gives what is new of it.
    fn change(&mut self, count: i64, owners: Vec<PrefixOwner>) -> Arc<message::Ownership> {
        let both = owners.iter().zip(&self.owners);
        let new = both.filter(|(new, old)| new != old);
        let prefixes = new.map(|(new, _)| new.into()).collect();
        *self = Self { count, owners };
        Arc::new(message::Ownership { prefixes })
    }
}

/// Changes that were applied and are due once more.
#[derive(Debug, Default)]
struct Again {
    /// There are still some to be made due.
    is_due: bool,
    /// Their highest id. A gateway may have read an old value of any of them before
    /// it was noticed, so that they are told once more, too.
    highest: i64,
}

impl Again {
    fn reopened(&mut self, places: &[Place]) {
        let ids = places.iter().map(|place| place.id);
        self.highest = ids.fold(self.highest, i64::max);
        self.is_due = places.len() >= MAX_MARKS as usize;
    }

    fn includes(&self, change: &Change) -> bool {
        change.place.id <= self.highest
    }
}

/// Shows in the metrics that this process leads, until it is dropped.
struct Leading<'a>(&'a Metrics);

impl<'a> Leading<'a> {
    fn begin(metrics: &'a Metrics) -> Self {
        metrics.leader.set(1);
        Self(metrics)
    }
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        self.0.leader.set(0);
        self.0.outbox_age.set(0.0);
        self.0.size.forget();
    }
}

/// The one batch that is on its way to Redis, beside the telling, which must not
/// wait for it.
struct Applying {
    batch: Option<(usize, BoxFuture<'static, Vec<Place>>)>,
    due_at: Instant,
    backoff: Duration,
}

impl Default for Applying {
    fn default() -> Self {
        Self {
            batch: None,
            due_at: Instant::now(),
            backoff: CACHE_RETRY_FIRST,
        }
    }
}

impl Applying {
    fn is_due(&self) -> bool {
        self.batch.is_none() && Instant::now() >= self.due_at
    }

    fn begin(&mut self, cache: &Cache, changes: Vec<Change>) {
        let (count, cache) = (changes.len(), cache.clone());
        self.batch = Some((count, Box::pin(async move { cache.put(changes).await })));
    }

    /// Lets go of the batch; all of it stays due.
    fn abandon(&mut self) {
        self.batch = None;
    }

    /// Waits for the batch, if there is one, and gives what was acknowledged and
    /// how many were not.
    async fn finished(&mut self) -> (Vec<Place>, usize) {
        let Some((count, batch)) = &mut self.batch else {
            return std::future::pending().await;
        };
        let done = batch.await;
        let failed = count.saturating_sub(done.len());
        if failed == 0 {
            self.backoff = CACHE_RETRY_FIRST;
            self.due_at = Instant::now();
        } else {
            self.due_at = Instant::now() + self.backoff;
            self.backoff = (self.backoff * 2).min(CACHE_RETRY_MAX);
        }
        self.batch = None;
        (done, failed)
    }
}

async fn within<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match timeout(STATEMENT, call).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::Unavailable(sqlx::Error::Io(
            std::io::ErrorKind::TimedOut.into(),
        ))),
    }
}
