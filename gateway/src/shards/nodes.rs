//! Which nodes a shard has: those that the map names, or those that stand behind a name.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use waypost_proto::transport::Transport;

/// One node, and until when others are rather asked.
pub(crate) struct Node {
    pub(crate) transport: Transport,
    /// In milliseconds since the start of the shard's peer.
    pub(super) unreachable: AtomicU64,
    pub(super) without_primary: AtomicU64,
}

impl Node {
    pub(crate) fn new(transport: Transport) -> Arc<Self> {
        Arc::new(Self {
            transport,
            unreachable: AtomicU64::new(0),
            without_primary: AtomicU64::new(0),
        })
    }

    pub(super) fn is_passed_over(until: &AtomicU64, now_ms: u64) -> bool {
        until.load(Ordering::Relaxed) > now_ms
    }
}

/// The nodes of one shard, as of now. Cheap to clone.
#[derive(Clone, Default)]
pub struct Nodes(Arc<ArcSwap<Vec<Arc<Node>>>>);

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
