//! Counters in Postgres.

use std::collections::HashMap;
use std::ops::Range;

use sqlx::PgPool;
use waypost_domain::Prefix;
use waypost_runtime::database::{self, Schema};

use super::{CounterStore, Error, Want};

/// Its steps are noted in a table of their own, so that the counters may share a
/// database with other tables.
const SCHEMA: Schema = Schema {
    table: "keygen_migrations",
    steps: &[(
        "key counters",
        include_str!("../../migrations/postgres/0001_key_counters.sql"),
    )],
};

/// Rows are created and locked in the order of their prefixes, so that two keygens
/// never wait for each other in a circle.
const CREATE_ROWS: &str = "\
-- keygen.create_counters
INSERT INTO key_counter (prefix, next)
SELECT prefix, 0 FROM unnest($1::text[]) AS wanted (prefix) ORDER BY prefix COLLATE \"C\"
ON CONFLICT (prefix) DO NOTHING";

const LOCK_ROWS: &str = "\
-- keygen.lock_counters
SELECT prefix, next FROM key_counter WHERE prefix = ANY($1::text[]) ORDER BY prefix FOR UPDATE";

const MOVE_ROWS: &str = "\
-- keygen.move_counters
UPDATE key_counter SET next = moved.next
FROM unnest($1::text[], $2::bigint[]) AS moved (prefix, next)
WHERE key_counter.prefix = moved.prefix";

/// In the order of the prefixes, as above.
const RAISE_ROWS: &str = "\
-- keygen.raise_counters
INSERT INTO key_counter (prefix, next)
SELECT prefix, next FROM unnest($1::text[], $2::bigint[]) AS raised (prefix, next)
ORDER BY prefix COLLATE \"C\"
ON CONFLICT (prefix) DO UPDATE SET next = greatest(key_counter.next, excluded.next)
RETURNING prefix, next";

/// Counters in Postgres, which several keygens share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PostgresCounters {
    pool: PgPool,
}

impl PostgresCounters {
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Brings the schema up to date, under a lock of the database.
    ///
    /// # Errors
    /// If the database does not answer, or a later release made its schema.
    pub async fn migrate(&self) -> Result<(), database::Error> {
        SCHEMA
            .apply_to_postgres(&self.pool.connect_options())
            .await
            .map(drop)
    }
}

impl CounterStore for PostgresCounters {
    async fn take(&self, wants: &[Want]) -> Result<Vec<Range<u64>>, Error> {
        let prefixes: Vec<String> = wants.iter().map(|want| want.prefix.to_string()).collect();
        let mut transaction = self.pool.begin().await?;
        sqlx::query(CREATE_ROWS)
            .bind(&prefixes)
            .execute(&mut *transaction)
            .await?;
        let rows: HashMap<String, i64> = sqlx::query_as(LOCK_ROWS)
            .bind(&prefixes)
            .fetch_all(&mut *transaction)
            .await?
            .into_iter()
            .collect();
        let mut ranges = Vec::with_capacity(wants.len());
        for (want, prefix) in wants.iter().zip(&prefixes) {
            let next = rows.get(prefix).and_then(|next| u64::try_from(*next).ok());
            ranges.push(want.range_from(next.ok_or(Error::Row(want.prefix))?));
        }
        let ends: Vec<i64> = ranges.iter().map(|range| range.end.cast_signed()).collect();
        sqlx::query(MOVE_ROWS)
            .bind(&prefixes)
            .bind(&ends)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(ranges)
    }

    async fn raise(&self, counters: &[(Prefix, u64)]) -> Result<Vec<u64>, Error> {
        let (prefixes, nexts): (Vec<String>, Vec<i64>) = counters
            .iter()
            .map(|(prefix, next)| (prefix.to_string(), next.cast_signed()))
            .unzip();
        let rows: HashMap<String, i64> = sqlx::query_as(RAISE_ROWS)
            .bind(&prefixes)
            .bind(&nexts)
            .fetch_all(&self.pool)
            .await?
            .into_iter()
            .collect();
        let stands = |(prefix, _): &(Prefix, u64)| {
            let next = rows.get(&prefix.to_string());
            next.and_then(|next| u64::try_from(*next).ok())
                .ok_or(Error::Row(*prefix))
        };
        counters.iter().map(stands).collect()
    }
}
