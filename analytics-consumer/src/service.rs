//! `LinkStats`: what the rollups say about a link.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};
use uuid::Uuid;
use waypost_proto::analytics::analytics_service_server::AnalyticsService;
use waypost_proto::analytics::{LinkStatsRequest, LinkStatsResponse};

use crate::store::RollupStore;

/// A query that takes longer than this is of no use to who asked.
const DEADLINE: Duration = Duration::from_secs(2);

/// The service, over any store. Cheap to clone.
pub struct Analytics<S> {
    store: Arc<S>,
}

impl<S: RollupStore> Analytics<S> {
    #[must_use]
    pub fn new(store: Arc<S>) -> Self {
        Self { store }
    }
}

#[tonic::async_trait]
impl<S: RollupStore> AnalyticsService for Analytics<S> {
    async fn link_stats(
        &self,
        request: Request<LinkStatsRequest>,
    ) -> Result<Response<LinkStatsResponse>, Status> {
        let link = Uuid::from_slice(&request.get_ref().link_id)
            .map_err(|_| Status::invalid_argument("a link_id has 16 bytes"))?;
        let stats = match tokio::time::timeout(DEADLINE, self.store.link_stats(link)).await {
            Ok(Ok(stats)) => stats,
            Ok(Err(error)) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, source, "statistics failed");
                return Err(Status::unavailable("the rollups cannot be read"));
            }
            Err(_) => return Err(Status::deadline_exceeded("the rollups answer too slowly")),
        };
        Ok(Response::new(LinkStatsResponse {
            clicks: stats.clicks,
            bots: stats.bots,
            counted_up_to_ms: stats.counted_up_to_ms.unwrap_or(0),
        }))
    }
}

impl<S> Clone for Analytics<S> {
    fn clone(&self) -> Self {
        let store = Arc::clone(&self.store);
        Self { store }
    }
}

impl<S> fmt::Debug for Analytics<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Analytics")
    }
}
