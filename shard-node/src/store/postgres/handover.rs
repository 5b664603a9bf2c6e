//! Giving prefixes up and taking them: who owns what, step by step.
//!
//! No step trusts a clock. A freeze holds until somebody takes it back, which is also
//! what a writer goes by; that its time is over only says when the shard does so. A
//! release needs the freeze of its own move, so that no write can have come between.
//!
//! The ids of moves are in the order in which they were made (UUIDs of version 7), and none
//! is heard after a later one: whatever a mover has sent and given up may arrive late.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Postgres, Row as _, Transaction};
use uuid::Uuid;
use waypost_domain::{Epoch, Prefix, ShardId};

use super::{PostgresSession, owner_at};
use crate::store::Error;

/// Prefixes of one call.
pub const MAX_CHANGES: usize = 256;

/// How long a change of the cache may have to be told again: what it keeps, and as much
/// again, since the two shards' clocks differ.
const TOLD_AGAIN: Duration = Duration::from_mins(20);

/// A freeze waits for the writes that are under way, and new ones wait behind it: rather
/// it is tried again.
const BEGIN_FREEZE: &str = "BEGIN; -- shard.begin_freeze\nSET LOCAL lock_timeout = '300ms'; \
                            SELECT pg_advisory_xact_lock(22384, 1)";

/// A prefix, and the epoch in which it gets its next owner: the present one and one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub prefix: Prefix,
    pub epoch: Epoch,
}

/// What a shard knows of a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    pub prefix: Prefix,
    /// Its owner, as far as this shard knows.
    pub owner: ShardId,
    pub epoch: Epoch,
    pub is_frozen: bool,
    /// The epoch in which it comes here, if it is on its way.
    pub coming: Option<Epoch>,
    /// Whether there are links of it; `None`: nobody has looked.
    pub has_rows: Option<bool>,
}

/// Why a step was not taken. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A prefix is not in the state that the step needs.
    #[error("a prefix is no longer as it was when this step was planned")]
    Outdated,
    /// The cache lacks changes of the prefixes; it gets them within a moment.
    #[error("the cache lacks changes of these prefixes")]
    Unapplied,
    #[error(transparent)]
    Store(#[from] Error),
}

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// The columns of changes.
fn columns(changes: &[Change]) -> (Vec<String>, Vec<i32>) {
    let prefixes = changes.iter().map(|change| change.prefix.to_string());
    let epochs = changes
        .iter()
        .map(|change| change.epoch.get().cast_signed());
    (prefixes.collect(), epochs.collect())
}

/// Ends a transaction by what came of it. One that is merely dropped keeps its locks until
/// the session is used again.
pub(super) async fn end<T>(
    tx: Transaction<'_, Postgres>,
    outcome: Result<T, Refused>,
) -> Result<T, Refused> {
    match outcome {
        Ok(done) => {
            tx.commit().await?;
            Ok(done)
        }
        Err(refused) => {
            tx.rollback().await?;
            Err(refused)
        }
    }
}

/// Each of the prefixes was found as it must be.
fn all(found: u64, changes: &[Change]) -> Result<(), Refused> {
    match found == changes.len() as u64 {
        true => Ok(()),
        false => Err(Refused::Outdated),
    }
}

