//! Who owns the prefixes of some slugs, while a transaction holds that still.

use std::collections::HashMap;

use sqlx::Row as _;
use sqlx::postgres::PgConnection;
use waypost_domain::{LinkKey, Prefix, ShardId, Timestamp};

use super::{owner_at, rows};
use crate::store::{Error, PrefixOwner, rules};

/// Whether this shard may write to a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Owned,
    /// It owns it, and is about to give it up.
    Frozen,
    /// Another shard owns it.
    Moved,
}

impl Standing {
    pub(super) fn new(moved: bool, frozen: bool) -> Self {
        match (moved, frozen) {
            (true, _) => Self::Moved,
            (false, true) => Self::Frozen,
            (false, false) => Self::Owned,
        }
    }
}

/// The owners, and what this shard may do.
pub(super) struct Owners(HashMap<Prefix, (PrefixOwner, Standing)>);

impl Owners {
    pub(super) fn get(&self, key: &LinkKey) -> Result<(&PrefixOwner, Standing), Error> {
        let owner = self.0.get(&key.slug.prefix());
        let (owner, standing) = owner.ok_or(Error::Damaged("prefix_owner"))?;
        Ok((owner, *standing))
    }
}

/// The owners of these slugs' prefixes, at least one, and the database's clock.
pub(super) async fn of(
    tx: &mut PgConnection,
    shard: &ShardId,
    keys: &[&LinkKey],
) -> Result<(Owners, Timestamp), Error> {
    let mut prefixes: Vec<&str> = keys
        .iter()
        .map(|key| rules::prefix_text(&key.slug))
        .collect();
    prefixes.dedup();
    let found = sqlx::query(
        "-- shard.owners_of
         SELECT o.prefix, o.epoch, o.moved_to, clock_timestamp(), o.frozen_until IS NOT NULL
         FROM prefix_owner AS o WHERE o.prefix = ANY($1::text[])",
    )
    .bind(prefixes)
    .fetch_all(tx)
    .await?;
    let mut owners = HashMap::with_capacity(found.len());
    let mut now = None;
    for row in &found {
        let (owner, moved) = owner_at(shard, row, 0)?;
        let standing = Standing::new(moved, row.try_get(4)?);
        owners.insert(owner.prefix, (owner, standing));
        now = Some(rows::timestamp(row.try_get(3)?)?);
    }
    let now = now.ok_or(Error::Damaged("prefix_owner"))?;
    Ok((Owners(owners), now))
}
