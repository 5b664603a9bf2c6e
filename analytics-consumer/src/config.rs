//! What an operator can set.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use waypost_runtime::config::{ProcessOptions, milliseconds};
use waypost_runtime::database::PostgresOptions;
use waypost_runtime::kafka::KafkaOptions;
use waypost_runtime::metrics::{self, Registry};
use waypost_runtime::tls::TlsOptions;

/// Counts clicks from Kafka into Postgres and answers statistics over gRPC.
#[derive(Debug, clap::Parser)]
#[command(name = "waypost-analytics-consumer", version)]
pub struct Options {
    /// Where gRPC listens, as host:port
    #[arg(
        long,
        env = "WAYPOST_LISTEN",
        default_value = "127.0.0.1:7400",
        value_name = "ADDRESS"
    )]
    pub listen: SocketAddr,

    /// Where /live, /ready and /metrics listen, as host:port
    #[arg(
        long,
        env = "WAYPOST_ADMIN_LISTEN",
        default_value = "127.0.0.1:7401",
        value_name = "ADDRESS"
    )]
    pub admin_listen: SocketAddr,

    #[command(flatten)]
    pub postgres: PostgresOptions,

    /// Bootstrap servers of Kafka, as host:port separated by commas
    #[arg(long, env = "WAYPOST_KAFKA", value_name = "SERVERS")]
    pub kafka: String,

    #[command(flatten)]
    pub kafka_options: KafkaOptions,

    /// The topic of clicks
    #[arg(
        long,
        env = "WAYPOST_KAFKA_TOPIC",
        default_value = "clicks",
        value_name = "TOPIC"
    )]
    pub kafka_topic: String,

    /// The group whose members share the partitions
    #[arg(
        long,
        env = "WAYPOST_KAFKA_GROUP",
        default_value = "waypost-analytics",
        value_name = "GROUP"
    )]
    pub kafka_group: String,

    /// Silence after which the group gives a member's partitions away, in milliseconds
    #[arg(long = "kafka-session-timeout-ms", env = "WAYPOST_KAFKA_SESSION_TIMEOUT_MS",
          default_value = "45000", value_name = "MS", value_parser = milliseconds)]
    pub kafka_session_timeout: Duration,

    /// Days after which a start of a gateway is forgotten that sent nothing and was
    /// followed by another; after four times as many also a gateway's last. What it
    /// still sends then is left out, since it may have been counted
    #[arg(long = "keep-producers-days", env = "WAYPOST_KEEP_PRODUCERS_DAYS",
          default_value = "90", value_name = "DAYS", value_parser = days)]
    pub keep_producers: Duration,

    /// Days for which messages are kept that could not be read
    #[arg(long = "keep-dead-letters-days", env = "WAYPOST_KEEP_DEAD_LETTERS_DAYS",
          default_value = "30", value_name = "DAYS", value_parser = days)]
    pub keep_dead_letters: Duration,

    /// Folder with the secret service-token, a file
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

fn days(text: &str) -> Result<Duration, String> {
    // A century is as good as for ever, and no sum of it overflows.
    match text.parse() {
        Ok(days @ 1..=36_500_u64) => Ok(Duration::from_hours(days * 24)),
        _ => Err("expected 1 to 36500".to_owned()),
    }
}
