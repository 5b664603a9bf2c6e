//! Looks creates up by their sources, under a lock on each of them.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;
use waypost_domain::Timestamp;
use waypost_domain::signature::KeyRing;

use super::{link_columns, rows};
use crate::store::sources::{Id, Sources};
use crate::store::{Error, columns, rules};

/// Sources that one transaction locks. The server has room for some 6,000 locks, of
/// all its sessions.
pub(super) const MAX_LOCKS: usize = 256;

/// Locks sources until the end of the transaction, before any row, and in one order:
/// nobody waits in a circle. Whoever has the lock knows of all creates before.
pub(super) async fn lock(tx: &mut PgConnection, ids: &[Id]) -> Result<(), Error> {
    let mut keys: Vec<i64> = ids.iter().map(lock_key).collect();
    keys.sort_unstable();
    keys.dedup();
    sqlx::query(
        "-- shard.lock_sources
         SELECT pg_advisory_xact_lock(k.key) FROM unnest($1::bigint[]) AS k(key)",
    )
    .bind(keys)
    .execute(tx)
    .await?;
    Ok(())
}

/// An id is as good as random, so that a part of it will do.
fn lock_key(id: &Id) -> i64 {
    let (first, _) = id.split_first_chunk().expect("16 bytes are more than 8");
    i64::from_be_bytes(*first)
}

/// What is stored under these sources, of prefixes that this shard owns.
pub(super) async fn look_up(
    tx: &mut PgConnection,
    ids: &[Id],
    key_ring: &KeyRing,
    now: Timestamp,
) -> Result<Sources, Error> {
    let mut sources = Sources::default();
    let mut distinct: Vec<&[u8]> = ids.iter().map(|id| &id[..]).collect();
    distinct.sort_unstable();
    distinct.dedup();
    let found = sqlx::query(concat!(
        "-- shard.links_of_sources\nSELECT ",
        link_columns!(),
        ", EXISTS (
              SELECT FROM visits AS v WHERE v.domain = l.domain AND v.slug = l.slug
              AND v.link_id = l.link_id AND v.leased >= l.max_visits), k.id
           FROM unnest($1::bytea[]) AS k(id)
           JOIN links AS l ON substring(l.source FROM 1 FOR 16) = k.id
                          AND l.source IS NOT NULL AND l.state <> 4
           JOIN prefix_owner AS o ON o.prefix = left(l.slug, 2) AND o.state = 'owned'"
    ))
    .bind(&distinct)
    .fetch_all(&mut *tx)
    .await?;
    for row in found {
        match columns::authentic(key_ring, row.try_get(1)?, rows::link(&row)) {
            Some(link) if rules::is_live(&link, row.try_get(20)?, now) => sources.add(link),
            Some(_) => {}
            None => sources.add_damaged(row.try_get(5)?, columns::half(row.try_get(21)?)?),
        }
    }
    let claims: Vec<(Vec<u8>, Vec<u8>)> = sqlx::query_as(
        "-- shard.claims_of_sources
         SELECT c.source_id, c.digest FROM claims AS c WHERE c.source_id = ANY($1::bytea[])",
    )
    .bind(&distinct)
    .fetch_all(tx)
    .await?;
    for (id, digest) in claims {
        sources.add_claim(columns::half(&id)?, columns::half(&digest)?);
    }
    Ok(sources)
}
