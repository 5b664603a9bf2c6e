//! What statistics are asked for: a span of time, and how it is to be told.

use http::{HeaderMap, header};
use serde::Serialize;
use url::form_urlencoded;
use waypost_domain::Timestamp;
use waypost_proto::analytics as wire;

use super::super::{Code, Problem};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// What is told of when nothing is said: this day and those before it.
const DEFAULT_DAYS: i64 = 30;

/// A month of hours, and three years of days, of which one is longer: about a thousand
/// points of a series, which is more than a picture shows.
const MAX_DAYS_BY_HOUR: i64 = 31;
const MAX_DAYS_BY_DAY: i64 = 3 * 365 + 1;

/// Links of a tenant in one answer.
const DEFAULT_TOP: u32 = 10;
const MAX_TOP: u32 = 100;

/// How finely a series is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Interval {
    Hour,
    Day,
}

/// What clicks of people are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum By {
    Referrer,
    Country,
    Device,
    Browser,
    Os,
    Language,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    Json,
    Csv,
}

/// Whole hours or whole days in UTC, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: i64,
    /// No part of it.
    pub(super) to: i64,
    pub(super) interval: Interval,
}

/// Of the two paths, each takes one parameter that the other does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    By,
    Top,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) span: Span,
    /// Each at most once.
    pub(super) by: Vec<By>,
    /// None: it was not said.
    pub(super) top: Option<u32>,
    format: Option<Format>,
}

/// The span in the API's document.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it carries documentation alone")]
pub(in super::super) struct InQuery {
    /// The begin: an instant (RFC 3339), or a day. All hours and days are those of UTC, and
    /// the span is widened to whole ones. By default 30 days before the end.
    #[param(example = "2099-11-01")]
    from: Option<String>,
    /// The end: an instant, which is no part of the span, or a day, which is. By default the
    /// end of the hour or day that it is now.
    #[param(example = "2099-11-30")]
    to: Option<String>,
    /// What the series is told by: hours, of which the span has at most 31 days, or days, of
    /// which it has at most 1,096.
    #[param(inline, default = "day")]
    interval: Option<Interval>,
    /// By default JSON, unless `Accept` names `text/csv` and not JSON.
    #[param(inline)]
    format: Option<Format>,
}

impl Interval {
    pub(super) const fn millis(self) -> i64 {
        match self {
            Self::Hour => HOUR_MS,
            Self::Day => DAY_MS,
        }
    }

    pub(super) fn is_day(self) -> bool {
        self == Self::Day
    }

    pub(super) const fn to_wire(self) -> wire::Interval {
        match self {
            Self::Hour => wire::Interval::Hour,
            Self::Day => wire::Interval::Day,
        }
    }
}

impl By {
    const ALL: [Self; 6] = [
        Self::Referrer,
        Self::Country,
        Self::Device,
        Self::Browser,
        Self::Os,
        Self::Language,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Referrer => "referrer",
            Self::Country => "country",
            Self::Device => "device",
            Self::Browser => "browser",
            Self::Os => "os",
            Self::Language => "language",
        }
    }

    pub(super) const fn to_wire(self) -> wire::Dimension {
        match self {
            Self::Referrer => wire::Dimension::Referrer,
            Self::Country => wire::Dimension::Country,
            Self::Device => wire::Dimension::Device,
            Self::Browser => wire::Dimension::Browser,
            Self::Os => wire::Dimension::Os,
            Self::Language => wire::Dimension::Language,
        }
    }
}

impl Span {
    pub(super) fn to_wire(&self) -> wire::Range {
        wire::Range {
            from_ms: self.from,
            to_ms: self.to,
        }
    }

    /// Its first day and its last one, as in the name of a file.
    pub(super) fn days_text(&self) -> String {
        let day = |millis| super::instant(millis)[..10].to_owned();
        format!("{}-to-{}", day(self.from), day(self.to - 1))
    }

