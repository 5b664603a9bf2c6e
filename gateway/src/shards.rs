//! Calls to the shards: batched, with a deadline, retried once where that is safe,
//! and re-routed when a prefix has moved.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tonic::{Code, Request, Status};
use waypost_domain::{Epoch, Link, LinkKey, NewLink, Patch, Prefix, ShardId, signature::KeyRing};
use waypost_proto::link::link_service_client::LinkServiceClient;
use waypost_proto::link::{
    CreateBatchRequest, DeleteRequest, ResolveBatchRequest, UpdateRequest, WriteResponse,
    create_outcome, resolve_outcome, write_response,
};
use waypost_proto::{link as message, refusal, transport::Transport};

use crate::batch::{self, Batcher};
use crate::metrics::Metrics;
use crate::retry::Budget;
use crate::routing::{Routes, ShardIndex};

/// For one try of a read. A second try, at another node, has as long.
const READ_DEADLINE: Duration = Duration::from_millis(700);

/// For one try of a write, which waits for a commit.
const WRITE_DEADLINE: Duration = Duration::from_secs(2);

/// A node that could not be reached is passed over for so long while another is
/// there, so that a lost node costs the budget of retries a few a second, and not
/// one for every other call.
const PASSED_OVER: Duration = Duration::from_millis(250);

/// Reads of one shard: few calls at once, since each carries many slugs.
const READS: batch::Limits = batch::Limits {
    items: 256,
    calls: 4,
    queue: 8_192,
    // Two tries: who waits longer is answered by what L1 has, or with 503.
    patience: Duration::from_millis(1_500),
};

/// Creates of one shard. 64 links of 8 KiB and a little are below 1 MiB.
const CREATES: batch::Limits = batch::Limits {
    items: 64,
    calls: 4,
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
    Conflict,
}

/// What became of an edit or a deletion.
#[derive(Debug)]
pub enum Written {
    Written(Box<Link>),
    Absent,
    Gone,
    VersionMismatch(Box<Link>),
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

/// Whether a call may be made again whose answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// Reads by nature, creates by their `create_id`.
    Always,
    /// Edits and deletions: the second would meet what the first has done, and
    /// report another's change.
    IfNothingDone,
}

/// The batchers of one shard.
#[derive(Debug)]
struct Line {
    reads: Batcher<LinkKey, Item<Resolved>, Error>,
    creates: Batcher<NewLink, Item<Created>, Error>,
}

/// The nodes of one shard.
pub(crate) struct Peer {
    id: ShardId,
    nodes: Vec<Transport>,
    /// By index of the node: until when it is passed over, in milliseconds since
    /// `started`.
    passed_over: Vec<AtomicU64>,
    started: Instant,
    next: AtomicUsize,
    keys: Arc<KeyRing>,
    budget: Budget,
    metrics: Metrics,
}

