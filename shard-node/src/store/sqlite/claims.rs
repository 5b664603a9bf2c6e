//! Claims of Idempotency-Keys.

use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use waypost_domain::Timestamp;

use super::{SqliteStore, sources};
use crate::store::sources::Held;
use crate::store::{Claim, Claimed, Error};

/// Binds a source to its request, unless it is bound to another.
pub(super) async fn claim(
    store: &SqliteStore,
    tx: &mut SqliteConnection,
    claim: &Claim,
    now: Timestamp,
) -> Result<Claimed, Error> {
    let (owner, moved) = store.owner_of(tx, &claim.key).await?;
    if moved {
        return Ok(Claimed::Moved(owner));
    }
    let known = sources::look_up(tx, claim.id, &store.0.key_ring, now).await?;
    match known.held(claim) {
        Held::ByOther => return Ok(Claimed::Reused),
        Held::Already => return Ok(Claimed::Claimed),
        Held::Free => {}
    }
    sqlx::query(
        "-- shard.claim_source
         INSERT INTO claims (created_at, source_id, digest) VALUES (?1, ?2, ?3)",
    )
    .bind(now.millis())
    .bind(&claim.id[..])
    .bind(&claim.digest[..])
    .execute(tx)
    .await?;
    Ok(Claimed::Claimed)
}

/// Removes claims that are older, the oldest first.
pub(super) async fn forget(
    connection: &mut SqliteConnection,
    age: Duration,
    limit: u32,
    now: Timestamp,
) -> Result<u64, Error> {
    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    let gone = sqlx::query(
        "-- shard.forget_claims
         DELETE FROM claims WHERE source_id IN (
            SELECT source_id FROM claims WHERE created_at <= ?1 ORDER BY created_at LIMIT ?2)",
    )
    .bind(now.millis().saturating_sub(age))
    .bind(limit)
    .execute(connection)
    .await?;
    Ok(gone.rows_affected())
}
