//! Makes tombstones of links that expired long ago.

use std::time::Duration;

use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};
use time::OffsetDateTime;
use waypost_domain::{DomainId, Epoch, Link};

use super::{PostgresSession, link_columns, rows};
use crate::store::{Error, Expired, Purged, columns, rules};

/// One step, in one transaction. Rows that somebody else has locked are left to the
/// next time.
pub(super) async fn purge(
    session: &mut PostgresSession,
    age: Duration,
    after: Option<&Expired>,
    limit: u32,
) -> Result<Purged, Error> {
    let key_ring = session.key_ring.clone();
    let mut tx = session.begin_write().await?;
    let first = (OffsetDateTime::UNIX_EPOCH, "", -1);
    let (valid_until, slug, domain) = after.map_or(first, |after| {
        let at = after.valid_until.to_offset_date_time();
        (at, &after.slug, after.domain.0.cast_signed())
    });
    let found = sqlx::query(concat!(
        "-- shard.expired\nSELECT ",
        link_columns!(),
        ", clock_timestamp(), (
              SELECT o.epoch FROM prefix_owner AS o
              WHERE o.prefix = left(l.slug, 2) AND o.state = 'owned'
                AND o.frozen_until IS NULL)
           FROM links AS l
           WHERE l.valid_until IS NOT NULL AND l.state IN (1, 2)
             AND l.valid_until <= now() - $1 * interval '1 second'
             AND (l.valid_until, l.slug, l.domain) > ($2, $3, $4)
           ORDER BY l.valid_until, l.slug, l.domain LIMIT $5
           FOR UPDATE OF l SKIP LOCKED"
    ))
    .bind(age.as_secs_f64())
    .bind(valid_until)
    .bind(slug)
    .bind(domain)
    .bind(i64::from(limit))
    .fetch_all(&mut *tx)
    .await?;
    let mut purged = Purged::default();
    let mut stones = Vec::with_capacity(found.len());
    for row in &found {
        // Of a prefix that has moved nobody here decides, and one that is about to must
        // not change.
        let Some(epoch) = row.try_get::<Option<i32>, _>(21)? else {
            continue;
        };
        let epoch = Epoch::new(epoch.cast_unsigned()).ok_or(Error::Damaged("epoch"))?;
        let now = rows::timestamp(row.try_get(20)?)?;
        let Some(link) = columns::authentic(&key_ring, row.try_get(1)?, rows::link(row)) else {
            purged.damaged += 1;
            continue;
        };
        let mut stone = rules::on_expiry(link, epoch, now);
        stone.signature = key_ring.sign(&stone);
        stones.push(stone);
    }
    purged.buried = stones.len();
    if found.len() == limit as usize {
        purged.next = found.last().map(place).transpose()?;
    }
    if stones.is_empty() {
        tx.rollback().await?;
        return Ok(purged);
    }
    bury(&mut tx, &stones).await?;
    tx.commit().await?;
    Ok(purged)
}

async fn bury(tx: &mut PgConnection, stones: &[Link]) -> Result<(), Error> {
    let keys: Vec<_> = stones.iter().map(|stone| &stone.key).collect();
    let (domains, slugs) = rows::keys(&keys);
    let versions: Vec<i64> = stones
        .iter()
        .map(|stone| stone.version.get().cast_signed())
        .collect();
    let updated: Vec<OffsetDateTime> = stones
        .iter()
        .map(|stone| stone.updated_at.to_offset_date_time())
        .collect();
    let signatures: Vec<&[u8]> = stones.iter().map(|stone| &stone.signature[..]).collect();
    sqlx::query(
        "-- shard.bury
         WITH stones AS (
            SELECT * FROM unnest($1::int[], $2::text[], $3::bigint[], $4::timestamptz[],
               $5::bytea[]) AS s(domain, slug, version, updated_at, signature)
         ), buried AS (
            UPDATE links AS l SET state = 4, version = s.version, updated_at = s.updated_at,
               signature = s.signature, change_id = NULL
            FROM stones AS s WHERE l.domain = s.domain AND l.slug = s.slug
         )
         INSERT INTO outbox (domain, slug) SELECT s.domain, s.slug FROM stones AS s",
    )
    .bind(domains)
    .bind(slugs)
    .bind(versions)
    .bind(updated)
    .bind(signatures)
    .execute(tx)
    .await?;
    Ok(())
}

fn place(row: &PgRow) -> Result<Expired, Error> {
    Ok(Expired {
        valid_until: rows::timestamp(row.try_get(11)?)?,
        slug: row.try_get(1)?,
        domain: DomainId(row.try_get::<i32, _>(0)?.cast_unsigned()),
    })
}
