//! Rollups in a SQLite file.

mod transfer;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::Stream;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{SqliteConnection, SqlitePool};
use uuid::Uuid;
use waypost_proto::analytics::rollup::Row;
use waypost_runtime::database::{self, Schema};

use super::{
    Applied, Error, Keep, Known, Portion, Producer, RollupStore, Span, Stored, before,
    kept_payload, now_ms, producer, stored,
};
use crate::agent::Agents;
use crate::seen::Seen;
use crate::tally::Tally;

/// Its steps are noted in a table of their own, so that the rollups may share a
/// database with other tables.
const SCHEMA: Schema = Schema {
    table: "analytics_migrations",
    steps: &[
        (
            "rollups",
            include_str!("../../migrations/sqlite/0001_rollups.sql"),
        ),
        (
            "days",
            include_str!("../../migrations/sqlite/0002_days.sql"),
        ),
    ],
};

const FIRST_OFFSET: &str = "\
-- analytics.first_offset
INSERT INTO consumer_offset (topic, partition, next_offset) VALUES (?1, ?2, ?3)
ON CONFLICT (topic, partition) DO NOTHING";

const MOVE_OFFSET: &str = "\
-- analytics.move_offset
UPDATE consumer_offset SET next_offset = ?3
WHERE topic = ?1 AND partition = ?2 AND next_offset = ?4";

const NEXT_OFFSET: &str = "\
-- analytics.next_offset
SELECT next_offset FROM consumer_offset WHERE topic = ?1 AND partition = ?2";

const READ_PRODUCER: &str = "\
-- analytics.read_producer
SELECT high_water, missing FROM producer_state
WHERE gateway = ?1 AND boot = ?2 AND partition = ?3";

const WRITE_PRODUCER: &str = "\
-- analytics.write_producer
INSERT INTO producer_state (gateway, boot, partition, high_water, missing, updated_at)
VALUES (?1, ?2, ?3, ?4, ?5, unixepoch())
ON CONFLICT (gateway, boot, partition) DO UPDATE
SET high_water = excluded.high_water, missing = excluded.missing,
    updated_at = excluded.updated_at";

const READ_FLOOR: &str = "\
-- analytics.read_floor
SELECT boot FROM producer_floor WHERE gateway = ?1";

const READ_LINK: &str = "\
-- analytics.read_link
SELECT counts, sketch FROM link_day WHERE link_id = ?1 AND day = ?2 AND partition = ?3";

const WRITE_LINK: &str = "\
-- analytics.write_link
INSERT INTO link_day (link_id, day, partition, tenant, clicks, bots, visitors, counts, sketch)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, coalesce(?7, 0), ?8, coalesce(?9, x''))
ON CONFLICT (link_id, day, partition) DO UPDATE
SET clicks = clicks + excluded.clicks, bots = bots + excluded.bots, counts = excluded.counts,
    visitors = coalesce(?7, visitors), sketch = coalesce(?9, sketch)";

const READ_TENANT: &str = "\
-- analytics.read_tenant
SELECT counts FROM tenant_day WHERE tenant = ?1 AND day = ?2 AND partition = ?3";

