//! Makes tombstones of links that expired long ago.

use std::time::Duration;

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use waypost_domain::{DomainId, Epoch, Timestamp};

use super::{SqliteStore, link_columns, rows};
use crate::store::{Error, Expired, Purged, columns, rules};

/// One step.
pub(super) async fn purge(
    store: &SqliteStore,
    tx: &mut SqliteConnection,
    age: Duration,
    after: Option<&Expired>,
    limit: u32,
    now: Timestamp,
) -> Result<Purged, Error> {
    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    let (valid_until, slug, domain) = after.map_or((-1, "", -1), |after| {
        let domain = i64::from(after.domain.0);
        (after.valid_until.millis(), &after.slug, domain)
    });
    let found = sqlx::query(concat!(
        "-- shard.expired\nSELECT ",
        link_columns!(),
        ", (SELECT o.epoch FROM prefix_owner AS o
            WHERE o.prefix = substr(l.slug, 1, 2) AND o.state = 'owned')
           FROM links AS l
           WHERE l.valid_until IS NOT NULL AND l.state IN (1, 2) AND l.valid_until <= ?1
             AND (l.valid_until, l.slug, l.domain) > (?2, ?3, ?4)
           ORDER BY l.valid_until, l.slug, l.domain LIMIT ?5"
    ))
    .bind(now.millis().saturating_sub(age))
    .bind(valid_until)
    .bind(slug)
    .bind(domain)
    .bind(limit)
    .fetch_all(&mut *tx)
    .await?;
    let mut purged = Purged::default();
    if found.len() == limit as usize {
        purged.next = found.last().map(place).transpose()?;
    }
    for row in &found {
        // Of a prefix that has moved nobody here decides.
        let Some(epoch) = row.try_get::<Option<u32>, _>(20)? else {
            continue;
        };
        let epoch = Epoch::new(epoch).ok_or(Error::Damaged("epoch"))?;
        let key_ring = &store.0.key_ring;
        let Some(link) = columns::authentic(key_ring, row.try_get(1)?, rows::link(row)) else {
            purged.damaged += 1;
            continue;
        };
        let mut stone = rules::on_expiry(link.clone(), epoch, now);
        stone.signature = key_ring.sign(&stone);
        rows::replace(tx, &link, &stone, None, now).await?;
        purged.buried += 1;
    }
    Ok(purged)
}

fn place(row: &SqliteRow) -> Result<Expired, Error> {
    Ok(Expired {
        valid_until: Timestamp::from_millis(row.try_get(11)?)
            .ok_or(Error::Damaged("valid_until"))?,
        slug: row.try_get(1)?,
        domain: DomainId(row.try_get(0)?),
    })
}
