//! Follows the shard map: which shards there are, where they are at home, and where
//! their nodes listen. Whose a prefix is says a map only once, at the start.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use waypost_domain::ShardId;
use waypost_domain::shard_map::{Shard, ShardMap};
use waypost_runtime::watched::Watched;
use xxhash_rust::xxh3::xxh3_64;

use crate::l1::L1;
use crate::metrics::Metrics;
use crate::routing::ShardIndex;
use crate::shards::{NodeSource, Nodes, Shards};
use crate::watch as stream;

/// Whoever makes of a map what the gateway works with.
pub(crate) struct Follower {
    shards: Shards,
    /// Where this gateway is.
    region: String,
    source: NodeSource,
    l1: Arc<L1>,
    metrics: Metrics,
    serving: CancellationToken,
    listed: HashMap<ShardId, Listed>,
}

/// A shard of the map.
struct Listed {
    index: ShardIndex,
    /// What the map lists as its nodes.
    nodes: watch::Sender<Vec<String>>,
    /// Of its change stream.
    end: CancellationToken,
}

impl Follower {
    /// Follows none yet. What it starts ends with `serving`.
    pub(crate) fn new(
        shards: Shards,
        region: String,
        source: NodeSource,
        l1: Arc<L1>,
        metrics: Metrics,
        serving: CancellationToken,
    ) -> Self {
        Self {
            shards,
            region,
            source,
            l1,
            metrics,
            serving,
            listed: HashMap::new(),
        }
    }

    /// Follows each change of a map whose first reading was applied, until the end.
    pub(crate) async fn follow(mut self, map: Watched<ShardMap>) {
        let (mut changes, serving) = (map.changes(), self.serving.clone());
        let following = async {
            while changes.changed().await.is_ok() {
                self.apply(&map.get()).await;
            }
        };
        tokio::select! {
            () = serving.cancelled() => {}
            () = following => {}
        }
    }

    /// Brings the shards to what a map says that was judged. Waits a second at most, for
    /// the names of new shards' nodes.
    pub(crate) async fn apply(&mut self, map: &ShardMap) {
        let is_new = |shard: &&Shard| !self.listed.contains_key(&shard.id);
        let connecting = map.shards().iter().filter(is_new).map(async |shard| {
            let (nodes, listed) = watch::channel(shard.nodes.clone());
            (shard, nodes, self.source.follow(listed).await)
        });
        for (shard, listed, nodes) in join_all(connecting).await {
            self.add(shard, listed, nodes);
        }
        for shard in map.shards() {
            let Some(listed) = self.listed.get(&shard.id) else {
                continue;
            };
            listed.nodes.send_if_modified(|nodes| {
                let is_changed = *nodes != shard.nodes;
                nodes.clone_from(&shard.nodes);
                is_changed
            });
            let is_home = shard.region == self.region;
            self.shards.at(listed.index).set_home(is_home);
        }
        let is_listed = |id: &ShardId| map.shards().iter().any(|shard| shard.id == *id);
        self.listed.retain(|id, listed| {
            // One that was given prefixes since the map was judged stays: they would be lost.
            is_listed(id) || !remove(&self.shards, id, listed)
        });
        let fingerprint = xxh3_64(map.to_json().as_bytes());
        self.metrics.shard_map(&format!("{fingerprint:016x}"));
    }

    fn add(&mut self, shard: &Shard, nodes: watch::Sender<Vec<String>>, connected: Nodes) {
        let id = &shard.id;
        let Some(index) = self.shards.add(id, connected) else {
            tracing::error!(shard = %id, "no room for one more shard: restart this process");
            return;
        };
        let end = self.serving.child_token();
        tokio::spawn(stream::follow(
            self.shards.clone(),
            index,
            Arc::clone(&self.l1),
            self.metrics.clone(),
            end.clone(),
        ));
        tracing::info!(shard = %id, region = shard.region, "following a shard");
        let listed = Listed { index, nodes, end };
        self.listed.insert(id.clone(), listed);
    }
}

/// Answers whether the shard is gone.
fn remove(shards: &Shards, id: &ShardId, listed: &Listed) -> bool {
    if !shards.routes().remove(listed.index) {
        tracing::error!(shard = %id, "the map lacks a shard that owns prefixes, it is still asked");
        return false;
    }
    listed.end.cancel();
    listed.nodes.send_replace(Vec::new());
    tracing::info!(shard = %id, "a shard that owned nothing has left the map");
    true
}
