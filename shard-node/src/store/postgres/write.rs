//! One edit or deletion, under a lock on its row.

use sqlx::Row as _;
use uuid::Uuid;

use super::owners::Standing;
use super::{PostgresSession, link_columns, owner_at, rows};
use crate::store::rules::{self, Memory, OnWrite};
use crate::store::{Error, Write, Written, columns};

/// Applies a change in one transaction.
pub(super) async fn apply(session: &mut PostgresSession, write: &Write) -> Result<Written, Error> {
    let (shard, key_ring) = (session.shard.clone(), session.key_ring.clone());
    let mut tx = session.begin_write().await?;
    let key = &write.key;
    let row = sqlx::query(
        "-- shard.owner_of
         SELECT o.prefix, o.epoch, o.moved_to, clock_timestamp(), o.frozen_until IS NOT NULL
         FROM prefix_owner AS o WHERE o.prefix = $1",
    )
    .bind(rules::prefix_text(&key.slug))
    .fetch_one(&mut *tx)
    .await?;
    let (owner, moved) = owner_at(&shard, &row, 0)?;
    match Standing::new(moved, row.try_get(4)?) {
        Standing::Owned => {}
        Standing::Frozen => {
            tx.rollback().await?;
            return Ok(Written::Frozen);
        }
        Standing::Moved => {
            tx.rollback().await?;
            return Ok(Written::Moved(owner));
        }
    }
    let now = rows::timestamp(row.try_get(3)?)?;
    let existing = sqlx::query(concat!(
        "-- shard.lock\nSELECT ",
        link_columns!(),
        ", l.change_id, l.state_before_block FROM links AS l
          WHERE l.domain = $1 AND l.slug = $2 FOR UPDATE"
    ))
    .bind(rows::domain(key))
    .bind(key.slug.as_str())
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = existing else {
        tx.rollback().await?;
        return Ok(Written::Absent);
    };
    let last_change: Option<Uuid> = row.try_get(20)?;
    let before_block: Option<i16> = row.try_get(21)?;
    let memory = Memory::new(last_change, before_block.map(i32::from));
    let Some(existing) = columns::authentic(&key_ring, key.slug.as_str(), rows::link(&row)) else {
        tx.rollback().await?;
        return Ok(Written::Damaged);
    };
    let mut link = match rules::on_write(&existing, memory, write, owner.epoch, now) {
        OnWrite::Write(link) => link,
        refused => {
            tx.rollback().await?;
            return Ok(refused.answer(existing));
        }
    };
    link.signature = key_ring.sign(&link);
    match rows::replace(&mut tx, &link, Some(write.change_id), now).await {
        Err(Error::Data(error)) => {
            tx.rollback().await?;
            tracing::warn!(%error, "change refused by the database");
            return Ok(Written::Refused);
        }
        outcome => outcome?,
    }
    tx.commit().await?;
    Ok(Written::Link(link))
}