impl PostgresSession {
    /// What the shard knows of these prefixes, of all if there are none, in their order.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn holdings(
        &mut self,
        prefixes: &[Prefix],
        with_rows: bool,
    ) -> Result<Vec<Holding>, Error> {
        let prefixes: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
        let found = sqlx::query(
            "-- shard.holdings
             SELECT o.prefix, o.epoch, o.moved_to, o.frozen_until IS NOT NULL, o.coming_epoch,
                    CASE WHEN $2 THEN EXISTS (
                       SELECT FROM links AS l WHERE l.domain = 0 AND l.slug >= o.prefix
                       AND l.slug < left(o.prefix, 1) || chr(ascii(right(o.prefix, 1)) + 1))
                    END
             FROM prefix_owner AS o
             WHERE cardinality($1::text[]) = 0 OR o.prefix = ANY($1)
             ORDER BY o.prefix",
        )
        .bind(prefixes)
        .bind(with_rows)
        .fetch_all(&mut self.connection)
        .await?;
        let holding = |row: &sqlx::postgres::PgRow| {
            let (owner, _) = owner_at(&self.shard, row, 0)?;
            let coming: Option<i32> = row.try_get(4)?;
            Ok(Holding {
                prefix: owner.prefix,
                owner: owner.shard,
                epoch: owner.epoch,
                is_frozen: row.try_get(3)?,
                coming: coming.and_then(|epoch| Epoch::new(epoch.cast_unsigned())),
                has_rows: row.try_get(5)?,
            })
        };
        found.iter().map(holding).collect()
    }

    /// Lets rows of these prefixes, which `giver` owns, in under this id and under no
    /// earlier one. Once they are `sealed`, what was changed in the last minutes is noted
    /// for the cache, which may have to be told again.
    ///
    /// # Errors
    /// If this shard owns one of them, or knows of a later epoch or id.
    pub async fn admit(
        &mut self,
        changes: &[Change],
        giver: &ShardId,
        move_id: Uuid,
        sealed: bool,
    ) -> Result<(), Refused> {
        let (prefixes, epochs) = columns(changes);
        let mut tx = self.connection.begin().await?;
        let admitted = sqlx::query(
            "-- shard.admit
             UPDATE prefix_owner AS o
             SET coming_epoch = n.epoch, move_id = $3, moved_to = $4, epoch = n.epoch - 1
             FROM unnest($1::text[], $2::int[]) AS n(prefix, epoch)
             WHERE o.prefix = n.prefix AND o.state = 'moved' AND o.epoch < n.epoch
               AND (o.move_id IS NULL OR o.move_id <= $3)",
        )
        .bind(&prefixes)
        .bind(&epochs)
        .bind(move_id)
        .bind(giver.as_str())
        .execute(&mut *tx)
        .await?;
        let admitted = all(admitted.rows_affected(), changes);
        if sealed && admitted.is_ok() {
            note_changes(&mut tx, &prefixes).await?;
        }
        end(tx, admitted).await
    }

    /// Refuses writes to these prefixes from now on, and takes that back when so much
    /// time has passed.
    ///
    /// # Errors
    /// If this shard does not own one of them, in the epoch before the change, or a freeze
    /// of this id was taken back, or it knows of a later one.
    pub async fn freeze(
        &mut self,
        changes: &[Change],
        move_id: Uuid,
        duration: Duration,
    ) -> Result<(), Refused> {
        let (prefixes, epochs) = columns(changes);
        let mut tx = self
            .connection
            .begin_with(BEGIN_FREEZE)
            .await
            .map_err(Error::Unavailable)?;
        let frozen = sqlx::query(
            "-- shard.freeze
             UPDATE prefix_owner AS o
             SET frozen_until = clock_timestamp() + $4 * interval '1 second', move_id = $3
             FROM unnest($1::text[], $2::int[]) AS n(prefix, epoch)
             WHERE o.prefix = n.prefix AND o.state = 'owned' AND o.epoch = n.epoch - 1
               AND (o.move_id IS NULL OR o.move_id < $3
                    OR o.move_id = $3 AND o.frozen_until IS NOT NULL)",
        )
        .bind(&prefixes)
        .bind(&epochs)
        .bind(move_id)
        .bind(duration.as_secs_f64())
        .execute(&mut *tx)
        .await?;
        let frozen = all(frozen.rows_affected(), changes);
        end(tx, frozen).await
    }

    /// Takes back what [`PostgresSession::freeze`] did under this id, or an earlier one,
    /// and lets it do nothing any more.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub async fn thaw(&mut self, changes: &[Change], move_id: Uuid) -> Result<(), Error> {
        let (prefixes, _) = columns(changes);
        sqlx::query(
            "-- shard.thaw
             UPDATE prefix_owner SET frozen_until = NULL, move_id = $2
             WHERE prefix = ANY($1::text[]) AND state = 'owned'
               AND (move_id IS NULL OR move_id <= $2)",
        )
        .bind(prefixes)
        .bind(move_id)
        .execute(&mut self.connection)
        .await?;
        Ok(())
    }

    /// Takes back the freezes whose time is over. Gives of how many prefixes.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub async fn thaw_overdue(&mut self) -> Result<u64, Error> {
        let thawed = sqlx::query(
            "-- shard.thaw_overdue
             UPDATE prefix_owner SET frozen_until = NULL
             WHERE frozen_until IS NOT NULL AND frozen_until <= clock_timestamp()",
        )
        .execute(&mut self.connection)
        .await?;
        Ok(thawed.rows_affected())
    }

    /// Gives the prefixes up, all of them, if they are frozen under this id still. To be
    /// called when the taker has all their rows. Repeating it is safe.
    ///
    /// # Errors
    /// If the freeze is over, or the cache lacks changes of theirs.
    pub async fn release(
        &mut self,
        changes: &[Change],
        taker: &ShardId,
        move_id: Uuid,
    ) -> Result<(), Refused> {
        let mut tx = self.connection.begin().await?;
        let released = release(&mut tx, changes, taker, move_id).await;
        end(tx, released).await
    }

    /// Takes prefixes that their owner has released in the epoch in which they come here.
    /// Gives how many.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub async fn take(&mut self, changes: &[Change]) -> Result<u64, Error> {
        let (prefixes, epochs) = columns(changes);
        let mut tx = self.connection.begin().await?;
        let taken = sqlx::query(
            "-- shard.take
             UPDATE prefix_owner AS o
             SET state = 'owned', moved_to = NULL, epoch = n.epoch, coming_epoch = NULL,
                 move_id = NULL
             FROM unnest($1::text[], $2::int[]) AS n(prefix, epoch)
             WHERE o.prefix = n.prefix AND o.state = 'moved' AND o.coming_epoch = n.epoch",
        )
        .bind(&prefixes)
        .bind(&epochs)
        .execute(&mut *tx)
        .await?;
        if taken.rows_affected() > 0 {
            count_change(&mut tx).await?;
        }
        tx.commit().await?;
        Ok(taken.rows_affected())
    }

    /// What is on its way here, and from whom.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn coming(&mut self) -> Result<Vec<(Change, ShardId)>, Error> {
        let found: Vec<(String, i32, String)> = sqlx::query_as(
            "-- shard.coming
             SELECT o.prefix, o.coming_epoch, o.moved_to FROM prefix_owner AS o
             WHERE o.coming_epoch IS NOT NULL ORDER BY o.prefix",
        )
        .fetch_all(&mut self.connection)
        .await?;
        let read = |(prefix, epoch, giver): (String, i32, String)| {
            let change = Change {
                prefix: Prefix::parse(&prefix).ok_or(Error::Damaged("prefix"))?,
                epoch: Epoch::new(epoch.cast_unsigned()).ok_or(Error::Damaged("epoch"))?,
            };
            let giver = ShardId::parse(&giver).ok_or(Error::Damaged("moved_to"))?;
            Ok((change, giver))
        };
        found.into_iter().map(read).collect()
    }
}

