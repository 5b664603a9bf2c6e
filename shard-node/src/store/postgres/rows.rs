//! Rows of `links` in Postgres's types.

use std::collections::HashSet;

use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};
use time::OffsetDateTime;
use waypost_domain::{ChangeId, Link, LinkKey, Timestamp};

use crate::store::Error;
use crate::store::columns::Columns;

/// Requests with domains beyond a signed number are refused before they come here.
pub(super) fn domain(key: &LinkKey) -> i32 {
    key.domain.0.cast_signed()
}

/// The columns of keys.
pub(super) fn keys<'a>(keys: &[&'a LinkKey]) -> (Vec<i32>, Vec<&'a str>) {
    let domains = keys.iter().map(|key| domain(key)).collect();
    let slugs = keys.iter().map(|key| key.slug.as_str()).collect();
    (domains, slugs)
}

/// The key that a row answers, by the ordinality in its column `at`.
pub(super) fn asked<'a>(
    row: &PgRow,
    at: usize,
    keys: &[&'a LinkKey],
) -> Result<&'a LinkKey, Error> {
    let at = usize::try_from(row.try_get::<i64, _>(at)?).unwrap_or_default();
    let key = at.checked_sub(1).and_then(|at| keys.get(at));
    key.copied().ok_or(Error::Damaged("links"))
}

/// Reads the columns of a link, which come first in every row.
pub(super) fn link(row: &PgRow) -> Result<Link, Error> {
    let millis = |at: OffsetDateTime| timestamp(at).map(Timestamp::millis);
    let optional = |column: usize| {
        let at: Option<OffsetDateTime> = row.try_get(column)?;
        at.map(millis).transpose()
    };
    let tags: Option<Vec<String>> = row.try_get(14)?;
    Columns {
        domain: row.try_get::<i32, _>(0)?.into(),
        slug: row.try_get(1)?,
        link_id: row.try_get(2)?,
        long_url: row.try_get(3)?,
        redirect_status: row.try_get::<i16, _>(4)?.into(),
        tenant: row.try_get(5)?,
        state: row.try_get::<i16, _>(6)?.into(),
        version: row.try_get(7)?,
        created_at: millis(row.try_get(8)?)?,
        updated_at: millis(row.try_get(9)?)?,
        valid_since: optional(10)?,
        valid_until: optional(11)?,
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

/// What is finer than a millisecond is cut off.
pub(super) fn timestamp(at: OffsetDateTime) -> Result<Timestamp, Error> {
    i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000))
        .ok()
        .and_then(Timestamp::from_millis)
        .ok_or(Error::Damaged("time"))
}

/// Whether slugs that are to be inserted may have a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// One that has fails the statement, and nothing is inserted.
    Never,
    /// Those that have are passed over, which costs all others a second search of
    /// the index.
    Perhaps,
}

/// With what follows the rows that are inserted.
macro_rules! insert {
    ($tail:literal) => {
        concat!(
            "-- shard.insert
         INSERT INTO links (domain, slug, link_id, long_url, redirect_status, tenant, state,
            version, created_at, updated_at, valid_since, valid_until, max_visits, title, tags,
            forward_query, password_hash, create_id, source, signature)
         SELECT n.domain, n.slug, n.link_id, n.long_url, n.redirect_status, n.tenant, n.state,
            n.version, n.created_at, n.updated_at, n.valid_since, n.valid_until, n.max_visits,
            n.title, n.tags::text[], n.forward_query, n.password_hash, n.create_id, n.source,
            n.signature
         FROM unnest($1::int[], $2::text[], $3::uuid[], $4::text[], $5::smallint[], $6::text[],
            $7::smallint[], $8::bigint[], $9::timestamptz[], $10::timestamptz[],
            $11::timestamptz[], $12::timestamptz[], $13::bigint[], $14::text[], $15::text[],
            $16::boolean[], $17::text[], $18::uuid[], $19::bytea[], $20::bytea[])
         AS n(domain, slug, link_id, long_url, redirect_status, tenant, state, version, created_at,
            updated_at, valid_since, valid_until, max_visits, title, tags, forward_query,
            password_hash, create_id, source, signature)",
            $tail
        )
    };
}

/// Inserts links; says how many.
pub(super) async fn insert(
    tx: &mut PgConnection,
    links: &[Link],
    taken: Taken,
) -> Result<u64, Error> {
    let statement = match taken {
        Taken::Never => insert!(""),
        Taken::Perhaps => insert!(" ON CONFLICT DO NOTHING"),
    };
    let inserted = bind(statement, links).execute(tx).await?;
    Ok(inserted.rows_affected())
}

/// Inserts links whose slugs have no row; says which.
pub(super) async fn insert_absent(
    tx: &mut PgConnection,
    links: &[Link],
) -> Result<HashSet<LinkKey>, Error> {
    let statement = insert!(" ON CONFLICT DO NOTHING RETURNING domain, slug");
    let inserted = bind(statement, links).fetch_all(tx).await?;
    let new = inserted
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect::<Result<HashSet<(i32, String)>, Error>>()?;
    let is_new = |key: &&LinkKey| new.contains(&(domain(key), key.slug.to_string()));
    let keys = links.iter().map(|link| &link.key);
    Ok(keys.filter(is_new).cloned().collect())
}

