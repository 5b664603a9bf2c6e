//! Brings a database's schema to the version of this release, and refuses one
//! that is ahead of it: a later release has put meaning there that this one would
//! not keep.

use std::borrow::Cow;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};

use super::Error;

/// The migrator for a schema's steps in order: the first has version 1. Postgres
/// lets one process at a time run it.
#[must_use]
pub(super) fn migrator(steps: &[(&'static str, &'static str)]) -> Migrator {
    let migrations = steps.iter().zip(1..).map(|((name, sql), version)| {
        Migration::new(
            version,
            Cow::Borrowed(*name),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    });
    Migrator::with_migrations(migrations.collect())
}

impl From<MigrateError> for Error {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::VersionMissing(version) => Self::Schema(version),
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                Self::from(error)
            }
            error => Self::Migrate(error),
        }
    }
}
