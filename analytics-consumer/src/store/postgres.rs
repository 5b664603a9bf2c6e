//! Rollups in Postgres.

mod transfer;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;
use waypost_proto::analytics::rollup::Row;
use waypost_runtime::database::{self, Schema};

use super::{
    Applied, Error, Keep, Known, Portion, Producer, RollupStore, Span, Stored, before,
    kept_payload, now_ms, producer, stored,
};
use crate::agent::Agents;
use crate::seen::Seen;
use crate::tally::{Merged, Tally};

/// Its steps are noted in a table of their own, so that the rollups may share a
/// database with other tables.
const SCHEMA: Schema = Schema {
    table: "analytics_migrations",
    steps: &[
        (
            "rollups",
            include_str!("../../migrations/postgres/0001_rollups.sql"),
        ),
        (
            "days",
            include_str!("../../migrations/postgres/0002_days.sql"),
        ),
    ],
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

/// Whatever is counted of a partition, from whichever topic, is counted by one at a
/// time: rows are read, changed and written back.
const LOCK_PARTITIONS: &str = "\
-- analytics.lock_partitions
SELECT pg_advisory_xact_lock(hashtext('waypost analytics partition'), partition)
FROM unnest($1::integer[]) AS partition ORDER BY partition";

/// The arrays below are short or long and the tables small or large. What is right in
/// all cases is one look into the index for each key, which is what the planner takes
/// if it does not know how long they are.
const GENERIC_PLANS: &str = "\
-- analytics.generic_plans
SET LOCAL plan_cache_mode = force_generic_plan";

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

const READ_FLOORS: &str = "\
-- analytics.read_floors
SELECT gateway, boot FROM producer_floor WHERE gateway = ANY($1)";

const READ_LINKS: &str = "\
-- analytics.read_links
SELECT keys.place - 1, held.counts, held.sketch
FROM unnest($1::uuid[], $2::integer[], $3::smallint[])
     WITH ORDINALITY AS keys (link_id, day, partition, place)
JOIN link_day AS held USING (link_id, day, partition)";

const WRITE_LINKS: &str = "\
-- analytics.write_links
INSERT INTO link_day AS held
       (link_id, day, partition, tenant, clicks, bots, visitors, counts, sketch)
SELECT link_id, day, partition, tenant, clicks, bots,
       coalesce(visitors, 0), counts, coalesce(sketch, ''::bytea)
FROM unnest($1::uuid[], $2::integer[], $3::smallint[], $4::text[], $5::bigint[], $6::bigint[],
            $7::bigint[], $8::bytea[], $9::bytea[])
     AS added (link_id, day, partition, tenant, clicks, bots, visitors, counts, sketch)
ON CONFLICT (link_id, day, partition) DO UPDATE
SET clicks = held.clicks + excluded.clicks, bots = held.bots + excluded.bots,
    counts = excluded.counts,
    visitors = CASE WHEN excluded.sketch = '' THEN held.visitors ELSE excluded.visitors END,
    sketch = CASE WHEN excluded.sketch = '' THEN held.sketch ELSE excluded.sketch END";

const READ_TENANTS: &str = "\
-- analytics.read_tenants
SELECT keys.place - 1, held.counts
FROM unnest($1::text[], $2::integer[], $3::smallint[])
     WITH ORDINALITY AS keys (tenant, day, partition, place)
JOIN tenant_day AS held USING (tenant, day, partition)";

const WRITE_TENANTS: &str = "\
-- analytics.write_tenants
INSERT INTO tenant_day AS held (tenant, day, partition, clicks, bots, counts)
SELECT * FROM unnest($1::text[], $2::integer[], $3::smallint[], $4::bigint[], $5::bigint[],
                     $6::bytea[])
ON CONFLICT (tenant, day, partition) DO UPDATE
SET clicks = held.clicks + excluded.clicks, bots = held.bots + excluded.bots,
    counts = excluded.counts";

const COUNTED_UP_TO: &str = "\
-- analytics.counted_up_to
INSERT INTO counted_up_to AS held (partition, time_ms)
SELECT * FROM unnest($1::integer[], $2::bigint[])
ON CONFLICT (partition) DO UPDATE SET time_ms = excluded.time_ms
WHERE held.time_ms < excluded.time_ms";

const DEAD_LETTER: &str = "\
-- analytics.dead_letter
INSERT INTO dead_letter (topic, partition, message_offset, reason, payload)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (topic, partition, message_offset) DO NOTHING";

const READ_COUNTED_UP_TO: &str = "\
-- analytics.read_counted_up_to
SELECT min(time_ms) FROM counted_up_to";

const LINK_DAYS: &str = "\
-- analytics.link_days
SELECT day, clicks, bots, visitors,
       CASE WHEN $4 THEN counts ELSE ''::bytea END,
       CASE WHEN count(*) OVER (PARTITION BY day) > 1 THEN sketch ELSE ''::bytea END
FROM link_day WHERE link_id = $1 AND day >= $2 AND day < $3 ORDER BY day";

const TENANT_DAYS: &str = "\
-- analytics.tenant_days
SELECT day, clicks, bots, 0::bigint, CASE WHEN $4 THEN counts ELSE ''::bytea END, ''::bytea
FROM tenant_day WHERE tenant = $1 AND day >= $2 AND day < $3 ORDER BY day";

const OLDER_LINK_HOURS: &str = "\
-- analytics.older_link_hours
SELECT hour, clicks, bots FROM link_clicks_hour WHERE link_id = $1 AND hour >= $2 AND hour < $3";

const OLDER_TENANT_HOURS: &str = "\
-- analytics.older_tenant_hours
SELECT hour, sum(clicks)::bigint, sum(bots)::bigint FROM link_clicks_hour
WHERE tenant = $1 AND hour >= $2 AND hour < $3 GROUP BY hour";

/// Times are in seconds since the Unix epoch.
const PRUNE_PRODUCERS: &str = "\
-- analytics.prune_producers
WITH silent AS (
    SELECT gateway, boot FROM producer_state AS held
    GROUP BY gateway, boot
    HAVING max(updated_at) < to_timestamp($1) AND (
        max(updated_at) < to_timestamp($2)
        OR EXISTS (SELECT FROM producer_state AS later
                   WHERE later.gateway = held.gateway AND later.boot > held.boot))
    LIMIT $3
), gone AS (
    DELETE FROM producer_state AS held USING silent
    WHERE held.gateway = silent.gateway AND held.boot = silent.boot
      AND held.updated_at < to_timestamp($1)
    RETURNING held.gateway, held.boot
)
INSERT INTO producer_floor AS held (gateway, boot)
SELECT gateway, max(boot) FROM gone GROUP BY gateway
ON CONFLICT (gateway) DO UPDATE SET boot = greatest(held.boot, excluded.boot)";

const PRUNE_DEAD_LETTERS: &str = "\
-- analytics.prune_dead_letters
DELETE FROM dead_letter WHERE (topic, partition, message_offset) IN (
    SELECT topic, partition, message_offset FROM dead_letter
    WHERE received_at < to_timestamp($1) LIMIT $2)";

/// Rollups in Postgres, which several consumers share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PostgresRollups {
    pool: PgPool,
    agents: Arc<Agents>,
}

