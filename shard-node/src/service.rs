//! The gRPC side of a shard: one file per RPC.

use std::pin::Pin;

use futures_util::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use waypost_proto::convert::Invalid;
use waypost_proto::link::link_service_server::LinkService;
use waypost_proto::link::{self as message};

use crate::changes::Changes;
use crate::lane::{Lane, Refusal};
use crate::metrics::Metrics;
use crate::store::{LinkStore, PrefixOwner};

mod claim;
mod create;
mod list;
mod replicas;
mod resolve;
mod transfer;
mod visits;
mod watch;
mod write;

use replicas::Replicas;

/// Items that one request may carry.
pub const MAX_BATCH: usize = 1_024;

/// Sessions per process. Two readers keep one statement on its way while another
/// is being answered, on each of two cores; two writers keep the disk busy with
/// one commit while the next is being prepared.
const READERS: usize = 4;
const CREATORS: usize = 2;
const WRITERS: usize = 2;
/// One lease keeps the row of its link for a commit; another link's must not wait.
const LESSORS: usize = 2;
/// What is rare, or may wait, has as few as can be.
const LISTERS: usize = 2;
const CLAIMERS: usize = 1;
const CARRIERS: usize = 1;

/// The service of one shard. Cheap to clone.
#[derive(Debug)]
pub struct Service<S: LinkStore> {
    store: S,
    creates: Lane<S, create::Create>,
    resolves: Lane<S, resolve::Resolve>,
    replicas: Option<Replicas<S>>,
    writes: Lane<S, write::Change>,
    visits: Lane<S, visits::LeaseVisits>,
    claims: Lane<S, claim::Claiming>,
    lists: Lane<S, list::List>,
    exports: Lane<S, transfer::Export>,
    imports: Lane<S, transfer::Import>,
    changes: Changes,
    metrics: Metrics,
}

impl<S: LinkStore> Clone for Service<S> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            creates: self.creates.clone(),
            resolves: self.resolves.clone(),
            replicas: self.replicas.clone(),
            writes: self.writes.clone(),
            visits: self.visits.clone(),
            claims: self.claims.clone(),
            lists: self.lists.clone(),
            exports: self.exports.clone(),
            imports: self.imports.clone(),
            changes: self.changes.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

impl<S: LinkStore> Service<S> {
    /// Starts the service's workers, which end with `shutdown`. `replicas` are
    /// standbys of the store.
    #[must_use]
    pub fn start(
        store: S,
        replicas: &[S],
        changes: Changes,
        metrics: Metrics,
        shutdown: &CancellationToken,
    ) -> Self {
        Self {
            creates: Lane::start(&store, CREATORS, &metrics, shutdown),
            resolves: Lane::start(&store, READERS, &metrics, shutdown),
            replicas: Replicas::start(&store, replicas, &metrics, shutdown),
            writes: Lane::start(&store, WRITERS, &metrics, shutdown),
            visits: Lane::start(&store, LESSORS, &metrics, shutdown),
            claims: Lane::start(&store, CLAIMERS, &metrics, shutdown),
            lists: Lane::start(&store, LISTERS, &metrics, shutdown),
            exports: Lane::start(&store, CARRIERS, &metrics, shutdown),
            imports: Lane::start(&store, CARRIERS, &metrics, shutdown),
            store,
            changes,
            metrics,
        }
    }

    async fn timed<T>(
        &self,
        rpc: &'static str,
        run: impl Future<Output = Result<T, Status>> + Send,
    ) -> Result<Response<T>, Status> {
        self.metrics.rpcs.timed(rpc, run).await
    }

    fn count_moved(&self, rpc: &'static str, count: usize) {
        if count > 0 {
            let counter = self.metrics.moved.with_label_values(&[rpc]);
            counter.inc_by(count as u64);
        }
    }

    fn count_frozen(&self, rpc: &'static str, count: usize) {
        if count > 0 {
            let counter = self.metrics.frozen.with_label_values(&[rpc]);
            counter.inc_by(count as u64);
        }
    }

