//! Rollups in Postgres.

use std::collections::BTreeMap;

use sqlx::{PgConnection, PgPool};
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
        include_str!("../../migrations/postgres/0001_rollups.sql"),
    )],
};

const FIRST_OFFSET: &str = "\
-- analytics.first_offset
INSERT INTO consumer_offset (topic, partition, next_offset) VALUES ($1, $2, $3)
ON CONFLICT (topic, partition) DO NOTHING";

const MOVE_OFFSET: &str = "\
-- analytics.move_offset
UPDATE consumer_offset SET next_offset = $3, updated_at = now()
WHERE topic = $1 AND partition = $2 AND next_offset = $4";

const NEXT_OFFSET: &str = "\
-- analytics.next_offset
SELECT next_offset FROM consumer_offset WHERE topic = $1 AND partition = $2";

/// For what comes without an offset row to wait at: one at a time.
const SERIALIZE: &str = "\
-- analytics.serialize
SELECT 1 FROM pg_advisory_xact_lock(hashtext('waypost analytics without offsets'))";

const READ_PRODUCERS: &str = "\
-- analytics.read_producers
SELECT gateway, boot, partition, high_water, missing FROM producer_state
WHERE (gateway, boot, partition)
   IN (SELECT * FROM unnest($1::text[], $2::bigint[], $3::integer[]))";

/// Arrays of arrays must be rectangles in Postgres, so that this goes row by row:
/// a portion has few producers.
const WRITE_PRODUCER: &str = "\
-- analytics.write_producer
INSERT INTO producer_state (gateway, boot, partition, high_water, missing)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (gateway, boot, partition) DO UPDATE
SET high_water = excluded.high_water, missing = excluded.missing, updated_at = now()";

const ADD_CLICKS: &str = "\
-- analytics.add_clicks
INSERT INTO link_clicks_hour AS held (link_id, hour, tenant, clicks, bots)
SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[])
ON CONFLICT (link_id, hour) DO UPDATE
SET clicks = held.clicks + excluded.clicks, bots = held.bots + excluded.bots";

const COUNTED_UP_TO: &str = "\
-- analytics.counted_up_to
INSERT INTO counted_up_to AS held (partition, time_ms) VALUES ($1, $2)
ON CONFLICT (partition) DO UPDATE SET time_ms = greatest(held.time_ms, excluded.time_ms)";

const DEAD_LETTER: &str = "\
-- analytics.dead_letter
INSERT INTO dead_letter (topic, partition, message_offset, reason, payload)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (topic, partition, message_offset) DO NOTHING";

const LINK_STATS: &str = "\
-- analytics.link_stats
SELECT coalesce(sum(clicks), 0)::bigint, coalesce(sum(bots), 0)::bigint,
       (SELECT max(time_ms) FROM counted_up_to)
FROM link_clicks_hour WHERE link_id = $1";

/// Rollups in Postgres, which several consumers share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PostgresRollups {
    pool: PgPool,
}

impl PostgresRollups {
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Brings the schema up to date, under a lock of the database.
    ///
    /// # Errors
    /// If the database does not answer, or a later release made its schema.
    pub async fn migrate(&self) -> Result<(), database::Error> {
        SCHEMA
            .apply_to_postgres(&self.pool.connect_options())
            .await
            .map(drop)
    }
}

impl RollupStore for PostgresRollups {
    async fn apply(&self, portion: &Portion) -> Result<Applied, Error> {
        let mut transaction = self.pool.begin().await?;
        // First of all: it locks the row, so that of two consumers of a partition
        // the second waits here, and what is read below stays as it is.
        match &portion.span {
            Some(span) => move_offset(&mut transaction, span).await?,
            None => {
                sqlx::query(SERIALIZE).execute(&mut *transaction).await?;
            }
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
                .bind(missing)
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
            .fetch_optional(&self.pool);
        Ok(next.await?)
    }

    async fn link_stats(&self, link: Uuid) -> Result<LinkStats, Error> {
        let row: (i64, i64, Option<i64>) = sqlx::query_as(LINK_STATS)
            .bind(link)
            .fetch_one(&self.pool)
            .await?;
        Ok(LinkStats {
            clicks: row.0.cast_unsigned(),
            bots: row.1.cast_unsigned(),
            counted_up_to_ms: row.2,
        })
    }
}

async fn move_offset(connection: &mut PgConnection, span: &Span) -> Result<(), Error> {
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
    connection: &mut PgConnection,
    portion: &Portion,
) -> Result<BTreeMap<Producer, Seen>, Error> {
    let mut producers: Vec<Producer> = portion.batches.iter().map(producer).collect();
    producers.sort();
    producers.dedup();
    let gateways: Vec<&str> = producers.iter().map(|(gateway, ..)| &**gateway).collect();
    let boots: Vec<i64> = producers.iter().map(|(_, boot, _)| *boot).collect();
    let partitions: Vec<i32> = producers.iter().map(|(.., partition)| *partition).collect();
    let rows: Vec<(String, i64, i32, i64, Vec<i64>)> = sqlx::query_as(READ_PRODUCERS)
        .bind(gateways)
        .bind(boots)
        .bind(partitions)
        .fetch_all(connection)
        .await?;
    let seen = rows
        .into_iter()
        .map(|(gateway, boot, partition, high_water, missing)| {
            let seen = Seen::from_stored(high_water, &missing);
            ((gateway, boot, partition), seen)
        });
    Ok(seen.collect())
}

async fn add_clicks(connection: &mut PgConnection, tally: &Tally) -> Result<(), Error> {
    if tally.hours.is_empty() {
        return Ok(());
    }
    let links: Vec<Uuid> = tally.hours.keys().map(|(link, _)| *link).collect();
    let hours: Vec<i64> = tally.hours.keys().map(|(_, hour)| *hour).collect();
    let counts = || tally.hours.values();
    let tenants: Vec<&str> = counts().map(|counts| &*counts.tenant).collect();
    let clicks: Vec<i64> = counts().map(|counts| counts.clicks).collect();
    let bots: Vec<i64> = counts().map(|counts| counts.bots).collect();
    sqlx::query(ADD_CLICKS)
        .bind(links)
        .bind(hours)
        .bind(tenants)
        .bind(clicks)
        .bind(bots)
        .execute(&mut *connection)
        .await?;
    for (partition, newest) in &tally.newest {
        sqlx::query(COUNTED_UP_TO)
            .bind(partition.cast_signed())
            .bind(newest)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
