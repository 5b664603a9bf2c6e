//! The options of `waypost-shard-node`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use waypost_domain::ShardId;
use waypost_runtime::config::{Options as ProcessLike, ProcessOptions, milliseconds};
use waypost_runtime::database::{PostgresOptions, PostgresUrl};
use waypost_runtime::metrics::{self, Registry};
use waypost_runtime::redis::RedisOptions;
use waypost_runtime::tls::TlsOptions;

/// The first argument says that this is wanted, see [`crate::mover`].
const MOVER: &str = "`waypost-shard-node move-prefixes --help` is about the command that moves \
                     prefixes from one shard to another";

/// Stores the links of one shard in Postgres and serves them over gRPC.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "waypost-shard-node", version, after_help = MOVER)]
pub struct Options {
    /// Where gRPC listens, as host:port
    #[arg(
        long,
        env = "WAYPOST_LISTEN",
        default_value = "127.0.0.1:7101",
        value_name = "ADDRESS"
    )]
    pub listen: SocketAddr,

    /// Where /live, /ready and /metrics listen, as host:port
    #[arg(
        long,
        env = "WAYPOST_ADMIN_LISTEN",
        default_value = "127.0.0.1:7102",
        value_name = "ADDRESS"
    )]
    pub admin_listen: SocketAddr,

    /// The shard's name in the shard map; it never changes
    #[arg(long, env = "WAYPOST_SHARD_ID", value_name = "ID", value_parser = shard_id)]
    pub shard_id: ShardId,

    #[command(flatten)]
    pub postgres: PostgresOptions,

    /// Streaming standbys of the database, as URLs separated by commas; they are read
    /// while the database itself cannot be. User, password, database and parameters may
    /// be left out: then they are those of --postgres-url
    #[arg(
        long,
        env = "WAYPOST_POSTGRES_REPLICA_URLS",
        value_delimiter = ',',
        value_name = "URL,..",
        hide_env_values = true
    )]
    pub postgres_replica_urls: Vec<PostgresUrl>,

    /// Some nodes of the region's Redis Cluster, as host:port,host:port; none: no cache
    #[arg(
        long,
        env = "WAYPOST_REDIS",
        default_value = "",
        value_name = "NODES",
        hide_default_value = true
    )]
    pub redis: String,

    /// Counts up when what Redis holds must no longer be believed; the same at all processes
    #[arg(
        long,
        env = "WAYPOST_CACHE_GENERATION",
        default_value = "1",
        value_name = "N"
    )]
    pub cache_generation: u32,

    /// The shard map, a JSON file: says once, to an empty database, which prefixes it owns
    #[arg(long, env = "WAYPOST_SHARD_MAP", value_name = "FILE")]
    pub shard_map: PathBuf,

    /// How long after its end an expired link is kept before it becomes a tombstone, in
    /// milliseconds; so long its owner may extend it
    #[arg(
        long,
        env = "WAYPOST_PURGE_AFTER_MS",
        default_value = "2592000000",
        value_name = "MS",
        value_parser = milliseconds
    )]
    pub purge_after: Duration,

    /// Folder with the secrets `service-token` and `link-mac`, one file each
    #[arg(long, env = "WAYPOST_SECRETS_DIR", value_name = "FOLDER")]
    pub secrets_dir: PathBuf,

    /// Bring the database up to date and end, without serving: what a release does once
    /// before its processes start
    #[arg(long, env = "WAYPOST_MIGRATE_ONLY", default_value = "false",
          action = clap::ArgAction::Set, value_name = "BOOL")]
    pub migrate_only: bool,

    #[command(flatten)]
    pub redis_access: RedisOptions,

    #[command(flatten)]
    pub tls: TlsOptions,

    #[command(flatten)]
    pub process: ProcessOptions,
}

impl Options {
    /// The nodes of the Redis Cluster; empty: there is none.
    #[must_use]
    pub fn redis_nodes(&self) -> Vec<String> {
        self.redis
            .split(',')
            .map(str::trim)
            .filter(|node| !node.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

impl ProcessLike for Options {
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

fn shard_id(text: &str) -> Result<ShardId, String> {
    ShardId::parse(text).ok_or_else(|| "expected 1 to 32 characters of 0-9, a-z, -".to_owned())
}
