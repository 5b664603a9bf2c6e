//! A tenant's links, newest first.

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use waypost_domain::Timestamp;

use super::{link_columns, rows};
use crate::store::{Entry, Error, ListPlace, Listed, columns};

/// Both parts read the index of tenants backwards. They are apart, since a condition on
/// creation and slug together would look at all links of one instant on every page.
macro_rules! list {
    ($part:literal, $condition:literal) => {
        concat!(
            "-- shard.list_",
            $part,
            "\nSELECT ",
            link_columns!(),
            ", (SELECT o.state FROM prefix_owner AS o WHERE o.prefix = substr(l.slug, 1, 2))
                 = 'owned'
              FROM links AS l WHERE l.tenant = ?1 AND l.state <> 4 AND ",
            $condition,
            " ORDER BY l.created_at DESC, l.slug LIMIT ?2"
        )
    };
}

pub(super) async fn page(
    connection: &mut SqliteConnection,
    tenant: &str,
    after: Option<&ListPlace>,
    limit: u32,
) -> Result<Vec<Listed>, Error> {
    let mut found = Vec::new();
    if let Some(after) = after {
        let query = sqlx::query(list!("instant", "l.created_at = ?3 AND l.slug > ?4"));
        found = query
            .bind(tenant)
            .bind(limit)
            .bind(after.created_at.millis())
            .bind(&after.slug)
            .fetch_all(&mut *connection)
            .await?;
    }
    let left = i64::from(limit) - found.len() as i64;
    if left > 0 {
        let before = after.map_or(Timestamp::MAX, |after| after.created_at);
        let query = sqlx::query(list!("earlier", "l.created_at < ?3"));
        let earlier = query
            .bind(tenant)
            .bind(left)
            .bind(before.millis())
            .fetch_all(connection)
            .await?;
        found.extend(earlier);
    }
    found.iter().map(listed).collect()
}

fn listed(row: &SqliteRow) -> Result<Listed, Error> {
    let slug: String = row.try_get(1)?;
    let is_owned: Option<bool> = row.try_get(20)?;
    let entry = match is_owned {
        Some(true) => match columns::whole(&slug, rows::link(row)) {
            Some(link) => Entry::Link(Box::new(link)),
            None => Entry::Damaged,
        },
        _ => Entry::Moved,
    };
    let created_at = Timestamp::from_millis(row.try_get(8)?).ok_or(Error::Damaged("created_at"))?;
    let place = ListPlace { created_at, slug };
    Ok(Listed { place, entry })
}