const WRITE_TENANT: &str = "\
-- analytics.write_tenant
INSERT INTO tenant_day (tenant, day, partition, clicks, bots, counts)
VALUES (?1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT (tenant, day, partition) DO UPDATE
SET clicks = clicks + excluded.clicks, bots = bots + excluded.bots, counts = excluded.counts";

const COUNTED_UP_TO: &str = "\
-- analytics.counted_up_to
INSERT INTO counted_up_to (partition, time_ms) VALUES (?1, ?2)
ON CONFLICT (partition) DO UPDATE SET time_ms = max(time_ms, excluded.time_ms)";

const DEAD_LETTER: &str = "\
-- analytics.dead_letter
INSERT INTO dead_letter (topic, partition, message_offset, reason, payload, received_at)
VALUES (?1, ?2, ?3, ?4, ?5, unixepoch())
ON CONFLICT (topic, partition, message_offset) DO NOTHING";

const READ_COUNTED_UP_TO: &str = "\
-- analytics.read_counted_up_to
SELECT partition, time_ms FROM counted_up_to";

const LINK_DAYS: &str = "\
-- analytics.link_days
SELECT day, clicks, bots, visitors, iif(?4, counts, x''),
       iif(count(*) OVER (PARTITION BY day) > 1, sketch, x'')
FROM link_day WHERE link_id = ?1 AND day >= ?2 AND day < ?3 ORDER BY day";

const TENANT_DAYS: &str = "\
-- analytics.tenant_days
SELECT day, clicks, bots, 0, iif(?4, counts, x''), x''
FROM tenant_day WHERE tenant = ?1 AND day >= ?2 AND day < ?3 ORDER BY day";

const OLDER_LINK_HOURS: &str = "\
-- analytics.older_link_hours
SELECT hour, clicks, bots FROM link_clicks_hour WHERE link_id = ?1 AND hour >= ?2 AND hour < ?3";

const OLDER_TENANT_HOURS: &str = "\
-- analytics.older_tenant_hours
SELECT hour, sum(clicks), sum(bots) FROM link_clicks_hour
WHERE tenant = ?1 AND hour >= ?2 AND hour < ?3 GROUP BY hour";

/// Starts of a gateway that are to be forgotten.
const SILENT_PRODUCERS: &str = "\
-- analytics.silent_producers
SELECT gateway, boot FROM producer_state AS held
GROUP BY gateway, boot
HAVING max(updated_at) < ?1 AND (
    max(updated_at) < ?2
    OR EXISTS (SELECT 1 FROM producer_state AS later
               WHERE later.gateway = held.gateway AND later.boot > held.boot))
LIMIT ?3";

const PRUNE_PRODUCER: &str = "\
-- analytics.prune_producer
DELETE FROM producer_state WHERE gateway = ?1 AND boot = ?2";

const RAISE_FLOOR: &str = "\
-- analytics.raise_floor
INSERT INTO producer_floor (gateway, boot) VALUES (?1, ?2)
ON CONFLICT (gateway) DO UPDATE SET boot = max(boot, excluded.boot)";

const PRUNE_DEAD_LETTERS: &str = "\
-- analytics.prune_dead_letters
DELETE FROM dead_letter WHERE (topic, partition, message_offset) IN (
    SELECT topic, partition, message_offset FROM dead_letter WHERE received_at < ?1 LIMIT ?2)";

/// Readers beside the one writer: statistics do not wait for counting.
const READERS: u32 = 2;

/// Rollups in a SQLite file of one process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SqliteRollups {
    writer: SqlitePool,
    readers: SqlitePool,
    agents: Arc<Agents>,
    /// Up to when partitions are known to be counted, beyond what the file says: not
    /// worth a write each second.
    caught_up: Arc<Mutex<BTreeMap<i32, i64>>>,
}

impl SqliteRollups {
    /// Opens the file, creates it if there is none, and brings its schema up to
    /// date.
    ///
    /// # Errors
    /// If the file is no database of ours, or a later release made its schema.
    pub async fn open(path: &Path) -> Result<Self, database::Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // The spool lets go of clicks as soon as they are counted, so counts
            // must survive a power cut.
            .synchronous(SqliteSynchronous::Full);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options.clone())
            .await?;
        SCHEMA.apply(&mut *writer.acquire().await?).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.read_only(true))
            .await?;
        Ok(Self {
            writer,
            readers,
            agents: Arc::new(Agents::new()),
            caught_up: Arc::default(),
        })
    }

    /// Ends the use of the file; nothing of ours is open afterwards.
    pub async fn close(self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// All that is counted, in the order of the keys.
    pub fn rows(&self) -> impl Stream<Item = Result<Row, Error>> + Unpin + '_ {
        transfer::rows(&self.readers)
    }
}

impl RollupStore for SqliteRollups {
    const SYSTEM: &'static str = "sqlite";

