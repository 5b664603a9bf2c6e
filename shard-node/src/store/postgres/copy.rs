//! Rows of prefixes from one shard's database to another's, as they are.
//!
//! Two databases are compared by sums over stretches of keys, and a stretch that differs
//! is written anew. The same is the first copy, what has changed since, and the proof
//! that nothing differs any more. Rows travel as JSON with all their columns: what a row
//! says, and whether its signature is ours, is not this module's to know.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection as _, Row as _};
use uuid::Uuid;
use waypost_domain::{Epoch, Prefix};

use super::PostgresSession;
use super::handover::{self, Refused};
use crate::store::Error;

/// What the server allows a statement that reads all rows of some prefixes.
const STATEMENT: &str = "SET LOCAL statement_timeout = '30s'";

/// Bytes of JSON that one answer may carry: what a message may is 4 MiB.
const MAX_BYTES: usize = 2 * 1024 * 1024;

/// What belongs to a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Links,
    Visits,
    Audit,
    Claims,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Links, Self::Visits, Self::Audit, Self::Claims];
}

/// A place in the order of the keys of one kind and prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// A slug, or the name of a claim in hexadecimal digits.
    pub key: String,
    /// The version of a change; 0 where there is one row for each key.
    pub number: i64,
}

impl Place {
    /// Before all keys.
    #[must_use]
    pub fn start() -> Self {
        Self {
            key: String::new(),
            number: 0,
        }
    }

    /// After all keys, which are ASCII and visible.
    #[must_use]
    pub fn end() -> Self {
        Self {
            key: "\u{7f}".to_owned(),
            number: i64::MAX,
        }
    }
}

/// Keys after a place, up to another and with that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    pub prefix: Prefix,
    pub kind: Kind,
    pub after: Place,
    pub upto: Place,
}

/// A sum over rows, which is equal only if they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    pub prefix: Prefix,
    pub kind: Kind,
    pub rows: u64,
    pub sum: String,
}

/// A stretch of rows and their sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its last key; `None`: there are no more rows.
    pub upto: Option<Place>,
    pub rows: u64,
    pub sum: String,
    pub json: Rows,
}

/// Rows as JSON.
pub type Rows = Vec<String>;

