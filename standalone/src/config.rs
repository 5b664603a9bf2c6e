//! The options of the all-in-one binary.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use waypost_gateway::config::{AuthOptions, PublicOptions};
use waypost_runtime::Error;
use waypost_runtime::config::{Invalid, Options, ProcessOptions, milliseconds};
use waypost_runtime::metrics::{self, Registry};

use crate::backup::{self, Backup, Restore};
use crate::keys::Keys;
use crate::transfer::{self, Export, Import};

/// A URL shortener in one process. Without a command it serves.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "waypost", version)]
// Half of a gateway's: all that one process takes with a million links is to stay below
// 256 MiB (docs/performance.md).
#[command(mut_arg("l1_mib", |l1| l1.default_value("32")))]
pub(crate) struct Config {
    /// Where the public port listens
    #[arg(
        long,
        env = "WAYPOST_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "HOST:PORT"
    )]
    pub(crate) listen: SocketAddr,

    /// Where /live, /ready and /metrics are; never to be reachable from outside
    #[arg(
        long,
        env = "WAYPOST_ADMIN_LISTEN",
        default_value = "127.0.0.1:8081",
        value_name = "HOST:PORT"
    )]
    pub(crate) admin_listen: SocketAddr,

    /// Folder for the links, the counts and the secrets; made if it is missing
    #[arg(
        long,
        env = "WAYPOST_DATA_DIR",
        default_value = "./data",
        value_name = "FOLDER",
        global = true
    )]
    pub(crate) data_dir: PathBuf,

    #[command(flatten)]
    pub(crate) public: PublicOptions,

    /// Whether links may be created and statistics read without a token
    #[arg(long, env = "WAYPOST_ANONYMOUS", default_value = "true",
          action = clap::ArgAction::Set, value_name = "BOOL")]
    pub(crate) anonymous: bool,

    /// How long after its end an expired link is kept before it becomes a tombstone, in
    /// milliseconds; so long its owner may extend it
    #[arg(
        long,
        env = "WAYPOST_PURGE_AFTER_MS",
        default_value = "2592000000",
        value_name = "MS",
        value_parser = milliseconds
    )]
    pub(crate) purge_after: Duration,

    #[command(flatten)]
    pub(crate) auth: AuthOptions,

    #[command(flatten)]
    pub(crate) process: ProcessOptions,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What else the binary can do.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// Make, list and revoke API keys
    Keys(Keys),
    /// Write a tenant's links, the newest first, over the API of a running server; or, with
    /// --full, all that an instance has
    Export(Export),
    /// Create the links of a file, over the API of a running server
    ///
    /// A file that was imported halfway is imported again: what is there already is found,
    /// and not made twice. With --full, all that an instance had goes into a cluster.
    Import(Import),
    /// Write the instance in the data folder into one encrypted file, also while it serves
    ///
    /// Links, counts, statistics, API keys and secrets, all as of one instant.
    Backup(Backup),
    /// Make an instance of a backup, in a data folder that is empty or not there
    Restore(Restore),
    /// Check and prepare a data folder that something else has restored, such as Litestream
    ///
    /// Without it, slugs that were given out since what was restored could be given out again.
    Adopt,
}

impl Options for Config {
    fn process(&self) -> &ProcessOptions {
        &self.process
    }

    fn admin_listen(&self) -> SocketAddr {
        self.admin_listen
    }

    fn register_metrics(registry: &Registry) -> metrics::Result<()> {
        waypost_gateway::register_metrics(registry)?;
        waypost_shard_node::register_metrics(registry)?;
        waypost_keygen::register_metrics(registry)?;
        waypost_analytics_consumer::register_metrics(registry)
    }

    fn run_instead(&self) -> Option<Result<(), Error>> {
        Some(match self.command.as_ref()? {
            Command::Keys(keys) => keys.run(&self.data_dir, self.auth.revoked_keys.as_deref()),
            Command::Export(export) => transfer::export(export, &self.data_dir),
            Command::Import(import) => transfer::import(import),
            Command::Backup(backup) => backup.run(&self.data_dir),
            Command::Restore(restore) => restore.run(&self.data_dir),
            Command::Adopt => backup::adopt(&self.data_dir),
        })
    }

    fn check(&self) -> Result<(), Invalid> {
        self.public.base_url(self.listen)?;
        self.public.elsewhere().map(drop)
    }
}
