//! How a Postgres database is named and reached.

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use url::Url;

use super::{Error, Schema};
use crate::config::Invalid;

/// For a connection to be there, so that a host that swallows packets is as bad as
/// one that refuses them.
const CONNECT: Duration = Duration::from_secs(5);

/// What the server allows a statement that changes the schema, which may wait for
/// another process's.
const STATEMENT: Duration = Duration::from_secs(60);

/// Which database.
#[derive(Debug, Clone, clap::Args)]
pub struct PostgresOptions {
    /// The database, as postgres://user:password@host:port/database, with the parameters
    /// of libpq: sslmode=verify-full, sslrootcert, sslcert and sslkey. What it lacks is
    /// taken from PGUSER, PGPASSWORD, PGSSLMODE and their like
    #[arg(
        long,
        env = "WAYPOST_POSTGRES_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub postgres_url: Option<PostgresUrl>,

    /// File that holds the URL instead, as where a password is mounted with it; read at
    /// the start
    #[arg(long, env = "WAYPOST_POSTGRES_URL_FILE", value_name = "FILE")]
    pub postgres_url_file: Option<PathBuf>,
}

impl PostgresOptions {
    /// The URL, wherever it stands.
    ///
    /// # Errors
    /// If it stands in both places or in none, or the file cannot be read.
    pub fn url(&self) -> Result<PostgresUrl, Invalid> {
        match (&self.postgres_url, &self.postgres_url_file) {
            (Some(url), None) => Ok(url.clone()),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file).map_err(|error| Invalid {
                    option: "--postgres-url-file",
                    problem: format!("cannot read {}: {error}", file.display()),
                })?;
                Ok(PostgresUrl(text.trim().to_owned()))
            }
            (Some(_), Some(_)) => Err(Invalid {
                option: "--postgres-url-file",
                problem: "--postgres-url is set, too".to_owned(),
            }),
            (None, None) => Err(Invalid {
                option: "--postgres-url",
                problem: "missing; or --postgres-url-file, with the URL in it".to_owned(),
            }),
        }
    }

    /// How to reach the database, which shows its sessions under this name.
    ///
    /// # Errors
    /// As [`PostgresOptions::url`], and if it is no URL of a database.
    pub fn connect(&self, application: &str) -> Result<PgConnectOptions, Invalid> {
        self.url()?.options("--postgres-url", application)
    }
}

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
    /// The same database at another server, as far as that one's URL says nothing else:
    /// with this one's user, password, database and parameters.
    #[must_use]
    pub fn at(&self, other: &Self) -> Self {
        let (Ok(own), Ok(mut other_url)) = (Url::parse(&self.0), Url::parse(&other.0)) else {
            return other.clone();
        };
        if other_url.username().is_empty() {
            // Neither can fail for a URL with a host, and without one it is refused later.
            let _ = other_url.set_username(own.username());
            let _ = other_url.set_password(own.password());
        }
        if other_url.path().trim_matches('/').is_empty() {
            other_url.set_path(own.path());
        }
        if other_url.query().is_none() {
            other_url.set_query(own.query());
        }
        Self(other_url.into())
    }

    /// How to reach the database, which shows its sessions under this name.
    ///
    /// # Errors
    /// If it is no URL of a database; names the option that gave it.
    pub fn options(
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
        let settings = [
            ("statement_timeout", limit()),
            ("lock_timeout", limit()),
            // That what is to be there is there already is no news.
            ("client_min_messages", "warning".to_owned()),
        ];
        let options = options.clone().options(settings);
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
            let shown = format!(
                "{url:?} {}",
                url.options("--postgres-url", "test").unwrap_err()
            );
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        let url = PostgresUrl::from("postgres://waypost:hunter2@host/links".to_owned());
        assert!(url.options("--postgres-url", "test").is_ok());
    }

    #[test]
    fn a_standby_is_the_same_database_with_the_same_user_unless_it_says_otherwise() {
        let url = |text: &str| PostgresUrl::from(text.to_owned());
        let primary = url("postgres://waypost:hunter2@rw:5432/links?sslmode=verify-full");
        let same = primary.at(&url("postgres://ro:5433"));
        assert_eq!(
            same.0,
            "postgres://waypost:hunter2@ro:5433/links?sslmode=verify-full"
        );
        let own = "postgres://reader:pass@ro/other?sslmode=disable";
        assert_eq!(primary.at(&url(own)).0, own);
    }

    #[test]
    fn a_url_may_stand_in_a_file_and_in_one_place_only() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "postgres://waypost:hunter2@host/links\n").unwrap();
        let options = |url: Option<&str>, file: Option<&std::path::Path>| PostgresOptions {
            postgres_url: url.map(|url| PostgresUrl::from(url.to_owned())),
            postgres_url_file: file.map(ToOwned::to_owned),
        };
        let read = options(None, Some(file.path())).connect("test").unwrap();
        assert_eq!(
            (read.get_host(), read.get_database()),
            ("host", Some("links"))
        );
        let problem = |options: PostgresOptions| options.url().unwrap_err().option;
        assert_eq!(problem(options(None, None)), "--postgres-url");
        let both = options(Some("postgres://host/links"), Some(file.path()));
        assert_eq!(problem(both), "--postgres-url-file");
        let gone = options(None, Some(std::path::Path::new("/nowhere")));
        assert_eq!(problem(gone), "--postgres-url-file");
    }
}