impl PostgresRollups {
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        let agents = Arc::new(Agents::new());
        Self { pool, agents }
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
    const SYSTEM: &'static str = "postgresql";

    async fn apply(&self, portion: &Portion) -> Result<Applied, Error> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query(GENERIC_PLANS)
            .execute(&mut *transaction)
            .await?;
        // First of all: of two consumers of a partition the second waits here, and
        // what is read below stays as it is.
        sqlx::query(LOCK_PARTITIONS)
            .bind(partitions(portion))
            .execute(&mut *transaction)
            .await?;
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
                .bind(missing)
                .execute(&mut *transaction)
                .await?;
        }
        let tally = Tally::of(admitted.into_iter(), &self.agents, now_ms());
        applied.clicks = tally.clicks;
        applied.newest_ms = tally.newest.values().copied().max();
        add_links(&mut transaction, &tally, &mut applied).await?;
        add_tenants(&mut transaction, &tally, &mut applied).await?;
        if !tally.newest.is_empty() {
            let partitions = tally.newest.keys().map(|p| p.cast_signed());
            sqlx::query(COUNTED_UP_TO)
                .bind(partitions.collect::<Vec<i32>>())
                .bind(tally.newest.values().copied().collect::<Vec<i64>>())
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
            .fetch_optional(&self.pool);
        Ok(next.await?)
    }

    async fn caught_up(&self, partitions: &[i32], at_ms: i64) -> Result<(), Error> {
        sqlx::query(COUNTED_UP_TO)
            .bind(partitions)
            .bind(vec![at_ms; partitions.len()])
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn counted_up_to(&self) -> Result<Option<i64>, Error> {
        let time = sqlx::query_scalar(READ_COUNTED_UP_TO).fetch_one(&self.pool);
        Ok(time.await?)
    }

    async fn link_days(
        &self,
        link: Uuid,
        days: Range<i32>,
        hours: Range<i64>,
        with_counts: bool,
    ) -> Result<Stored, Error> {
        let days = sqlx::query_as(LINK_DAYS)
            .bind(link)
            .bind(days.start)
            .bind(days.end)
            .bind(with_counts)
            .fetch_all(&self.pool);
        let older = sqlx::query_as(OLDER_LINK_HOURS)
            .bind(link)
            .bind(hours.start)
            .bind(hours.end)
            .fetch_all(&self.pool);
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
            .fetch_all(&self.pool);
        let older = sqlx::query_as(OLDER_TENANT_HOURS)
            .bind(tenant)
            .bind(hours.start)
            .bind(hours.end)
            .fetch_all(&self.pool);
        Ok(stored(days.await?, older.await?))
    }

    async fn put(&self, rows: &[Row]) -> Result<(), Error> {
        transfer::put(&self.pool, rows).await
    }

    async fn stored(&self, rows: &[Row]) -> Result<Vec<Option<Row>>, Error> {
        transfer::stored(&self.pool, rows).await
    }

    async fn prune(&self, keep: Keep) -> Result<(), Error> {
        sqlx::query(PRUNE_PRODUCERS)
            .bind(before(keep.producers))
            .bind(before(keep.producers * Keep::LAST_START))
            .bind(Keep::AT_ONCE)
            .execute(&self.pool)
            .await?;
        sqlx::query(PRUNE_DEAD_LETTERS)
            .bind(before(keep.dead_letters))
            .bind(Keep::AT_ONCE)
            .execute(&self.pool)
            .await?;
        Ok(())
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

async fn read_producers(connection: &mut PgConnection, portion: &Portion) -> Result<Known, Error> {
    let mut producers: Vec<Producer> = portion.batches.iter().map(producer).collect();
    producers.sort();
    producers.dedup();
    let gateways: Vec<&str> = producers.iter().map(|(gateway, ..)| &**gateway).collect();
    let boots: Vec<i64> = producers.iter().map(|(_, boot, _)| *boot).collect();
    let partitions: Vec<i32> = producers.iter().map(|(.., partition)| *partition).collect();
    let rows: Vec<(String, i64, i32, i64, Vec<i64>)> = sqlx::query_as(READ_PRODUCERS)
        .bind(&gateways)
        .bind(boots)
        .bind(partitions)
        .fetch_all(&mut *connection)
        .await?;
    let seen: BTreeMap<Producer, Seen> = rows
        .into_iter()
        .map(|(gateway, boot, partition, high_water, missing)| {
            let seen = Seen::from_stored(high_water, &missing);
            ((gateway, boot, partition), seen)
        })
        .collect();
    let mut known = Known {
        seen,
        floors: BTreeMap::new(),
    };
    // After the rows: what is not among them since it was just pruned has its floor by
    // now.
    if producers
        .iter()
        .any(|producer| !known.seen.contains_key(producer))
    {
        let floors: Vec<(String, i64)> = sqlx::query_as(READ_FLOORS)
            .bind(gateways)
            .fetch_all(connection)
            .await?;
        known.floors = floors.into_iter().collect();
    }
    Ok(known)
}

async fn add_links(
    connection: &mut PgConnection,
    tally: &Tally<'_>,
    applied: &mut Applied,
) -> Result<(), Error> {
    if tally.links.is_empty() {
        return Ok(());
    }
    let rows = || tally.links.iter();
    let links: Vec<Uuid> = rows().map(|row| row.link).collect();
    let days: Vec<i32> = rows().map(|row| row.day).collect();
    let partitions: Vec<i16> = rows().map(|row| small(row.partition)).collect();
    let stored: Vec<(i64, Vec<u8>, Vec<u8>)> = sqlx::query_as(READ_LINKS)
        .bind(&links)
        .bind(&days)
        .bind(&partitions)
        .fetch_all(&mut *connection)
        .await?;
    let mut held = vec![None; tally.links.len()];
    for (place, counts, sketch) in &stored {
        held[*place as usize] = Some((&counts[..], &sketch[..]));
    }
    let merged: Vec<Merged> = rows()
        .zip(held)
        .map(|(row, held)| tally.merge(row, held))
        .collect();
    let tenants: Vec<&str> = rows().map(|row| row.tenant).collect();
    let clicks: Vec<i64> = rows().map(|row| row.sum.clicks.cast_signed()).collect();
    let bots: Vec<i64> = rows().map(|row| row.sum.bots.cast_signed()).collect();
    let visitors = merged
        .iter()
        .map(|m| m.sketch.as_ref().map(|(_, n)| n.cast_signed()));
    let counts: Vec<&[u8]> = merged.iter().map(|m| &*m.counts).collect();
    let sketches = merged
        .iter()
        .map(|m| m.sketch.as_ref().map(|(bytes, _)| &**bytes));
    sqlx::query(WRITE_LINKS)
        .bind(links)
        .bind(days)
        .bind(partitions)
        .bind(tenants)
        .bind(clicks)
        .bind(bots)
        .bind(visitors.collect::<Vec<Option<i64>>>())
        .bind(counts)
        .bind(sketches.collect::<Vec<Option<&[u8]>>>())
        .execute(connection)
        .await?;
    applied.wrote(&merged);
    Ok(())
}

async fn add_tenants(
    connection: &mut PgConnection,
    tally: &Tally<'_>,
    applied: &mut Applied,
) -> Result<(), Error> {
    let rows = tally.tenants();
    if rows.is_empty() {
        return Ok(());
    }
    let tenants: Vec<&str> = rows.iter().map(|row| row.tenant).collect();
    let days: Vec<i32> = rows.iter().map(|row| row.day).collect();
    let partitions: Vec<i16> = rows.iter().map(|row| small(row.partition)).collect();
    let stored: Vec<(i64, Vec<u8>)> = sqlx::query_as(READ_TENANTS)
        .bind(&tenants)
        .bind(&days)
        .bind(&partitions)
        .fetch_all(&mut *connection)
        .await?;
    let mut held = vec![None; rows.len()];
    for (place, counts) in &stored {
        held[*place as usize] = Some(&counts[..]);
    }
    let merged: Vec<Merged> = rows
        .iter()
        .zip(held)
        .map(|(row, held)| row.merge(held))
        .collect();
    let clicks: Vec<i64> = rows
        .iter()
        .map(|row| row.sum.clicks.cast_signed())
        .collect();
    let bots: Vec<i64> = rows.iter().map(|row| row.sum.bots.cast_signed()).collect();
    let counts: Vec<&[u8]> = merged.iter().map(|merged| &*merged.counts).collect();
    sqlx::query(WRITE_TENANTS)
        .bind(tenants)
        .bind(days)
        .bind(partitions)
        .bind(clicks)
        .bind(bots)
        .bind(counts)
        .execute(connection)
        .await?;
    applied.wrote(&merged);
    Ok(())
}

/// There are far fewer than this holds.
fn small(partition: u32) -> i16 {
    i16::try_from(partition).unwrap_or(i16::MAX)
}

/// The partitions that a portion is of, in their order.
fn partitions(portion: &Portion) -> Vec<i32> {
    let mut partitions: Vec<i32> = match &portion.span {
        Some(span) => vec![span.partition],
        None => portion
            .batches
            .iter()
            .map(|b| b.partition.cast_signed())
            .collect(),
    };
    partitions.sort_unstable();
    partitions.dedup();
    partitions
}
