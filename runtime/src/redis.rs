//! A handle to a Redis Cluster with the settings that make a lost node an error
//! within milliseconds instead of a stall of seconds.

mod access;
mod held;

use std::sync::Arc;
use std::time::Duration;

use redis::cluster::{ClusterClientBuilder, ClusterConfig};
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind};

use crate::config::Invalid;
use held::Held;

pub use access::{Access, RedisOptions};

/// For a connection, which all nodes' may come about at once after one was lost.
const CONNECT_WITHIN: Duration = Duration::from_millis(250);

/// Times for one command. A cache that takes longer than the shard is no cache.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// For one answer of one node.
    pub response: Duration,
    /// For a command with all its retries and redirections.
    pub overall: Duration,
}

/// A connection that is shared by all tasks: it pipelines by itself, and more than one
/// on a runtime is slower. Cheap to clone.
#[derive(Clone)]
pub struct Redis {
    cluster: Arc<Cluster>,
    held: Arc<Held>,
}

/// How a cluster is reached.
struct Cluster {
    nodes: Vec<String>,
    access: Access,
    times: Times,
}

/// Why a command gave nothing. The caller treats both as a miss.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to get an answer from redis within {0:?}")]
    Timeout(Duration),
    #[error("failed to run a redis command")]
    Command(#[from] RedisError),
}

impl Error {
    /// Whether the node answered and will not do this command, in contrast to one
    /// that cannot be reached or cannot serve now.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        let Self::Command(error) = self else {
            return false;
        };
        match error.kind() {
            // Of a key of another type, for example.
            ErrorKind::Extension | ErrorKind::UnexpectedReturnType => true,
            ErrorKind::Server(kind) => !matches!(
                kind,
                ServerErrorKind::BusyLoading
                    | ServerErrorKind::Moved
                    | ServerErrorKind::Ask
                    | ServerErrorKind::TryAgain
                    | ServerErrorKind::ClusterDown
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::ReadOnly
            ),
            _ => false,
        }
    }
}

/// The slot of a key without a hash tag, as none of ours has: 0 to 16,383.
#[must_use]
pub fn slot(key: &str) -> u16 {
    crc16::State::<crc16::XMODEM>::calculate(key.as_bytes()) % 16_384
}

impl Redis {
    /// Starts to connect to a cluster, given some of its nodes (`host:port`), in
    /// the background: commands fail until it is there. Must be called on a tokio
    /// runtime.
    ///
    /// # Errors
    /// If a node's name is none.
    pub fn connect(nodes: &[String], access: &Access, times: Times) -> Result<Self, Invalid> {
        let cluster = Arc::new(Cluster {
            nodes: nodes.to_vec(),
            access: access.clone(),
            times,
        });
        let connection = cluster.connect().map_err(|error| Invalid {
            option: "--redis",
            problem: error.to_string(),
        })?;
        Ok(Self::over(cluster, connection))
    }

    /// Another connection to the same cluster, which the current runtime keeps.
    ///
    /// # Panics
    /// Never: a client was made of the same settings before.
    #[must_use]
    pub fn another(&self) -> Self {
        let connection = self.cluster.connect();
        let connection = connection.expect("the same settings made a client before");
        Self::over(Arc::clone(&self.cluster), connection)
    }

    fn over(cluster: Arc<Cluster>, connection: ClusterConnection) -> Self {
        let held = Held::keep(connection, Arc::clone(&cluster));
        Self { cluster, held }
    }

    /// Runs one command within the overall time.
    ///
    /// # Errors
    /// When the node cannot be asked in time, or refuses.
    pub async fn run<T: redis::FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        let mut connection = self.held.connection();
        let overall = self.cluster.times.overall;
        // The client's own limit does not cover the wait for the first connection.
        let answer = tokio::time::timeout(overall, command.query_async(&mut connection))
            .await
            .map_err(|_| Error::Timeout(overall))
            .and_then(|answer| answer.map_err(Error::Command));
        match &answer {
            Err(error) if !error.is_refusal() => self.held.failed(),
            _ => self.held.answered(),
        }
        answer
    }
}

impl Cluster {
    /// A connection that begins to be made, with the certificates of now.
    fn connect(&self) -> Result<ClusterConnection, RedisError> {
        let scheme = self.access.scheme();
        let nodes = self.nodes.iter().map(|node| format!("{scheme}://{node}"));
        let client = ClusterClientBuilder::new(nodes)
            .tcp_settings(TcpSettings::default().set_nodelay(true))
            .connection_timeout(CONNECT_WITHIN)
            .response_timeout(self.times.response)
            .overall_response_timeout(Some(self.times.overall))
            // One more try covers a slot that has just moved.
            .retries(1)
            .min_retry_wait(1)
            .max_retry_wait(10);
        let client = self.access.give(client).build()?;
        Ok(client.get_pending_async_connection_with_config(ClusterConfig::new()))
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn slots_are_those_of_redis() {
        // CLUSTER KEYSLOT says so.
        assert_eq!(super::slot("foo"), 12_182);
        assert_eq!(super::slot("123456789"), 12_739);
    }
}
