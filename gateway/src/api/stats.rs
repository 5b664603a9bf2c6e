//! `GET /api/v1/links/{slug}/stats`: how often a link was followed.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use tonic::Request;
use waypost_domain::{LinkId, Timestamp};
use waypost_proto::analytics::analytics_service_client::AnalyticsServiceClient;
use waypost_proto::analytics::{LinkStatsRequest, LinkStatsResponse};

use super::auth::Analyst;
use super::link::{InPath, own_link};
use super::{Api, Code, Problem, auth, problem};
use crate::lanes::Lane;

/// For one try; every analytics process is tried.
const DEADLINE: Duration = Duration::from_secs(1);

/// How often a link was followed.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = LinkStats)]
#[serde(rename_all = "camelCase")]
struct Answer {
    #[schema(example = "kX3mPq7Z")]
    slug: String,
    /// Every counted visit, bots included.
    #[schema(example = 1204)]
    clicks: u64,
    /// Visits that looked like a program's.
    #[schema(example = 17)]
    bots: u64,
    /// The newest click that is counted, of any link.
    #[schema(format = DateTime, example = "2026-11-22T10:00:00.000Z")]
    counted_up_to: Option<String>,
}

problem::problems!(Problems: auth::PROBLEMS, &[Code::LinkNotFound, Code::LinkGone,
    Code::StatisticsUnavailable], problem::OF_SHARDS);

/// Count a link's visits.
#[utoipa::path(
    get,
    path = "/api/v1/links/{slug}/stats",
    operation_id = "showStats",
    tag = "statistics",
    params(InPath),
    responses((status = 200, description = "The counts.", body = Answer), Problems),
    security((), ("bearer" = ["stats:read"])),
)]
pub(super) async fn stats(
    State(api): State<Api>,
    Analyst(tenant): Analyst,
    Path(slug): Path<String>,
) -> Result<Response, Problem> {
    let _place = api.enter(Lane::Reads)?;
    let link = own_link(&api, &tenant, &slug).await?;
    let counted = ask(&api, link.id).await?;
    let answer = Answer {
        slug: link.key.slug.to_string(),
        clicks: counted.clicks,
        bots: counted.bots,
        counted_up_to: Timestamp::from_millis(counted.counted_up_to_ms)
            .filter(|at| at.millis() > 0)
            .map(|at| at.to_string()),
    };
    Ok(axum::Json(answer).into_response())
}

async fn ask(api: &Api, link: LinkId) -> Result<LinkStatsResponse, Problem> {
    for node in &api.0.analytics {
        let mut request = Request::new(LinkStatsRequest {
            link_id: link.0.as_bytes().to_vec(),
            ..LinkStatsRequest::default()
        });
        request.set_timeout(DEADLINE);
        let mut client = AnalyticsServiceClient::new(node.clone());
        let answer = tokio::time::timeout(DEADLINE, client.link_stats(request)).await;
        if let Ok(Ok(response)) = answer {
            return Ok(response.into_inner());
        }
    }
    Err(Problem::statistics_unavailable())
}
