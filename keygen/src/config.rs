//! What an operator can set.

use std::net::SocketAddr;
use std::path::PathBuf;

use waypost_runtime::config::ProcessOptions;
use waypost_runtime::database::PostgresOptions;
use waypost_runtime::metrics::{self, Registry};
use waypost_runtime::tls::TlsOptions;

/// Leases of unique slugs over gRPC, from counters in Postgres.
#[derive(Debug, clap::Parser)]
#[command(name = "waypost-keygen", version)]
pub struct Options {
    /// Where gRPC listens, as host:port
    #[arg(
        long,
        env = "WAYPOST_LISTEN",
        default_value = "127.0.0.1:7300",
        value_name = "ADDRESS"
    )]
    pub listen: SocketAddr,

    /// Where /live, /ready and /metrics listen, as host:port
    #[arg(
        long,
        env = "WAYPOST_ADMIN_LISTEN",
        default_value = "127.0.0.1:7301",
        value_name = "ADDRESS"
    )]
    pub admin_listen: SocketAddr,

    #[command(flatten)]
    pub postgres: PostgresOptions,

    /// Folder with the secrets service-token and slug-key, one file each
    #[arg(long, env = "WAYPOST_SECRETS_DIR", value_name = "FOLDER")]
    pub secrets_dir: PathBuf,

    /// Bring the database up to date and end, without serving: what a release does once
    /// before its processes start
    #[arg(long, env = "WAYPOST_MIGRATE_ONLY", default_value = "false",
          action = clap::ArgAction::Set, value_name = "BOOL")]
    pub migrate_only: bool,

    #[command(flatten)]
    pub tls: TlsOptions,

    #[command(flatten)]
    pub process: ProcessOptions,
}

impl waypost_runtime::config::Options for Options {
    fn process(&self) -> &ProcessOptions {
        &self.process
    }

    fn admin_listen(&self) -> SocketAddr {
        self.admin_listen
    }

    fn register_metrics(registry: &Registry) -> metrics::Result<()> {
        waypost_runtime::tls::register_metrics(registry)?;
        crate::register_metrics(registry)
    }
}
