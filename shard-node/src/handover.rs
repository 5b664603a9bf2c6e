//! The gRPC side of moving prefixes: what a mover asks of the giver and of the taker.

mod settle;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tonic::{Request, Response, Status};
use uuid::Uuid;
use waypost_domain::{Epoch, Prefix, ShardId};
use waypost_proto::convert::Invalid;
use waypost_proto::handover::handover_service_server::HandoverService;
use waypost_proto::handover::{self as message};

use crate::changes::Changes;
use crate::lane::{Refusal, cause};
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::service::MAX_BATCH;
use crate::store::postgres::{
    CopyPlace, Holding, Kind, MAX_CHANGES, OwnerChange, PostgresSession, PostgresStore, Refused,
    Stretch,
};
use crate::store::{Error, LinkStore as _, Purpose};

/// For one call: the server lets a statement that reads all rows of some prefixes run for
/// 30 s.
const DEADLINE: Duration = Duration::from_secs(32);

/// The longest that writes may be held.
const MAX_FREEZE: Duration = Duration::from_secs(30);

/// Moves prefixes out of this shard and into it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Handover {
    shard: ShardId,
    store: PostgresStore,
    /// One for all calls, which an operator's tool makes one after the other.
    session: Arc<Mutex<Option<PostgresSession>>>,
    peers: Peers,
    changes: Changes,
    metrics: Metrics,
}

impl Handover {
    pub(crate) fn new(
        shard: ShardId,
        store: PostgresStore,
        peers: Peers,
        changes: Changes,
        metrics: Metrics,
    ) -> Self {
        Self {
            shard,
            store,
            session: Arc::default(),
            peers,
            changes,
            metrics,
        }
    }

    /// Does something with a session, which is given up if that was not awaited to its
    /// end or went wrong in a way that leaves it in an unknown state.
    async fn with<T>(
        &self,
        operation: &'static str,
        run: impl AsyncFnOnce(&mut PostgresSession) -> Result<T, Refused>,
    ) -> Result<T, Status> {
        let work = async {
            let mut kept = self.session.lock().await;
            let mut session = match kept.take() {
                Some(session) => session,
                None => self.store.connect(Purpose::Write).await?,
            };
            let outcome = run(&mut session).await;
            let is_broken =
                matches!(&outcome, Err(Refused::Store(error)) if error.breaks_session());
            if !is_broken {
                *kept = Some(session);
            }
            outcome
        };
        match tokio::time::timeout(DEADLINE, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(refused)) => Err(status(operation, &refused)),
            Err(_) => Err(Refusal::Deadline.into()),
        }
    }
}

fn status(operation: &'static str, refused: &Refused) -> Status {
    match refused {
        Refused::Outdated => Status::failed_precondition(refused.to_string()),
        Refused::Unapplied => Status::unavailable(refused.to_string()),
        Refused::Store(error) => {
            tracing::warn!(operation, error = %cause(error), "database refused");
            match error {
                Error::Unavailable(_) | Error::Contended(_) => Refusal::Unavailable.into(),
                _ => Refusal::Internal.into(),
            }
        }
    }
}

#[tonic::async_trait]
impl HandoverService for Handover {
    async fn holdings(
        &self,
        request: Request<message::HoldingsRequest>,
    ) -> Result<Response<message::HoldingsResponse>, Status> {
        let request = request.into_inner();
        let prefixes = prefixes(&request.prefixes, Prefix::COUNT)?;
        let holdings = self
            .with("holdings", async |session| {
                Ok(session.holdings(&prefixes, request.with_rows).await?)
            })
            .await?;
        Ok(Response::new(message::HoldingsResponse {
            shard: self.shard.to_string(),
            holdings: holdings.into_iter().map(Into::into).collect(),
        }))
    }

    async fn admit(
        &self,
        request: Request<message::AdmitRequest>,
    ) -> Result<Response<message::AdmitResponse>, Status> {
        let request = request.into_inner();
        let changes = changes(&request.changes)?;
        let giver = shard_id(&request.giver)?;
        let move_id = move_id(&request.move_id)?;
        self.with("admit", async |session| {
            session
                .admit(&changes, &giver, move_id, request.is_sealed)
                .await
        })
        .await?;
        Ok(Response::new(message::AdmitResponse {}))
    }

