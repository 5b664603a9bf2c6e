//! Rows as they are, into the database and out of it: what a move goes by.

use sqlx::PgPool;
use uuid::Uuid;
use waypost_proto::analytics::rollup::Row;

use crate::store::{Error, with_day, with_hour, with_tenant_day};

const PUT_LINK_DAY: &str = "\
-- analytics.put_link_day
INSERT INTO link_day (link_id, day, partition, tenant, clicks, bots, visitors, counts, sketch)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (link_id, day, partition) DO UPDATE
SET tenant = excluded.tenant, clicks = excluded.clicks, bots = excluded.bots,
    visitors = excluded.visitors, counts = excluded.counts, sketch = excluded.sketch";

const PUT_TENANT_DAY: &str = "\
-- analytics.put_tenant_day
INSERT INTO tenant_day (tenant, day, partition, clicks, bots, counts)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (tenant, day, partition) DO UPDATE
SET clicks = excluded.clicks, bots = excluded.bots, counts = excluded.counts";

const PUT_LINK_HOUR: &str = "\
-- analytics.put_link_hour
INSERT INTO link_clicks_hour (link_id, hour, tenant, clicks, bots) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (link_id, hour) DO UPDATE
SET tenant = excluded.tenant, clicks = excluded.clicks, bots = excluded.bots";

const STORED_LINK_DAY: &str = "\
-- analytics.stored_link_day
SELECT clicks, bots, visitors, tenant, counts, sketch FROM link_day
WHERE link_id = $1 AND day = $2 AND partition = $3";

const STORED_TENANT_DAY: &str = "\
-- analytics.stored_tenant_day
SELECT clicks, bots, counts FROM tenant_day
WHERE tenant = $1 AND day = $2 AND partition = $3";

const STORED_LINK_HOUR: &str = "\
-- analytics.stored_link_hour
SELECT clicks, bots, tenant FROM link_clicks_hour WHERE link_id = $1 AND hour = $2";

/// Puts rows into the place of those under the same keys, all of them or none.
pub(super) async fn put(pool: &PgPool, rows: &[Row]) -> Result<(), Error> {
    let mut transaction = pool.begin().await?;
    for row in rows {
        let query = match row {
            Row::LinkDay(row) => sqlx::query(PUT_LINK_DAY)
                .bind(link(&row.link_id)?)
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
                .bind(link(&row.link_id)?)
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
pub(super) async fn stored(pool: &PgPool, rows: &[Row]) -> Result<Vec<Option<Row>>, Error> {
    let mut stored = Vec::with_capacity(rows.len());
    for row in rows {
        stored.push(match row {
            Row::LinkDay(row) => sqlx::query_as(STORED_LINK_DAY)
                .bind(link(&row.link_id)?)
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
                .bind(link(&row.link_id)?)
                .bind(row.hour)
                .fetch_optional(pool)
                .await?
                .map(|found| with_hour(row, found)),
        });
    }
    Ok(stored)
}

/// What names a link; it was checked.
fn link(id: &[u8]) -> Result<Uuid, Error> {
    Uuid::from_slice(id).map_err(|error| Error::Database(sqlx::Error::Encode(Box::new(error))))
}
