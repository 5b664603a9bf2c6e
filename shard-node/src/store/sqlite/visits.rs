//! Leases of visits.

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use waypost_domain::LinkKey;

use super::{SqliteStore, rows};
use crate::store::visits::Account;
use crate::store::{Error, Lease, Leased, columns};

/// Serves one lease.
pub(super) async fn lease(
    store: &SqliteStore,
    tx: &mut SqliteConnection,
    lease: &Lease,
) -> Result<Leased, Error> {
    let (owner, moved) = store.owner_of(tx, &lease.key).await?;
    if moved {
        return Ok(Leased::Moved(owner));
    }
    let Some((link, _)) = rows::stored(tx, &lease.key).await? else {
        return Ok(Leased::Absent);
    };
    let slug = lease.key.slug.as_str();
    let Some(link) = columns::authentic(&store.0.key_ring, slug, link) else {
        return Ok(Leased::Damaged);
    };
    let Some(max) = Account::limit(&link, lease) else {
        return Ok(Leased::Absent);
    };
    let account = account(tx, &lease.key).await?;
    let of_this_life = account.filter(|account| account.link_id == link.id.0);
    let mut account = of_this_life.unwrap_or_else(|| Account::new(link.id));
    let before = account.clone();
    let granted = account.lease(max, lease);
    if account != before {
        keep(tx, &lease.key, &account).await?;
    }
    Ok(granted.map_or_else(|| Leased::UsedUp(Box::new(link)), Leased::Granted))
}

async fn account(tx: &mut SqliteConnection, key: &LinkKey) -> Result<Option<Account>, Error> {
    let row = sqlx::query(
        "-- shard.visits
         SELECT link_id, leased, lease_id, granted, returns FROM visits
         WHERE domain = ?1 AND slug = ?2",
    )
    .bind(i64::from(key.domain.0))
    .bind(key.slug.as_str())
    .fetch_optional(tx)
    .await?;
    let read = |row: SqliteRow| {
        Ok(Account {
            link_id: row.try_get(0)?,
            leased: row.try_get::<i64, _>(1)?.cast_unsigned(),
            lease_id: row.try_get(2)?,
            granted: row.try_get(3)?,
            returns: row.try_get(4)?,
        })
    };
    row.map(read).transpose()
}

async fn keep(tx: &mut SqliteConnection, key: &LinkKey, account: &Account) -> Result<(), Error> {
    sqlx::query(
        "-- shard.keep_visits
         INSERT INTO visits (domain, slug, link_id, leased, lease_id, granted, returns)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (domain, slug) DO UPDATE SET link_id = excluded.link_id,
            leased = excluded.leased, lease_id = excluded.lease_id,
            granted = excluded.granted, returns = excluded.returns",
    )
    .bind(i64::from(key.domain.0))
    .bind(key.slug.as_str())
    .bind(account.link_id)
    .bind(account.leased.cast_signed())
    .bind(account.lease_id)
    .bind(account.granted)
    .bind(&account.returns[..])
    .execute(tx)
    .await?;
    Ok(())
}
