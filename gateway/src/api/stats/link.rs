//! `GET /api/v1/links/{slug}/stats`: how often a link was followed, by whom, and whence.

use std::time::SystemTime;

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use futures_util::future::try_join;
use http::HeaderMap;
use serde::Serialize;
use tonic::Request;
use waypost_domain::Timestamp;
use waypost_proto::analytics::{self as wire, LinkStatsRequest, LinkStatsResponse};

use super::super::auth::Analyst;
use super::super::link::{InPath, own_link};
use super::super::named::Named;
use super::super::{Api, Code, Problem, auth, problem};
use super::csv::{Cell, Csv};
use super::query::{By, InQuery, Interval, Query, Takes};
use super::{DEADLINE, Days, Point, ask, counted_up_to, instant, series, series_csv};
use crate::lanes::Lane;

/// How often a link was followed, by whom, and whence.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = LinkStats)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct Answer {
    #[schema(example = "kX3mPq7Z")]
    slug: String,
    /// What is told of begins here: with a whole hour or day.
    #[schema(format = DateTime, example = "2026-10-24T00:00:00.000Z")]
    from: String,
    /// And ends before this.
    #[schema(format = DateTime, example = "2026-11-23T00:00:00.000Z")]
    to: String,
    #[schema(inline)]
    interval: Interval,
    /// Every counted visit from `from` to `to`, bots included.
    #[schema(example = 1204)]
    clicks: u64,
    /// Of these, visits that looked like a program's.
    #[schema(example = 17)]
    bots: u64,
    /// Different people on each day, added up: who came on two days is in it twice, since
    /// nothing ties a visitor of one day to one of another.
    #[schema(example = 871)]
    visitor_days: u64,
    /// All visits that were ever counted.
    all_time: AllTime,
    /// Every hour or day that has begun, in order.
    series: Vec<Point>,
    breakdowns: Breakdowns,
    /// The days that `visitorDays` and `breakdowns` are of, which are known by the day
    /// alone.
    days: Days,
    /// The newest click that is counted, of any link.
    #[schema(required, format = DateTime, example = "2026-11-22T10:00:00.000Z")]
    counted_up_to: Option<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct AllTime {
    /// Bots included.
    #[schema(example = 20415)]
    clicks: u64,
    #[schema(example = 312)]
    bots: u64,
}

