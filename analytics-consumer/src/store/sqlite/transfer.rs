//! Rows as they are, out of the file and into it: what a move and a backup go by.

use futures_util::{Stream, StreamExt as _};
use sqlx::SqlitePool;
use waypost_proto::analytics::{LinkDay, LinkHour, TenantDay, rollup::Row};

use crate::store::{Error, with_day, with_hour, with_tenant_day};

const PUT_LINK_DAY: &str = "\
-- analytics.put_link_day
INSERT INTO link_day (link_id, day, partition, tenant, clicks, bots, visitors, counts, sketch)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
ON CONFLICT (link_id, day, partition) DO UPDATE
SET tenant = excluded.tenant, clicks = excluded.clicks, bots = excluded.bots,
    visitors = excluded.visitors, counts = excluded.counts, sketch = excluded.sketch";

const PUT_TENANT_DAY: &str = "\
-- analytics.put_tenant_day
INSERT INTO tenant_day (tenant, day, partition, clicks, bots, counts)
VALUES (?1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT (tenant, day, partition) DO UPDATE
SET clicks = excluded.clicks, bots = excluded.bots, counts = excluded.counts";

const PUT_LINK_HOUR: &str = "\
-- analytics.put_link_hour
INSERT INTO link_clicks_hour (link_id, hour, tenant, clicks, bots) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (link_id, hour) DO UPDATE
SET tenant = excluded.tenant, clicks = excluded.clicks, bots = excluded.bots";

const STORED_LINK_DAY: &str = "\
-- analytics.stored_link_day
SELECT clicks, bots, visitors, tenant, counts, sketch FROM link_day
WHERE link_id = ?1 AND day = ?2 AND partition = ?3";

const STORED_TENANT_DAY: &str = "\
-- analytics.stored_tenant_day
SELECT clicks, bots, counts FROM tenant_day
WHERE tenant = ?1 AND day = ?2 AND partition = ?3";

const STORED_LINK_HOUR: &str = "\
-- analytics.stored_link_hour
SELECT clicks, bots, tenant FROM link_clicks_hour WHERE link_id = ?1 AND hour = ?2";

const EVERY_LINK_DAY: &str = "\
-- analytics.every_link_day
SELECT link_id, day, partition, tenant, clicks, bots, visitors, counts, sketch FROM link_day
ORDER BY link_id, day, partition";

const EVERY_TENANT_DAY: &str = "\
-- analytics.every_tenant_day
SELECT tenant, day, partition, clicks, bots, counts FROM tenant_day
ORDER BY tenant, day, partition";

const EVERY_LINK_HOUR: &str = "\
-- analytics.every_link_hour
SELECT link_id, hour, tenant, clicks, bots FROM link_clicks_hour ORDER BY link_id, hour";

/// Puts rows into the place of those under the same keys, all of them or none.
pub(super) async fn put(pool: &SqlitePool, rows: &[Row]) -> Result<(), Error> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    for row in rows {
        let query = match row {
            Row::LinkDay(row) => sqlx::query(PUT_LINK_DAY)
                .bind(&row.link_id)
                .bind(row.day)
                .bind(row.partition)
                .bind(&row.tenant)
                .bind(row.clicks)
                .bind(row.bots)
                .bind(row.visitors)
                .bind(&row.counts)
                .bind(&row.sketch),
            Row::TenantDay(row) => sqlx::query(PUT_TENANT_DAY)
                .bind(&row.tenant)
                .bind(row.day)
                .bind(row.partition)
                .bind(row.clicks)
                .bind(row.bots)
                .bind(&row.counts),
            Row::LinkHour(row) => sqlx::query(PUT_LINK_HOUR)
                .bind(&row.link_id)
                .bind(row.hour)
                .bind(&row.tenant)
                .bind(row.clicks)
                .bind(row.bots),
        };
        query.execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// The same rows as they are stored, in order.
pub(super) async fn stored(pool: &SqlitePool, rows: &[Row]) -> Result<Vec<Option<Row>>, Error> {
    let mut stored = Vec::with_capacity(rows.len());
    for row in rows {
        stored.push(match row {
            Row::LinkDay(row) => sqlx::query_as(STORED_LINK_DAY)
                .bind(&row.link_id)
                .bind(row.day)
                .bind(row.partition)
                .fetch_optional(pool)
                .await?
                .map(|found| with_day(row, found)),
            Row::TenantDay(row) => sqlx::query_as(STORED_TENANT_DAY)
                .bind(&row.tenant)
                .bind(row.day)
                .bind(row.partition)
                .fetch_optional(pool)
                .await?
                .map(|found| with_tenant_day(row, found)),
            Row::LinkHour(row) => sqlx::query_as(STORED_LINK_HOUR)
                .bind(&row.link_id)
                .bind(row.hour)
                .fetch_optional(pool)
                .await?
                .map(|found| with_hour(row, found)),
        });
    }
    Ok(stored)
}

/// All that is counted, in the order of the keys.
pub(super) fn rows(pool: &SqlitePool) -> impl Stream<Item = Result<Row, Error>> + Unpin + '_ {
    let days = sqlx::query_as(EVERY_LINK_DAY).fetch(pool);
    let days = days.map(|found| {
        let (link_id, day, partition, tenant, clicks, bots, visitors, counts, sketch) = found?;
        Ok(Row::LinkDay(LinkDay {
            link_id,
            day,
            partition,
            tenant,
            clicks,
            bots,
            visitors,
            counts,
            sketch,
        }))
    });
    let tenant_days = sqlx::query_as(EVERY_TENANT_DAY).fetch(pool);
    let tenant_days = tenant_days.map(|found| {
        let (tenant, day, partition, clicks, bots, counts) = found?;
        Ok(Row::TenantDay(TenantDay {
            tenant,
            day,
            partition,
            clicks,
            bots,
            counts,
        }))
    });
    let hours = sqlx::query_as(EVERY_LINK_HOUR).fetch(pool);
    let hours = hours.map(|found| {
        let (link_id, hour, tenant, clicks, bots) = found?;
        Ok(Row::LinkHour(LinkHour {
            link_id,
            hour,
            tenant,
            clicks,
            bots,
        }))
    });
    days.chain(tenant_days).chain(hours)
}