    fn new(
        from: Option<i64>,
        to: Option<i64>,
        interval: Interval,
        now: Timestamp,
    ) -> Result<Self, Problem> {
        let step = interval.millis();
        let floor = |at: i64| at - at.rem_euclid(step);
        let to = to.map_or_else(|| floor(now.millis()) + step, |to| floor(to + step - 1));
        let from = from.unwrap_or_else(|| (to - DEFAULT_DAYS * DAY_MS).max(0));
        let from = floor(from);
        if from >= to {
            return Err(Problem::new(
                Code::RangeInvalid,
                "from is not before to; without to, the span ends now.",
            ));
        }
        let (most, name) = match interval {
            Interval::Hour => (MAX_DAYS_BY_HOUR, "hour"),
            Interval::Day => (MAX_DAYS_BY_DAY, "day"),
        };
        if to - from > most * DAY_MS {
            return Err(Problem::new(
                Code::RangeTooLong,
                format!("With interval={name} a span has at most {most} days."),
            ));
        }
        Ok(Self { from, to, interval })
    }
}

impl Query {
    pub(super) fn read(query: &str, takes: Takes, now: Timestamp) -> Result<Self, Problem> {
        let (mut from, mut to, mut interval, mut top, mut format) = (None, None, None, None, None);
        let mut by = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match (&*name, takes) {
                ("from", _) => once("from", &mut from, instant("from", &value)?)?,
                ("to", _) => once("to", &mut to, end(&value)?)?,
                ("interval", _) => {
                    let read = match &*value {
                        "hour" => Interval::Hour,
                        "day" => Interval::Day,
                        _ => return Err(refused("interval is hour or day.")),
                    };
                    once("interval", &mut interval, read)?;
                }
                ("format", _) => {
                    let read = match &*value {
                        "json" => Format::Json,
                        "csv" => Format::Csv,
                        _ => return Err(refused("format is json or csv.")),
                    };
                    once("format", &mut format, read)?;
                }
                ("by", Takes::By) => {
                    for name in value.split(',') {
                        let known = By::ALL.into_iter().find(|by| by.name() == name);
                        let known = known.ok_or_else(|| {
                            refused(
                                "by is one or several of referrer, country, device, browser, os \
                                 and language.",
                            )
                        })?;
                        if !by.contains(&known) {
                            by.push(known);
                        }
                    }
                }
                ("top", Takes::Top) => {
                    let read: Option<u32> = value.parse().ok();
                    let read = read.filter(|top| (1..=MAX_TOP).contains(top));
                    let read = read.ok_or_else(|| refused("top is 1 to 100."))?;
                    once("top", &mut top, read)?;
                }
                _ => {
                    let more = match takes {
                        Takes::By => "by",
                        Takes::Top => "top",
                    };
                    return Err(refused(format!(
                        "There is a parameter that this path does not take; it takes from, to, \
                         interval, {more} and format."
                    )));
                }
            }
        }
        let interval = interval.unwrap_or(Interval::Day);
        Ok(Self {
            span: Span::new(from, to, interval, now)?,
            by,
            top,
            format,
        })
    }

    pub(super) fn top_or_default(&self) -> u32 {
        self.top.unwrap_or(DEFAULT_TOP)
    }

    pub(super) fn is_csv(&self, headers: &HeaderMap) -> bool {
        match self.format {
            Some(format) => format == Format::Csv,
            None => accepts(headers, "text/csv") && !accepts(headers, "application/json"),
        }
    }
}

fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.to_ascii_lowercase().contains(kind))
}

fn once<T>(name: &str, slot: &mut Option<T>, value: T) -> Result<(), Problem> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(refused(format!("{name} is given twice."))),
    }
}

fn instant(name: &str, text: &str) -> Result<i64, Problem> {
    let at = day(text).or_else(|| Timestamp::parse(text));
    at.map(Timestamp::millis).ok_or_else(|| {
        Problem::new(
            Code::TimeInvalid,
            format!(
                "{name} is an instant as in 2026-11-22T10:00:00Z (RFC 3339) or a day as in \
                 2026-11-22, from 1970 on."
            ),
        )
    })
}

/// A day is meant with all of its hours.
fn end(text: &str) -> Result<i64, Problem> {
    let at = instant("to", text)?;
    Ok(if day(text).is_some() { at + DAY_MS } else { at })
}

fn day(text: &str) -> Option<Timestamp> {
    let is_day = text.len() == "2026-11-22".len();
    is_day
        .then(|| Timestamp::parse(&format!("{text}T00:00:00Z")))
        .flatten()
}

