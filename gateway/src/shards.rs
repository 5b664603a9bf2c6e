//! Calls to the shards: batched, with a deadline, retried once where that is safe,
//! and re-routed when a prefix has moved.

mod list;
mod nodes;
mod peer;
mod shard;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use uuid::Uuid;
use waypost_domain::{
    self as domain, Epoch, Link, LinkId, LinkKey, NewLink, Patch, Prefix, ShardId,
    signature::KeyRing,
};
use waypost_proto::link::{ClaimRequest, DeleteRequest, LeaseVisitsRequest, UpdateRequest};

use crate::batch;
use crate::freshness::{Freshness, Stamp, Trust};
use crate::metrics::Metrics;
use crate::routing::{MAX_SHARDS, Routes, ShardIndex};

pub use list::{Listing, Page, Place};
pub use nodes::NodeSource;
pub(crate) use nodes::Nodes;
#[cfg(feature = "cluster")]
pub(crate) use nodes::{Node, Reach};
pub(crate) use peer::Peer;
pub(crate) use shard::Shard;

/// How long a request waits for a prefix that is handed over from one shard to another,
/// and how long between two questions. It mostly takes some 100 ms; who waits for a visit
/// gives up after 3 s, and one that is told 503 may come again.
const HANDOVER: Duration = Duration::from_secs(2);
const HANDOVER_PAUSE: Duration = Duration::from_millis(30);

/// Owners that name another one, in one request. Two that each name the other would send
/// it back and forth.
const MAX_MOVES: u32 = 2;

/// Why a shard gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Too many requests wait for this shard: nothing was done.
    #[error("the shard's queue is full")]
    Overloaded,
    /// No node of the shard answered in time. A write may have been done or not.
    #[error("the shard cannot be reached")]
    Unavailable,
    /// A replica has no such link, and the primary, whose word it takes, cannot be asked.
    #[error("only a replica of the shard can be reached")]
    Unconfirmed,
    /// The shard refused the request, or its answer makes no sense.
    #[error("the shard refused the request: {0}")]
    Refused(Arc<str>),
}

/// A shard's word on a slug.
#[derive(Debug)]
pub enum Resolved {
    Found(Box<Link>, Source),
    /// No such link, says the primary.
    Absent,
}

/// Where a link was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Primary,
    Replica,
}

/// What became of a create.
#[derive(Debug)]
pub enum Created {
    Created(Box<Link>),
    /// A live link has the source already.
    Existing(Box<Link>),
    /// The source's `Idempotency-Key` was used for another request.
    Reused,
    /// The link that this very request made was deleted or has expired.
    Ended,
    Conflict,
}

/// What became of a claim on a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// Now, or earlier by the same request.
    Claimed,
    Reused,
}

/// On whose account a link is changed.
#[derive(Debug, Clone, Copy)]
pub enum By<'a> {
    /// Another tenant's link does not exist.
    Tenant(&'a str),
    /// Whoever's link it is.
    Operator,
}

/// What became of an edit or a deletion.
#[derive(Debug)]
pub enum Written {
    Written(Box<Link>),
    Absent,
    Gone,
    VersionMismatch(Box<Link>),
    /// Taken down: only the operator changes it.
    Blocked,
    /// With this edit it would end before it begins.
    NeverValid,
}

/// What became of asking for visits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leased {
    /// So many, at least one.
    Granted(u32),
    UsedUp,
    /// There is no such life of the slug, or it has no limit.
    Absent,
}

#[derive(Debug)]
enum Item<T> {
    Done(T),
    Moved(ShardId, Epoch),
    /// The prefix is about to move: nothing was done.
    Frozen,
    Failed(Error),
}

/// All shards. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shards(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    routes: Routes,
    /// By index. Each is set before a prefix can be given to it, and then stays: so a
    /// redirect comes to its shard without a lock and without counting who looks.
    known: Box<[OnceLock<Shard>]>,
    keys: Arc<KeyRing>,
    metrics: Metrics,
}

impl Shards {
    /// Without any, until they are added.
    #[must_use]
    pub(crate) fn new(routes: Routes, keys: Arc<KeyRing>, metrics: Metrics) -> Self {
        Self(Arc::new(Inner {
            routes,
            known: (0..MAX_SHARDS).map(|_| OnceLock::new()).collect(),
            keys,
            metrics,
        }))
    }

    #[must_use]
    pub fn routes(&self) -> &Routes {
        &self.0.routes
    }

    /// Makes a shard one that can own prefixes. To be called by one task alone. `None`:
    /// there is no room.
    pub(crate) fn add(&self, id: &ShardId, nodes: Nodes) -> Option<ShardIndex> {
        let index = self.0.routes.place_for(id);
        let (keys, metrics) = (Arc::clone(&self.0.keys), self.0.metrics.clone());
        let start = || Shard::start(index, Peer::new(id.clone(), nodes, keys, metrics));
        self.0.known.get(index.get())?.get_or_init(start);
        self.0.routes.add(id);
        Some(index)
    }