/// The rows of a kind, as `r`, and the conditions on their keys: $1 and $2 are the
/// prefix's first slug and the one after its last, $3 and $4 the place before the
/// stretch, $5 and $6 its last one.
macro_rules! rows_of {
    (Links, $head:literal, $tail:literal) => {
        rows_of!(@ $head, "links AS r WHERE r.domain = 0 AND r.slug >= $1 AND r.slug < $2
            AND r.slug > $3 AND $4::bigint IS NOT NULL
            AND r.slug <= $5 AND $6::bigint IS NOT NULL", $tail)
    };
    (Visits, $head:literal, $tail:literal) => {
        rows_of!(@ $head, "visits AS r WHERE r.domain = 0 AND r.slug >= $1 AND r.slug < $2
            AND r.slug > $3 AND $4::bigint IS NOT NULL
            AND r.slug <= $5 AND $6::bigint IS NOT NULL", $tail)
    };
    (Audit, $head:literal, $tail:literal) => {
        rows_of!(@ $head, "(SELECT a.at, a.version, a.domain, a.slug, a.tenant, a.old_url, a.new_url
             FROM audit AS a WHERE a.slug >= $1 AND a.slug < $2
             AND (a.slug, a.version) > ($3, $4) AND (a.slug, a.version) <= ($5, $6)) AS r
            WHERE true", $tail)
    };
    (Claims, $head:literal, $tail:literal) => {
        rows_of!(@ $head, "(SELECT c.created_at, c.source_id, c.digest FROM claims AS c
             WHERE c.prefix = $1 AND $2::text IS NOT NULL
             AND encode(c.source_id, 'hex') COLLATE \"C\" > $3 AND $4::bigint IS NOT NULL
             AND encode(c.source_id, 'hex') COLLATE \"C\" <= $5
             AND $6::bigint IS NOT NULL) AS r
            WHERE true", $tail)
    };
    (@ $head:literal, $from:literal, $tail:literal) => {
        concat!("-- shard.copy\nSELECT ", $head, " FROM ", $from, $tail)
    };
}

/// One statement for each kind.
macro_rules! each {
    ($kind:expr, $slug:literal, $audit:literal, $claim:literal, $tail:literal) => {
        match $kind {
            Kind::Links => rows_of!(Links, $slug, $tail),
            Kind::Visits => rows_of!(Visits, $slug, $tail),
            Kind::Audit => rows_of!(Audit, $audit, $tail),
            Kind::Claims => rows_of!(Claims, $claim, $tail),
        }
    };
}

/// Delete what belongs to links: $1 is the prefix, $2 the most rows of each kind.
const SWEEP_BELONGINGS: &[&str] = &[
    "-- shard.sweep_visits
     DELETE FROM visits WHERE domain = 0 AND slug = ANY(ARRAY(
        SELECT v.slug FROM visits AS v WHERE v.domain = 0 AND v.slug >= $1
        AND v.slug < left($1, 1) || chr(ascii(right($1, 1)) + 1)
        ORDER BY v.slug LIMIT $2))",
    "-- shard.sweep_audit
     DELETE FROM audit WHERE id = ANY(ARRAY(
        SELECT a.id FROM audit AS a WHERE a.slug >= $1
        AND a.slug < left($1, 1) || chr(ascii(right($1, 1)) + 1)
        ORDER BY a.slug, a.version LIMIT $2))",
    "-- shard.sweep_claims
     DELETE FROM claims WHERE source_id = ANY(ARRAY(
        SELECT c.source_id FROM claims AS c WHERE c.prefix = $1 LIMIT $2))",
    "-- shard.sweep_outbox
     DELETE FROM outbox WHERE id = ANY(ARRAY(
        SELECT b.id FROM outbox AS b WHERE left(b.slug, 2) = $1 LIMIT $2))",
];

const SWEEP_LINKS: &[&str] = &["-- shard.sweep_links
     DELETE FROM links WHERE domain = 0 AND slug = ANY(ARRAY(
        SELECT l.slug FROM links AS l WHERE l.domain = 0 AND l.slug >= $1
        AND l.slug < left($1, 1) || chr(ascii(right($1, 1)) + 1)
        ORDER BY l.slug LIMIT $2))"];

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

impl Stretch {
    /// The whole of a prefix.
    #[must_use]
    pub fn whole(prefix: Prefix, kind: Kind) -> Self {
        Self {
            prefix,
            kind,
            after: Place::start(),
            upto: Place::end(),
        }
    }

    fn bind<'q>(&'q self, statement: &'static str) -> Query<'q> {
        let [first, second] = self.prefix.bytes();
        // A digit of base62 is never the last byte that there is.
        let next = [first, second + 1].map(char::from);
        sqlx::query(statement)
            .bind(self.prefix.to_string())
            .bind(String::from_iter(next))
            .bind(&self.after.key)
            .bind(self.after.number)
            .bind(&self.upto.key)
            .bind(self.upto.number)
    }

    /// How many rows, and their sum.
    async fn sum(&self, connection: &mut PgConnection) -> Result<(u64, String), sqlx::Error> {
        let statement = each!(
            self.kind,
            "count(*), coalesce(md5(string_agg(md5(r::text), '' ORDER BY r.slug)), '')",
            "count(*), coalesce(md5(string_agg(md5(r::text), ''
                ORDER BY r.slug, r.version, r::text)), '')",
            "count(*), coalesce(md5(string_agg(md5(r::text), '' ORDER BY r.source_id)), '')",
            ""
        );
        let row = self.bind(statement).fetch_one(connection).await?;
        let rows: i64 = row.try_get(0)?;
        Ok((rows.cast_unsigned(), row.try_get(1)?))
    }

    /// The place of the last of at most `limit` rows.
    async fn last(
        &self,
        connection: &mut PgConnection,
        limit: u32,
    ) -> Result<Option<Place>, sqlx::Error> {
        let statement = each!(
            self.kind,
            "r.slug, 0::bigint",
            "r.slug, r.version",
            "encode(r.source_id, 'hex') COLLATE \"C\", 0::bigint",
            " ORDER BY 1, 2 OFFSET $7 - 1 LIMIT 1"
        );
        let found = self
            .bind(statement)
            .bind(i64::from(limit))
            .fetch_optional(connection)
            .await?;
        let place = |row: PgRow| {
            Ok(Place {
                key: row.try_get(0)?,
                number: row.try_get(1)?,
            })
        };
        found.map(place).transpose()
    }

    async fn json(&self, connection: &mut PgConnection) -> Result<Rows, sqlx::Error> {
        let statement = each!(
            self.kind,
            "row_to_json(r)::text",
            "row_to_json(r)::text",
            "row_to_json(r)::text",
            ""
        );
        let found = self.bind(statement).fetch_all(connection).await?;
        found.iter().map(|row| row.try_get(0)).collect()
    }
}

