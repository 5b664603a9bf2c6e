//! Many creates, one statement, one commit.

use std::collections::HashMap;

use sqlx::Row as _;
use sqlx::postgres::PgConnection;
use waypost_domain::{Link, LinkKey, NewLink, Prefix, SlugKind};

use super::rows::{self, Taken};
use super::{PostgresSession, link_columns, owner_at};
use crate::store::rules::{self, OnExisting};
use crate::store::{Created, Error, PrefixOwner};

/// Creates links, minted ones and aliases apart: aliases lock rows that people
/// fight over, and must not make minted ones wait.
pub(super) async fn batch(
    session: &mut PostgresSession,
    links: &[NewLink],
) -> Result<Vec<Created>, Error> {
    let mut outcomes: Vec<Option<Created>> = vec![None; links.len()];
    for kind in [SlugKind::Minted, SlugKind::Derived, SlugKind::Alias] {
        let mut items: Vec<(usize, &NewLink)> = links
            .iter()
            .enumerate()
            .filter(|(_, link)| link.kind == kind)
            .collect();
        // All processes take locks in one order, so that none waits in a circle.
        // The sort is stable: of two with one slug the first comes first.
        items.sort_by(|(_, a), (_, b)| a.key.cmp(&b.key));
        let taken = match kind {
            // Unique by construction: only a retry meets its own row.
            SlugKind::Minted => Taken::Never,
            SlugKind::Alias | SlugKind::Derived => Taken::Perhaps,
        };
        isolated(session, &items, taken, &mut outcomes).await?;
    }
    let complete: Option<Vec<Created>> = outcomes.into_iter().collect();
    complete.ok_or(Error::Damaged("outcome"))
}

/// Creates the items, and halves them as often as it takes for one that the
/// database cannot store to fail alone.
async fn isolated(
    session: &mut PostgresSession,
    items: &[(usize, &NewLink)],
    taken: Taken,
    outcomes: &mut [Option<Created>],
) -> Result<(), Error> {
    let mut parts = vec![items];
    while let Some(part) = parts.pop() {
        let links: Vec<&NewLink> = part.iter().map(|(_, link)| *link).collect();
        let mut created = group(session, &links, taken).await;
        if matches!(&created, Err(error) if taken == Taken::Never && is_taken(error)) {
            created = group(session, &links, Taken::Perhaps).await;
        }
        match created {
            Ok(created) => {
                for ((at, _), outcome) in part.iter().zip(created) {
                    outcomes[*at] = Some(outcome);
                }
            }
            Err(Error::Data(error)) => match part {
                [(at, _)] => {
                    tracing::warn!(%error, "link refused by the database");
                    outcomes[*at] = Some(Created::Refused);
                }
                _ => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            },
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Creates items of one kind, sorted by key, in one transaction.
async fn group(
    session: &mut PostgresSession,
    items: &[&NewLink],
    taken: Taken,
) -> Result<Vec<Created>, Error> {
    if items.is_empty() {
        return Ok(Vec::new());
    }
    let (shard, key_ring) = (session.shard.clone(), session.key_ring.clone());
    let mut tx = session.begin_write().await?;
    let mut prefixes: Vec<&str> = items
        .iter()
        .map(|new| rules::prefix_text(&new.key.slug))
        .collect();
    prefixes.dedup();
    let found = sqlx::query(
        "-- shard.owners_of
         SELECT o.prefix, o.epoch, o.moved_to, clock_timestamp()
         FROM prefix_owner AS o WHERE o.prefix = ANY($1::text[])",
    )
    .bind(prefixes)
    .fetch_all(&mut *tx)
    .await?;
    let mut owners: HashMap<Prefix, (PrefixOwner, bool)> = HashMap::with_capacity(found.len());
    let mut now = None;
    for row in &found {
        let (owner, moved) = owner_at(&shard, row, 0)?;
        owners.insert(owner.prefix, (owner, moved));
        now = Some(rows::timestamp(row.try_get(3)?)?);
    }
    let now = now.ok_or(Error::Damaged("prefix_owner"))?;
    let owner_of = |new: &NewLink| {
        let owner = owners.get(&new.key.slug.prefix());
        owner.ok_or(Error::Damaged("prefix_owner"))
    };

    // One row per slug; a second item with it meets the first one's.
    let mut fresh: Vec<Link> = Vec::with_capacity(items.len());
    for new in items {
        let (owner, moved) = owner_of(new)?;
        if *moved || fresh.last().is_some_and(|last| last.key == new.key) {
            continue;
        }
        let mut link = rules::first_life(new, owner.epoch, now);
        link.signature = key_ring.sign(&link);
        fresh.push(link);
    }
    let inserted = rows::insert(&mut tx, &fresh, taken).await?;
    if inserted == items.len() as u64 {
        // All are new, as all but the retries of minted ones are.
        tx.commit().await?;
        return Ok(fresh.into_iter().map(stored).collect());
    }
    // What has just been inserted is met as the repeat of itself.
    let mut present: HashMap<LinkKey, Link> = existing(&mut tx, &fresh)
        .await?
        .into_iter()
        .map(|link| (link.key.clone(), link))
        .collect();

    let mut outcomes = Vec::with_capacity(items.len());
    for new in items {
        let (owner, moved) = owner_of(new)?;
        outcomes.push(if *moved {
            Created::Moved(owner.clone())
        } else {
            let Some(row) = present.get_mut(&new.key) else {
                return Err(Error::Damaged("links"));
            };
            match rules::on_existing(row, new, owner.epoch, now) {
                OnExisting::Repeat => stored(row.clone()),
                OnExisting::Conflict => Created::Conflict,
                OnExisting::Recreate(mut link) => {
                    link.signature = key_ring.sign(&link);
                    rows::replace(&mut tx, &link, None, now).await?;
                    *row = (*link).clone();
                    Created::Stored {
                        link,
                        replaced: true,
                    }
                }
            }
        });
    }
    tx.commit().await?;
    Ok(outcomes)
}

fn is_taken(error: &Error) -> bool {
    matches!(error, Error::Data(sqlx::Error::Database(error)) if error.is_unique_violation())
}

fn stored(link: Link) -> Created {
    Created::Stored {
        link: Box::new(link),
        replaced: false,
    }
}

/// Reads and locks the rows of these links, whoever made them.
async fn existing(tx: &mut PgConnection, taken: &[Link]) -> Result<Vec<Link>, Error> {
    if taken.is_empty() {
        return Ok(Vec::new());
    }
    let domains: Vec<i32> = taken.iter().map(|link| rows::domain(&link.key)).collect();
    let slugs: Vec<&str> = taken.iter().map(|link| link.key.slug.as_str()).collect();
    let found = sqlx::query(concat!(
        "-- shard.existing\nSELECT ",
        link_columns!(),
        " FROM unnest($1::int[], $2::text[]) AS k(domain, slug)
          JOIN links AS l ON l.domain = k.domain AND l.slug = k.slug
          FOR UPDATE OF l"
    ))
    .bind(domains)
    .bind(slugs)
    .fetch_all(tx)
    .await?;
    found.iter().map(rows::link).collect()
}
