//! Rows out of the shard and into it.

use std::collections::HashMap;

use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;
use waypost_domain::{Link, LinkId, LinkKey, State};

use super::owners::{self, Standing};
use super::{PostgresSession, link_columns, rows};
use crate::store::rules::{self, OnImport};
use crate::store::{Error, Exported, Imported, Transferred, columns};

/// Rows after a key, of prefixes that this shard owns. As many as asked for, unless
/// there are no more.
pub(super) async fn export(
    session: &mut PostgresSession,
    after: Option<&LinkKey>,
    limit: u32,
) -> Result<Exported, Error> {
    let mut exported = Exported::default();
    let mut place = match after {
        Some(key) => (rows::domain(key), key.slug.to_string()),
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
                  AND v.slug = l.slug AND v.link_id = l.link_id), 0),
               l.state_before_block::integer
               FROM links AS l
               WHERE (l.domain, l.slug) > ($1, $2) AND (
                  SELECT o.state FROM prefix_owner AS o
                  WHERE o.prefix = left(l.slug, 2)) = 'owned'
               ORDER BY l.domain, l.slug LIMIT $3"
        ))
        .bind(place.0)
        .bind(&place.1)
        .bind(wanted)
        .fetch_all(&mut session.connection)
        .await?;
        for row in &found {
            place = (row.try_get(0)?, row.try_get(1)?);
            match columns::authentic(&session.key_ring, &place.1, rows::link(row)) {
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

/// Takes rows over; one outcome per row, in order. One that the database cannot store
/// fails alone.
pub(super) async fn import(
    session: &mut PostgresSession,
    given: &[Transferred],
) -> Result<Vec<Imported>, Error> {
    let mut order: Vec<usize> = (0..given.len()).collect();
    order.sort_by(|a, b| given[*a].link.key.cmp(&given[*b].link.key));
    let mut outcomes = vec![Imported::Refused; given.len()];
    let mut parts = vec![&order[..]];
    while let Some(part) = parts.pop() {
        let rows: Vec<&Transferred> = part.iter().map(|at| &given[*at]).collect();
        match group(session, &rows).await {
            Ok(imported) => {
                for (at, outcome) in part.iter().zip(imported) {
                    outcomes[*at] = outcome;
                }
            }
            Err(Error::Data(error)) if part.len() == 1 => {
                tracing::warn!(%error, "link refused by the database");
            }
            Err(Error::Data(_)) => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(outcomes)
}

/// Takes over rows that are sorted by their keys, in one transaction.
async fn group(
    session: &mut PostgresSession,
    given: &[&Transferred],
) -> Result<Vec<Imported>, Error> {
    if given.is_empty() {
        return Ok(Vec::new());
    }
    let (shard, key_ring) = (session.shard.clone(), session.key_ring.clone());
    let mut tx = session.begin_write().await?;
    let mut keys: Vec<&LinkKey> = given.iter().map(|row| &row.link.key).collect();
    keys.dedup();
    let (owners, now) = owners::of(&mut tx, &shard, &keys).await?;
    let signed = |row: &Transferred| {
        let mut link = (*row.link).clone();
        link.signature = key_ring.sign(&link);
        link
    };
    for row in given {
        if owners.get(&row.link.key)?.1 == Standing::Frozen {
            tx.rollback().await?;
            // All or nothing: who imports sends the rows again.
            return Err(Error::Frozen);
        }
    }
    let mut fresh: Vec<Link> = Vec::with_capacity(given.len());
    for row in given {
        let is_second = fresh.last().is_some_and(|last| last.key == row.link.key);
        if !is_second && owners.get(&row.link.key)?.1 == Standing::Owned {
            fresh.push(signed(row));
        }
    }
    let mut new = rows::insert_absent(&mut tx, &fresh).await?;
    rows::tell(&mut tx, new.iter()).await?;
    let mut present = stored(&mut tx, &keys).await?;

    let mut outcomes = Vec::with_capacity(given.len());
    let (mut visited, mut blocked) = (Vec::new(), Vec::new());
    for row in given {
        let key = &row.link.key;
        let (owner, standing) = owners.get(key)?;
        if standing == Standing::Moved {
            outcomes.push(Imported::Moved(owner.clone()));
            continue;
        }
        if !new.remove(key) {
            let there = present.get(key).ok_or(Error::Damaged("links"))?;
            match rules::on_import(&there.tenant, there.id, there.version, &row.link) {
                OnImport::Write => {
                    rows::replace(&mut tx, &signed(row), None, now).await?;
                }
                refused => {
                    outcomes.push(match (refused, &there.link) {
                        (_, None) => Imported::Damaged,
                        (OnImport::Conflict, Some(link)) => Imported::Conflict(link.clone()),
                        (_, Some(link)) => Imported::Kept(link.clone()),
                    });
                    continue;
                }
            }
        }
        let link = Box::new(signed(row));
        present.insert(key.clone(), Present::of(&link));
        if row.visits_leased > 0 {
            visited.push(*row);
        }
        if link.state == State::Blocked {
            blocked.push(*row);
        }
        outcomes.push(Imported::Written(link));
    }
    carry_visits(&mut tx, &visited).await?;
    carry_before_block(&mut tx, &blocked).await?;
    tx.commit().await?;
    Ok(outcomes)
}

/// A row that is there.
struct Present {
    tenant: String,
    id: LinkId,
    version: i64,
    link: Option<Box<Link>>,
}

impl Present {
    fn of(link: &Link) -> Self {
        Self {
            tenant: link.tenant.clone(),
            id: link.id,
            version: link.version.get().cast_signed(),
            link: Some(Box::new(link.clone())),
        }
    }
}

/// Reads and locks the rows of these slugs.
async fn stored(
    tx: &mut PgConnection,
    keys: &[&LinkKey],
) -> Result<HashMap<LinkKey, Present>, Error> {
    let (domains, slugs) = rows::keys(keys);
    let found = sqlx::query(concat!(
        "-- shard.stored\nSELECT ",
        link_columns!(),
        ", k.at FROM unnest($1::int[], $2::text[]) WITH ORDINALITY AS k(domain, slug, at)
          JOIN links AS l ON l.domain = k.domain AND l.slug = k.slug
          FOR UPDATE OF l"
    ))
    .bind(domains)
    .bind(slugs)
    .fetch_all(tx)
    .await?;
    let read = |row: &PgRow| {
        let key = rows::asked(row, 20, keys)?.clone();
        let link = columns::whole(key.slug.as_str(), rows::link(row));
        let present = Present {
            tenant: row.try_get(5)?,
            id: LinkId(row.try_get(2)?),
            version: row.try_get(7)?,
            link: link.map(Box::new),
        };
        Ok((key, present))
    };
    found.iter().map(read).collect()
}

/// Never takes back what was leased here of the same life.
async fn carry_visits(tx: &mut PgConnection, visited: &[&Transferred]) -> Result<(), Error> {
    if visited.is_empty() {
        return Ok(());
    }
    // One row for each slug: the last that was given, which is what is stored.
    let mut last: HashMap<&LinkKey, &Transferred> = HashMap::new();
    for row in visited {
        last.insert(&row.link.key, row);
    }
    let rows: Vec<&Transferred> = last.into_values().collect();
    let keys: Vec<&LinkKey> = rows.iter().map(|row| &row.link.key).collect();
    let (domains, slugs) = rows::keys(&keys);
    let ids: Vec<Uuid> = rows.iter().map(|row| row.link.id.0).collect();
    let leased: Vec<i64> = rows
        .iter()
        .map(|row| row.visits_leased.cast_signed())
        .collect();
    sqlx::query(
        "-- shard.carry_visits
         INSERT INTO visits (domain, slug, link_id, leased, lease_id, granted, returns)
         SELECT n.domain, n.slug, n.link_id, n.leased, $5, 0, ''
         FROM unnest($1::int[], $2::text[], $3::uuid[], $4::bigint[])
            AS n(domain, slug, link_id, leased)
         ON CONFLICT (domain, slug) DO UPDATE SET link_id = excluded.link_id,
            leased = CASE WHEN visits.link_id = excluded.link_id
               THEN greatest(visits.leased, excluded.leased) ELSE excluded.leased END",
    )
    .bind(domains)
    .bind(slugs)
    .bind(ids)
    .bind(leased)
    .bind(Uuid::nil())
    .execute(tx)
    .await?;
    Ok(())
}

/// After the rows were written, which know only what they replaced.
async fn carry_before_block(tx: &mut PgConnection, blocked: &[&Transferred]) -> Result<(), Error> {
    for row in blocked {
        sqlx::query(
            "-- shard.carry_before_block
             UPDATE links SET state_before_block = $3 WHERE domain = $1 AND slug = $2",
        )
        .bind(rows::domain(&row.link.key))
        .bind(row.link.key.slug.as_str())
        .bind(row.before_block.map(|state| state as i16))
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}
