//! Where counts are kept: Postgres or SQLite.

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::collections::BTreeMap;

use uuid::Uuid;
use waypost_proto::click::Batch;

#[cfg(feature = "postgres")]
pub use postgres::PostgresRollups;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteRollups;

use crate::batch::Tally;
use crate::seen::Seen;

/// What is counted in one transaction.
#[derive(Debug, Clone, Default)]
pub struct Portion {
    /// Where in a Kafka topic it stood; none: it came in process.
    pub span: Option<Span>,
    /// Checked ones (see [`crate::decode`]).
    pub batches: Vec<Batch>,
    pub dead: Vec<DeadLetter>,
}

/// A stretch of one partition. It is counted only if the stored offset is still
/// where this stretch begins: whoever comes second changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub topic: String,
    pub partition: i32,
    /// The stored offset that this goes on from; none: there is none yet.
    pub expected: Option<i64>,
    /// The offset behind the last message.
    pub next: i64,
}

/// A message that is no batch, kept for whoever wants to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub offset: i64,
    pub reason: String,
    pub payload: Vec<u8>,
}

/// What a portion came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    pub clicks: u64,
    /// Batches that were counted before.
    pub duplicates: u64,
    /// Missing batches that are given up.
    pub forgotten: u64,
    pub dead_letters: u64,
    /// Time of the newest click in it.
    pub newest_ms: Option<i64>,
}

/// The counts of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkStats {
    pub clicks: u64,
    /// Of these, by programs.
    pub bots: u64,
    /// The newest click that is counted, over all links; none: no click yet.
    pub counted_up_to_ms: Option<i64>,
}

/// Rollups, what is counted already, and offsets.
pub trait RollupStore: Send + Sync + 'static {
    /// Counts a portion, all of it or nothing. A batch that was counted before is
    /// left out.
    fn apply(&self, portion: &Portion) -> impl Future<Output = Result<Applied, Error>> + Send;

    /// Where counting of a partition goes on; none: at the beginning.
    fn next_offset(
        &self,
        topic: &str,
        partition: i32,
    ) -> impl Future<Output = Result<Option<i64>, Error>> + Send;

    fn link_stats(&self, link: Uuid) -> impl Future<Output = Result<LinkStats, Error>> + Send;
}

/// Why nothing was counted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stored offset is another: somebody else counts this partition.
    #[error("count a stretch of the log that was counted already")]
    Fenced,
    /// It may be counted nevertheless, if the answer to the commit was lost.
    #[error("change the rollups")]
    Database(#[from] sqlx::Error),
}

/// One start of one gateway, on one partition.
type Producer = (String, i64, i32);

fn producer(batch: &Batch) -> Producer {
    let boot = batch.boot.cast_signed();
    (batch.gateway.clone(), boot, batch.partition.cast_signed())
}

/// Adds up the batches that were not counted yet, and marks them so.
fn count(portion: &Portion, seen: &mut BTreeMap<Producer, Seen>) -> (Tally, Applied) {
    let mut tally = Tally::default();
    let mut applied = Applied {
        dead_letters: portion.dead.len() as u64,
        ..Applied::default()
    };
    for batch in &portion.batches {
        if seen
            .entry(producer(batch))
            .or_default()
            .admit(batch.sequence)
        {
            tally.add(batch);
        } else {
            applied.duplicates += 1;
        }
    }
    applied.clicks = tally.clicks;
    applied.forgotten = seen.values().map(Seen::forgotten).sum();
    applied.newest_ms = tally.newest.values().copied().max();
    (tally, applied)
}
