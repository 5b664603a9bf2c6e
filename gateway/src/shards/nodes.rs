//! Which nodes a shard has: those that the map names, or those that stand behind a name.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use waypost_proto::transport::Transport;

#[cfg(feature = "cluster")]
use crate::cluster::Caller;
#[cfg(feature = "cluster")]
use crate::names;

/// How the nodes of shards are reached.
#[derive(Debug)]
pub struct NodeSource(pub(crate) Reach);

#[derive(Debug)]
pub(crate) enum Reach {
    /// All shards are the same service in this process.
    Here(Transport),
    #[cfg(feature = "cluster")]
    Network(Caller),
}

impl NodeSource {
    /// One service in this process, whatever the map names.
    #[must_use]
    pub fn here(transport: Transport) -> Self {
        Self(Reach::Here(transport))
    }

    /// The nodes of a shard for which the map lists these, until `listed` ends.
    pub(crate) async fn follow(&self, listed: watch::Receiver<Vec<String>>) -> Nodes {
        match &self.0 {
            Reach::Here(transport) => {
                // Nothing else will ever be listed.
                drop(listed);
                Nodes::from(vec![transport.clone()])
            }
            #[cfg(feature = "cluster")]
            Reach::Network(caller) => names::follow(listed, caller.clone()).await,
        }
    }
}

/// One node, and until when others are rather asked.
pub(crate) struct Node {
    pub(crate) transport: Transport,
    /// In milliseconds since the start of the shard's peer.
    pub(super) unreachable: AtomicU64,
    pub(super) without_primary: AtomicU64,
    is_dismissed: AtomicBool,
}

impl Node {
    pub(crate) fn new(transport: Transport) -> Arc<Self> {
        Arc::new(Self {
            transport,
            unreachable: AtomicU64::new(0),
            without_primary: AtomicU64::new(0),
            is_dismissed: AtomicBool::new(false),
        })
    }

    /// The map no longer names it. Calls that are under way go on; what it streams is not
    /// believed any more: the shard may be written elsewhere.
    #[cfg(feature = "cluster")]
    pub(crate) fn dismiss(&self) {
        self.is_dismissed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_dismissed(&self) -> bool {
        self.is_dismissed.load(Ordering::Relaxed)
    }

    pub(super) fn is_passed_over(until: &AtomicU64, now_ms: u64) -> bool {
        until.load(Ordering::Relaxed) > now_ms
    }
}

/// The nodes of one shard, as of now. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Nodes(Arc<ArcSwap<Vec<Arc<Node>>>>);

impl Nodes {
    pub(crate) fn now(&self) -> Arc<Vec<Arc<Node>>> {
        self.0.load_full()
    }

    /// From now on these. Calls that are under way go on at nodes that are left out.
    #[cfg(feature = "cluster")]
    pub(crate) fn set(&self, nodes: Vec<Arc<Node>>) {
        self.0.store(Arc::new(nodes));
    }
}

impl From<Vec<Transport>> for Nodes {
    fn from(transports: Vec<Transport>) -> Self {
        let nodes = transports.into_iter().map(Node::new).collect();
        Self(Arc::new(ArcSwap::from_pointee(nodes)))
    }
}

impl std::fmt::Debug for Nodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} nodes", self.now().len())
    }
}
