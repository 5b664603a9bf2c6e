//! One shard as this process sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use waypost_domain::{LinkKey, NewLink};

use super::peer::Peer;
use super::{Created, Error, Item, Resolved};
use crate::batch::{self, Batcher};
use crate::freshness::Freshness;
use crate::routing::ShardIndex;

/// Reads of one shard. What a read costs is mostly its share of a call and of a
/// statement, so that few calls with many slugs are cheap, and more calls would only be
/// smaller ones. Two are enough to keep a shard at work while an answer is on its way:
/// 2 x 256 slugs in a round trip of 2 ms are 256,000 reads a second of each gateway.
const READS: batch::Limits = batch::Limits {
    items: 256,
    calls: 2,
    queue: 8_192,
    // Two tries: who waits longer is answered by what L1 has, or with 503.
    patience: Duration::from_millis(1_500),
};

/// Creates of one shard. Two calls at once keep the shard busy: one is prepared while
/// the other is committed. With more, each carries less, and every one of them costs a
/// commit.
const CREATES: batch::Limits = batch::Limits {
    items: 512,
    calls: 2,
    queue: 4_096,
    patience: Duration::from_millis(4_500),
};

/// How it is asked, and what is known of its changes.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(super) reads: Batcher<Arc<LinkKey>, Item<Resolved>, Error>,
    pub(super) creates: Batcher<Arc<NewLink>, Item<Created>, Error>,
    pub(crate) peer: Arc<Peer>,
    pub(crate) freshness: Freshness,
    is_home: AtomicBool,
    /// The stretch of its change stream in which it came home: its nodes may still be those
    /// of the primary before.
    came_home: AtomicU32,
}

impl Shard {
    pub(super) fn start(index: ShardIndex, peer: Peer) -> Self {
        let peer = Arc::new(peer);
        let (reader, creator) = (Arc::clone(&peer), Arc::clone(&peer));
        let freshness = Freshness::of(index);
        Self {
            reads: Batcher::start("read together", READS, move |keys| {
                let peer = Arc::clone(&reader);
                async move { peer.resolve(keys).await }
            }),
            creates: Batcher::start("create together", CREATES, move |links| {
                let peer = Arc::clone(&creator);
                async move { peer.create(links).await }
            }),
            peer,
            came_home: AtomicU32::new(freshness.stretch()),
            freshness,
            is_home: AtomicBool::new(false),
        }
    }

    /// Whether its primary is in this region, says the map.
    pub(crate) fn is_home(&self) -> bool {
        self.is_home.load(Ordering::Acquire)
    }

    pub(crate) fn set_home(&self, is_home: bool) {
        if self.is_home() != is_home {
            // In this order: who sees it at home sees since when.
            let stretch = self.freshness.stretch();
            self.came_home.store(stretch, Ordering::Relaxed);
            self.is_home.store(is_home, Ordering::Release);
        }
    }

    /// Whether slugs of its prefixes may be given out here: it is at home, and has said
    /// since it came home under which epochs it owns them.
    pub(super) fn is_minted_for(&self) -> bool {
        let is_told = || self.freshness.stretch() != self.came_home.load(Ordering::Relaxed);
        self.is_home() && is_told() && self.freshness.is_live()
    }

    /// Slugs and links that wait for a call.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.reads.waiting(), self.creates.waiting())
    }
}
