//! The database of a service: its URL, its schema, and the wait for it at the
//! start.

use std::time::Duration;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};

#[cfg(feature = "postgres")]
mod postgres;

#[cfg(feature = "postgres")]
pub use postgres::{PostgresOptions, PostgresUrl};

use crate::Shutdown;
use crate::process::with_causes;

/// For one attempt, which may wait for another process's migration.
const ATTEMPT: Duration = Duration::from_secs(90);

/// Between two attempts, at first and at most: a database that is back is noticed
/// soon, and one that is down is not flooded.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(2);

/// The schema of a service: steps that are taken in order, each of them once.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// Where the database notes which steps were taken.
    pub table: &'static str,
    /// A name and its SQL; the first has version 1.
    pub steps: &'static [(&'static str, &'static str)],
}

/// Why a database has not the schema of this release.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to reach the database or to change its schema")]
    Database(#[from] sqlx::Error),
    /// A later release has put meaning there that this one would not keep.
    #[error(
        "failed to recognise the schema: it is at version {0}, which this release does not know"
    )]
    Unknown(i64),
    #[error("failed to bring the schema up to date")]
    Migrate(#[source] MigrateError),
}

impl Schema {
    /// Brings a database up to date. Postgres lets one process at a time do so.
    ///
    /// # Errors
    /// If the database does not answer or refuses, or its schema is not ours.
    pub async fn apply<C: Migrate>(&self, connection: &mut C) -> Result<(), Error> {
        let migrations = self.steps.iter().zip(1..).map(|((name, sql), version)| {
            let sql = sql.into_sql_str();
            Migration::new(version, (*name).into(), MigrationType::Simple, sql, false)
        });
        let mut migrator = Migrator::with_migrations(migrations.collect());
        migrator.dangerous_set_table_name(self.table);
        // `run` would ask of the caller's future what it cannot promise.
        let applied = migrator.run_direct(None, connection, false).await;
        applied.map_err(|error| match error {
            MigrateError::VersionMissing(version) => Error::Unknown(version),
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                Error::Database(error)
            }
            error => Error::Migrate(error),
        })
    }
}

impl Error {
    /// Whether trying again cannot help.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        !matches!(self, Self::Database(error) if may_pass(error))
    }
}

/// Whether the same statement may succeed later, with nobody changing an option, a
/// right or the schema.
#[must_use]
pub fn may_pass(error: &sqlx::Error) -> bool {
    use sqlx::Error as Sqlx;
    match error {
        Sqlx::Io(_)
        | Sqlx::Tls(_)
        | Sqlx::Protocol(_)
        | Sqlx::PoolTimedOut
        | Sqlx::WorkerCrashed
        | Sqlx::BeginFailed => true,
        Sqlx::Database(database) => match database.code().as_deref().map(str::as_bytes) {
            // Connection lost, rolled back for another's sake, out of resources,
            // starting or stopping.
            Some([b'0', b'8', ..] | [b'4', b'0', ..] | [b'5', b'3', ..]) => true,
            Some([b'5', b'7', b'P', ..]) => true,
            // A standby, a lock's or a statement's time, and a database that is
            // about to be created.
            Some(code) => matches!(code, b"25006" | b"55P03" | b"57014" | b"3D000"),
            None => false,
        },
        _ => false,
    }
}

/// Prepares a database, however long it takes to be reached: the process answers
/// its probes meanwhile. False if it is to end before.
///
/// # Errors
/// If trying again cannot help.
pub async fn prepare<E, F>(
    shutdown: &Shutdown,
    mut attempt: impl FnMut() -> F,
    is_permanent: impl Fn(&E) -> bool,
) -> Result<bool, crate::Error>
where
    E: std::error::Error + Send + Sync + 'static,
    F: Future<Output = Result<(), E>>,
{
    let mut retry = FIRST_RETRY;
    let mut waiting = false;
    let prepared = async {
        loop {
            let problem = match tokio::time::timeout(ATTEMPT, attempt()).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) if is_permanent(&error) => return Err(error),
                Ok(Err(error)) => with_causes(&error),
                Err(_) => format!("nothing came of it within {ATTEMPT:?}"),
            };
            if !waiting {
                tracing::warn!(error = problem, "database not prepared, trying again");
                waiting = true;
            }
            tokio::time::sleep(retry).await;
            retry = LAST_RETRY.min(retry * 2);
        }
        if waiting {
            tracing::info!("database prepared at last");
        }
        Ok(())
    };
    match shutdown.token().run_until_cancelled(prepared).await {
        Some(Ok(())) => Ok(true),
        Some(Err(error)) => Err(crate::Error::failed("prepare the database", error)),
        None => Ok(false),
    }
}

/// The same for a process that does nothing else, so that it has failed if it is told to
/// end before.
///
/// # Errors
/// As [`prepare`], or if the process was told to end.
pub async fn prepare_only<E, F>(
    shutdown: &Shutdown,
    attempt: impl FnMut() -> F,
    is_permanent: impl Fn(&E) -> bool,
) -> Result<(), crate::Error>
where
    E: std::error::Error + Send + Sync + 'static,
    F: Future<Output = Result<(), E>>,
{
    if prepare(shutdown, attempt, is_permanent).await? {
        return Ok(());
    }
    let told = "the process was told to end before";
    Err(crate::Error::failed("prepare the database", told))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, thiserror::Error)]
    #[error("failed to try")]
    struct Failed {
        permanent: bool,
    }

    async fn prepare_with(outcomes: &[Result<(), Failed>]) -> (Result<bool, String>, usize) {
        let shutdown = Shutdown::new(Duration::ZERO);
        let mut tried = 0;
        let attempt = || {
            tried += 1;
            let outcome = match &outcomes[tried - 1] {
                Ok(()) => Ok(()),
                Err(Failed { permanent }) => Err(Failed {
                    permanent: *permanent,
                }),
            };
            std::future::ready(outcome)
        };
        let prepared = prepare(&shutdown, attempt, |error| error.permanent).await;
        (prepared.map_err(|error| error.to_string()), tried)
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_again_and_what_is_permanent_is_not() {
        let passing = || Err(Failed { permanent: false });
        let permanent = || Err(Failed { permanent: true });
        let (prepared, tried) = prepare_with(&[passing(), passing(), Ok(())]).await;
        assert_eq!((prepared, tried), (Ok(true), 3));
        let (prepared, tried) = prepare_with(&[passing(), permanent(), Ok(())]).await;
        let failed = Err("failed to prepare the database".to_owned());
        assert_eq!((prepared, tried), (failed, 2));
    }

    #[tokio::test]
    async fn a_process_that_is_to_end_does_not_wait_for_its_database() {
        let shutdown = Shutdown::new(Duration::ZERO);
        let attempt = || {
            shutdown.request();
            std::future::pending::<Result<(), Failed>>()
        };
        let prepared = prepare(&shutdown, attempt, |error| error.permanent).await;
        assert!(!prepared.unwrap());
    }
}
