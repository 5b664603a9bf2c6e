//! What the rollups say, over gRPC.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};
use uuid::Uuid;
use waypost_proto::analytics::analytics_service_server::AnalyticsService;
use waypost_proto::analytics::{
    self as wire, ImportRollupsResponse, LinkStatsRequest, LinkStatsResponse, Rollups,
    TenantStatsRequest, TenantStatsResponse,
};

use crate::metrics::Metrics;
use crate::stats::{self, Interval, Window, from_wire};
use crate::store::{Error, RollupStore};
use crate::{trace, transfer};

/// A query that takes longer than this is of no use to who asked.
const DEADLINE: Duration = Duration::from_secs(2);

/// A few hundred rows, one after the other.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(10);

/// Days that may be asked for at once: eleven years, of which each may hold some
/// kilobytes to be read.
const MAX_DAYS: i32 = 4_000;

/// Values of a dimension, and links of a tenant, in one answer.
const MAX_VALUES: u32 = 50;
const MAX_LINKS: u32 = 100;

/// The service, over any store. Cheap to clone.
pub struct Analytics<S> {
    store: Arc<S>,
    metrics: Metrics,
}

impl<S: RollupStore> Analytics<S> {
    #[must_use]
    pub fn new(store: Arc<S>, metrics: Metrics) -> Self {
        Self { store, metrics }
    }

    async fn link(&self, request: LinkStatsRequest) -> Result<LinkStatsResponse, Status> {
        let link = Uuid::from_slice(&request.link_id)
            .map_err(|_| Status::invalid_argument("a link_id has 16 bytes"))?;
        let interval = interval(request.interval)?;
        let window = window(request.range)?;
        let mut by = Vec::new();
        for dimension in request.by {
            let known = wire::Dimension::try_from(dimension)
                .ok()
                .and_then(from_wire);
            let known = known.filter(|dimension| !by.contains(dimension));
            by.push(known.ok_or_else(|| Status::invalid_argument("no such dimension, or twice"))?);
        }
        let top = match request.top {
            0 => MAX_VALUES,
            top => top.min(MAX_VALUES),
        };
        let with_counts = interval == Interval::Hour || !by.is_empty() || !window.is_of_days();
        let answer = async {
            // How far everything is counted, first: what comes in between is more,
            // not less, than that says.
            let counted_up_to = self.counted_up_to().await?;
            let (days, hours) = (window.days(), window.hours());
            let stored = self.store.link_days(link, days, hours, with_counts);
            let stored = trace::asking(S::SYSTEM, "link_days", stored).await?;
            let answer = stats::link(&stored, &window, interval, &by, top as usize);
            Ok(LinkStatsResponse {
                counted_up_to_ms: counted_up_to.unwrap_or(0),
                ..answer
            })
        };
        in_time(answer).await
    }

    async fn tenant(&self, request: TenantStatsRequest) -> Result<TenantStatsResponse, Status> {
        let interval = interval(request.interval)?;
        let window = window(request.range)?;
        let top = request.top.min(MAX_LINKS);
        let with_counts = interval == Interval::Hour || top > 0 || !window.is_of_days();
        let answer = async {
            let counted_up_to = self.counted_up_to().await?;
            let (days, hours) = (window.days(), window.hours());
            let tenant = &request.tenant;
            let stored = self.store.tenant_days(tenant, days, hours, with_counts);
            let stored = trace::asking(S::SYSTEM, "tenant_days", stored).await?;
            let answer = stats::tenant(&stored, &window, interval, top as usize);
            Ok(TenantStatsResponse {
                counted_up_to_ms: counted_up_to.unwrap_or(0),
                ..answer
            })
        };
        in_time(answer).await
    }

    async fn counted_up_to(&self) -> Result<Option<i64>, Error> {
        let answer = self.store.counted_up_to();
        trace::asking(S::SYSTEM, "counted_up_to", answer).await
    }
}

#[tonic::async_trait]
impl<S: RollupStore> AnalyticsService for Analytics<S> {
    async fn link_stats(
        &self,
        request: Request<LinkStatsRequest>,
    ) -> Result<Response<LinkStatsResponse>, Status> {
        let answer = self.link(request.into_inner());
        self.metrics.rpcs.timed("link_stats", answer).await
    }

    async fn tenant_stats(
        &self,
        request: Request<TenantStatsRequest>,
    ) -> Result<Response<TenantStatsResponse>, Status> {
        let answer = self.tenant(request.into_inner());
        self.metrics.rpcs.timed("tenant_stats", answer).await
    }

    async fn import_rollups(
        &self,
        request: Request<Rollups>,
    ) -> Result<Response<ImportRollupsResponse>, Status> {
        let rows = transfer::taken_over(request.into_inner())?;
        within(TRANSFER_DEADLINE, self.store.put(&rows)).await?;
        Ok(Response::new(ImportRollupsResponse {}))
    }

    async fn read_rollups(&self, request: Request<Rollups>) -> Result<Response<Rollups>, Status> {
        let rows = transfer::taken_over(request.into_inner())?;
        let stored = within(TRANSFER_DEADLINE, self.store.stored(&rows)).await?;
        let rollups = stored.into_iter().map(transfer::given_back).collect();
        Ok(Response::new(Rollups { rollups }))
    }
}

fn interval(interval: i32) -> Result<Interval, Status> {
    match wire::Interval::try_from(interval) {
        Ok(wire::Interval::Unspecified) => Ok(Interval::Total),
        Ok(wire::Interval::Hour) => Ok(Interval::Hour),
        Ok(wire::Interval::Day) => Ok(Interval::Day),
        Err(_) => Err(Status::invalid_argument("no such interval")),
    }
}

fn window(range: Option<wire::Range>) -> Result<Window, Status> {
    let window = Window::new(range)
        .ok_or_else(|| Status::invalid_argument("a range ends after it begins"))?;
    let days = window.days();
    match range.is_some_and(|range| range.to_ms != 0) && days.end - days.start > MAX_DAYS {
        true => Err(Status::invalid_argument("a range has at most 4,000 days")),
        false => Ok(window),
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Status> {
    within(DEADLINE, answer).await
}

async fn within<T>(
    deadline: Duration,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Status> {
    match tokio::time::timeout(deadline, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(%error, source, "statistics failed");
            Err(Status::unavailable("the rollups cannot be read"))
        }
        Err(_) => Err(Status::deadline_exceeded("the rollups answer too slowly")),
    }
}

impl<S> Clone for Analytics<S> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            metrics: self.metrics.clone(),
        }
    }
}

impl<S> fmt::Debug for Analytics<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Analytics")
    }
}
