//! What a server of the shard is, and whether it can be used as it is meant to be.

use std::time::Duration;

use sqlx::postgres::PgConnection;

use crate::store::{Error, Position, Size};

/// How long a commit waits for a standby where there is one: some milliseconds, and
/// more than that if it restarts. Shorter than what a request waits, so that who has
/// given up a session does not get another at once.
const UNCONFIRMED: Duration = Duration::from_secs(1);

/// Where the server is in the shard's log. Only what is on disk counts, as only that
/// is sent to standbys.
pub(super) async fn position(connection: &mut PgConnection) -> Result<Position, Error> {
    let (log, at, is_standby): (i64, i64, bool) = sqlx::query_as(
        "-- shard.position
         SELECT system_identifier,
                (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                      ELSE pg_current_wal_flush_lsn() END - '0/0')::bigint,
                pg_is_in_recovery()
         FROM pg_control_system()",
    )
    .fetch_one(connection)
    .await?;
    Ok(Position {
        log,
        at: at.cast_unsigned(),
        is_standby,
    })
}

/// A former primary that has come back as a standby must not speak as the primary:
/// what it lacks would be said not to exist. A server cannot become a standby without
/// a restart, which ends its sessions.
pub(super) async fn refuse_standby(connection: &mut PgConnection) -> Result<(), Error> {
    let is_standby = sqlx::query_scalar("-- shard.role\nSELECT pg_is_in_recovery()")
        .fetch_one(connection)
        .await?;
    if is_standby {
        return Err(unusable("the primary's address leads to a standby"));
    }
    Ok(())
}

/// A commit waits for a standby however long that takes, and so does its session at
/// the server after we have given up. While there are such, more would only use up the
/// server's connections, until none is left for reads.
pub(super) async fn refuse_unconfirmed(connection: &mut PgConnection) -> Result<(), Error> {
    let is_waiting = sqlx::query_scalar(
        "-- shard.unconfirmed
         SELECT EXISTS (
            SELECT FROM pg_stat_activity AS a
            WHERE a.datname = current_database() AND a.wait_event = 'SyncRep'
              AND clock_timestamp() - a.query_start > $1)",
    )
    .bind(UNCONFIRMED)
    .fetch_one(connection)
    .await?;
    if is_waiting {
        return Err(unusable("commits wait, since no standby confirms them"));
    }
    Ok(())
}

fn unusable(problem: &'static str) -> Error {
    Error::Unavailable(sqlx::Error::Io(std::io::Error::other(problem)))
}

/// How much the shard holds. What was inserted since the last vacuum is counted by the
/// server's statistics, which a crash empties.
pub(super) async fn size(connection: &mut PgConnection) -> Result<Size, Error> {
    let (links, bytes, prefixes, coming, epoch): (i64, i64, i64, i64, i32) = sqlx::query_as(
        "-- shard.size
         SELECT greatest(c.reltuples::bigint, pg_stat_get_live_tuples(c.oid), 0),
                pg_total_relation_size(c.oid),
                (SELECT count(*) FROM prefix_owner AS o WHERE o.state = 'owned'),
                (SELECT count(*) FROM prefix_owner AS o WHERE o.coming_epoch IS NOT NULL),
                (SELECT coalesce(max(o.epoch), 0) FROM prefix_owner AS o)
         FROM pg_class AS c WHERE c.oid = 'links'::regclass",
    )
    .fetch_one(connection)
    .await?;
    Ok(Size {
        links: Some(links),
        bytes,
        prefixes,
        coming,
        epoch: epoch.into(),
    })
}
