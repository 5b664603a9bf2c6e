//! Where counts are kept: Postgres or SQLite.

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use uuid::Uuid;
use waypost_domain::Timestamp;
use waypost_proto::analytics::{self as wire, rollup::Row};
use waypost_proto::click::Batch;

#[cfg(feature = "postgres")]
pub use postgres::PostgresRollups;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteRollups;

use crate::seen::Seen;
use crate::tally::Merged;

/// A click is in the log this long after it was made, unless its gateway is slow or
/// does not reach the log.
pub(crate) const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// Between two looks at how far counting is.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

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
    /// Batches of starts of a gateway that are forgotten (see [`Keep`]).
    pub too_late: u64,
    pub dead_letters: u64,
    /// Rows of rollups that were written.
    pub rows: u64,
    /// Of these, what had to be begun anew, since what was stored cannot be read.
    pub unreadable: u64,
    /// Time of the newest click in it.
    pub newest_ms: Option<i64>,
}

/// What statistics are made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stored {
    /// In the order of days, of which one may have several rows.
    pub days: Vec<StoredDay>,
    /// What an earlier release counted, in the hours that are asked for.
    pub older: Vec<OlderHour>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredDay {
    /// Since the Unix epoch.
    pub day: i32,
    pub clicks: i64,
    /// Of these, by programs.
    pub bots: i64,
    /// Of links; a tenant's are not known.
    pub visitors: i64,
    /// Empty if they were not asked for.
    pub counts: Vec<u8>,
    /// Empty if the day has no other row.
    pub sketch: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OlderHour {
    /// Since the Unix epoch.
    pub hour: i64,
    pub clicks: i64,
    pub bots: i64,
}

impl Applied {
    fn wrote(&mut self, merged: &[Merged]) {
        self.rows += merged.len() as u64;
        let unreadable = merged.iter().filter(|merged| merged.was_unreadable).count() as u64;
        if unreadable > 0 {
            tracing::error!(unreadable, "counts could not be read and are begun anew");
        }
        self.unreadable += unreadable;
    }
}

/// What is kept for how long.
///
/// A start of a gateway is forgotten when nothing came of it for so long and the
/// gateway was started again since, or when nothing came of it for four times as
/// long. From then on its batches, and those of the gateway's earlier starts, are
/// left out: they may have been counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    pub producers: Duration,
    pub dead_letters: Duration,
}

impl Keep {
    /// Unless an operator sets others.
    pub const DEFAULT: Self = Self {
        producers: Duration::from_hours(90 * 24),
        dead_letters: Duration::from_hours(30 * 24),
    };

    /// Between two times that something is removed.
    pub(crate) const EVERY: Duration = Duration::from_hours(1);

    /// A gateway that was not started again may still run, and only be idle.
    const LAST_START: u32 = 4;

    /// Rows that go at once: a statement stays short.
    const AT_ONCE: i64 = 1_000;
}