fn refused(detail: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::new(Code::QueryInvalid, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Query, Code> {
        let now = Timestamp::parse("2026-11-25T10:30:00Z").unwrap();
        Query::read(query, Takes::By, now).map_err(|problem| problem.code())
    }

    #[test]
    fn spans_are_of_whole_hours_or_days_and_end_now_unless_something_else_is_said() {
        let told = |query: &str| {
            let span = read(query).unwrap().span;
            let text = |millis| super::super::instant(millis)[..16].to_owned();
            [text(span.from), text(span.to)]
        };
        let cases = [
            ("", ["2026-10-27T00:00", "2026-11-26T00:00"]),
            ("interval=hour", ["2026-10-26T11:00", "2026-11-25T11:00"]),
            ("from=2026-11-24", ["2026-11-24T00:00", "2026-11-26T00:00"]),
            // A day is meant whole, at either end.
            (
                "from=2026-11-01&to=2026-11-01",
                ["2026-11-01T00:00", "2026-11-02T00:00"],
            ),
            ("to=1970-01-02", ["1970-01-01T00:00", "1970-01-03T00:00"]),
            (
                "from=2026-11-01T10:10:00Z&to=2026-11-01T12:00:00Z&interval=hour",
                ["2026-11-01T10:00", "2026-11-01T12:00"],
            ),
            (
                "from=2026-11-01T10:10:00Z&to=2026-11-01T12:00:00%2B02:00",
                ["2026-11-01T00:00", "2026-11-02T00:00"],
            ),
            // A thousand days and some.
            (
                "from=2023-11-26&to=2026-11-25",
                ["2023-11-26T00:00", "2026-11-26T00:00"],
            ),
            ("to=9999-12-31", ["9999-12-02T00:00", "9999-12-31T23:59"]),
        ];
        for (query, expected) in cases {
            assert_eq!(told(query), expected, "{query}");
        }
    }

    #[test]
    fn bad_ranges_are_told_apart() {
        for (query, code) in [
            ("from=2026-11-26", Code::RangeInvalid),
            ("from=2026-11-02&to=2026-11-01", Code::RangeInvalid),
            (
                "from=2026-11-01T10:00:00Z&to=2026-11-01T10:00:00Z&interval=hour",
                Code::RangeInvalid,
            ),
            ("from=2026-10-24&interval=hour", Code::RangeTooLong),
            ("from=2023-11-25", Code::RangeTooLong),
            ("from=yesterday", Code::TimeInvalid),
            ("to=2026-02-30", Code::TimeInvalid),
            ("from=1969-12-31", Code::TimeInvalid),
            ("interval=week", Code::QueryInvalid),
            ("interval=day&interval=day", Code::QueryInvalid),
            ("by=", Code::QueryInvalid),
            ("by=referrer,city", Code::QueryInvalid),
            ("top=3", Code::QueryInvalid),
            ("format=xml", Code::QueryInvalid),
            ("callback=x", Code::QueryInvalid),
        ] {
            assert_eq!(read(query).unwrap_err(), code, "{query}");
        }
    }

    #[test]
    fn dimensions_are_listed_with_commas_or_one_by_one() {
        let by = |query| read(query).unwrap().by;
        assert_eq!(by("by=os,country"), [By::Os, By::Country]);
        assert_eq!(by("by=os&by=country&by=os"), [By::Os, By::Country]);
        let now = Timestamp::parse("2026-11-25T10:30:00Z").unwrap();
        let tenant = |query| Query::read(query, Takes::Top, now);
        assert_eq!(tenant("top=100").unwrap().top, Some(100));
        assert!(tenant("top=101").is_err() && tenant("by=os").is_err());
    }

    #[test]
    fn a_table_is_given_to_who_asks_for_it_by_name() {
        let is_csv = |query, accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, http::HeaderValue::from_static(accept));
            read(query).unwrap().is_csv(&headers)
        };
        assert!(is_csv("", "text/csv"));
        assert!(is_csv("format=csv", "*/*"));
        assert!(!is_csv("format=json", "text/csv"));
        assert!(!is_csv("", "application/json, text/csv;q=0.5"));
        assert!(!is_csv("", "text/html, */*"));
    }
}
