//! `GET /api/v1/stats`: how often all of a tenant's links were followed, and which of them
//! most.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use futures_util::future::join_all;
use http::HeaderMap;
use serde::Serialize;
use tonic::Request;
use waypost_domain::{DomainId, LinkKey, Slug, State as LinkState, Timestamp};
use waypost_proto::analytics::{self as wire, TenantStatsRequest};

use super::super::auth::TenantAnalyst;
use super::super::{Api, Code, Problem, auth, problem};
use super::csv::{Cell, Csv};
use super::query::{InQuery, Interval, Query, Takes};
use super::{DEADLINE, Days, Point, ask, counted_up_to, instant, series, series_csv};
use crate::lanes::Lane;
use crate::shards::Resolved;

/// How often all links of a tenant were followed, and which of them most.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = TenantStats)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct Answer {
    /// What is told of begins here: with a whole hour or day.
    #[schema(format = DateTime, example = "2026-10-24T00:00:00.000Z")]
    from: String,
    /// And ends before this.
    #[schema(format = DateTime, example = "2026-11-23T00:00:00.000Z")]
    to: String,
    #[schema(inline)]
    interval: Interval,
    /// Every counted visit from `from` to `to`, bots included.
    #[schema(example = 120400)]
    clicks: u64,
    /// Of these, visits that looked like a program's.
    #[schema(example = 1700)]
    bots: u64,
    /// Every hour or day that has begun, in order.
    series: Vec<Point>,
    /// The most followed first.
    #[schema(inline, example = json!([{"slug": "kX3mPq7Z",
        "shortUrl": "https://waypost.example/kX3mPq7Z", "title": "Spring sale", "clicks": 1204}]))]
    links: Vec<TopLink>,
    /// Visits of links that are not in `links`.
    #[schema(example = 310)]
    other: u64,
    /// The days that `links` and `other` are of, which are known by the day alone.
    days: Days,
    /// The newest click that is counted, of any link.
    #[schema(required, format = DateTime, example = "2026-11-22T10:00:00.000Z")]
    counted_up_to: Option<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct TopLink {
    #[schema(example = "kX3mPq7Z")]
    slug: String,
    #[schema(format = "uri", example = "https://waypost.example/kX3mPq7Z")]
    short_url: String,
    /// `null` as well if the link is gone, or cannot be asked for it at the moment.
    #[schema(required, example = "Spring sale")]
    title: Option<String>,
    /// At least so many, bots included: what is not known for sure is in `other`.
    #[schema(example = 1204)]
    clicks: u64,
}

/// The rest of the query in the API's document.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it carries documentation alone")]
pub(in super::super) struct TopInQuery {
    /// So many links.
    #[param(minimum = 1, maximum = 100, default = 10, example = 10)]
    top: Option<u32>,
}

problem::problems!(Problems: auth::PROBLEMS, &[Code::TimeInvalid, Code::RangeInvalid,
    Code::RangeTooLong, Code::QueryInvalid, Code::StatisticsUnavailable]);

/// Count the visits of all of the tenant's links.
///
/// As CSV: the series or, with `top`, the links. It names links, and so always needs a
/// token.
#[utoipa::path(
    get,
    path = "/api/v1/stats",
    operation_id = "showTenantStats",
    tag = "statistics",
    params(InQuery, TopInQuery),
    responses(
        (status = 200, description = "The counts.", content(
            (Answer = "application/json"), (String = "text/csv"))),
        Problems,
    ),
    security(("bearer" = ["stats:read"])),
)]
pub(in super::super) async fn stats(
    State(api): State<Api>,
    TenantAnalyst(tenant): TenantAnalyst,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let now = Timestamp::from(SystemTime::now());
    let query = Query::read(query.as_deref().unwrap_or_default(), Takes::Top, now)?;
    let _place = api.enter(Lane::Reads)?;
    let asked = TenantStatsRequest {
        tenant: tenant.clone(),
        range: Some(query.span.to_wire()),
        interval: query.span.interval.to_wire().into(),
        top: query.top_or_default(),
    };
    let counted = ask(&api, "tenant_stats", |mut client| {
        let mut request = Request::new(asked.clone());
        request.set_timeout(DEADLINE);
        async move { client.tenant_stats(request).await }
    })
    .await?;
    let points = series(&query.span, &counted.series, now, false);
    let is_csv = query.is_csv(&headers);
    if is_csv && query.top.is_none() {
        let name = format!("clicks-{}", query.span.days_text());
        return Ok(series_csv(&points, false).answer(&name));
    }
    // Shards are asked for all of them at once.
    let links = counted
        .links
        .iter()
        .map(|link| top_link(&api, &tenant, link));
    let links: Vec<TopLink> = join_all(links).await.into_iter().flatten().collect();
    if is_csv {
        let name = format!("links-{}", query.span.days_text());
        return Ok(links_csv(&links).answer(&name));
    }
    let answer = Answer {
        from: instant(query.span.from),
        to: instant(query.span.to),
        interval: query.span.interval,
        clicks: counted.clicks,
        bots: counted.bots,
        series: points,
        links,
        other: counted.other,
        days: Days::of(counted.days, &query.span),
        counted_up_to: counted_up_to(counted.counted_up_to_ms),
    };
    Ok(axum::Json(answer).into_response())
}

/// None if what was counted is no slug.
async fn top_link(api: &Api, tenant: &str, counted: &wire::TopLink) -> Option<TopLink> {
    let key = LinkKey {
        domain: DomainId(counted.domain),
        slug: Slug::parse(&counted.slug).ok()?,
    };
    let short_url = api.short_url(&key.slug);
    let link = api.lookup().shards.resolve(&Arc::new(key)).await;
    // The slug may have become another link since.
    let title = match link {
        Ok(Resolved::Found(link, _))
            if link.tenant == tenant
                && link.id.0.as_bytes()[..] == counted.link_id
                && link.state != LinkState::Deleted =>
        {
            link.title
        }
        _ => None,
    };
    Some(TopLink {
        slug: counted.slug.clone(),
        short_url,
        title,
        clicks: counted.clicks,
    })
}

fn links_csv(links: &[TopLink]) -> Csv {
    let mut csv = Csv::new(&["slug", "shortUrl", "title", "clicks"]);
    for link in links {
        csv.row(&[
            Cell::Text(&link.slug),
            Cell::Text(&link.short_url),
            link.title.as_deref().map_or(Cell::Empty, Cell::Text),
            Cell::Number(link.clicks),
        ]);
    }
    csv
}
