//! How a Postgres database is named and reached.

use std::fmt;
use std::io::ErrorKind;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};

use super::{Error, Schema};
use crate::config::Invalid;

/// For a connection to be there, so that a host that swallows packets is as bad as
/// one that refuses them.
const CONNECT: Duration = Duration::from_secs(5);

/// What the server allows a statement that changes the schema, which may wait for
/// another process's.
const STATEMENT: Duration = Duration::from_secs(60);

/// The value of `--postgres-url`, or one of a list of such. It may hold a password and is never shown. Not
/// checked by clap, whose complaints quote what they complain about.
#[derive(Clone)]
pub struct PostgresUrl(String);

impl From<String> for PostgresUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

impl PostgresUrl {
    /// How to reach the database, which shows its sessions under this name.
    ///
    /// # Errors
    /// If it is no URL of a database.
    pub fn options(&self, application: &str) -> Result<PgConnectOptions, Invalid> {
        self.options_of("--postgres-url", application)
    }

    /// The same, for another option than `--postgres-url`.
    ///
    /// # Errors
    /// If it is no URL of a database.
    pub fn options_of(
        &self,
        option: &'static str,
        application: &str,
    ) -> Result<PgConnectOptions, Invalid> {
        let is_postgres = ["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| self.0.starts_with(scheme));
        // The parser's error may hold the URL.
        let options = PgConnectOptions::from_str(&self.0).ok();
        match options.filter(|_| is_postgres) {
            Some(options) => Ok(options.application_name(application)),
            None => Err(Invalid {
                option,
                problem: "expected postgres://user:password@host:port/database".to_owned(),
            }),
        }
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostgresUrl")
    }
}

impl Schema {
    /// Brings a database up to date over a connection of its own, and gives that.
    /// A pool would take back one that still holds the lock when nobody waits for
    /// the outcome any more.
    ///
    /// # Errors
    /// As [`Schema::apply`].
    pub async fn apply_to_postgres(
        &self,
        options: &PgConnectOptions,
    ) -> Result<PgConnection, Error> {
        let limit = || STATEMENT.as_millis().to_string();
        let limits = [("statement_timeout", limit()), ("lock_timeout", limit())];
        let options = options.clone().options(limits);
        let mut connection = tokio::time::timeout(CONNECT, options.connect())
            .await
            .map_err(|_| sqlx::Error::Io(ErrorKind::TimedOut.into()))??;
        self.apply(&mut connection).await?;
        Ok(connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_is_none_is_refused_without_being_shown() {
        for wrong in [
            "postgres://waypost:hunter2@host:port/links",
            "waypost:hunter2@host/links",
            "mysql://waypost:hunter2@host/links",
        ] {
            let url = PostgresUrl::from(wrong.to_owned());
            let shown = format!("{url:?} {}", url.options("test").unwrap_err());
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        let url = PostgresUrl::from("postgres://waypost:hunter2@host/links".to_owned());
        assert!(url.options("test").is_ok());
    }
}
