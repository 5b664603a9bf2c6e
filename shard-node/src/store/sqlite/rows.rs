//! Rows of `links` in SQLite's types, and the statements about single ones.

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use uuid::Uuid;
use waypost_domain::{ChangeId, Link, LinkKey, Timestamp};

use crate::store::columns::{self, Columns, link_columns};
use crate::store::rules::Memory;
use crate::store::{Change, Error, Place};

/// A link, unless its row is damaged, and what the row remembers.
pub(super) async fn stored(
    tx: &mut SqliteConnection,
    key: &LinkKey,
) -> Result<Option<(Result<Link, Error>, Memory)>, Error> {
    let row = sqlx::query(concat!(
        "-- shard.stored\nSELECT ",
        link_columns!(),
        ", l.change_id, l.state_before_block FROM links AS l WHERE l.domain = ?1 AND l.slug = ?2"
    ))
    .bind(i64::from(key.domain.0))
    .bind(key.slug.as_str())
    .fetch_optional(tx)
    .await?;
    let read = |row: SqliteRow| {
        let change: Option<Uuid> = row.try_get(20)?;
        Ok((link(&row), Memory::new(change, row.try_get(21)?)))
    };
    row.map(read).transpose()
}

/// Inserts a row; false if the slug has one.
pub(super) async fn insert(tx: &mut SqliteConnection, link: &Link) -> Result<bool, Error> {
    let inserted = bind(
        sqlx::query(
            "-- shard.insert
             INSERT INTO links (domain, slug, link_id, long_url, redirect_status, tenant, state,
                version, created_at, updated_at, valid_since, valid_until, max_visits, title, tags,
                forward_query, password_hash, create_id, source, signature)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
                ?18, ?19, ?20)
             ON CONFLICT DO NOTHING",
        ),
        link,
    )
    .execute(tx)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Puts a link in the place of its former self, and notes what others must hear.
/// Without a `change` a new life begins.
pub(super) async fn replace(
    tx: &mut SqliteConnection,
    old: &Link,
    new: &Link,
    change: Option<ChangeId>,
    now: Timestamp,
) -> Result<(), Error> {
    bind(
        sqlx::query(
            "-- shard.replace
             UPDATE links SET link_id = ?3, long_url = ?4, redirect_status = ?5, tenant = ?6,
                state = ?7, version = ?8, created_at = ?9, updated_at = ?10, valid_since = ?11,
                valid_until = ?12, max_visits = ?13, title = ?14, tags = ?15, forward_query = ?16,
                password_hash = ?17, create_id = ?18, source = ?19, signature = ?20,
                change_id = ?21, state_before_block = CASE WHEN ?7 <> 3 THEN NULL
                   WHEN state = 3 THEN state_before_block ELSE state END
             WHERE domain = ?1 AND slug = ?2",
        ),
        new,
    )
    .bind(change.map(|id| id.0))
    .execute(&mut *tx)
    .await?;
    tell(tx, &new.key, now).await?;
    if old.long_url != new.long_url {
        sqlx::query(
            "-- shard.audit_add
             INSERT INTO audit (at, version, domain, slug, tenant, old_url, new_url)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .bind(now.millis())
        .bind(new.version.get().cast_signed())
        .bind(i64::from(new.key.domain.0))
        .bind(new.key.slug.as_str())
        .bind(&new.tenant)
        .bind(old.long_url.as_str())
        .bind(new.long_url.as_str())
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// Notes a change that others must hear.
pub(super) async fn tell(
    tx: &mut SqliteConnection,
    key: &LinkKey,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query(
        "-- shard.outbox_add
         INSERT INTO outbox (created_at, domain, slug) VALUES (?1, ?2, ?3)",
    )
    .bind(now.millis())
    .bind(i64::from(key.domain.0))
    .bind(key.slug.as_str())
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn changes(
    connection: &mut SqliteConnection,
    from: i64,
    limit: u32,
) -> Result<Vec<Change>, Error> {
    let rows = sqlx::query(concat!(
        "-- shard.relay_changes\nSELECT ",
        link_columns!(),
        ", b.id FROM outbox AS b
           JOIN links AS l ON l.domain = b.domain AND l.slug = b.slug
           WHERE b.applied_at IS NULL AND b.id >= ?1 ORDER BY b.id LIMIT ?2"
    ))
    .bind(from)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let id: i64 = row.try_get(20)?;
            Ok(Change {
                place: Place { position: id, id },
                link: columns::whole(row.try_get(1)?, link(row)).map(Box::new),
            })
        })
        .collect()
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

/// Binds a link's columns in their order.
fn bind<'q>(query: Query<'q>, link: &'q Link) -> Query<'q> {
    let tags =
        (!link.tags.is_empty()).then(|| serde_json::to_string(&link.tags).expect("texts are JSON"));
    query
        .bind(i64::from(link.key.domain.0))
        .bind(link.key.slug.as_str())
        .bind(link.id.0)
        .bind(link.long_url.as_str())
        .bind(i64::from(link.redirect_status.code()))
        .bind(&link.tenant)
        .bind(link.state as i64)
        .bind(link.version.get().cast_signed())
        .bind(link.created_at.millis())
        .bind(link.updated_at.millis())
        .bind(link.valid_since.map(Timestamp::millis))
        .bind(link.valid_until.map(Timestamp::millis))
        .bind(link.max_visits.map(u64::cast_signed))
        .bind(&link.title)
        .bind(tags)
        .bind(link.forward_query)
        .bind(&link.password_hash)
        .bind(link.create_id.0)
        .bind(link.source.map(|source| source.to_bytes()))
        .bind(link.signature.to_vec())
}

pub(super) fn link(row: &SqliteRow) -> Result<Link, Error> {
    let tags = row
        .try_get::<Option<&str>, _>(14)?
        .map(serde_json::from_str)
        .transpose()
        .map_err(|_| Error::Damaged("tags"))?;
    Columns {
        domain: row.try_get(0)?,
        slug: row.try_get(1)?,
        link_id: row.try_get(2)?,
        long_url: row.try_get(3)?,
        redirect_status: row.try_get(4)?,
        tenant: row.try_get(5)?,
        state: row.try_get(6)?,
        version: row.try_get(7)?,
        created_at: row.try_get(8)?,
        updated_at: row.try_get(9)?,
        valid_since: row.try_get(10)?,
        valid_until: row.try_get(11)?,
        max_visits: row.try_get(12)?,
        title: row.try_get(13)?,
        tags: tags.unwrap_or_default(),
        forward_query: row.try_get(15)?,
        password_hash: row.try_get(16)?,
        create_id: row.try_get(17)?,
        source: row.try_get(18)?,
        signature: row.try_get(19)?,
    }
    .try_into()
}
