//! Who owns the prefixes of some slugs, while a transaction holds that still.

use std::collections::HashMap;

use sqlx::Row as _;
use sqlx::postgres::PgConnection;
use waypost_domain::{LinkKey, Prefix, ShardId, Timestamp};

use super::{owner_at, rows};
use crate::store::{Error, PrefixOwner, rules};

/// The owners, and whether each is another shard.
pub(super) struct Owners(HashMap<Prefix, (PrefixOwner, bool)>);

impl Owners {
    pub(super) fn get(&self, key: &LinkKey) -> Result<(&PrefixOwner, bool), Error> {
        let owner = self.0.get(&key.slug.prefix());
        let (owner, moved) = owner.ok_or(Error::Damaged("prefix_owner"))?;
        Ok((owner, *moved))
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
         SELECT o.prefix, o.epoch, o.moved_to, clock_timestamp()
         FROM prefix_owner AS o WHERE o.prefix = ANY($1::text[])",
    )
    .bind(prefixes)
    .fetch_all(tx)
    .await?;
    let mut owners = HashMap::with_capacity(found.len());
    let mut now = None;
    for row in &found {
        let (owner, moved) = owner_at(shard, row, 0)?;
        owners.insert(owner.prefix, (owner, moved));
        now = Some(rows::timestamp(row.try_get(3)?)?);
    }
    let now = now.ok_or(Error::Damaged("prefix_owner"))?;
    Ok((Owners(owners), now))
}