    async fn digests(
        &self,
        request: Request<message::DigestsRequest>,
    ) -> Result<Response<message::DigestsResponse>, Status> {
        let prefixes = prefixes(&request.into_inner().prefixes, MAX_CHANGES)?;
        let digests = self
            .with("digests", async |session| {
                Ok(session.digests(&prefixes).await?)
            })
            .await?;
        let digests = digests.into_iter().map(|digest| message::Digest {
            prefix: digest.prefix.to_string(),
            kind: message::Kind::from(digest.kind).into(),
            rows: digest.rows,
            sum: digest.sum,
        });
        Ok(Response::new(message::DigestsResponse {
            digests: digests.collect(),
        }))
    }

    async fn page(
        &self,
        request: Request<message::PageRequest>,
    ) -> Result<Response<message::PageResponse>, Status> {
        let request = request.into_inner();
        let stretch = Stretch {
            prefix: prefix(&request.prefix)?,
            kind: request.kind().try_into()?,
            after: request.after.map_or_else(CopyPlace::start, Into::into),
            upto: request.upto.map_or_else(CopyPlace::end, Into::into),
        };
        if request.limit as usize > MAX_BATCH {
            return Err(Invalid("limit").into());
        }
        let limit = Some(request.limit).filter(|limit| *limit > 0);
        let page = self
            .with("page", async |session| {
                Ok(session.page(&stretch, limit).await?)
            })
            .await?;
        Ok(Response::new(message::PageResponse {
            upto: page.upto.map(Into::into),
            rows: u32::try_from(page.rows).unwrap_or(u32::MAX),
            sum: page.sum,
            json: page.json,
        }))
    }

    async fn put(
        &self,
        request: Request<message::PutRequest>,
    ) -> Result<Response<message::PutResponse>, Status> {
        let request = request.into_inner();
        let stretch = Stretch {
            prefix: prefix(&request.prefix)?,
            kind: request.kind().try_into()?,
            after: request.after.map_or_else(CopyPlace::start, Into::into),
            upto: request.upto.map_or_else(CopyPlace::end, Into::into),
        };
        let move_id = move_id(&request.move_id)?;
        self.with("put", async |session| {
            session.put(&stretch, move_id, &request.json).await
        })
        .await?;
        Ok(Response::new(message::PutResponse {}))
    }

    async fn freeze(
        &self,
        request: Request<message::FreezeRequest>,
    ) -> Result<Response<message::FreezeResponse>, Status> {
        let request = request.into_inner();
        let changes = changes(&request.changes)?;
        let move_id = move_id(&request.move_id)?;
        let duration = Duration::from_millis(request.duration_ms.into());
        if duration.is_zero() || duration > MAX_FREEZE {
            return Err(Invalid("duration_ms").into());
        }
        self.with("freeze", async |session| {
            session.freeze(&changes, move_id, duration).await
        })
        .await?;
        Ok(Response::new(message::FreezeResponse {}))
    }

    async fn thaw(
        &self,
        request: Request<message::ThawRequest>,
    ) -> Result<Response<message::ThawResponse>, Status> {
        let request = request.into_inner();
        let changes = changes(&request.changes)?;
        let move_id = move_id(&request.move_id)?;
        self.with("thaw", async |session| {
            Ok(session.thaw(&changes, move_id).await?)
        })
        .await?;
        Ok(Response::new(message::ThawResponse {}))
    }

    async fn release(
        &self,
        request: Request<message::ReleaseRequest>,
    ) -> Result<Response<message::ReleaseResponse>, Status> {
        let request = request.into_inner();
        let changes = changes(&request.changes)?;
        let taker = shard_id(&request.taker)?;
        if taker == self.shard {
            return Err(Invalid("taker").into());
        }
        let move_id = move_id(&request.move_id)?;
        self.with("release", async |session| {
            session.release(&changes, &taker, move_id).await
        })
        .await?;
        tracing::info!(%taker, prefixes = changes.len(), "released prefixes");
        let given = self.metrics.handed_over.with_label_values(&["given"]);
        given.inc_by(changes.len() as u64);
        // The relay tells so.
        self.changes.wrote();
        Ok(Response::new(message::ReleaseResponse {}))
    }

