//! A handle to a Redis Cluster with the settings that make a lost node an error
//! within milliseconds instead of a stall of seconds.

mod access;

use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use redis::cluster::{ClusterClientBuilder, ClusterConfig};
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind};
use tokio::sync::watch;

use crate::config::Invalid;

pub use access::{Access, RedisOptions};

/// For the first answer over a connection with new certificates.
const FIRST_ANSWER: Duration = Duration::from_secs(5);

/// Between two tries to get that.
const AGAIN: Duration = Duration::from_secs(1);

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
    /// Another once certificates have changed.
    connection: Arc<ArcSwap<ClusterConnection>>,
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
        let connection = Arc::new(ArcSwap::from_pointee(connection));
        if let Some(certificates) = &cluster.access.certificates {
            let changes = certificates.changes();
            let held = Arc::downgrade(&connection);
            tokio::spawn(follow(changes, Arc::clone(&cluster), held));
        }
        Self {
            cluster,
            connection,
        }
    }

    /// Runs one command within the overall time.
    ///
    /// # Errors
    /// When the node cannot be asked in time, or refuses.
    pub async fn run<T: redis::FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        let mut connection = ClusterConnection::clone(&self.connection.load());
        let overall = self.cluster.times.overall;
        // The client's own limit does not cover the wait for the first connection.
        tokio::time::timeout(overall, command.query_async(&mut connection))
            .await
            .map_err(|_| Error::Timeout(overall))?
            .map_err(Error::Command)
    }
}

impl Cluster {
    /// A connection that begins to be made, with the certificates of now.
    fn connect(&self) -> Result<ClusterConnection, RedisError> {
        let scheme = self.access.scheme();
        let nodes = self.nodes.iter().map(|node| format!("{scheme}://{node}"));
        let client = ClusterClientBuilder::new(nodes)
            .tcp_settings(TcpSettings::default().set_nodelay(true))
            .connection_timeout(self.access.connect_within())
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

/// Puts another connection in the place of the one that is held when certificates have
/// changed: the client reads them once, and connects again with what it has read. The
/// old one serves until the new one has answered.
async fn follow(
    mut changes: watch::Receiver<u64>,
    cluster: Arc<Cluster>,
    held: Weak<ArcSwap<ClusterConnection>>,
) {
    while changes.changed().await.is_ok() {
        let fresh = loop {
            match cluster.connect() {
                Ok(fresh) if answers(fresh.clone()).await => break fresh,
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "redis certificates are of no use"),
            }
            tokio::time::sleep(AGAIN).await;
        };
        match held.upgrade() {
            Some(held) => held.store(Arc::new(fresh)),
            None => return,
        }
    }
}

async fn answers(mut connection: ClusterConnection) -> bool {
    let ping = redis::cmd("PING");
    let asked = ping.query_async::<String>(&mut connection);
    matches!(tokio::time::timeout(FIRST_ANSWER, asked).await, Ok(Ok(_)))
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
