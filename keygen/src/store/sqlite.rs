//! Counters in a SQLite file.

use std::ops::Range;
use std::path::Path;

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use waypost_domain::Prefix;
use waypost_runtime::database::{self, Schema};

use super::{CounterStore, Error, Want};

/// Its steps are noted in a table of their own, so that the counters may share a
/// database with other tables.
const SCHEMA: Schema = Schema {
    table: "keygen_migrations",
    steps: &[(
        "key counters",
        include_str!("../../migrations/sqlite/0001_key_counters.sql"),
    )],
};

const READ: &str = "\
-- keygen.read_counter
SELECT next FROM key_counter WHERE prefix = ?1";

const HIGHEST: &str = "\
-- keygen.highest_counter
SELECT coalesce(max(next), 0) FROM key_counter";

const MOVE: &str = "\
-- keygen.move_counter
INSERT INTO key_counter (prefix, next) VALUES (?1, ?2)
ON CONFLICT (prefix) DO UPDATE SET next = excluded.next";

const RAISE: &str = "\
-- keygen.raise_counter
INSERT INTO key_counter (prefix, next) VALUES (?1, ?2)
ON CONFLICT (prefix) DO UPDATE SET next = max(next, excluded.next)
RETURNING next";

const EVERY: &str = "\
-- keygen.every_counter
SELECT prefix, next FROM key_counter ORDER BY prefix";

/// Counters in a SQLite file of one process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SqliteCounters {
    pool: SqlitePool,
}

impl SqliteCounters {
    /// Opens the file, creates it if there is none, and brings its schema up to
    /// date.
    ///
    /// # Errors
    /// If the file is no database of ours, or a later release made its schema.
    pub async fn open(path: &Path) -> Result<Self, database::Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A counter that a power cut sets back would issue slugs again.
            .synchronous(SqliteSynchronous::Full);
        // SQLite has one writer at a time; a second connection would only wait.
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await?;
        SCHEMA.apply(&mut *pool.acquire().await?).await?;
        Ok(Self { pool })
    }

    /// The counter that stands highest, of whatever prefix; 0 if there is none.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn highest(&self) -> Result<u64, Error> {
        let next: i64 = sqlx::query_scalar(HIGHEST).fetch_one(&self.pool).await?;
        Ok(next.unsigned_abs())
    }

    /// Ends the use of the file; nothing of ours is open afterwards.
    pub async fn close(self) {
        self.pool.close().await;
    }

    /// The first number of each prefix that nobody was given.
    ///
    /// # Errors
    /// If the file cannot be read, or a row is damaged.
    pub async fn every(&self) -> Result<Vec<(Prefix, u64)>, Error> {
        let rows: Vec<(String, i64)> = sqlx::query_as(EVERY).fetch_all(&self.pool).await?;
        let counter = |(prefix, next): (String, i64)| {
            let prefix = Prefix::parse(&prefix).ok_or(Error::Prefix(prefix))?;
            let next = u64::try_from(next).map_err(|_| Error::Row(prefix))?;
            Ok((prefix, next))
        };
        rows.into_iter().map(counter).collect()
    }
}

impl CounterStore for SqliteCounters {
    async fn take(&self, wants: &[Want]) -> Result<Vec<Range<u64>>, Error> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let mut ranges = Vec::with_capacity(wants.len());
        for want in wants {
            let prefix = want.prefix.to_string();
            let next: Option<i64> = sqlx::query_scalar(READ)
                .bind(&prefix)
                .fetch_optional(&mut *transaction)
                .await?;
            let next =
                u64::try_from(next.unwrap_or_default()).map_err(|_| Error::Row(want.prefix))?;
            let range = want.range_from(next);
            sqlx::query(MOVE)
                .bind(&prefix)
                .bind(range.end.cast_signed())
                .execute(&mut *transaction)
                .await?;
            ranges.push(range);
        }
        transaction.commit().await?;
        Ok(ranges)
    }

    async fn raise(&self, counters: &[(Prefix, u64)]) -> Result<Vec<u64>, Error> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let mut stand = Vec::with_capacity(counters.len());
        for (prefix, next) in counters {
            let next: i64 = sqlx::query_scalar(RAISE)
                .bind(prefix.to_string())
                .bind(next.cast_signed())
                .fetch_one(&mut *transaction)
                .await?;
            stand.push(u64::try_from(next).map_err(|_| Error::Row(*prefix))?);
        }
        transaction.commit().await?;
        Ok(stand)
    }
}