    fn count_damaged(&self, rpc: &'static str, count: usize) {
        if count > 0 {
            let counter = self.metrics.rows_damaged.with_label_values(&[rpc]);
            counter.inc_by(count as u64);
        }
    }
}

#[tonic::async_trait]
impl<S: LinkStore> LinkService for Service<S> {
    async fn create_batch(
        &self,
        request: Request<message::CreateBatchRequest>,
    ) -> Result<Response<message::CreateBatchResponse>, Status> {
        let run = self.create(request.into_inner());
        self.timed("create_batch", run).await
    }

    async fn resolve_batch(
        &self,
        request: Request<message::ResolveBatchRequest>,
    ) -> Result<Response<message::ResolveBatchResponse>, Status> {
        let run = self.resolve(request.into_inner());
        self.timed("resolve_batch", run).await
    }

    async fn update(
        &self,
        request: Request<message::UpdateRequest>,
    ) -> Result<Response<message::WriteResponse>, Status> {
        self.timed("update", self.change(request.into_inner()))
            .await
    }

    async fn delete(
        &self,
        request: Request<message::DeleteRequest>,
    ) -> Result<Response<message::WriteResponse>, Status> {
        self.timed("delete", self.remove(request.into_inner()))
            .await
    }

    async fn list(
        &self,
        request: Request<message::ListRequest>,
    ) -> Result<Response<message::ListResponse>, Status> {
        let run = self.page(request.into_inner());
        self.timed("list", run).await
    }

    async fn lease_visits(
        &self,
        request: Request<message::LeaseVisitsRequest>,
    ) -> Result<Response<message::LeaseVisitsResponse>, Status> {
        let run = self.lease(request.into_inner());
        self.timed("lease_visits", run).await
    }

    async fn claim(
        &self,
        request: Request<message::ClaimRequest>,
    ) -> Result<Response<message::ClaimResponse>, Status> {
        let run = self.bind(request.into_inner());
        self.timed("claim", run).await
    }

    async fn export(
        &self,
        request: Request<message::ExportRequest>,
    ) -> Result<Response<message::ExportResponse>, Status> {
        let run = self.read_out(request.into_inner());
        self.timed("export", run).await
    }

    async fn import(
        &self,
        request: Request<message::ImportRequest>,
    ) -> Result<Response<message::ImportResponse>, Status> {
        let run = self.take_over(request.into_inner());
        self.timed("import", run).await
    }

    async fn begin_epoch(
        &self,
        request: Request<message::BeginEpochRequest>,
    ) -> Result<Response<message::BeginEpochResponse>, Status> {
        let run = self.begin(request.into_inner());
        self.timed("begin_epoch", run).await
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<message::WatchEvent, Status>> + Send>>;

    async fn watch(
        &self,
        _request: Request<message::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.timed("watch", self.stream()).await
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::Busy => Self::resource_exhausted(text),
            Refusal::Deadline => Self::deadline_exceeded(text),
            Refusal::Unavailable => Self::unavailable(text),
            Refusal::Internal => Self::internal(text),
        }
    }
}

/// Refuses requests that are larger than agreed.
fn check_size(count: usize) -> Result<(), Status> {
    if count > MAX_BATCH {
        return Err(Status::invalid_argument(format!(
            "a batch has at most {MAX_BATCH} items"
        )));
    }
    Ok(())
}

fn key(key: Option<message::Key>) -> Result<waypost_domain::LinkKey, Status> {
    let key: waypost_domain::LinkKey = key.ok_or(Invalid("key"))?.try_into()?;
    check_domain(key.domain)?;
    Ok(key)
}

/// Databases hold these as signed numbers.
fn check_domain(domain: waypost_domain::DomainId) -> Result<(), Invalid> {
    i32::try_from(domain.0)
        .map(drop)
        .map_err(|_| Invalid("domain"))
}

fn check_max_visits(max: Option<u64>) -> Result<(), Invalid> {
    match max.map(i64::try_from) {
        Some(Err(_)) => Err(Invalid("max_visits")),
        _ => Ok(()),
    }
}

fn moved(owner: &PrefixOwner) -> message::Moved {
    message::Moved {
        shard: owner.shard.to_string(),
        epoch: owner.epoch.get(),
    }
}
