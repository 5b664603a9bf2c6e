//! Rows out of the file and into it.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;
use waypost_domain::signature::KeyRing;
use waypost_domain::{Link, LinkId, LinkKey, State, Timestamp};

use super::{SqliteStore, link_columns, rows};
use crate::store::rules::{self, OnImport};
use crate::store::{Error, Exported, Imported, Transferred, columns};

/// Rows after a key, of prefixes that this shard owns. As many as asked for, unless
/// there are no more.
pub(super) async fn export(
    connection: &mut SqliteConnection,
    key_ring: &KeyRing,
    after: Option<&LinkKey>,
    limit: u32,
) -> Result<Exported, Error> {
    let mut exported = Exported::default();
    let mut place = match after {
        Some(key) => (i64::from(key.domain.0), key.slug.to_string()),
        None => (-1, String::new()),
    };
    // Damaged rows take no room, or a short page would look like the last one.
    while exported.rows.len() < limit as usize {
        let wanted = i64::from(limit) - exported.rows.len() as i64;
        let found = sqlx::query(concat!(
            "-- shard.export\nSELECT ",
            link_columns!(),
            ", coalesce((
                  SELECT v.leased FROM visits AS v WHERE v.domain = l.domain
                  AND v.slug = l.slug AND v.link_id = l.link_id), 0), l.state_before_block
               FROM links AS l
               WHERE (l.domain, l.slug) > (?1, ?2) AND (
                  SELECT o.state FROM prefix_owner AS o
                  WHERE o.prefix = substr(l.slug, 1, 2)) = 'owned'
               ORDER BY l.domain, l.slug LIMIT ?3"
        ))
        .bind(place.0)
        .bind(&place.1)
        .bind(wanted)
        .fetch_all(&mut *connection)
        .await?;
        for row in &found {
            place = (row.try_get(0)?, row.try_get(1)?);
            match columns::authentic(key_ring, &place.1, rows::link(row)) {
                Some(link) => exported.rows.push(Transferred {
                    link: Box::new(link),
                    visits_leased: row.try_get::<i64, _>(20)?.cast_unsigned(),
                    before_block: columns::before_block(row.try_get(21)?),
                }),
                None => exported.leave_out(&place.1),
            }
        }
        if (found.len() as i64) < wanted {
            break;
        }
    }
    Ok(exported)
}

/// Takes one row over.
pub(super) async fn import(
    store: &SqliteStore,
    tx: &mut SqliteConnection,
    given: &Transferred,
    now: Timestamp,
) -> Result<Imported, Error> {
    let key = &given.link.key;
    let (owner, moved) = store.owner_of(tx, key).await?;
    if moved {
        return Ok(Imported::Moved(owner));
    }
    let mut link = given.link.clone();
    link.signature = store.0.key_ring.sign(&link);
    if rows::insert(tx, &link).await? {
        rows::tell(tx, key, now).await?;
    } else {
        let Some((there, tenant, id, version)) = stored(tx, key).await? else {
            return Err(Error::Damaged("links"));
        };
        match rules::on_import(&tenant, id, version, &link) {
            OnImport::Write => {
                // What a damaged row says of its destination is not worth a note.
                let old = there.unwrap_or_else(|| (*link).clone());
                rows::replace(tx, &old, &link, None, now).await?;
            }
            refused => {
                return Ok(match (refused, there) {
                    (_, None) => Imported::Damaged,
                    (OnImport::Conflict, Some(there)) => Imported::Conflict(Box::new(there)),
                    (_, Some(there)) => Imported::Kept(Box::new(there)),
                });
            }
        }
    }
    if given.visits_leased > 0 {
        carry_visits(tx, given).await?;
    }
    if given.link.state == State::Blocked {
        carry_before_block(tx, given).await?;
    }
    Ok(Imported::Written(link))
}

/// A row that is there, with its tenant, id and version even if it is damaged.
async fn stored(
    tx: &mut SqliteConnection,
    key: &LinkKey,
) -> Result<Option<(Option<Link>, String, LinkId, i64)>, Error> {
    let Some((link, _)) = rows::stored(tx, key).await? else {
        return Ok(None);
    };
    let (tenant, id, version) = sqlx::query_as(
        "-- shard.stored_by
         SELECT tenant, link_id, version FROM links WHERE domain = ?1 AND slug = ?2",
    )
    .bind(i64::from(key.domain.0))
    .bind(key.slug.as_str())
    .fetch_one(tx)
    .await?;
    let link = columns::whole(key.slug.as_str(), link);
    Ok(Some((link, tenant, LinkId(id), version)))
}

/// Never takes back what was leased here of the same life.
async fn carry_visits(tx: &mut SqliteConnection, given: &Transferred) -> Result<(), Error> {
    sqlx::query(
        "-- shard.carry_visits
         INSERT INTO visits (domain, slug, link_id, leased, lease_id, granted, returns)
         VALUES (?1, ?2, ?3, ?4, ?5, 0, x'')
         ON CONFLICT (domain, slug) DO UPDATE SET link_id = excluded.link_id,
            leased = CASE WHEN visits.link_id = excluded.link_id
               THEN max(visits.leased, excluded.leased) ELSE excluded.leased END",
    )
    .bind(i64::from(given.link.key.domain.0))
    .bind(given.link.key.slug.as_str())
    .bind(given.link.id.0)
    .bind(given.visits_leased.cast_signed())
    .bind(Uuid::nil())
    .execute(tx)
    .await?;
    Ok(())
}

/// After the row was written, which knows only what it replaced.
async fn carry_before_block(tx: &mut SqliteConnection, given: &Transferred) -> Result<(), Error> {
    sqlx::query(
        "-- shard.carry_before_block
         UPDATE links SET state_before_block = ?3 WHERE domain = ?1 AND slug = ?2",
    )
    .bind(i64::from(given.link.key.domain.0))
    .bind(given.link.key.slug.as_str())
    .bind(given.before_block.map(|state| state as i64))
    .execute(tx)
    .await?;
    Ok(())
}
