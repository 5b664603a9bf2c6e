//! The nodes of one shard: which one is asked, how long, and whether again.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tonic::{Code, Request, Status};
use waypost_domain::{Epoch, Link, LinkKey, NewLink, ShardId, signature::KeyRing};
use waypost_proto::link as message;
use waypost_proto::link::link_service_client::LinkServiceClient;
use waypost_proto::link::{
    ClaimRequest, CreateBatchRequest, DeleteRequest, LeaseVisitsRequest, ListRequest,
    ResolveBatchRequest, UpdateRequest, WriteResponse, claim_response, create_outcome,
    lease_visits_response, resolve_outcome, write_response,
};
use waypost_proto::transport::{self, Transport};

use super::list::{Listed, Place};
use super::nodes::{Node, Nodes};
use super::{Claimed, Created, Error, Item, Leased, Resolved, Source, Written};
use crate::metrics::{Metrics, call_result};
use crate::retry::Budget;

/// For one try of a read. A second try, at another node, has as long.
const READ_DEADLINE: Duration = Duration::from_millis(700);

/// For one try of a write, which waits for a commit.
const WRITE_DEADLINE: Duration = Duration::from_secs(2);

/// For one try of a lease of visits, for which a visitor waits.
const LEASE_DEADLINE: Duration = Duration::from_secs(1);

/// For one try of a list, which looks at many rows.
const LIST_DEADLINE: Duration = Duration::from_secs(3);

/// Of the texts of the links of one call: a call stays below 1 MiB with what is sent
/// around them, which is less than 256 bytes a link.
const MAX_CALL_BYTES: usize = 768 * 1024;

/// A node that could not be reached is passed over for so long while another is
/// there, so that a lost node costs the budget of retries a few a second, and not
/// one for every other call. So is one that cannot reach the primary, since another
/// perhaps can.
const PASSED_OVER: Duration = Duration::from_millis(250);

/// The nodes of one shard.
pub(crate) struct Peer {
    id: ShardId,
    nodes: Nodes,
    started: Instant,
    next: AtomicUsize,
    keys: Arc<KeyRing>,
    budget: Budget,
    metrics: Metrics,
}

impl Peer {
    pub(super) fn new(id: ShardId, nodes: Nodes, keys: Arc<KeyRing>, metrics: Metrics) -> Self {
        Self {
            id,
            nodes,
            started: Instant::now(),
            next: AtomicUsize::new(0),
            keys,
            budget: Budget::default(),
            metrics,
        }
    }

    pub(crate) fn id(&self) -> &ShardId {
        &self.id
    }

