//! Following the change stream of each shard.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use waypost_domain::{Epoch, Prefix, ShardId};
use waypost_proto::link::link_service_client::LinkServiceClient;
use waypost_proto::link::{Ownership, WatchRequest, watch_event::Event};

use crate::freshness::SILENCE;
use crate::l1::L1;
use crate::metrics::Metrics;
use crate::routing::{Routes, ShardIndex};
use crate::shards::{Shard, Shards};
use crate::target::Target;

/// Between two tries to find the node that streams.
const RETRY: Duration = Duration::from_millis(100);

/// Follows one shard until the end, that of the process or of the shard.
pub(crate) async fn follow(
    shards: Shards,
    shard: ShardIndex,
    l1: Arc<L1>,
    metrics: Metrics,
    end: CancellationToken,
) {
    let follower = Follower {
        shard: shards.at(shard),
        routes: shards.routes(),
        l1: &l1,
        metrics: &metrics,
    };
    let Shard {
        peer, freshness, ..
    } = follower.shard;
    for turn in 0.. {
        // So that there are numbers of a shard that is never heard, or never lost.
        if shards.missed().any(|(index, _)| index == shard) {
            metrics.stream_is_dead(peer.id());
        }
        let result = tokio::select! {
            () = end.cancelled() => break,
            result = follower.stream(turn) => result,
        };
        let was_live = freshness.is_live();
        freshness.end();
        if was_live {
            metrics.stream_lost(peer.id());
        }
        match result {
            // Most nodes do not stream, which says nothing.
            Err(status) if status.code() == Code::FailedPrecondition => {}
            Err(status) if was_live => {
                tracing::warn!(shard = %peer.id(), code = ?status.code(),
                    error = status.message(),
                    "change stream lost, asking the shard until another is found");
            }
            _ => {}
        }
        tokio::select! {
            () = end.cancelled() => break,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
    freshness.end();
    metrics.forget_stream(peer.id());
}

struct Follower<'a> {
    shard: &'a Shard,
    routes: &'a Routes,
    l1: &'a L1,
    metrics: &'a Metrics,
}

impl Follower<'_> {
    /// Reads the stream of one node until it ends.
    async fn stream(&self, turn: usize) -> Result<(), Status> {
        let Shard {
            peer, freshness, ..
        } = self.shard;
        let nodes = peer.nodes();
        let node = nodes
            .get(turn % nodes.len().max(1))
            .ok_or_else(|| Status::unavailable("the shard has no nodes"))?;
        let mut client = LinkServiceClient::new(node.transport.clone());
        let silent = |_| Status::deadline_exceeded("the stream is silent");
        let mut stream = tokio::time::timeout(SILENCE, client.watch(WatchRequest {}))
            .await
            .map_err(silent)??
            .into_inner();
        // The shard has subscribed us before it answered.
        freshness.begin();
        loop {
            let message = tokio::time::timeout(SILENCE, stream.message())
                .await
                .map_err(silent)??;
            let Some(message) = message else {
                return Ok(());
            };
            if node.is_dismissed() {
                return Err(Status::aborted("the map no longer names the node"));
            }
            match message.event {
                Some(Event::Ownership(ownership)) => self.learn(&ownership),
                Some(Event::Changed(link)) => {
                    // A change that cannot be read leaves the old entry: the
                    // stretch must end, so that nothing of it is believed.
                    let link = peer.trusted(link);
                    let link = link.map_err(|error| Status::data_loss(error.to_string()))?;
                    let target = Arc::new(Target::from(&*link));
                    let (_, epoch) = self.routes.owner(link.key.slug.prefix());
                    self.l1.change(target, freshness.stamp().under(epoch));
                }
                Some(Event::Heartbeat(heartbeat)) => {
                    let unapplied = Duration::from_millis(heartbeat.oldest_unapplied_ms);
                    freshness.heard(heartbeat.clock_ms, unapplied);
                    self.metrics.stream_is_live(peer.id());
                }
                None => {}
            }
        }
    }

    fn learn(&self, ownership: &Ownership) {
        let told: Vec<(Prefix, ShardId, Epoch)> = ownership
            .prefixes
            .iter()
            .filter_map(|owner| {
                Some((
                    Prefix::parse(&owner.prefix)?,
                    ShardId::parse(&owner.shard)?,
                    Epoch::new(owner.epoch)?,
                ))
            })
            .collect();
        let changed = self.routes.learn(&told);
        self.metrics.ownership(&self.routes.fingerprint());
        if changed > 0 {
            tracing::debug!(shard = %self.shard.peer.id(), changed, "learnt owners of prefixes");
        }
    }
}