    async fn apply(&self, portion: &Portion) -> Result<Applied, Error> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        if let Some(span) = &portion.span {
            move_offset(&mut transaction, span).await?;
        }
        let mut known = read_producers(&mut transaction, portion).await?;
        let (admitted, mut applied) = known.admit(portion);
        for ((gateway, boot, partition), seen) in &known.seen {
            let (high_water, missing) = seen.to_stored();
            sqlx::query(WRITE_PRODUCER)
                .bind(gateway)
                .bind(boot)
                .bind(partition)
                .bind(high_water)
                .bind(to_text(&missing))
                .execute(&mut *transaction)
                .await?;
        }
        let tally = Tally::of(admitted.into_iter(), &self.agents, now_ms());
        applied.clicks = tally.clicks;
        applied.newest_ms = tally.newest.values().copied().max();
        add_links(&mut transaction, &tally, &mut applied).await?;
        add_tenants(&mut transaction, &tally, &mut applied).await?;
        for (partition, newest) in &tally.newest {
            sqlx::query(COUNTED_UP_TO)
                .bind(partition)
                .bind(newest)
                .execute(&mut *transaction)
                .await?;
        }
        if let Some(span) = &portion.span {
            for dead in &portion.dead {
                sqlx::query(DEAD_LETTER)
                    .bind(&span.topic)
                    .bind(span.partition)
                    .bind(dead.offset)
                    .bind(&dead.reason)
                    .bind(kept_payload(dead))
                    .execute(&mut *transaction)
                    .await?;
            }
        }
        transaction.commit().await?;
        Ok(applied)
    }

    async fn next_offset(&self, topic: &str, partition: i32) -> Result<Option<i64>, Error> {
        let next = sqlx::query_scalar(NEXT_OFFSET)
            .bind(topic)
            .bind(partition)
            .fetch_optional(&self.readers);
        Ok(next.await?)
    }

    async fn caught_up(&self, partitions: &[i32], at_ms: i64) -> Result<(), Error> {
        let mut caught_up = self
            .caught_up
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for partition in partitions {
            let held = caught_up.entry(*partition).or_insert(at_ms);
            *held = at_ms.max(*held);
        }
        Ok(())
    }

    async fn counted_up_to(&self) -> Result<Option<i64>, Error> {
        let stored: Vec<(i32, i64)> = sqlx::query_as(READ_COUNTED_UP_TO)
            .fetch_all(&self.readers)
            .await?;
        let caught_up = self
            .caught_up
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut times = caught_up.clone();
        for (partition, time) in stored {
            let held = times.entry(partition).or_insert(time);
            *held = time.max(*held);
        }
        Ok(times.into_values().min())
    }

    async fn link_days(
        &self,
        link: Uuid,
        days: Range<i32>,
        hours: Range<i64>,
        with_counts: bool,
    ) -> Result<Stored, Error> {
        let link = link.as_bytes().as_slice();
        let days = sqlx::query_as(LINK_DAYS)
            .bind(link)
            .bind(days.start)
            .bind(days.end)
            .bind(with_counts)
            .fetch_all(&self.readers);
        let older = sqlx::query_as(OLDER_LINK_HOURS)
            .bind(link)
            .bind(hours.start)
            .bind(hours.end)
            .fetch_all(&self.readers);
        Ok(stored(days.await?, older.await?))
    }

    async fn tenant_days(
        &self,
        tenant: &str,
        days: Range<i32>,
        hours: Range<i64>,
        with_counts: bool,
    ) -> Result<Stored, Error> {
        let days = sqlx::query_as(TENANT_DAYS)
            .bind(tenant)
            .bind(days.start)
            .bind(days.end)
            .bind(with_counts)
            .fetch_all(&self.readers);
        let older = sqlx::query_as(OLDER_TENANT_HOURS)
            .bind(tenant)
            .bind(hours.start)
            .bind(hours.end)
            .fetch_all(&self.readers);
        Ok(stored(days.await?, older.await?))
    }

    async fn put(&self, rows: &[Row]) -> Result<(), Error> {
        transfer::put(&self.writer, rows).await
    }

    async fn stored(&self, rows: &[Row]) -> Result<Vec<Option<Row>>, Error> {
        transfer::stored(&self.readers, rows).await
    }

    async fn prune(&self, keep: Keep) -> Result<(), Error> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let silent: Vec<(String, i64)> = sqlx::query_as(SILENT_PRODUCERS)
            .bind(before(keep.producers))
            .bind(before(keep.producers * Keep::LAST_START))
            .bind(Keep::AT_ONCE)
            .fetch_all(&mut *transaction)
            .await?;
        for (gateway, boot) in silent {
            for statement in [PRUNE_PRODUCER, RAISE_FLOOR] {
                sqlx::query(statement)
                    .bind(&gateway)
                    .bind(boot)
                    .execute(&mut *transaction)
                    .await?;
            }
        }
        sqlx::query(PRUNE_DEAD_LETTERS)
            .bind(before(keep.dead_letters))
            .bind(Keep::AT_ONCE)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }
}

