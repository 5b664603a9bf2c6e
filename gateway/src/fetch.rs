//! What is not in memory: from Redis, else from the shard, once for all who ask for
//! a slug at the same time.

use std::sync::Arc;

use waypost_domain::{Link, LinkKey};
use waypost_runtime::traces;

use crate::flights::Flights;
use crate::freshness::{Freshness, Stamp};
use crate::l1::L1;
use crate::shards::{self, Resolved, Shards, Source};
use crate::shared_cache::{Held, Tier};
use crate::target::Target;

/// What came back.
#[derive(Debug, Clone)]
pub(crate) enum Fetched {
    Link(Arc<Target>),
    /// The primary says that there is none, or said so a moment ago.
    Absent,
    /// Nobody who knows could be asked.
    Unknown(shards::Error),
}

/// The way beyond L1. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Fetcher(Arc<Parts>);

/// What a fetch works with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) l1: Arc<L1>,
    pub(crate) shards: Shards,
    pub(crate) shared: Tier,
    pub(crate) flights: Flights<Fetched>,
}

impl Fetcher {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Asks Redis, else the shard, unless somebody is doing so already.
    pub(crate) async fn fetch(&self, key: &Arc<LinkKey>) -> Fetched {
        let depart = || {
            let (parts, key) = (Arc::clone(&self.0), Arc::clone(key));
            async move { parts.fetch(&key).await }
        };
        self.0.flights.join(key, depart).await
    }

    /// Asks the shard, whatever Redis holds.
    pub(crate) async fn ask_shard(&self, key: &Arc<LinkKey>) -> Fetched {
        let answer = self.0.at_shard(key, None).await;
        answer.unwrap_or_else(Fetched::Unknown)
    }

    /// A change of this link was acknowledged: whoever asks from now on must not be
    /// answered by a fetch that began before.
    pub(crate) fn changed(&self, key: &LinkKey) {
        self.0.flights.close(key);
    }

    /// Puts a link into Redis that a shard has just answered to a write.
    pub(crate) async fn write_through(&self, link: &Link, stamp: Stamp) {
        if !self.0.is_shared(&link.key) {
            return;
        }
        let asked = self.0.shards.when(stamp);
        self.0.shared.put(link, None, asked).await;
    }

    /// Whether there is a Redis at all.
    pub(crate) fn has_redis(&self) -> bool {
        !self.0.shared.is_none()
    }
}

impl Parts {
    fn freshness(&self, key: &LinkKey) -> &Freshness {
        self.shards.freshness(key.slug.prefix())
    }

    /// Whether Redis is told of this link's changes: only those of shards that are at home
    /// in this region are put there, so that of others nothing there can be believed.
    fn is_shared(&self, key: &LinkKey) -> bool {
        !self.shared.is_none() && self.shards.is_home(key.slug.prefix())
    }

    async fn fetch(&self, key: &Arc<LinkKey>) -> Fetched {
        match self.in_redis(key).await {
            Ok(fetched) => fetched,
            Err(bad) => self
                .at_shard(key, bad)
                .await
                .unwrap_or_else(Fetched::Unknown),
        }
    }

    /// What Redis knows, if it can be believed; else the value there that is none,
    /// to be replaced.
    async fn in_redis(&self, key: &LinkKey) -> Result<Fetched, Option<Vec<u8>>> {
        let freshness = self.freshness(key);
        if !self.is_shared(key) || !freshness.redis_is_current() {
            return Err(None);
        }
        let stamp = self.shards.stamp(key.slug.prefix());
        match self.shared.get(key).await {
            Held::Link(link) => {
                traces::note("waypost.tier", "redis");
                let target = Arc::new(Target::from(&*link));
                Ok(Fetched::Link(self.l1.put(target, stamp)))
            }
            Held::Absent => {
                traces::note("waypost.tier", "redis");
                Ok(Fetched::Absent)
            }
            Held::Nothing => Err(None),
            Held::Bad(value) => Err(Some(value)),
        }
    }

    async fn at_shard(
        &self,
        key: &Arc<LinkKey>,
        bad: Option<Vec<u8>>,
    ) -> Result<Fetched, shards::Error> {
        let stamp = self.shards.stamp(key.slug.prefix());
        traces::note("waypost.tier", "shard");
        match self.shards.resolve(key).await? {
            Resolved::Found(link, source) => {
                let target = Arc::new(Target::from(&*link));
                let stamp = match source {
                    Source::Primary => {
                        self.fill(key, Some(link), bad, stamp);
                        stamp
                    }
                    Source::Replica => stamp.of_replica(),
                };
                Ok(Fetched::Link(self.l1.put(target, stamp)))
            }
            // Only a primary says so.
            Resolved::Absent => {
                self.fill(key, None, bad, stamp);
                Ok(Fetched::Absent)
            }
        }
    }

    /// Puts a primary's answer into Redis without waiting for it.
    fn fill(&self, key: &LinkKey, link: Option<Box<Link>>, bad: Option<Vec<u8>>, stamp: Stamp) {
        if !self.is_shared(key) {
            return;
        }
        let (shared, key) = (self.shared.clone(), key.clone());
        let asked = self.shards.when(stamp);
        tokio::spawn(traces::carried(async move {
            match link {
                Some(link) => shared.put(&link, bad, asked).await,
                None => shared.put_absent(&key, bad, asked).await,
            }
        }));
    }
}