/// Notes changes that others must hear.
pub(super) async fn tell(
    tx: &mut PgConnection,
    changed: impl Iterator<Item = &LinkKey>,
) -> Result<(), Error> {
    let changed: Vec<&LinkKey> = changed.collect();
    let (domains, slugs) = keys(&changed);
    sqlx::query(
        "-- shard.outbox_add
         INSERT INTO outbox (domain, slug) SELECT * FROM unnest($1::int[], $2::text[])",
    )
    .bind(domains)
    .bind(slugs)
    .execute(tx)
    .await?;
    Ok(())
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// Binds the columns of the links to insert.
fn bind<'q>(statement: &'static str, links: &'q [Link]) -> Query<'q> {
    fn column<'a, T>(links: &'a [Link], of: impl Fn(&'a Link) -> T) -> Vec<T> {
        links.iter().map(of).collect()
    }
    let at = Timestamp::to_offset_date_time;
    sqlx::query(statement)
        .bind(column(links, |link| domain(&link.key)))
        .bind(column(links, |link| link.key.slug.as_str()))
        .bind(column(links, |link| link.id.0))
        .bind(column(links, |link| link.long_url.as_str()))
        .bind(column(links, |link| {
            link.redirect_status.code().cast_signed()
        }))
        .bind(column(links, |link| link.tenant.as_str()))
        .bind(column(links, |link| link.state as i16))
        .bind(column(links, |link| link.version.get().cast_signed()))
        .bind(column(links, |link| at(link.created_at)))
        .bind(column(links, |link| at(link.updated_at)))
        .bind(column(links, |link| link.valid_since.map(at)))
        .bind(column(links, |link| link.valid_until.map(at)))
        .bind(column(links, |link| link.max_visits.map(u64::cast_signed)))
        .bind(column(links, |link| link.title.as_deref()))
        .bind(column(links, |link| array_literal(&link.tags)))
        .bind(column(links, |link| link.forward_query))
        .bind(column(links, |link| link.password_hash.as_deref()))
        .bind(column(links, |link| link.create_id.0))
        .bind(column(links, |link| {
            link.source.map(|source| source.to_bytes())
        }))
        .bind(column(links, |link| &link.signature[..]))
}

/// Puts a link in the place of its former self, and notes what others must hear:
/// all parts see the rows as they were before. Without a `change` a new life begins.
pub(super) async fn replace(
    tx: &mut PgConnection,
    link: &Link,
    change: Option<ChangeId>,
    now: Timestamp,
) -> Result<(), Error> {
    let at = Timestamp::to_offset_date_time;
    sqlx::query(
        "-- shard.replace
         WITH old AS (
            SELECT l.long_url FROM links AS l WHERE l.domain = $1 AND l.slug = $2
         ), replaced AS (
            UPDATE links SET link_id = $3, long_url = $4, redirect_status = $5, tenant = $6,
               state = $7, version = $8, created_at = $9, updated_at = $10, valid_since = $11,
               valid_until = $12, max_visits = $13, title = $14, tags = $15::text::text[],
               forward_query = $16, password_hash = $17, create_id = $18, source = $19,
               signature = $20, change_id = $22, state_before_block = CASE WHEN $7 <> 3 THEN NULL
                  WHEN state = 3 THEN state_before_block ELSE state END
            WHERE domain = $1 AND slug = $2
         ), told AS (
            INSERT INTO outbox (domain, slug) VALUES ($1, $2)
         )
         INSERT INTO audit (at, version, domain, slug, tenant, old_url, new_url)
         SELECT $21, $8, $1, $2, $6, old.long_url, $4 FROM old WHERE old.long_url <> $4",
    )
    .bind(domain(&link.key))
    .bind(link.key.slug.as_str())
    .bind(link.id.0)
    .bind(link.long_url.as_str())
    .bind(link.redirect_status.code().cast_signed())
    .bind(&link.tenant)
    .bind(link.state as i16)
    .bind(link.version.get().cast_signed())
    .bind(at(link.created_at))
    .bind(at(link.updated_at))
    .bind(link.valid_since.map(at))
    .bind(link.valid_until.map(at))
    .bind(link.max_visits.map(u64::cast_signed))
    .bind(&link.title)
    .bind(array_literal(&link.tags))
    .bind(link.forward_query)
    .bind(&link.password_hash)
    .bind(link.create_id.0)
    .bind(link.source.map(|source| source.to_bytes()))
    .bind(&link.signature[..])
    .bind(at(now))
    .bind(change.map(|id| id.0))
    .execute(tx)
    .await?;
    Ok(())
}

/// The text form of an array of texts; an array of arrays of different lengths,
/// as a batch would need, is something that Postgres does not have.
fn array_literal(tags: &[String]) -> Option<String> {
    if tags.is_empty() {
        return None;
    }
    let quoted: Vec<String> = tags
        .iter()
        .map(|tag| format!("\"{}\"", tag.replace('\\', "\\\\").replace('"', "\\\"")))
        .collect();
    Some(format!("{{{}}}", quoted.join(",")))
}