async fn move_offset(connection: &mut SqliteConnection, span: &Span) -> Result<(), Error> {
    let statement = match span.expected {
        Some(_) => MOVE_OFFSET,
        None => FIRST_OFFSET,
    };
    let mut query = sqlx::query(statement)
        .bind(&span.topic)
        .bind(span.partition)
        .bind(span.next);
    if let Some(expected) = span.expected {
        query = query.bind(expected);
    }
    match query.execute(connection).await?.rows_affected() {
        0 => Err(Error::Fenced),
        _ => Ok(()),
    }
}

async fn read_producers(
    connection: &mut SqliteConnection,
    portion: &Portion,
) -> Result<Known, Error> {
    let mut producers: Vec<Producer> = portion.batches.iter().map(producer).collect();
    producers.sort();
    producers.dedup();
    let mut known = Known::default();
    for producer in producers {
        let (gateway, boot, partition) = &producer;
        let row: Option<(i64, String)> = sqlx::query_as(READ_PRODUCER)
            .bind(gateway)
            .bind(boot)
            .bind(partition)
            .fetch_optional(&mut *connection)
            .await?;
        if let Some((high_water, missing)) = row {
            let missing = from_text(&missing)?;
            known
                .seen
                .insert(producer, Seen::from_stored(high_water, &missing));
            continue;
        }
        let floor: Option<i64> = sqlx::query_scalar(READ_FLOOR)
            .bind(gateway)
            .fetch_optional(&mut *connection)
            .await?;
        if let Some(floor) = floor {
            known.floors.insert(producer.0, floor);
        }
    }
    Ok(known)
}

async fn add_links(
    connection: &mut SqliteConnection,
    tally: &Tally<'_>,
    applied: &mut Applied,
) -> Result<(), Error> {
    for row in &tally.links {
        let link = row.link.as_bytes().as_slice();
        let held: Option<(Vec<u8>, Vec<u8>)> = sqlx::query_as(READ_LINK)
            .bind(link)
            .bind(row.day)
            .bind(row.partition)
            .fetch_optional(&mut *connection)
            .await?;
        let held = held
            .as_ref()
            .map(|(counts, sketch)| (&counts[..], &sketch[..]));
        let merged = tally.merge(row, held);
        let (sketch, visitors) = merged
            .sketch
            .as_ref()
            .map(|(s, n)| (s, n.cast_signed()))
            .unzip();
        sqlx::query(WRITE_LINK)
            .bind(link)
            .bind(row.day)
            .bind(row.partition)
            .bind(row.tenant)
            .bind(row.sum.clicks.cast_signed())
            .bind(row.sum.bots.cast_signed())
            .bind(visitors)
            .bind(&merged.counts)
            .bind(sketch)
            .execute(&mut *connection)
            .await?;
        applied.wrote(&[merged]);
    }
    Ok(())
}

async fn add_tenants(
    connection: &mut SqliteConnection,
    tally: &Tally<'_>,
    applied: &mut Applied,
) -> Result<(), Error> {
    for row in tally.tenants() {
        let held: Option<Vec<u8>> = sqlx::query_scalar(READ_TENANT)
            .bind(row.tenant)
            .bind(row.day)
            .bind(row.partition)
            .fetch_optional(&mut *connection)
            .await?;
        let merged = row.merge(held.as_deref());
        sqlx::query(WRITE_TENANT)
            .bind(row.tenant)
            .bind(row.day)
            .bind(row.partition)
            .bind(row.sum.clicks.cast_signed())
            .bind(row.sum.bots.cast_signed())
            .bind(&merged.counts)
            .execute(&mut *connection)
            .await?;
        applied.wrote(&[merged]);
    }
    Ok(())
}

/// SQLite has no arrays: numbers, separated by commas.
fn to_text(numbers: &[i64]) -> String {
    let texts: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    texts.join(",")
}

fn from_text(text: &str) -> Result<Vec<i64>, Error> {
    text.split(',')
        .filter(|number| !number.is_empty())
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(|error| Error::Database(sqlx::Error::Decode(Box::new(error))))
}