    pub(crate) fn nodes(&self) -> Arc<Vec<Arc<Node>>> {
        self.nodes.now()
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

    /// Asks for many slugs with one call. Hardly ever is one among them twice: who
    /// misses what another is fetching waits for that one.
    pub(super) async fn resolve(
        &self,
        keys: Vec<Arc<LinkKey>>,
    ) -> Result<Vec<Item<Resolved>>, Error> {
        let request = || ResolveBatchRequest {
            keys: keys.iter().map(|key| message::Key::from(&**key)).collect(),
        };
        self.metrics.resolving(keys.len());
        let (node, response) = self
            .call(
                "resolve",
                READ_DEADLINE,
                request,
                |mut client, request| async move { client.resolve_batch(request).await },
            )
            .await?;
        if response.outcomes.len() != keys.len() {
            return Err(refused("an answer of another length"));
        }
        let from_primary = response.from_primary;
        if !from_primary {
            self.pass_over(&node.without_primary);
        }
        Ok(keys
            .iter()
            .zip(response.outcomes)
            .map(|(key, answer)| {
                self.resolved(key, answer.outcome, from_primary)
                    .unwrap_or_else(Item::Failed)
            })
            .collect())
    }

    fn resolved(
        &self,
        key: &LinkKey,
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
            Some(Outcome::Found(link)) => {
                let link = self.trusted(link)?;
                if link.key != *key {
                    return Err(refused("another slug's link"));
                }
                Item::Done(Resolved::Found(link, source))
            }
            Some(Outcome::Absent(_)) if from_primary => Item::Done(Resolved::Absent),
            // Only a primary's word is good enough for a 404.
            Some(Outcome::Absent(_)) => Item::Failed(Error::Unconfirmed),
            Some(Outcome::Moved(moved)) => moved_item(&moved)?,
            None => return Err(refused("an empty outcome")),
        })
    }

    /// Creates many links with one call, or with as many as keep each small.
    pub(super) async fn create(
        &self,
        links: Vec<Arc<NewLink>>,
    ) -> Result<Vec<Item<Created>>, Error> {
        let calls = parcels(&links).into_iter().map(|parcel| async move {
            let created = self.create_parcel(parcel).await;
            created.unwrap_or_else(|error| {
                let failed = || Item::Failed(error.clone());
                std::iter::repeat_with(failed).take(parcel.len()).collect()
            })
        });
        Ok(join_all(calls).await.into_iter().flatten().collect())
    }

    async fn create_parcel(&self, links: &[Arc<NewLink>]) -> Result<Vec<Item<Created>>, Error> {
        use create_outcome::Outcome;
        let request = || CreateBatchRequest {
            links: links.iter().map(|link| (&**link).into()).collect(),
        };
        self.metrics.creating(links.len());
        let (_, response) = self
            .call(
                "create",
                WRITE_DEADLINE,
                request,
                |mut client, request| async move { client.create_batch(request).await },
            )
            .await?;
        if response.outcomes.len() != links.len() {
            return Err(refused("an answer of another length"));
        }
        let created = |outcome| {
            Ok(match outcome {
                Some(Outcome::Created(link)) => Item::Done(Created::Created(self.trusted(link)?)),
                Some(Outcome::Existing(link)) => Item::Done(Created::Existing(self.trusted(link)?)),
                Some(Outcome::Reused(_)) => Item::Done(Created::Reused),
                Some(Outcome::Ended(_)) => Item::Done(Created::Ended),
                Some(Outcome::Conflict(_)) => Item::Done(Created::Conflict),
                Some(Outcome::Moved(moved)) => moved_item(&moved)?,
                Some(Outcome::Frozen(_)) => Item::Frozen,
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

    pub(super) async fn update(&self, request: UpdateRequest) -> Result<Item<Written>, Error> {
        let (_, response) = self
            .call(
                "update",
                WRITE_DEADLINE,
                || request.clone(),
                |mut client, request| async move { client.update(request).await },
            )
            .await?;
        self.written(response)
    }

    pub(super) async fn delete(&self, request: DeleteRequest) -> Result<Item<Written>, Error> {
        let (_, response) = self
            .call(
                "delete",
                WRITE_DEADLINE,
                || request.clone(),
                |mut client, request| async move { client.delete(request).await },
            )
            .await?;
        self.written(response)
    }

    pub(super) async fn claim(&self, request: ClaimRequest) -> Result<Item<Claimed>, Error> {
        use claim_response::Outcome;
        let (_, response) = self
            .call(
                "claim",
                WRITE_DEADLINE,
                || request.clone(),
                |mut client, request| async move { client.claim(request).await },
            )
            .await?;
        Ok(match response.outcome {
            Some(Outcome::Claimed(_)) => Item::Done(Claimed::Claimed),
            Some(Outcome::Reused(_)) => Item::Done(Claimed::Reused),
            Some(Outcome::Moved(moved)) => moved_item(&moved)?,
            Some(Outcome::Frozen(_)) => Item::Frozen,
            None => return Err(refused("an empty outcome")),
        })
    }

    pub(super) async fn list(&self, request: ListRequest) -> Result<Listed, Error> {
        let (_, response) = self
            .call(
                "list",
                LIST_DEADLINE,
                || request.clone(),
                |mut client, request| async move { client.list(request).await },
            )
            .await?;
        // One link that somebody forged, which is reported, must not hide all the others.
        let links = response.links.into_iter();
        let looked_to = response.looked_to.map(Place::try_from).transpose();
        Ok(Listed {
            links: links
                .filter_map(|link| self.trusted(link).ok())
                .map(|link| *link)
                .collect(),
            looked_to: looked_to.map_err(|invalid| refused(&invalid.to_string()))?,
        })
    }

    fn written(&self, response: WriteResponse) -> Result<Item<Written>, Error> {
        use write_response::Outcome;
        Ok(match response.outcome {
            Some(Outcome::Written(link)) => Item::Done(Written::Written(self.trusted(link)?)),
            Some(Outcome::Absent(_)) => Item::Done(Written::Absent),
            Some(Outcome::Gone(_)) => Item::Done(Written::Gone),
            Some(Outcome::Blocked(_)) => Item::Done(Written::Blocked),
            Some(Outcome::NeverValid(_)) => Item::Done(Written::NeverValid),
            Some(Outcome::VersionMismatch(link)) => {
                Item::Done(Written::VersionMismatch(self.trusted(link)?))
            }
            Some(Outcome::Moved(moved)) => moved_item(&moved)?,
            Some(Outcome::Frozen(_)) => Item::Frozen,
            None => return Err(refused("an empty outcome")),
        })
    }

    pub(super) async fn lease_visits(
        &self,
        request: LeaseVisitsRequest,
    ) -> Result<Item<Leased>, Error> {
        use lease_visits_response::Outcome;
        let (_, response) = self
            .call(
                "lease_visits",
                LEASE_DEADLINE,
                || request.clone(),
                |mut client, request| async move { client.lease_visits(request).await },
            )
            .await?;
        Ok(match response.outcome {
            // More than was asked for would be as wrong as none.
            Some(Outcome::Granted(count)) if (1..=request.wanted).contains(&count) => {
                Item::Done(Leased::Granted(count))
            }
            Some(Outcome::Granted(_)) => return Err(refused("a lease of another size")),
            Some(Outcome::UsedUp(_)) => Item::Done(Leased::UsedUp),
            Some(Outcome::Absent(_)) => Item::Done(Leased::Absent),
            Some(Outcome::Moved(moved)) => moved_item(&moved)?,
            Some(Outcome::Frozen(_)) => Item::Frozen,
            None => return Err(refused("an empty outcome")),
        })
    }

    /// Asks one node, and no other if its answer is lost.
    pub(super) async fn return_visits(
        &self,
        request: LeaseVisitsRequest,
    ) -> Result<Item<()>, Error> {
        let (_, response) = self
            .call_once(
                "return_visits",
                LEASE_DEADLINE,
                request,
                |mut client, request| async move { client.lease_visits(request).await },
            )
            .await?;
        Ok(match response.outcome {
            Some(lease_visits_response::Outcome::Moved(moved)) => moved_item(&moved)?,
            Some(lease_visits_response::Outcome::Frozen(_)) => Item::Frozen,
            _ => Item::Done(()),
        })
    }

    /// The next node in turn: not the one that has just failed if there is another,
    /// and rather one that was reached a moment ago, and reached the primary.
    fn pick(&self, failed: Option<&Arc<Node>>) -> Option<Arc<Node>> {
        let (nodes, now) = (self.nodes.now(), self.now_ms());
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        (0..nodes.len())
            .map(|step| &nodes[first.wrapping_add(step) % nodes.len()])
            .min_by_key(|node| {
                (
                    failed.is_some_and(|failed| Arc::ptr_eq(node, failed)),
                    Node::is_passed_over(&node.unreachable, now),
                    Node::is_passed_over(&node.without_primary, now),
                )
            })
            .cloned()
    }

    fn pass_over(&self, until: &AtomicU64) {
        let end = self.now_ms() + PASSED_OVER.as_millis() as u64;
        until.store(end, Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Calls one node, and once more another if the first could not be reached; gives
    /// the answer, and which node's it is. The first may have done what it was asked
    /// all the same: creates, changes and leases are recognised by their ids, and reads
    /// change nothing.
    async fn call<Q, A, F>(
        &self,
        rpc: &'static str,
        deadline: Duration,
        request: impl Fn() -> Q,
        run: impl Fn(LinkServiceClient<Transport>, Request<Q>) -> F,
    ) -> Result<(Arc<Node>, A), Error>
    where
        F: Future<Output = Result<tonic::Response<A>, Status>>,
    {
        self.budget.deposit();
        let node = self.pick(None).ok_or(Error::Unavailable)?;
        match self.try_at(&node, rpc, deadline, request(), &run).await {
            Err(Failed::Unreached(code)) if self.may_retry() => {
                tracing::debug!(shard = %self.id, rpc, ?code, "asking another node");
                let other = self.pick(Some(&node)).ok_or(Error::Unavailable)?;
                let answer = self.try_at(&other, rpc, deadline, request(), &run).await?;
                Ok((other, answer))
            }
            answer => Ok((node, answer?)),
        }
    }

    fn may_retry(&self) -> bool {
        let may = self.budget.withdraw();
        self.metrics.rpc_retry(may);
        may
    }

    /// Calls one node, and no other: for what must not be done twice.
    async fn call_once<Q, A, F>(
        &self,
        rpc: &'static str,
        deadline: Duration,
        request: Q,
        run: impl Fn(LinkServiceClient<Transport>, Request<Q>) -> F,
    ) -> Result<(Arc<Node>, A), Error>
    where
        F: Future<Output = Result<tonic::Response<A>, Status>>,
    {
        let node = self.pick(None).ok_or(Error::Unavailable)?;
        let answer = self.try_at(&node, rpc, deadline, request, &run).await?;
        Ok((node, answer))
    }

    async fn try_at<Q, A, F>(
        &self,
        node: &Node,
        rpc: &'static str,
        deadline: Duration,
        request: Q,
        run: &impl Fn(LinkServiceClient<Transport>, Request<Q>) -> F,
    ) -> Result<A, Failed>
    where
        F: Future<Output = Result<tonic::Response<A>, Status>>,
    {
        let mut message = Request::new(request);
        message.set_timeout(deadline);
        let call = run(LinkServiceClient::new(node.transport.clone()), message);
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
        timer.ended(call_result(status.code()));
        if is_unreachable(status.code()) || transport::is_broken(&status) {
            self.pass_over(&node.unreachable);
            return Err(Failed::Unreached(status.code()));
        }
        if status.code() == Code::ResourceExhausted {
            return Err(Failed::For(Error::Overloaded));
        }
        tracing::warn!(shard = %self.id, rpc, code = ?status.code(),
            error = status.message(), "shard refused a call");
        Err(Failed::For(refused(status.message())))
    }
}

/// Why a try came to nothing.
enum Failed {
    /// The node was not reached, or its answer was lost: another may know better.
    Unreached(Code),
    For(Error),
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Unreached(_) => Self::Unavailable,
            Failed::For(error) => error,
        }
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Peer({}, {:?})", self.id, self.nodes)
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

/// Splits links into stretches of which each fits into one call.
fn parcels(links: &[Arc<NewLink>]) -> Vec<&[Arc<NewLink>]> {
    let (mut parcels, mut first, mut bytes) = (Vec::new(), 0, 0);
    for (at, link) in links.iter().enumerate() {
        let size = text_bytes(link);
        if at > first && bytes + size > MAX_CALL_BYTES {
            parcels.push(&links[first..at]);
            (first, bytes) = (at, 0);
        }
        bytes += size;
    }
    parcels.push(&links[first..]);
    parcels
}

fn text_bytes(link: &NewLink) -> usize {
    let tags: usize = link.tags.iter().map(String::len).sum();
    let title = link.title.as_ref().map_or(0, String::len);
    link.long_url.as_str().len() + link.tenant.len() + title + tags
}

fn refused(reason: &str) -> Error {
    Error::Refused(reason.into())
}

fn moved_item<T>(moved: &message::Moved) -> Result<Item<T>, Error> {
    let shard = ShardId::parse(&moved.shard).ok_or_else(|| refused("moved to no shard"))?;
    let epoch = Epoch::new(moved.epoch).ok_or_else(|| refused("moved under no epoch"))?;
    Ok(Item::Moved(shard, epoch))
}