    /// One that was added.
    pub(crate) fn at(&self, index: ShardIndex) -> &Shard {
        let shard = self.0.known[index.get()].get();
        shard.expect("an index is that of a shard that was added")
    }

    fn owner(&self, prefix: Prefix) -> &Shard {
        self.at(self.0.routes.owner(prefix).0)
    }

    /// What is known of the change stream of a prefix's shard, and the epoch under which
    /// that is its owner.
    #[must_use]
    pub fn standing(&self, prefix: Prefix) -> (&Freshness, Epoch) {
        let (shard, epoch) = self.0.routes.owner(prefix);
        (&self.at(shard).freshness, epoch)
    }

    /// The stamp for what is asked now of a prefix's shard.
    #[must_use]
    pub fn stamp(&self, prefix: Prefix) -> Stamp {
        let (freshness, epoch) = self.standing(prefix);
        freshness.stamp().under(epoch)
    }

    /// When a stamp was taken, to the millisecond.
    #[must_use]
    pub fn when(&self, stamp: Stamp) -> Instant {
        self.at(stamp.shard()).freshness.when(stamp)
    }

    /// What may be done with an entry of a prefix. Of one that was read under another owner
    /// that one's stream says how long it was right, and nothing more.
    #[must_use]
    pub fn trust(&self, prefix: Prefix, stamp: Stamp, now: Instant) -> Trust {
        let (shard, epoch) = self.0.routes.owner(prefix);
        let trust = self.at(stamp.shard()).freshness.trust(stamp, now);
        match trust {
            Trust::Fresh if stamp.shard() != shard || !stamp.is_under(epoch) => Trust::Stale,
            trust => trust,
        }
    }

    /// What is known of the change stream of a prefix's shard.
    #[must_use]
    pub fn freshness(&self, prefix: Prefix) -> &Freshness {
        &self.owner(prefix).freshness
    }

    /// Whether the shard of a prefix is at home in this region.
    #[must_use]
    pub fn is_home(&self, prefix: Prefix) -> bool {
        self.owner(prefix).is_home()
    }

    /// The epoch under which slugs of a prefix may be minted for this region; none while its
    /// shard is elsewhere, or has not said which it is.
    #[must_use]
    pub fn minting_epoch(&self, prefix: Prefix) -> Option<Epoch> {
        let (shard, epoch) = self.0.routes.owner(prefix);
        let is_known = epoch > Epoch::SEED && self.at(shard).is_minted_for();
        is_known.then_some(epoch)
    }

    /// Whether slugs may be minted for all shards of the map that are at home here.
    pub(crate) fn are_home_told(&self) -> bool {
        let shards = self.0.routes.shards().into_iter();
        let mut home = shards
            .map(|index| self.at(index))
            .filter(|shard| shard.is_home());
        home.all(Shard::is_minted_for)
    }

    /// Those of the map that somebody would miss: one that was added and has not been
    /// heard yet owns nothing, and may still be being built.
    pub(crate) fn missed(&self) -> impl Iterator<Item = (ShardIndex, &Shard)> {
        let holdings = self.0.routes.holdings();
        let shards = self.0.routes.shards().into_iter();
        shards
            .map(|index| (index, self.at(index)))
            .filter(move |(index, shard)| {
                let (prefixes, _) = holdings.get(index.get()).copied().unwrap_or_default();
                prefixes > 0 || shard.freshness.was_heard()
            })
    }

    /// Asks the owner about a slug.
    ///
    /// # Errors
    /// If the owner cannot be asked.
    pub async fn resolve(&self, key: &Arc<LinkKey>) -> Result<Resolved, Error> {
        self.at_owner(key.slug.prefix(), |shard| {
            let ask = shard.reads.ask(Arc::clone(key));
            async move { Ok(ask.await?) }
        })
        .await
    }

    /// Creates a link at the owner of its prefix. May be repeated with the same
    /// `create_id`.
    ///
    /// # Errors
    /// If the owner cannot be asked, or refuses; see [`Error::Unavailable`].
    pub async fn create(&self, link: &Arc<NewLink>) -> Result<Created, Error> {
        self.at_owner(link.key.slug.prefix(), |shard| {
            let ask = shard.creates.ask(Arc::clone(link));
            async move { Ok(ask.await?) }
        })
        .await
    }

    /// Edits a link, if it has the version that is named.
    ///
    /// # Errors
    /// If the owner cannot be asked, or refuses; see [`Error::Unavailable`].
    pub async fn update(
        &self,
        key: &LinkKey,
        by: By<'_>,
        if_version: Option<u64>,
        patch: &Patch,
    ) -> Result<Written, Error> {
        let (tenant, by_operator) = match by {
            By::Tenant(tenant) => (tenant.to_owned(), false),
            By::Operator => (String::new(), true),
        };
        let request = UpdateRequest {
            key: Some(key.into()),
            tenant,
            if_version,
            patch: Some(patch.into()),
            change_id: Uuid::new_v4().as_bytes().to_vec(),
            by_operator,
        };
        self.at_owner(key.slug.prefix(), |shard| {
            shard.peer.update(request.clone())
        })
        .await
    }

