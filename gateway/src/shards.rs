//! Calls to the shards: batched, with a deadline, retried once where that is safe,
//! and re-routed when a prefix has moved.

mod list;
mod nodes;
mod peer;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use uuid::Uuid;
use waypost_domain::{
    self as domain, Epoch, Link, LinkId, LinkKey, NewLink, Patch, Prefix, ShardId,
    signature::KeyRing,
};
use waypost_proto::link::{ClaimRequest, DeleteRequest, LeaseVisitsRequest, UpdateRequest};

use crate::batch::{self, Batcher};
use crate::metrics::Metrics;
use crate::routing::{Routes, ShardIndex};

pub use list::{Listing, Page, Place};
#[cfg(feature = "cluster")]
pub(crate) use nodes::Node;
pub use nodes::Nodes;
pub(crate) use peer::Peer;

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
    Failed(Error),
}

/// All shards. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shards(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    routes: Routes,
    lines: Vec<Line>,
    peers: Vec<Arc<Peer>>,
    metrics: Metrics,
}

/// The batchers of one shard.
#[derive(Debug)]
struct Line {
    reads: Batcher<Arc<LinkKey>, Item<Resolved>, Error>,
    creates: Batcher<Arc<NewLink>, Item<Created>, Error>,
}

impl Shards {
    /// `nodes` holds those of each shard, in the order of the map.
    #[must_use]
    pub fn start(routes: Routes, nodes: Vec<Nodes>, keys: &Arc<KeyRing>, metrics: Metrics) -> Self {
        let peers: Vec<Arc<Peer>> = nodes
            .into_iter()
            .enumerate()
            .map(|(index, nodes)| {
                let id = routes.shard_id(ShardIndex(index as u16)).clone();
                Arc::new(Peer::new(id, nodes, Arc::clone(keys), metrics.clone()))
            })
            .collect();
        let lines = peers.iter().map(Line::start).collect();
        Self(Arc::new(Inner {
            routes,
            lines,
            peers,
            metrics,
        }))
    }

    #[must_use]
    pub fn routes(&self) -> &Routes {
        &self.0.routes
    }

    pub(crate) fn peers(&self) -> &[Arc<Peer>] {
        &self.0.peers
    }

    /// By shard: slugs and links that wait for a call.
    pub(crate) fn waiting(&self) -> Vec<(usize, usize)> {
        let lines = self.0.lines.iter();
        lines
            .map(|line| (line.reads.waiting(), line.creates.waiting()))
            .collect()
    }

    /// Asks the owner about a slug.
    ///
    /// # Errors
    /// If the owner cannot be asked.
    pub async fn resolve(&self, key: &Arc<LinkKey>) -> Result<Resolved, Error> {
        self.at_owner(key.slug.prefix(), |shard| {
            let ask = self.0.lines[shard.get()].reads.ask(Arc::clone(key));
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
            let ask = self.0.lines[shard.get()].creates.ask(Arc::clone(link));
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
            let peer = Arc::clone(&self.0.peers[shard.get()]);
            let request = request.clone();
            async move { peer.update(request).await }
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
            let peer = Arc::clone(&self.0.peers[shard.get()]);
            let request = request.clone();
            async move { peer.delete(request).await }
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
        self.at_owner(key.slug.prefix(), |shard| {
            let peer = Arc::clone(&self.0.peers[shard.get()]);
            let request = request.clone();
            async move { peer.claim(request).await }
        })
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
            let peer = Arc::clone(&self.0.peers[shard.get()]);
            let request = request.clone();
            async move { peer.lease_visits(request).await }
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
            let peer = Arc::clone(&self.0.peers[shard.get()]);
            let request = request.clone();
            async move { peer.return_visits(request).await }
        })
        .await
    }

    /// A page of a tenant's links. All shards are asked at once, and each of them has
    /// to answer: a list without some links would look like one of all.
    ///
    /// # Errors
    /// If a shard cannot be asked, or refuses.
    pub async fn list(&self, wanted: &Listing) -> Result<Page, Error> {
        let asked = self.0.peers.iter().map(|peer| peer.list(wanted.request()));
        let answers = try_join_all(asked).await?;
        Ok(wanted.page(answers))
    }

    /// Asks the shard that is known as the owner, and once more the one that it
    /// names instead.
    async fn at_owner<T, F>(
        &self,
        prefix: Prefix,
        ask: impl Fn(ShardIndex) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Item<T>, Error>>,
    {
        let routes = &self.0.routes;
        for _ in 0..2 {
            let (shard, _) = routes.owner(prefix);
            match ask(shard).await? {
                Item::Done(answer) => return Ok(answer),
                Item::Failed(error) => return Err(error),
                Item::Moved(to, epoch) => {
                    self.0.metrics.moved();
                    routes.learn(&[(prefix, to, epoch)]);
                    self.0.metrics.ownership(&routes.fingerprint());
                    if routes.owner(prefix).0 == shard {
                        // It names itself, an unknown shard or an older owner: the
                        // prefix is between owners.
                        return Err(Error::Unavailable);
                    }
                }
            }
        }
        Err(Error::Unavailable)
    }
}

impl Line {
    fn start(peer: &Arc<Peer>) -> Self {
        let (reader, creator) = (Arc::clone(peer), Arc::clone(peer));
        Self {
            reads: Batcher::start("read together", READS, move |keys| {
                let peer = Arc::clone(&reader);
                async move { peer.resolve(keys).await }
            }),
            creates: Batcher::start("create together", CREATES, move |links| {
                let peer = Arc::clone(&creator);
                async move { peer.create(links).await }
            }),
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
