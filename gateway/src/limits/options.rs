//! The options of the limits.

use std::time::Duration;

use waypost_runtime::config::milliseconds;

use super::Rate;
use crate::client::TrustedHops;

/// What one client may take. A rate is a number a minute and, behind a colon, how many
/// of them at once; `off` lifts it.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitOptions {
    /// Whether the limits on clients hold; false only to measure the system
    #[arg(
        long,
        env = "WAYPOST_LIMITS",
        default_value = "true",
        action = clap::ArgAction::Set,
        value_name = "BOOL"
    )]
    pub limits: bool,

    /// Links that one API key, or the JWTs of one subject, may create, a minute and at once
    /// (N:BURST), each link of a batch counted: ten a second suit a busy product, and the burst holds one whole
    /// batch. As many edits and deletions may be made besides; off: no limit
    #[arg(
        long,
        env = "WAYPOST_LIMIT_CREATES",
        default_value = "600:1000",
        value_name = "RATE"
    )]
    pub limit_creates: Rate,

    /// Links that may be created from one address without a token: enough for a person,
    /// too few to be worth abusing
    #[arg(
        long,
        env = "WAYPOST_LIMIT_ANONYMOUS_CREATES",
        default_value = "60:60",
        value_name = "RATE"
    )]
    pub limit_anonymous_creates: Rate,

    /// Unknown slugs that one address may ask for. Who asks for more is looking for links
    /// that nobody gave it: for a minute it then gets only those that this process has in
    /// memory. At this rate one of a million generated slugs is guessed in
    /// some three years
    #[arg(
        long,
        env = "WAYPOST_LIMIT_MISSES",
        default_value = "120:120",
        value_name = "RATE"
    )]
    pub limit_misses: Rate,

    /// Links and statistics that one key, or one address without a token, may read
    /// over the API: a dashboard of a hundred links that refreshes every ten seconds
    #[arg(
        long,
        env = "WAYPOST_LIMIT_READS",
        default_value = "600:600",
        value_name = "RATE"
    )]
    pub limit_reads: Rate,

    /// Client connections at the same time; one more is closed at once
    #[arg(
        long,
        env = "WAYPOST_MAX_CONNECTIONS",
        default_value = "20000",
        value_name = "N"
    )]
    pub max_connections: u32,

    /// Connections of one address (of one /64 in IPv6) at the same time: room for an
    /// office behind one address, while 80 such clients are needed to take all. Without
    /// effect behind trusted proxies, to which all connections belong
    #[arg(
        long,
        env = "WAYPOST_MAX_CONNECTIONS_PER_ADDRESS",
        default_value = "256",
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_connections_per_address: u32,

    /// Requests on one connection, which is closed after the last: what a client has
    /// made grow is given back, and connections spread over new gateways
    #[arg(
        long,
        env = "WAYPOST_MAX_REQUESTS_PER_CONNECTION",
        default_value = "100000",
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_requests_per_connection: u32,

    /// How long a request's head may take from its first byte to its last, in
    /// milliseconds: who sends it slower only holds a connection
    #[arg(long = "head-timeout-ms", env = "WAYPOST_HEAD_TIMEOUT_MS", default_value = "10000",
          value_name = "MS", value_parser = milliseconds)]
    pub head_timeout: Duration,

    /// How long a connection may wait for its next request, in milliseconds; longer than
    /// the idle time of proxies in front, so that they are the ones who close
    #[arg(long = "idle-timeout-ms", env = "WAYPOST_IDLE_TIMEOUT_MS", default_value = "75000",
          value_name = "MS", value_parser = milliseconds)]
    pub idle_timeout: Duration,

    /// How long an answer may wait for a client that does not read, in milliseconds
    #[arg(long = "send-timeout-ms", env = "WAYPOST_SEND_TIMEOUT_MS", default_value = "30000",
          value_name = "MS", value_parser = milliseconds)]
    pub send_timeout: Duration,
}

impl LimitOptions {
    /// Connections of one address at the same time; `None`: as many as there are at all.
    pub(crate) fn connections_per_address(&self, hops: TrustedHops) -> Option<u32> {
        (self.limits && hops.are_none()).then_some(self.max_connections_per_address)
    }

    /// Requests on one connection.
    pub(crate) fn requests_per_connection(&self) -> u32 {
        if self.limits {
            self.max_requests_per_connection
        } else {
            u32::MAX
        }
    }

    /// Client connections at the same time.
    pub(crate) fn connections(&self) -> usize {
        if self.limits {
            self.max_connections as usize
        } else {
            tokio::sync::Semaphore::MAX_PERMITS
        }
    }
}
