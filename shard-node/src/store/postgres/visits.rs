//! Leases of visits, many in one transaction.

use std::collections::HashMap;

use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};
use waypost_domain::{Link, LinkKey};

use super::owners::{self, Standing};
use super::{PostgresSession, link_columns, rows};
use crate::store::visits::Account;
use crate::store::{Error, Lease, Leased, columns};

/// Leases visits; one outcome per lease, in order.
pub(super) async fn lease(
    session: &mut PostgresSession,
    leases: &[Lease],
) -> Result<Vec<Leased>, Error> {
    let (shard, key_ring) = (session.shard.clone(), session.key_ring.clone());
    let mut tx = session.begin_write().await?;
    // Of all that lock rows, each does so in this order.
    let mut keys: Vec<&LinkKey> = leases.iter().map(|lease| &lease.key).collect();
    keys.sort_unstable();
    keys.dedup();
    let (owners, _) = owners::of(&mut tx, &shard, &keys).await?;
    let mut links: HashMap<LinkKey, Option<Link>> = HashMap::new();
    for (key, link) in lock(&mut tx, &keys).await? {
        let link = columns::authentic(&key_ring, key.slug.as_str(), link);
        links.insert(key, link);
    }
    // Read by a statement of its own: whoever had a row's lock before has written it.
    let mut accounts = accounts(&mut tx, &keys).await?;
    let mut outcomes = Vec::with_capacity(leases.len());
    for lease in leases {
        let (owner, standing) = owners.get(&lease.key)?;
        outcomes.push(match (standing, links.get(&lease.key)) {
            (Standing::Moved, _) => Leased::Moved(owner.clone()),
            (Standing::Frozen, _) => Leased::Frozen,
            (Standing::Owned, Some(Some(link))) => grant(link, lease, &mut accounts),
            (Standing::Owned, Some(None)) => Leased::Damaged,
            (Standing::Owned, None) => Leased::Absent,
        });
    }
    accounts.retain(|_, account| account.is_changed);
    if !accounts.is_empty() {
        keep(&mut tx, &accounts).await?;
    }
    tx.commit().await?;
    Ok(outcomes)
}

/// An account, and whether it is to be written.
struct Kept {
    account: Account,
    is_changed: bool,
}

fn grant(link: &Link, lease: &Lease, accounts: &mut HashMap<LinkKey, Kept>) -> Leased {
    let Some(max) = Account::limit(link, lease) else {
        return Leased::Absent;
    };
    let fresh = || Kept {
        account: Account::new(link.id),
        is_changed: false,
    };
    let kept = accounts.entry(lease.key.clone()).or_insert_with(fresh);
    if kept.account.link_id != link.id.0 {
        *kept = fresh();
    }
    let before = kept.account.clone();
    let granted = kept.account.lease(max, lease);
    kept.is_changed |= kept.account != before;
    granted.map_or_else(|| Leased::UsedUp(Box::new(link.clone())), Leased::Granted)
}

/// Locks the rows of these links.
async fn lock(
    tx: &mut PgConnection,
    keys: &[&LinkKey],
) -> Result<Vec<(LinkKey, Result<Link, Error>)>, Error> {
    let (domains, slugs) = rows::keys(keys);
    let found = sqlx::query(concat!(
        "-- shard.lock_visited\nSELECT ",
        link_columns!(),
        ", k.at FROM unnest($1::int[], $2::text[]) WITH ORDINALITY AS k(domain, slug, at)
          JOIN links AS l ON l.domain = k.domain AND l.slug = k.slug
          FOR NO KEY UPDATE OF l"
    ))
    .bind(domains)
    .bind(slugs)
    .fetch_all(tx)
    .await?;
    let read = |row| Ok((rows::asked(row, 20, keys)?.clone(), rows::link(row)));
    found.iter().map(read).collect()
}

async fn accounts(
    tx: &mut PgConnection,
    keys: &[&LinkKey],
) -> Result<HashMap<LinkKey, Kept>, Error> {
    let (domains, slugs) = rows::keys(keys);
    let found = sqlx::query(
        "-- shard.visits
         SELECT v.link_id, v.leased, v.lease_id, v.granted, v.returns, k.at
         FROM unnest($1::int[], $2::text[]) WITH ORDINALITY AS k(domain, slug, at)
         JOIN visits AS v ON v.domain = k.domain AND v.slug = k.slug",
    )
    .bind(domains)
    .bind(slugs)
    .fetch_all(tx)
    .await?;
    let read = |row: &PgRow| {
        let account = Account {
            link_id: row.try_get(0)?,
            leased: row.try_get::<i64, _>(1)?.cast_unsigned(),
            lease_id: row.try_get(2)?,
            granted: row.try_get::<i32, _>(3)?.cast_unsigned(),
            returns: row.try_get(4)?,
        };
        let kept = Kept {
            account,
            is_changed: false,
        };
        Ok((rows::asked(row, 5, keys)?.clone(), kept))
    };
    found.iter().map(read).collect()
}

async fn keep(tx: &mut PgConnection, accounts: &HashMap<LinkKey, Kept>) -> Result<(), Error> {
    let all: Vec<(&LinkKey, &Account)> = accounts
        .iter()
        .map(|(key, kept)| (key, &kept.account))
        .collect();
    let keys: Vec<&LinkKey> = all.iter().map(|(key, _)| *key).collect();
    let (domains, slugs) = rows::keys(&keys);
    fn column<'a, T>(all: &[(&'a LinkKey, &'a Account)], of: impl Fn(&'a Account) -> T) -> Vec<T> {
        all.iter().map(|(_, account)| of(account)).collect()
    }
    sqlx::query(
        "-- shard.keep_visits
         INSERT INTO visits (domain, slug, link_id, leased, lease_id, granted, returns)
         SELECT * FROM unnest($1::int[], $2::text[], $3::uuid[], $4::bigint[], $5::uuid[],
            $6::int[], $7::bytea[])
         ON CONFLICT (domain, slug) DO UPDATE SET link_id = excluded.link_id,
            leased = excluded.leased, lease_id = excluded.lease_id,
            granted = excluded.granted, returns = excluded.returns",
    )
    .bind(domains)
    .bind(slugs)
    .bind(column(&all, |account| account.link_id))
    .bind(column(&all, |account| account.leased.cast_signed()))
    .bind(column(&all, |account| account.lease_id))
    .bind(column(&all, |account| account.granted.cast_signed()))
    .bind(column(&all, |account| &account.returns[..]))
    .execute(tx)
    .await?;
    Ok(())
}