/// What was asked for with `by`; the visits of bots are in none.
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
struct Breakdowns {
    #[serde(skip_serializing_if = "Option::is_none")]
    referrer: Option<Breakdown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    country: Option<Breakdown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<Breakdown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    browser: Option<Breakdown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    os: Option<Breakdown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<Breakdown>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Breakdown {
    /// At most 50, the most frequent first.
    #[schema(inline, example = json!([{"value": "news.example", "clicks": 610}]))]
    values: Vec<Value>,
    /// Visits with none of these.
    #[schema(example = 12)]
    other: u64,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Value {
    /// A host; a country (ISO 3166-1); desktop, mobile, tablet, console or tv; a name; a
    /// language (ISO 639). `null`: there was none, or it is not known.
    #[schema(required, example = "news.example")]
    value: Option<String>,
    /// At least so many: what is not known for sure is in `other`.
    #[schema(example = 610)]
    clicks: u64,
}

/// The rest of the query in the API's document.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it carries documentation alone")]
pub(in super::super) struct ByInQuery {
    /// What the visits of people are told apart by: several, or one with commas.
    #[param(inline, example = json!(["referrer", "country"]))]
    by: Option<Vec<By>>,
}

problem::problems!(Problems: auth::PROBLEMS, &[Code::LinkNotFound, Code::LinkGone,
    Code::TimeInvalid, Code::RangeInvalid, Code::RangeTooLong, Code::QueryInvalid,
    Code::StatisticsUnavailable], problem::OF_SHARDS);

/// Count a link's visits.
///
/// As CSV: the series or, with `by`, the values with their visits.
#[utoipa::path(
    get,
    path = "/api/v1/links/{slug}/stats",
    operation_id = "showStats",
    tag = "statistics",
    params(InPath, InQuery, ByInQuery),
    responses(
        (status = 200, description = "The counts.", content(
            (Answer = "application/json"), (String = "text/csv"))),
        Problems,
    ),
    security((), ("bearer" = ["stats:read"])),
)]
pub(in super::super) async fn stats(
    State(api): State<Api>,
    Analyst(tenant): Analyst,
    Named(key): Named,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let now = Timestamp::from(SystemTime::now());
    let query = Query::read(query.as_deref().unwrap_or_default(), Takes::By, now)?;
    let _place = api.enter(Lane::Reads)?;
    let link = own_link(&api, &tenant, key).await?;
    let request = LinkStatsRequest {
        link_id: link.id.0.as_bytes().to_vec(),
        range: Some(query.span.to_wire()),
        interval: query.span.interval.to_wire().into(),
        by: query.by.iter().map(|by| by.to_wire().into()).collect(),
        top: 0,
    };
    if query.is_csv(&headers) {
        let counted = link_stats(&api, &request).await?;
        let csv = match query.by.is_empty() {
            true => series_csv(&series(&query.span, &counted.series, now, true), true),
            false => breakdowns_csv(&query.by, &counted.breakdowns),
        };
        return Ok(csv.answer(&format!("{}-{}", link.key.slug, query.span.days_text())));
    }
    let ever = LinkStatsRequest {
        link_id: request.link_id.clone(),
        ..LinkStatsRequest::default()
    };
    let (counted, ever) = try_join(link_stats(&api, &request), link_stats(&api, &ever)).await?;
    let answer = Answer {
        slug: link.key.slug.to_string(),
        from: instant(query.span.from),
        to: instant(query.span.to),
        interval: query.span.interval,
        clicks: counted.clicks,
        bots: counted.bots,
        visitor_days: counted.visitor_days,
        // Of two answers the other may have been given later.
        all_time: AllTime {
            clicks: ever.clicks.max(counted.clicks),
            bots: ever.bots.max(counted.bots),
        },
        series: series(&query.span, &counted.series, now, true),
        breakdowns: Breakdowns::new(&query.by, counted.breakdowns),
        days: Days::of(counted.days, &query.span),
        counted_up_to: counted_up_to(counted.counted_up_to_ms),
    };
    Ok(axum::Json(answer).into_response())
}

async fn link_stats(api: &Api, asked: &LinkStatsRequest) -> Result<LinkStatsResponse, Problem> {
    ask(api, "link_stats", |mut client| {
        let mut request = Request::new(asked.clone());
        request.set_timeout(DEADLINE);
        async move { client.link_stats(request).await }
    })
    .await
}

impl Breakdowns {
    /// In the order in which they were asked for.
    fn new(by: &[By], counted: Vec<wire::Breakdown>) -> Self {
        let mut all = Self::default();
        for (by, counted) in by.iter().zip(counted) {
            let slot = match by {
                By::Referrer => &mut all.referrer,
                By::Country => &mut all.country,
                By::Device => &mut all.device,
                By::Browser => &mut all.browser,
                By::Os => &mut all.os,
                By::Language => &mut all.language,
            };
            let values = counted.values.into_iter().map(|value| Value {
                value: Some(value.value).filter(|text| !text.is_empty()),
                clicks: value.clicks,
            });
            *slot = Some(Breakdown {
                values: values.collect(),
                other: counted.other,
            });
        }
        all
    }
}

/// No value has brackets, so that the rest is not mistaken for one.
const OTHER: &str = "(other)";

fn breakdowns_csv(by: &[By], counted: &[wire::Breakdown]) -> Csv {
    let mut csv = Csv::new(&["by", "value", "clicks"]);
    for (by, counted) in by.iter().zip(counted) {
        let name = Cell::Text(by.name());
        for value in &counted.values {
            csv.row(&[name, Cell::Text(&value.value), Cell::Number(value.clicks)]);
        }
        if counted.other > 0 {
            csv.row(&[name, Cell::Text(OTHER), Cell::Number(counted.other)]);
        }
    }
    csv
}