impl Shards {
    /// `nodes` holds the transports of each shard, in the order of the map.
    #[must_use]
    pub fn start(
        routes: Routes,
        nodes: Vec<Vec<Transport>>,
        keys: &Arc<KeyRing>,
        metrics: Metrics,
    ) -> Self {
        let peers: Vec<Arc<Peer>> = nodes
            .into_iter()
            .enumerate()
            .map(|(index, nodes)| {
                Arc::new(Peer {
                    id: routes.shard_id(ShardIndex(index as u16)).clone(),
                    passed_over: nodes.iter().map(|_| AtomicU64::new(0)).collect(),
                    nodes,
                    started: Instant::now(),
                    next: AtomicUsize::new(0),
                    keys: Arc::clone(keys),
                    budget: Budget::default(),
                    metrics: metrics.clone(),
                })
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

    /// Asks the owner about a slug.
    ///
    /// # Errors
    /// If the owner cannot be asked.
    pub async fn resolve(&self, key: &LinkKey) -> Result<Resolved, Error> {
        self.at_owner(key.slug.prefix(), |shard| {
            let ask = self.0.lines[shard.get()].reads.ask(key.clone());
            async move { Ok(ask.await?) }
        })
        .await
    }

    /// Creates a link at the owner of its prefix. May be repeated with the same
    /// `create_id`.
    ///
    /// # Errors
    /// If the owner cannot be asked, or refuses; see [`Error::Unavailable`].
    pub async fn create(&self, link: &NewLink) -> Result<Created, Error> {
        self.at_owner(link.key.slug.prefix(), |shard| {
            let ask = self.0.lines[shard.get()].creates.ask(link.clone());
            async move { Ok(ask.await?) }
        })
        .await
    }

    /// Edits a link of this tenant, if it has the version that is named.
    ///
    /// # Errors
    /// If the owner cannot be asked, or refuses; see [`Error::Unavailable`].
    pub async fn update(
        &self,
        key: &LinkKey,
        tenant: &str,
        if_version: Option<u64>,
        patch: &Patch,
    ) -> Result<Written, Error> {
        let request = UpdateRequest {
            key: Some(key.into()),
            tenant: tenant.to_owned(),
            if_version,
            patch: Some(patch.into()),
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
        };
        self.at_owner(key.slug.prefix(), |shard| {
            let peer = Arc::clone(&self.0.peers[shard.get()]);
            let request = request.clone();
            async move { peer.delete(request).await }
        })
        .await
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
            reads: Batcher::start(READS, move |keys| {
                let peer = Arc::clone(&reader);
                async move { peer.resolve(keys).await }
            }),
            creates: Batcher::start(CREATES, move |links| {
                let peer = Arc::clone(&creator);
                async move { peer.create(links).await }
            }),
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

impl Peer {
    pub(crate) fn id(&self) -> &ShardId {
        &self.id
    }

    pub(crate) fn nodes(&self) -> &[Transport] {
        &self.nodes
    }

    /// The link of a message, if its signature is ours. One that is not is as bad
    /// as none: somebody wrote to the database past the shard.
    pub(crate) fn trusted(&self, link: message::Link) -> Result<Box<Link>, Error> {
        let link = Link::try_from(link).map_err(|invalid| refused(&invalid.to_string()))?;
        if self.keys.verify(&link) {
            return Ok(Box::new(link));
        }
        self.metrics.bad_signature("shard");
        tracing::error!(shard = %self.id, slug = %link.key.slug, "link with a wrong signature");
        Err(refused("a link's signature is wrong"))
    }

    /// Asks for many slugs with one call; a slug that is asked for twice travels
    /// once.
    async fn resolve(&self, keys: Vec<LinkKey>) -> Result<Vec<Item<Resolved>>, Error> {
        let mut distinct = keys.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let request = ResolveBatchRequest {
            keys: distinct.iter().map(message::Key::from).collect(),
        };
        let response = self
            .call(
                "resolve",
                READ_DEADLINE,
                Repeat::Always,
                request,
                |mut client, request| async move { client.resolve_batch(request).await },
            )
            .await?;
        if response.outcomes.len() != distinct.len() {
            return Err(refused("an answer of another length"));
        }
        let from_primary = response.from_primary;
        Ok(keys
            .iter()
            .map(|key| {
                let at = distinct.partition_point(|other| other < key);
                self.resolved(response.outcomes[at].outcome.clone(), from_primary)
                    .unwrap_or_else(Item::Failed)
            })
            .collect())
    }

    fn resolved(
        &self,
        outcome: Option<resolve_outcome::Outcome>,
        from_primary: bool,
    ) -> Result<Item<Resolved>, Error> {
        use resolve_outcome::Outcome;
        let source = if from_primary {
            Source::Primary
        } else {
            Source::Replica
        };
        Ok(match outcome {
            Some(Outcome::Found(link)) => Item::Done(Resolved::Found(self.trusted(link)?, source)),
            Some(Outcome::Absent(_)) if from_primary => Item::Done(Resolved::Absent),
            // Only a primary's word is good enough for a 404.
            Some(Outcome::Absent(_)) => Item::Failed(Error::Unavailable),
            Some(Outcome::Moved(moved)) => moved_item(&moved)?,
            None => return Err(refused("an empty outcome")),
        })
    }

    async fn create(&self, links: Vec<NewLink>) -> Result<Vec<Item<Created>>, Error> {
        use create_outcome::Outcome;
        let count = links.len();
        let request = CreateBatchRequest {
            links: links.iter().map(message::NewLink::from).collect(),
        };
        let response = self
            .call(
                "create",
                WRITE_DEADLINE,
                Repeat::Always,
                request,
                |mut client, request| async move { client.create_batch(request).await },
            )
            .await?;
        if response.outcomes.len() != count {
            return Err(refused("an answer of another length"));
        }
        let created = |outcome| {
            Ok(match outcome {
                Some(Outcome::Created(link)) => Item::Done(Created::Created(self.trusted(link)?)),
                Some(Outcome::Conflict(_)) => Item::Done(Created::Conflict),
                Some(Outcome::Moved(moved)) => moved_item(&moved)?,
                Some(Outcome::Failed(failure)) if failure.retry => Item::Failed(Error::Unavailable),
                Some(Outcome::Failed(failure)) => return Err(refused(&failure.reason)),
                None => return Err(refused("an empty outcome")),
            })
        };
        Ok(response
            .outcomes
            .into_iter()
            .map(|item| created(item.outcome).unwrap_or_else(Item::Failed))
            .collect())
    }

    async fn update(&self, request: UpdateRequest) -> Result<Item<Written>, Error> {
        let response = self
            .call(
                "update",
                WRITE_DEADLINE,
                Repeat::IfNothingDone,
                request,
                |mut client, request| async move { client.update(request).await },
            )
            .await?;
        self.written(response)
    }

    async fn delete(&self, request: DeleteRequest) -> Result<Item<Written>, Error> {
        let response = self
            .call(
                "delete",
                WRITE_DEADLINE,
                Repeat::IfNothingDone,
                request,
                |mut client, request| async move { client.delete(request).await },
            )
            .await?;
        self.written(response)
    }

    fn written(&self, response: WriteResponse) -> Result<Item<Written>, Error> {
        use write_response::Outcome;
        Ok(match response.outcome {
            Some(Outcome::Written(link)) => Item::Done(Written::Written(self.trusted(link)?)),
            Some(Outcome::Absent(_)) => Item::Done(Written::Absent),
            Some(Outcome::Gone(_)) => Item::Done(Written::Gone),
            Some(Outcome::VersionMismatch(link)) => {
                Item::Done(Written::VersionMismatch(self.trusted(link)?))
            }
            Some(Outcome::Moved(moved)) => moved_item(&moved)?,
            None => return Err(refused("an empty outcome")),
        })
    }

    /// The next node in turn: not the one that has just failed if there is another,
    /// and rather one that was not unreachable a moment ago.
    fn pick(&self, failed: Option<usize>) -> Option<usize> {
        let (count, now) = (self.nodes.len(), self.now_ms());
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        (0..count)
            .map(|step| first.wrapping_add(step) % count)
            .min_by_key(|node| {
                let is_down = self.passed_over[*node].load(Ordering::Relaxed) > now;
                (Some(*node) == failed, is_down)
            })
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Calls one node, and once more another if the first could not be reached.
    async fn call<Q, A, F>(
        &self,
        rpc: &'static str,
        deadline: Duration,
        repeat: Repeat,
        request: Q,
        run: impl Fn(LinkServiceClient<Transport>, Request<Q>) -> F,
    ) -> Result<A, Error>
    where
        Q: Clone,
        F: Future<Output = Result<tonic::Response<A>, Status>>,
    {
        self.budget.deposit();
        let mut failed = None;
        loop {
            let node = self.pick(failed).ok_or(Error::Unavailable)?;
            let mut message = Request::new(request.clone());
            message.set_timeout(deadline);
            let call = run(LinkServiceClient::new(self.nodes[node].clone()), message);
            let timer = self.metrics.rpc_timer(rpc);
            let result = tokio::time::timeout(deadline, call).await;
            let status = match result {
                Ok(Ok(response)) => {
                    timer.ended("ok");
                    return Ok(response.into_inner());
                }
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer in time"),
            };
            timer.ended(code_label(status.code()));
            let unreachable = is_unreachable(status.code()) || refusal::is_of_transport(&status);
            if unreachable {
                let until = self.now_ms() + PASSED_OVER.as_millis() as u64;
                self.passed_over[node].store(until, Ordering::Relaxed);
                let may_repeat = repeat == Repeat::Always || refusal::nothing_done(&status);
                if failed.is_none() && may_repeat && self.budget.withdraw() {
                    tracing::debug!(shard = %self.id, rpc, code = ?status.code(), "asking another node");
                    failed = Some(node);
                    continue;
                }
            }
            return Err(match status.code() {
                Code::ResourceExhausted => Error::Overloaded,
                _ if unreachable => Error::Unavailable,
                _ => {
                    tracing::warn!(shard = %self.id, rpc, code = ?status.code(),
                        message = status.message(), "shard refused a call");
                    refused(status.message())
                }
            });
        }
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Peer({}, {} nodes)", self.id, self.nodes.len())
    }
}

/// Whether another node may know better. A timeout of tonic's own is CANCELLED,
/// a broken connection UNKNOWN.
fn is_unreachable(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Unknown
            | Code::Aborted
    )
}

fn code_label(code: Code) -> &'static str {
    match code {
        Code::Unavailable | Code::Unknown | Code::Aborted => "unavailable",
        Code::Cancelled | Code::DeadlineExceeded => "timeout",
        Code::ResourceExhausted => "overloaded",
        _ => "refused",
    }
}

fn refused(reason: &str) -> Error {
    Error::Refused(reason.into())
}

fn moved_item<T>(moved: &message::Moved) -> Result<Item<T>, Error> {
    let shard = ShardId::parse(&moved.shard).ok_or_else(|| refused("moved to no shard"))?;
    let epoch = Epoch::new(moved.epoch).ok_or_else(|| refused("moved under no epoch"))?;
    Ok(Item::Moved(shard, epoch))
}
