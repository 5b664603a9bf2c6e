//! The nodes of all shards, as a node or an operator's tool reaches them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tonic::transport::Endpoint;
use tonic::{Code, Response, Status};
use waypost_domain::ShardId;
use waypost_domain::shard_map::ShardMap;
use waypost_proto::auth::ServiceToken;
use waypost_proto::handover::handover_service_client::HandoverServiceClient;
use waypost_proto::transport::{self, Transport};
use waypost_runtime::config::Invalid;
use waypost_runtime::grpc;
use waypost_runtime::tls::Tls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// What one calls.
pub(crate) type Client = HandoverServiceClient<Transport>;

/// Some or all shards of the map. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Peers(Arc<[Arc<Peer>]>);

/// One shard.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: ShardId,
    pub(crate) region: String,
    /// Of each address in the map.
    pub(crate) nodes: Vec<(String, Transport)>,
    next: AtomicUsize,
}

impl Peers {
    /// Connections are made when they are used.
    pub(crate) fn of(
        map: &ShardMap,
        token: &ServiceToken,
        tls: Option<&Tls>,
    ) -> Result<Self, Invalid> {
        let node = |address: &String| {
            // With TLS the handshake is the connection's own.
            let endpoint = Endpoint::from_shared(format!("http://{address}"));
            let endpoint = endpoint.map_err(|_| Invalid {
                option: "--shard-map",
                problem: format!("\"{address}\" is not host:port"),
            })?;
            let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT);
            let channel = grpc::channel(&endpoint, tls);
            Ok((address.clone(), transport::over(channel, token)))
        };
        let peer = |shard: &waypost_domain::shard_map::Shard| {
            Ok(Arc::new(Peer {
                id: shard.id.clone(),
                region: shard.region.clone(),
                nodes: shard.nodes.iter().map(node).collect::<Result<_, _>>()?,
                next: AtomicUsize::new(0),
            }))
        };
        map.shards()
            .iter()
            .map(peer)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Those that are at home in this region.
    pub(crate) fn in_region(&self, region: &str) -> Self {
        let those = self.0.iter().filter(|peer| peer.region == region);
        Self(those.cloned().collect())
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Peer> {
        self.0.iter().map(Arc::as_ref)
    }

    pub(crate) fn get(&self, id: &ShardId) -> Option<&Peer> {
        self.all().find(|peer| peer.id == *id)
    }
}

impl Peer {
    /// Asks one node after the other, until one answers or so much time has passed. What
    /// is asked may be repeated.
    ///
    /// # Errors
    /// What the last one said.
    pub(crate) async fn ask<R: Clone, T>(
        &self,
        patience: Duration,
        request: R,
        call: impl AsyncFn(Client, R) -> Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        let began = Instant::now();
        let mut last = Status::unavailable("the shard has no nodes");
        // Each call begins at another, so that one which answers nothing does not get all.
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let nodes = self
            .nodes
            .iter()
            .cycle()
            .skip(first % self.nodes.len().max(1));
        for (_, node) in nodes {
            let left = patience.saturating_sub(began.elapsed());
            // One that does not answer leaves time for another.
            let limit = (left / 2).clamp(LEAST.min(left), CALL);
            let asked = call(client(node), request.clone());
            last = match tokio::time::timeout(limit, asked).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer in time"),
            };
            if !may_pass(&last) || began.elapsed() + PAUSE >= patience {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(last)
    }
}

/// The least that one call gets.
const LEAST: Duration = Duration::from_millis(200);

/// For one call: reading all rows of some prefixes takes that long at most.
const CALL: Duration = Duration::from_secs(35);

/// A client of one node.
pub(crate) fn client(node: &Transport) -> Client {
    // A page has up to 2 MiB of rows, or one row.
    HandoverServiceClient::new(node.clone())
}

/// Whether another try may be answered.
pub(crate) fn may_pass(status: &Status) -> bool {
    transport::is_broken(status)
        || matches!(
            status.code(),
            Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Cancelled
        )
}
