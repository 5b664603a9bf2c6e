//! Statistics: how often links are followed, by whom, and whence.

mod csv;
pub(super) mod link;
pub(super) mod page;
mod query;
pub(super) mod tenant;

use std::time::{Duration, Instant};

use serde::Serialize;
use tonic::{Response, Status};
use waypost_domain::Timestamp;
use waypost_proto::analytics as wire;
use waypost_proto::analytics::analytics_service_client::AnalyticsServiceClient;
use waypost_proto::transport::Transport;

use self::csv::{Cell, Csv};
use self::query::Span;
use super::{Api, Problem};
use crate::metrics::call_result;

/// For one try; every analytics process is tried.
const DEADLINE: Duration = Duration::from_secs(1);

/// The clicks of one hour or one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct Point {
    #[schema(format = DateTime, example = "2026-11-22T00:00:00.000Z")]
    start: String,
    /// Every counted visit, bots included.
    #[schema(example = 41)]
    clicks: u64,
    #[schema(example = 2)]
    bots: u64,
    /// Different people on one day, as far as they can be told apart without knowing who
    /// they are. Only of days of a link, and estimated to about 1 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 33)]
    visitors: Option<u64>,
}

/// Whole days, in UTC.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct Days {
    #[schema(format = DateTime, example = "2026-10-24T00:00:00.000Z")]
    from: String,
    /// The end, which is no part of them.
    #[schema(format = DateTime, example = "2026-11-23T00:00:00.000Z")]
    to: String,
}

impl Days {
    fn of(range: Option<wire::Range>, span: &Span) -> Self {
        let range = range.unwrap_or_else(|| span.to_wire());
        Self {
            from: instant(range.from_ms),
            to: instant(range.to_ms),
        }
    }
}

/// Asks one analytics process after the other, until one answers.
async fn ask<A, F>(
    api: &Api,
    rpc: &str,
    call: impl Fn(AnalyticsServiceClient<Transport>) -> F,
) -> Result<A, Problem>
where
    F: Future<Output = Result<Response<A>, Status>>,
{
    for node in &api.0.analytics {
        let client = AnalyticsServiceClient::new(node.clone());
        let started = Instant::now();
        let answer = tokio::time::timeout(DEADLINE, call(client)).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        let result = answer
            .as_ref()
            .map_or_else(|status| call_result(status.code()), |_| "ok");
        let metrics = &api.lookup().metrics;
        metrics.analytics_call(rpc, result, started);
        if let Ok(answer) = answer {
            return Ok(answer.into_inner());
        }
    }
    Err(Problem::statistics_unavailable())
}

/// Every interval of a span that has begun: those without clicks are said to have none.
fn series(span: &Span, counted: &[wire::Point], now: Timestamp, of_link: bool) -> Vec<Point> {
    let step = span.interval.millis();
    let newest = counted.last().map_or(0, |point| point.start_ms);
    let end = span.to.min(now.millis().max(newest) + 1);
    let mut counted = counted.iter().peekable();
    let mut points = Vec::new();
    let mut start = span.from;
    while start < end {
        let point = counted.next_if(|point| point.start_ms == start);
        points.push(match point {
            Some(point) => Point {
                start: instant(start),
                clicks: point.clicks,
                bots: point.bots,
                visitors: point.visitors,
            },
            None => Point {
                start: instant(start),
                clicks: 0,
                bots: 0,
                visitors: (of_link && span.interval.is_day()).then_some(0),
            },
        });
        start += step;
    }
    points
}

/// The series as a table.
fn series_csv(points: &[Point], of_link: bool) -> Csv {
    let columns = ["start", "clicks", "bots", "visitors"];
    let mut csv = Csv::new(if of_link { &columns } else { &columns[..3] });
    for point in points {
        let visitors = point.visitors.map_or(Cell::Empty, Cell::Number);
        let mut row = vec![
            Cell::Text(&point.start),
            Cell::Number(point.clicks),
            Cell::Number(point.bots),
        ];
        row.extend(of_link.then_some(visitors));
        csv.row(&row);
    }
    csv
}

/// RFC 3339; what lies behind the year 9999 reads as its end.
fn instant(millis: i64) -> String {
    Timestamp::from_millis(millis)
        .unwrap_or(Timestamp::MAX)
        .to_string()
}

/// Up to when everything is counted; none if that is not known yet.
fn counted_up_to(millis: i64) -> Option<String> {
    Timestamp::from_millis(millis)
        .filter(|at| at.millis() > 0)
        .map(|at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::query::{Interval, Takes};
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn a_series_has_no_gaps_and_ends_with_the_interval_that_has_begun() {
        let now = at("2026-11-03T10:30:00Z");
        let query = "from=2026-11-01&to=2026-11-30";
        let span = query::Query::read(query, Takes::By, now).unwrap().span;
        assert_eq!(span.interval, Interval::Day);
        let counted = [wire::Point {
            start_ms: at("2026-11-02T00:00:00Z").millis(),
            clicks: 5,
            bots: 1,
            visitors: Some(3),
        }];
        let points = series(&span, &counted, now, true);
        let told: Vec<_> = points
            .iter()
            .map(|point| (&point.start[..10], point.clicks, point.visitors))
            .collect();
        let expected = [
            ("2026-11-01", 0, Some(0)),
            ("2026-11-02", 5, Some(3)),
            ("2026-11-03", 0, Some(0)),
        ];
        assert_eq!(told, expected);
        // A click whose gateway's clock is ahead is not left out.
        let early = series(&span, &counted, at("2026-11-01T10:00:00Z"), false);
        assert_eq!(early.len(), 2);
        assert_eq!(early[0].visitors, None);
    }
}
