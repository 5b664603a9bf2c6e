//! Looks a create up by its source. One connection writes, which is lock enough.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;
use waypost_domain::Timestamp;
use waypost_domain::signature::KeyRing;

use super::{link_columns, rows};
use crate::store::sources::{Id, Sources};
use crate::store::{Error, columns, rules};

/// What is stored under a source, of prefixes that this shard owns.
pub(super) async fn look_up(
    tx: &mut SqliteConnection,
    id: Id,
    key_ring: &KeyRing,
    now: Timestamp,
) -> Result<Sources, Error> {
    let mut sources = Sources::default();
    let found = sqlx::query(concat!(
        "-- shard.links_of_source\nSELECT ",
        link_columns!(),
        ", EXISTS (
              SELECT 1 FROM visits AS v WHERE v.domain = l.domain AND v.slug = l.slug
              AND v.link_id = l.link_id AND v.leased >= l.max_visits)
           FROM links AS l
           JOIN prefix_owner AS o ON o.prefix = substr(l.slug, 1, 2) AND o.state = 'owned'
           WHERE substr(l.source, 1, 16) = ?1 AND l.source IS NOT NULL AND l.state <> 4"
    ))
    .bind(&id[..])
    .fetch_all(&mut *tx)
    .await?;
    for row in found {
        match columns::authentic(key_ring, row.try_get(1)?, rows::link(&row)) {
            Some(link) if rules::is_live(&link, row.try_get(20)?, now) => sources.add(link),
            Some(_) => {}
            None => sources.add_damaged(row.try_get(5)?, id),
        }
    }
    let claim: Option<Vec<u8>> = sqlx::query_scalar(
        "-- shard.claim_of_source\nSELECT digest FROM claims WHERE source_id = ?1",
    )
    .bind(&id[..])
    .fetch_optional(tx)
    .await?;
    if let Some(digest) = claim {
        sources.add_claim(id, columns::half(&digest)?);
    }
    Ok(sources)
}
