//! Claims of Idempotency-Keys.

use std::time::Duration;

use sqlx::postgres::PgConnection;

use super::owners::{self, Standing};
use super::{PostgresSession, sources};
use crate::store::sources::Held;
use crate::store::{Claim, Claimed, Error};

/// Binds a source to its request, unless it is bound to another.
pub(super) async fn claim(session: &mut PostgresSession, claim: &Claim) -> Result<Claimed, Error> {
    let (shard, key_ring) = (session.shard.clone(), session.key_ring.clone());
    let mut tx = session.begin_write().await?;
    let ids = [claim.id];
    sources::lock(&mut tx, &ids).await?;
    let (owners, now) = owners::of(&mut tx, &shard, &[&claim.key]).await?;
    let (owner, standing) = owners.get(&claim.key)?;
    let refused = match standing {
        Standing::Owned => None,
        Standing::Frozen => Some(Claimed::Frozen),
        Standing::Moved => Some(Claimed::Moved(owner.clone())),
    };
    if let Some(refused) = refused {
        tx.rollback().await?;
        return Ok(refused);
    }
    let known = sources::look_up(&mut tx, &ids, &key_ring, now).await?;
    let claimed = match known.held(claim) {
        Held::ByOther => Claimed::Reused,
        Held::Already => Claimed::Claimed,
        Held::Free => {
            sqlx::query(
                "-- shard.claim_source
                 INSERT INTO claims (created_at, source_id, digest)
                 VALUES (clock_timestamp(), $1, $2)",
            )
            .bind(&claim.id[..])
            .bind(&claim.digest[..])
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            return Ok(Claimed::Claimed);
        }
    };
    tx.rollback().await?;
    Ok(claimed)
}

/// Removes claims that are older, the oldest first.
pub(super) async fn forget(
    connection: &mut PgConnection,
    age: Duration,
    limit: u32,
) -> Result<u64, Error> {
    let gone = sqlx::query(
        "-- shard.forget_claims
         DELETE FROM claims WHERE source_id IN (
            SELECT c.source_id FROM claims AS c
            WHERE c.created_at <= now() - $1 * interval '1 second'
            ORDER BY c.created_at LIMIT $2)",
    )
    .bind(age.as_secs_f64())
    .bind(i64::from(limit))
    .execute(connection)
    .await?;
    Ok(gone.rows_affected())
}
