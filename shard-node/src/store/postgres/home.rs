//! The region in which the shard is at home.

use sqlx::postgres::PgConnection;

use crate::store::Error;

/// Notes the home that the map names. If it was another region, this database is a copy
/// that was promoted: what the old primary acknowledged and gave out in its last moments may
/// be missing here. All its prefixes begin an epoch then, so that no version and no slug
/// comes twice: versions begin with the epoch, and so do keygen's counters.
///
/// To be called under the lock of owners, before anything is written for anybody.
pub(super) async fn settle(tx: &mut PgConnection, home: &str) -> Result<(), Error> {
    let before: String = sqlx::query_scalar("-- shard.home\nSELECT home FROM shard")
        .fetch_one(&mut *tx)
        .await?;
    if before == home {
        return Ok(());
    }
    sqlx::query("-- shard.move_home\nUPDATE shard SET home = $1, ownership = ownership + 1")
        .bind(home)
        .execute(&mut *tx)
        .await?;
    if before.is_empty() {
        return Ok(());
    }
    let begun = sqlx::query(
        "-- shard.begin_next_epoch
         UPDATE prefix_owner SET epoch = epoch + 1 WHERE state = 'owned'",
    )
    .execute(&mut *tx)
    .await?;
    let prefixes = begun.rows_affected();
    tracing::info!(
        before,
        home,
        prefixes,
        "at home in another region: a new epoch begins"
    );
    Ok(())
}
