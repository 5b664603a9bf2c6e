//! Many creates, one statement, one commit.

use std::collections::HashMap;

use sqlx::postgres::PgConnection;
use waypost_domain::{Link, LinkKey, NewLink, SlugKind};

use super::owners::{self, Standing};
use super::rows::{self, Taken};
use super::{PostgresSession, link_columns, sources};
use crate::store::rules::{self, OnExisting};
use crate::store::sources::{Id, Sources};
use crate::store::{Created, Error, columns};

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
        while !items.is_empty() {
            let later = put_off(&mut items);
            isolated(session, &items, taken, &mut outcomes).await?;
            items = later;
        }
    }
    let complete: Option<Vec<Created>> = outcomes.into_iter().collect();
    complete.ok_or(Error::Damaged("outcome"))
}

/// Leaves the items that one transaction can do, and gives the rest. Of two slugs with
/// one source, the second is looked at when it is known what became of the first.
fn put_off<'a>(items: &mut Vec<(usize, &'a NewLink)>) -> Vec<(usize, &'a NewLink)> {
    let mut slugs: HashMap<Id, &LinkKey> = HashMap::new();
    let fits = |(_, new): &(usize, &'a NewLink)| {
        let Some(source) = rules::sought(new) else {
            return true;
        };
        match slugs.get(&source.id) {
            Some(slug) => **slug == new.key,
            None => {
                let is_room = slugs.len() < sources::MAX_LOCKS;
                if is_room {
                    slugs.insert(source.id, &new.key);
                }
                is_room
            }
        }
    };
    let (now, later) = std::mem::take(items).into_iter().partition(fits);
    *items = now;
    later
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
    let sought: Vec<Id> = items
        .iter()
        .filter_map(|new| rules::sought(new))
        .map(|source| source.id)
        .collect();
    if !sought.is_empty() {
        sources::lock(&mut tx, &sought).await?;
    }
    let keys: Vec<&LinkKey> = items.iter().map(|new| &new.key).collect();
    let (owners, now) = owners::of(&mut tx, &shard, &keys).await?;
    let mut sources = Sources::default();
    if !sought.is_empty() {
        sources = sources::look_up(&mut tx, &sought, &key_ring, now).await?;
    }

    // One row per slug; a second item with it meets the first one's.
    let mut fresh: Vec<Link> = Vec::with_capacity(items.len());
    for new in items {
        let (owner, standing) = owners.get(&new.key)?;
        let is_second = fresh.last().is_some_and(|last| last.key == new.key);
        if standing != Standing::Owned || is_second || sources.answer(new).is_some() {
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
    let mut present = existing(&mut tx, &fresh).await?;

    let mut outcomes = Vec::with_capacity(items.len());
    for new in items {
        let (owner, standing) = owners.get(&new.key)?;
        match standing {
            Standing::Owned => {}
            Standing::Frozen => {
                outcomes.push(Created::Frozen);
                continue;
            }
            Standing::Moved => {
                outcomes.push(Created::Moved(owner.clone()));
                continue;
            }
        }
        if let Some(answer) = sources.answer(new) {
            outcomes.push(answer);
            continue;
        }
        let row = present.get_mut(&new.key).ok_or(Error::Damaged("links"))?;
        let Some(link) = row else {
            outcomes.push(Created::Damaged);
            continue;
        };
        outcomes.push(match rules::on_existing(link, new, owner.epoch, now) {
            OnExisting::Repeat => {
                sources.add(link.clone());
                stored(link.clone())
            }
            OnExisting::Conflict => Created::Conflict,
            OnExisting::Ended => Created::Ended,
            OnExisting::Reused => Created::Reused,
            OnExisting::Recreate(mut next) => {
                let slug = new.key.slug.as_str();
                if columns::authentic(&key_ring, slug, Ok(link.clone())).is_none() {
                    outcomes.push(Created::Damaged);
                    continue;
                }
                next.signature = key_ring.sign(&next);
                rows::replace(&mut tx, &next, None, now).await?;
                *link = (*next).clone();
                sources.add(link.clone());
                Created::Stored {
                    link: next,
                    replaced: true,
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

/// Reads and locks the rows of these links, whoever made them; `None` for one that is
/// damaged.
async fn existing(
    tx: &mut PgConnection,
    taken: &[Link],
) -> Result<HashMap<LinkKey, Option<Link>>, Error> {
    if taken.is_empty() {
        return Ok(HashMap::new());
    }
    let keys: Vec<&LinkKey> = taken.iter().map(|link| &link.key).collect();
    let (domains, slugs) = rows::keys(&keys);
    let found = sqlx::query(concat!(
        "-- shard.existing\nSELECT ",
        link_columns!(),
        ", k.at FROM unnest($1::int[], $2::text[]) WITH ORDINALITY AS k(domain, slug, at)
          JOIN links AS l ON l.domain = k.domain AND l.slug = k.slug
          FOR UPDATE OF l"
    ))
    .bind(domains)
    .bind(slugs)
    .fetch_all(tx)
    .await?;
    let read = |row| {
        let key = rows::asked(row, 20, &keys)?.clone();
        let link = columns::whole(key.slug.as_str(), rows::link(row));
        Ok((key, link))
    };
    found.iter().map(read).collect()
}