    /// Deletes a link of this tenant, if it has the version that is named.
    ///
    /// # Errors
    /// If the owner cannot be asked, or refuses; see [`Error::Unavailable`].
    pub async fn delete(
        &self,
        key: &LinkKey,
        tenant: &str,
        if_version: Option<u64>,
    ) -> Result<Written, Error> {
        let request = DeleteRequest {
            key: Some(key.into()),
            tenant: tenant.to_owned(),
            if_version,
            change_id: Uuid::new_v4().as_bytes().to_vec(),
        };
        self.at_owner(key.slug.prefix(), |shard| {
            shard.peer.delete(request.clone())
        })
        .await
    }

    /// Binds an `Idempotency-Key` to one request at the owner of `key`, the first slug
    /// that the source derives.
    ///
    /// # Errors
    /// If the owner cannot be asked, or refuses.
    pub async fn claim(&self, key: &LinkKey, source: domain::Source) -> Result<Claimed, Error> {
        let request = ClaimRequest {
            key: Some(key.into()),
            source: source.to_bytes(),
        };
        self.at_owner(key.slug.prefix(), |shard| shard.peer.claim(request.clone()))
            .await
    }

    /// Asks for visits of a link. May be repeated with the same `lease_id` and the same
    /// number, and then grants what it granted.
    ///
    /// # Errors
    /// If the owner cannot be asked, or refuses; see [`Error::Unavailable`].
    pub async fn lease_visits(
        &self,
        key: &LinkKey,
        link: LinkId,
        lease_id: Uuid,
        wanted: u32,
    ) -> Result<Leased, Error> {
        let request = LeaseVisitsRequest {
            key: Some(key.into()),
            link_id: link.0.as_bytes().to_vec(),
            wanted,
            lease_id: lease_id.as_bytes().to_vec(),
            returned: 0,
        };
        self.at_owner(key.slug.prefix(), |shard| {
            shard.peer.lease_visits(request.clone())
        })
        .await
    }

    /// Gives visits back that were granted and will not be made. Said at most once: on
    /// an error they may be lost.
    ///
    /// # Errors
    /// If the owner cannot be asked, or refuses.
    pub async fn return_visits(
        &self,
        key: &LinkKey,
        link: LinkId,
        count: u32,
    ) -> Result<(), Error> {
        let request = LeaseVisitsRequest {
            key: Some(key.into()),
            link_id: link.0.as_bytes().to_vec(),
            wanted: 0,
            lease_id: Uuid::new_v4().as_bytes().to_vec(),
            returned: count,
        };
        self.at_owner(key.slug.prefix(), |shard| {
            shard.peer.return_visits(request.clone())
        })
        .await
    }

    /// A page of a tenant's links. All shards that may have some are asked at once, and
    /// each of them has to answer: a list without some links would look like one of all.
    ///
    /// # Errors
    /// If a shard cannot be asked, or refuses.
    pub async fn list(&self, wanted: &Listing) -> Result<Page, Error> {
        let asked: Vec<_> = self
            .missed()
            .map(|(_, shard)| shard.peer.list(wanted.request()))
            .collect();
        let answers = try_join_all(asked).await?;
        Ok(wanted.page(answers))
    }

    /// Asks the shard that is known as the owner, and once more the one that it
    /// names instead. While a prefix is handed over, its writes are held, and then for a
    /// moment nobody owns it: whoever meets that waits for it to be over.
    async fn at_owner<'a, T, F>(
        &'a self,
        prefix: Prefix,
        ask: impl Fn(&'a Shard) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Item<T>, Error>>,
    {
        let routes = &self.0.routes;
        let deadline = Instant::now() + HANDOVER;
        let mut moves = 0;
        loop {
            let (shard, _) = routes.owner(prefix);
            match ask(self.at(shard)).await? {
                Item::Done(answer) => return Ok(answer),
                Item::Failed(error) => return Err(error),
                Item::Frozen => {}
                Item::Moved(to, epoch) => {
                    self.0.metrics.moved();
                    routes.learn(&[(prefix, to, epoch)]);
                    self.0.metrics.ownership(&routes.fingerprint());
                    // Else it names an unknown shard or an older owner: the prefix is
                    // between owners.
                    if routes.owner(prefix).0 != shard && moves < MAX_MOVES {
                        moves += 1;
                        continue;
                    }
                }
            }
            if Instant::now() + HANDOVER_PAUSE >= deadline {
                return Err(Error::Unavailable);
            }
            tokio::time::sleep(HANDOVER_PAUSE).await;
        }
    }
}

impl Error {
    /// The label of metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Unconfirmed => "unconfirmed",
            Self::Refused(_) => "refused",
        }
    }
}

impl From<batch::Error<Error>> for Error {
    fn from(error: batch::Error<Error>) -> Self {
        match error {
            batch::Error::QueueFull => Self::Overloaded,
            batch::Error::Ending | batch::Error::Late => Self::Unavailable,
            batch::Error::Call(error) => error,
        }
    }
}
