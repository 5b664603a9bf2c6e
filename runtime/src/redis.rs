//! A handle to a Redis Cluster with the settings that make a lost node an error
//! within milliseconds instead of a stall of seconds.

use std::sync::Arc;
use std::time::Duration;

use redis::cluster::{ClusterClient, ClusterClientBuilder, ClusterConfig};
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind};

use crate::config::Invalid;

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
    client: Arc<ClusterClient>,
    connection: ClusterConnection,
    overall: Duration,
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
    /// the background: commands fail until it is there.
    ///
    /// # Errors
    /// If a node's name is none.
    pub fn connect(nodes: &[String], times: Times) -> Result<Self, Invalid> {
        let invalid = |problem: String| Invalid {
            option: "--redis",
            problem,
        };
        let client = ClusterClientBuilder::new(nodes.iter().map(|node| format!("redis://{node}")))
            .tcp_settings(TcpSettings::default().set_nodelay(true))
            .connection_timeout(Duration::from_millis(250))
            .response_timeout(times.response)
            .overall_response_timeout(Some(times.overall))
            // One more try covers a slot that has just moved.
            .retries(1)
            .min_retry_wait(1)
            .max_retry_wait(10)
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        Ok(Self {
            connection: pending(&client),
            client: Arc::new(client),
            overall: times.overall,
        })
    }

    /// Another connection to the same cluster, which the current runtime keeps.
    #[must_use]
    pub fn another(&self) -> Self {
        Self {
            client: Arc::clone(&self.client),
            connection: pending(&self.client),
            overall: self.overall,
        }
    }

    /// Runs one command within the overall time.
    ///
    /// # Errors
    /// When the node cannot be asked in time, or refuses.
    pub async fn run<T: redis::FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        let mut connection = self.connection.clone();
        // The client's own limit does not cover the wait for the first connection.
        tokio::time::timeout(self.overall, command.query_async(&mut connection))
            .await
            .map_err(|_| Error::Timeout(self.overall))?
            .map_err(Error::Command)
    }
}

fn pending(client: &ClusterClient) -> ClusterConnection {
    client.get_pending_async_connection_with_config(ClusterConfig::new())
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