/// Rollups, what is counted already, and offsets.
pub trait RollupStore: Send + Sync + 'static {
    /// What traces call its database.
    const SYSTEM: &'static str;

    /// Counts a portion, all of it or nothing. A batch that was counted before is
    /// left out.
    fn apply(&self, portion: &Portion) -> impl Future<Output = Result<Applied, Error>> + Send;

    /// Where counting of a partition goes on; none: at the beginning.
    fn next_offset(
        &self,
        topic: &str,
        partition: i32,
    ) -> impl Future<Output = Result<Option<i64>, Error>> + Send;

    /// Notes that everything that the log had of these partitions at a time is
    /// counted.
    fn caught_up(
        &self,
        partitions: &[i32],
        at_ms: i64,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// The time up to which all partitions are counted; none: nothing is known yet.
    fn counted_up_to(&self) -> impl Future<Output = Result<Option<i64>, Error>> + Send;

    /// The days of a link, with or without their counts by hour and dimension.
    fn link_days(
        &self,
        link: Uuid,
        days: Range<i32>,
        hours: Range<i64>,
        with_counts: bool,
    ) -> impl Future<Output = Result<Stored, Error>> + Send;

    /// The same of all links of a tenant.
    fn tenant_days(
        &self,
        tenant: &str,
        days: Range<i32>,
        hours: Range<i64>,
        with_counts: bool,
    ) -> impl Future<Output = Result<Stored, Error>> + Send;

    /// Puts rows into the place of those that are there under the same keys, all of them
    /// or none. The keys have been checked: links have 16 bytes, partitions are small.
    fn put(&self, rows: &[Row]) -> impl Future<Output = Result<(), Error>> + Send;

    /// The same rows as they are stored, found by their keys, in order.
    fn stored(&self, rows: &[Row]) -> impl Future<Output = Result<Vec<Option<Row>>, Error>> + Send;

    /// Removes what need not be kept any longer, as far as that goes in a short time.
    fn prune(&self, keep: Keep) -> impl Future<Output = Result<(), Error>> + Send;
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

/// What was read to tell which batches are to be counted.
#[derive(Debug, Default)]
struct Known {
    seen: BTreeMap<Producer, Seen>,
    /// Of gateways of which starts are forgotten, the last of these.
    floors: BTreeMap<String, i64>,
}

impl Known {
    /// The batches of a portion that are to be counted. From now on they are.
    fn admit<'a>(&mut self, portion: &'a Portion) -> (Vec<&'a Batch>, Applied) {
        let mut applied = Applied {
            dead_letters: portion.dead.len() as u64,
            ..Applied::default()
        };
        let mut admitted = Vec::with_capacity(portion.batches.len());
        for batch in &portion.batches {
            let producer = producer(batch);
            if let Some(seen) = self.seen.get_mut(&producer) {
                match seen.admit(batch.sequence) {
                    true => admitted.push(batch),
                    false => applied.duplicates += 1,
                }
            } else if self
                .floors
                .get(&batch.gateway)
                .is_some_and(|floor| producer.1 <= *floor)
            {
                applied.too_late += 1;
            } else {
                let mut seen = Seen::default();
                seen.admit(batch.sequence);
                self.seen.insert(producer, seen);
                admitted.push(batch);
            }
        }
        applied.forgotten = self.seen.values().map(Seen::forgotten).sum();
        (admitted, applied)
    }
}

/// Nobody looks at all of a large one, and a flood of them must not fill the disk.
const MAX_DEAD_PAYLOAD: usize = 64 << 10;

fn kept_payload(dead: &DeadLetter) -> &[u8] {
    &dead.payload[..dead.payload.len().min(MAX_DEAD_PAYLOAD)]
}

/// The time, in seconds since the Unix epoch, before which something is too old.
fn before(age: Duration) -> i64 {
    (now_ms() / 1_000).saturating_sub(i64::try_from(age.as_secs()).unwrap_or(i64::MAX))
}

pub(crate) fn now_ms() -> i64 {
    Timestamp::from(SystemTime::now()).millis()
}

pub(crate) fn age(time_ms: i64) -> Duration {
    Duration::from_millis((now_ms() - time_ms).max(0).cast_unsigned())
}

/// Rows as both databases give them.
type DayRow = (i32, i64, i64, i64, Vec<u8>, Vec<u8>);
type HourRow = (i64, i64, i64);

fn stored(days: Vec<DayRow>, older: Vec<HourRow>) -> Stored {
    let day = |(day, clicks, bots, visitors, counts, sketch)| StoredDay {
        day,
        clicks,
        bots,
        visitors,
        counts,
        sketch,
    };
    let hour = |(hour, clicks, bots)| OlderHour { hour, clicks, bots };
    Stored {
        days: days.into_iter().map(day).collect(),
        older: older.into_iter().map(hour).collect(),
    }
}

/// Rows with all their columns.
type LinkDayRow = (i64, i64, i64, String, Vec<u8>, Vec<u8>);
type TenantDayRow = (i64, i64, Vec<u8>);
type LinkHourRow = (i64, i64, String);

/// A row with what is stored under its key.
fn with_day(key: &wire::LinkDay, row: LinkDayRow) -> Row {
    let (clicks, bots, visitors, tenant, counts, sketch) = row;
    Row::LinkDay(wire::LinkDay {
        link_id: key.link_id.clone(),
        day: key.day,
        partition: key.partition,
        tenant,
        clicks,
        bots,
        visitors,
        counts,
        sketch,
    })
}

fn with_tenant_day(key: &wire::TenantDay, row: TenantDayRow) -> Row {
    let (clicks, bots, counts) = row;
    Row::TenantDay(wire::TenantDay {
        clicks,
        bots,
        counts,
        ..key.clone()
    })
}

fn with_hour(key: &wire::LinkHour, row: LinkHourRow) -> Row {
    let (clicks, bots, tenant) = row;
    Row::LinkHour(wire::LinkHour {
        link_id: key.link_id.clone(),
        hour: key.hour,
        tenant,
        clicks,
        bots,
    })
}
