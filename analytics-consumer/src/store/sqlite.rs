//! Rollups in a SQLite file.

use std::collections::BTreeMap;
use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{SqliteConnection, SqlitePool};
use uuid::Uuid;
use waypost_runtime::database::{self, Schema};

use super::{Applied, Error, LinkStats, Portion, Producer, RollupStore, Span, count, producer};
use crate::batch::Tally;
use crate::seen::Seen;

/// Its steps are noted in a table of their own, so that the rollups may share a
/// database with other tables.
const SCHEMA: Schema = Schema {
    table: "analytics_migrations",
    steps: &[(
        "rollups",
        include_str!("../../migrations/sqlite/0001_rollups.sql"),
    )],
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
INSERT INTO producer_state (gateway, boot, partition, high_water, missing)
VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (gateway, boot, partition) DO UPDATE
SET high_water = excluded.high_water, missing = excluded.missing";

const ADD_CLICKS: &str = "\
-- analytics.add_clicks
INSERT INTO link_clicks_hour (link_id, hour, tenant, clicks, bots)
VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (link_id, hour) DO UPDATE
SET clicks = clicks + excluded.clicks, bots = bots + excluded.bots";

const COUNTED_UP_TO: &str = "\
-- analytics.counted_up_to
INSERT INTO counted_up_to (partition, time_ms) VALUES (?1, ?2)
ON CONFLICT (partition) DO UPDATE SET time_ms = max(time_ms, excluded.time_ms)";

const DEAD_LETTER: &str = "\
-- analytics.dead_letter
INSERT INTO dead_letter (topic, partition, message_offset, reason, payload)
VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (topic, partition, message_offset) DO NOTHING";

const LINK_STATS: &str = "\
-- analytics.link_stats
SELECT coalesce(sum(clicks), 0), coalesce(sum(bots), 0),
       (SELECT max(time_ms) FROM counted_up_to)
FROM link_clicks_hour WHERE link_id = ?1";

/// Readers beside the one writer: statistics do not wait for counting.
const READERS: u32 = 2;

/// Rollups in a SQLite file of one process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SqliteRollups {
    writer: SqlitePool,
    readers: SqlitePool,
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
        Ok(Self { writer, readers })
    }
}

impl RollupStore for SqliteRollups {
    async fn apply(&self, portion: &Portion) -> Result<Applied, Error> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        if let Some(span) = &portion.span {
            move_offset(&mut transaction, span).await?;
        }
        let mut seen = read_producers(&mut transaction, portion).await?;
        let (tally, applied) = count(portion, &mut seen);
        for ((gateway, boot, partition), seen) in &seen {
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
        add_clicks(&mut transaction, &tally).await?;
        if let Some(span) = &portion.span {
            for dead in &portion.dead {
                sqlx::query(DEAD_LETTER)
                    .bind(&span.topic)
                    .bind(span.partition)
                    .bind(dead.offset)
                    .bind(&dead.reason)
                    .bind(&dead.payload)
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

    async fn link_stats(&self, link: Uuid) -> Result<LinkStats, Error> {
        let row: (i64, i64, Option<i64>) = sqlx::query_as(LINK_STATS)
            .bind(link.as_bytes().as_slice())
            .fetch_one(&self.readers)
            .await?;
        Ok(LinkStats {
            clicks: row.0.cast_unsigned(),
            bots: row.1.cast_unsigned(),
            counted_up_to_ms: row.2,
        })
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
) -> Result<BTreeMap<Producer, Seen>, Error> {
    let mut producers: Vec<Producer> = portion.batches.iter().map(producer).collect();
    producers.sort();
    producers.dedup();
    let mut seen = BTreeMap::new();
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
            seen.insert(producer, Seen::from_stored(high_water, &missing));
        }
    }
    Ok(seen)
}

async fn add_clicks(connection: &mut SqliteConnection, tally: &Tally) -> Result<(), Error> {
    for ((link, hour), counts) in &tally.hours {
        sqlx::query(ADD_CLICKS)
            .bind(link.as_bytes().as_slice())
            .bind(hour)
            .bind(&counts.tenant)
            .bind(counts.clicks)
            .bind(counts.bots)
            .execute(&mut *connection)
            .await?;
    }
    for (partition, newest) in &tally.newest {
        sqlx::query(COUNTED_UP_TO)
            .bind(partition)
            .bind(newest)
            .execute(&mut *connection)
            .await?;
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