async fn release(
    tx: &mut PgConnection,
    changes: &[Change],
    taker: &ShardId,
    move_id: Uuid,
) -> Result<(), Refused> {
    let (prefixes, epochs) = columns(changes);
    let released = sqlx::query(
        "-- shard.release
         UPDATE prefix_owner AS o
         SET state = 'moved', moved_to = $4, epoch = n.epoch, frozen_until = NULL,
             move_id = NULL
         FROM unnest($1::text[], $2::int[]) AS n(prefix, epoch)
         WHERE o.prefix = n.prefix AND o.state = 'owned' AND o.epoch = n.epoch - 1
           AND o.move_id = $3 AND o.frozen_until > clock_timestamp()",
    )
    .bind(&prefixes)
    .bind(&epochs)
    .bind(move_id)
    .bind(taker.as_str())
    .execute(&mut *tx)
    .await?;
    if released.rows_affected() == 0 && is_released(tx, changes, taker).await? {
        return Ok(());
    }
    all(released.rows_affected(), changes)?;
    // The relay of a shard that does not own them applies none, and the taker knows
    // of none that only the relay here has.
    let (is_unapplied, has_others): (bool, bool) = sqlx::query_as(
        "-- shard.unapplied
         SELECT EXISTS (SELECT FROM outbox AS b
                        WHERE b.applied_at IS NULL AND left(b.slug, 2) = ANY($1)),
                EXISTS (SELECT FROM links AS l WHERE l.domain > 0)",
    )
    .bind(&prefixes)
    .fetch_one(&mut *tx)
    .await?;
    if is_unapplied {
        return Err(Refused::Unapplied);
    }
    if has_others {
        // Rows of another domain than the main one are not copied yet.
        return Err(Refused::Outdated);
    }
    count_change(tx).await?;
    Ok(())
}

async fn is_released(
    tx: &mut PgConnection,
    changes: &[Change],
    taker: &ShardId,
) -> Result<bool, sqlx::Error> {
    let (prefixes, epochs) = columns(changes);
    let count: i64 = sqlx::query_scalar(
        "-- shard.released
         SELECT count(*) FROM prefix_owner AS o
         JOIN unnest($1::text[], $2::int[]) AS n(prefix, epoch) ON o.prefix = n.prefix
         WHERE o.state = 'moved' AND o.epoch = n.epoch AND o.moved_to = $3",
    )
    .bind(prefixes)
    .bind(epochs)
    .bind(taker.as_str())
    .fetch_one(tx)
    .await?;
    Ok(count == changes.len() as i64)
}

async fn count_change(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("-- shard.count_ownership\nUPDATE shard SET ownership = ownership + 1")
        .execute(tx)
        .await?;
    Ok(())
}

/// Puts what was changed lately into the outbox, where it is due once the prefixes are
/// this shard's. A link that is as it was created is in no outbox.
async fn note_changes(tx: &mut PgConnection, prefixes: &[String]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- shard.forget_changes
         DELETE FROM outbox AS b WHERE left(b.slug, 2) = ANY($1)",
    )
    .bind(prefixes)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "-- shard.note_changes
         INSERT INTO outbox (domain, slug)
         SELECT l.domain, l.slug
         FROM unnest($1::text[]) AS p(prefix)
         JOIN links AS l ON l.domain = 0 AND l.slug >= p.prefix
            AND l.slug < left(p.prefix, 1) || chr(ascii(right(p.prefix, 1)) + 1)
         WHERE l.updated_at > clock_timestamp() - $2 * interval '1 second'
           AND (l.updated_at <> l.created_at OR l.version & 4294967295 <> 1)",
    )
    .bind(prefixes)
    .bind(TOLD_AGAIN.as_secs_f64())
    .execute(tx)
    .await?;
    Ok(())
}