impl PostgresSession {
    /// What this database holds of the prefixes.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn digests(&mut self, prefixes: &[Prefix]) -> Result<Vec<Digest>, Error> {
        let mut tx = self.connection.begin().await?;
        sqlx::query(STATEMENT).execute(&mut *tx).await?;
        let mut digests = Vec::with_capacity(prefixes.len() * Kind::ALL.len());
        for prefix in prefixes {
            for kind in Kind::ALL {
                let (rows, sum) = Stretch::whole(*prefix, kind).sum(&mut tx).await?;
                digests.push(Digest {
                    prefix: *prefix,
                    kind,
                    rows,
                    sum,
                });
            }
        }
        tx.commit().await?;
        Ok(digests)
    }

    /// The sum of a stretch, as far as `limit` rows go, and these rows unless they are too
    /// many for one answer. Without a limit the sum of all of it, and no rows.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn page(&mut self, stretch: &Stretch, limit: Option<u32>) -> Result<Page, Error> {
        let mut tx = self.connection.begin().await?;
        sqlx::query(STATEMENT).execute(&mut *tx).await?;
        let Some(limit) = limit else {
            let (rows, sum) = stretch.sum(&mut tx).await?;
            tx.commit().await?;
            let json = Rows::new();
            return Ok(Page {
                upto: None,
                rows,
                sum,
                json,
            });
        };
        let upto = stretch.last(&mut tx, limit).await?;
        let part = Stretch {
            upto: upto.clone().unwrap_or_else(|| stretch.upto.clone()),
            ..stretch.clone()
        };
        let (rows, sum) = part.sum(&mut tx).await?;
        let mut json = part.json(&mut tx).await?;
        tx.commit().await?;
        if json.len() > 1 && json.iter().map(String::len).sum::<usize>() > MAX_BYTES {
            json.clear();
        }
        Ok(Page {
            upto,
            rows,
            sum,
            json,
        })
    }

    /// Makes these the rows of a stretch of a prefix that is admitted under this id.
    ///
    /// # Errors
    /// If it is not.
    pub async fn put(
        &mut self,
        stretch: &Stretch,
        move_id: Uuid,
        rows: &[String],
    ) -> Result<(), Refused> {
        let mut tx = self.connection.begin().await?;
        let is_admitted: Option<i32> = sqlx::query_scalar(
            "-- shard.admitted
             SELECT o.coming_epoch FROM prefix_owner AS o
             WHERE o.prefix = $1 AND o.coming_epoch IS NOT NULL AND o.move_id = $2 FOR SHARE",
        )
        .bind(stretch.prefix.to_string())
        .bind(move_id)
        .fetch_optional(&mut *tx)
        .await?;
        if is_admitted.is_none() {
            return handover::end(tx, Err(Refused::Outdated)).await;
        }
        let delete = match stretch.kind {
            Kind::Links => {
                "-- shard.uncopy_links
                 DELETE FROM links AS r WHERE r.domain = 0 AND r.slug >= $1 AND r.slug < $2
                 AND r.slug > $3 AND $4::bigint IS NOT NULL
                 AND r.slug <= $5 AND $6::bigint IS NOT NULL"
            }
            Kind::Visits => {
                "-- shard.uncopy_visits
                 DELETE FROM visits AS r WHERE r.domain = 0 AND r.slug >= $1 AND r.slug < $2
                 AND r.slug > $3 AND $4::bigint IS NOT NULL
                 AND r.slug <= $5 AND $6::bigint IS NOT NULL"
            }
            Kind::Audit => {
                "-- shard.uncopy_audit
                 DELETE FROM audit AS a WHERE a.slug >= $1 AND a.slug < $2
                 AND (a.slug, a.version) > ($3, $4) AND (a.slug, a.version) <= ($5, $6)"
            }
            Kind::Claims => {
                "-- shard.uncopy_claims
                 DELETE FROM claims AS c WHERE c.prefix = $1 AND $2::text IS NOT NULL
                 AND encode(c.source_id, 'hex') COLLATE \"C\" > $3 AND $4::bigint IS NOT NULL
                 AND encode(c.source_id, 'hex') COLLATE \"C\" <= $5 AND $6::bigint IS NOT NULL"
            }
        };
        stretch.bind(delete).execute(&mut *tx).await?;
        let insert = match stretch.kind {
            Kind::Links => {
                "-- shard.copy_links
                 INSERT INTO links SELECT r.* FROM unnest($1::text[]) AS j(row),
                    json_populate_record(null::links, j.row::json) AS r"
            }
            Kind::Visits => {
                "-- shard.copy_visits
                 INSERT INTO visits SELECT r.* FROM unnest($1::text[]) AS j(row),
                    json_populate_record(null::visits, j.row::json) AS r"
            }
            Kind::Audit => {
                "-- shard.copy_audit
                 INSERT INTO audit (at, version, domain, slug, tenant, old_url, new_url)
                 SELECT r.at, r.version, r.domain, r.slug, r.tenant, r.old_url, r.new_url
                 FROM unnest($1::text[]) AS j(row),
                    json_populate_record(null::audit, j.row::json) AS r"
            }
            Kind::Claims => {
                "-- shard.copy_claims
                 INSERT INTO claims (created_at, source_id, digest)
                 SELECT r.created_at, r.source_id, r.digest FROM unnest($1::text[]) AS j(row),
                    json_populate_record(null::claims, j.row::json) AS r"
            }
        };
        sqlx::query(insert).bind(rows).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Deletes some rows of a prefix that another shard owns in this epoch, at most so
    /// many of each kind. Gives how many; 0: there are none left.
    ///
    /// # Errors
    /// If this shard owns it, or it is on its way here, or has another epoch.
    pub async fn sweep(
        &mut self,
        prefix: Prefix,
        epoch: Epoch,
        limit: u32,
    ) -> Result<u64, Refused> {
        let prefix = prefix.to_string();
        let mut tx = self.connection.begin().await?;
        let is_elsewhere: Option<i32> = sqlx::query_scalar(
            "-- shard.elsewhere
             SELECT o.epoch FROM prefix_owner AS o
             WHERE o.prefix = $1 AND o.state = 'moved' AND o.coming_epoch IS NULL
               AND o.epoch = $2 FOR SHARE",
        )
        .bind(&prefix)
        .bind(epoch.get().cast_signed())
        .fetch_optional(&mut *tx)
        .await?;
        if is_elsewhere.is_none() {
            return handover::end(tx, Err(Refused::Outdated)).await;
        }
        let mut deleted = 0;
        // Links last: who looks whether there is something left looks for them.
        for statements in [SWEEP_BELONGINGS, SWEEP_LINKS] {
            for statement in statements {
                let swept = sqlx::query(*statement)
                    .bind(&prefix)
                    .bind(i64::from(limit))
                    .execute(&mut *tx)
                    .await?;
                deleted += swept.rows_affected();
            }
            if deleted > 0 {
                break;
            }
        }
        tx.commit().await?;
        Ok(deleted)
    }
}