    async fn settle(
        &self,
        _: Request<message::SettleRequest>,
    ) -> Result<Response<message::SettleResponse>, Status> {
        let settled = self.settle_all().await?;
        Ok(Response::new(message::SettleResponse {
            taken: settled.taken,
            waiting: settled.waiting,
        }))
    }

    async fn sweep(
        &self,
        request: Request<message::SweepRequest>,
    ) -> Result<Response<message::SweepResponse>, Status> {
        let request = request.into_inner();
        let change = request.change.ok_or(Invalid("change"))?;
        let change = OwnerChange::try_from(&change)?;
        let limit = request.limit;
        if !(1..=MAX_BATCH).contains(&(limit as usize)) {
            return Err(Invalid("limit").into());
        }
        let deleted = self
            .with("sweep", async |session| {
                session.sweep(change.prefix, change.epoch, limit).await
            })
            .await?;
        Ok(Response::new(message::SweepResponse { deleted }))
    }
}

fn prefix(text: &str) -> Result<Prefix, Invalid> {
    Prefix::parse(text).ok_or(Invalid("prefix"))
}

fn prefixes(given: &[String], most: usize) -> Result<Vec<Prefix>, Invalid> {
    if given.len() > most {
        return Err(Invalid("prefixes"));
    }
    given.iter().map(|text| prefix(text)).collect()
}

fn changes(given: &[message::Change]) -> Result<Vec<OwnerChange>, Invalid> {
    if !(1..=MAX_CHANGES).contains(&given.len()) {
        return Err(Invalid("changes"));
    }
    let mut changes = given
        .iter()
        .map(OwnerChange::try_from)
        .collect::<Result<Vec<_>, _>>()?;
    // Each row is locked once, by all callers in one order.
    changes.sort_by_key(|change| change.prefix);
    match changes.is_sorted_by(|a, b| a.prefix < b.prefix) {
        true => Ok(changes),
        false => Err(Invalid("changes")),
    }
}

fn shard_id(text: &str) -> Result<ShardId, Invalid> {
    ShardId::parse(text).ok_or(Invalid("shard"))
}

fn move_id(bytes: &[u8]) -> Result<Uuid, Invalid> {
    let id = Uuid::from_slice(bytes).ok().filter(|id| !id.is_nil());
    id.ok_or(Invalid("move_id"))
}

impl TryFrom<&message::Change> for OwnerChange {
    type Error = Invalid;

    fn try_from(change: &message::Change) -> Result<Self, Invalid> {
        let epoch = Epoch::new(change.epoch).filter(|epoch| *epoch > Epoch::FIRST);
        Ok(Self {
            prefix: prefix(&change.prefix)?,
            epoch: epoch.ok_or(Invalid("epoch"))?,
        })
    }
}

impl From<Holding> for message::Holding {
    fn from(holding: Holding) -> Self {
        Self {
            prefix: holding.prefix.to_string(),
            owner: holding.owner.to_string(),
            epoch: holding.epoch.get(),
            is_frozen: holding.is_frozen,
            coming_epoch: holding.coming.map_or(0, Epoch::get),
            has_rows: holding.has_rows.unwrap_or_default(),
        }
    }
}

impl From<Kind> for message::Kind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Links => Self::Links,
            Kind::Visits => Self::Visits,
            Kind::Audit => Self::Audit,
            Kind::Claims => Self::Claims,
        }
    }
}

impl TryFrom<message::Kind> for Kind {
    type Error = Invalid;

    fn try_from(kind: message::Kind) -> Result<Self, Invalid> {
        match kind {
            message::Kind::Unspecified => Err(Invalid("kind")),
            message::Kind::Links => Ok(Self::Links),
            message::Kind::Visits => Ok(Self::Visits),
            message::Kind::Audit => Ok(Self::Audit),
            message::Kind::Claims => Ok(Self::Claims),
        }
    }
}

impl From<message::Place> for CopyPlace {
    fn from(place: message::Place) -> Self {
        Self {
            key: place.key,
            number: place.number,
        }
    }
}

impl From<CopyPlace> for message::Place {
    fn from(place: CopyPlace) -> Self {
        Self {
            key: place.key,
            number: place.number,
        }
    }
}
