//! Answers out of rows.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use waypost_proto::analytics::{
    self as wire, Breakdown, LinkStatsResponse, Point, TenantStatsResponse, TopLink, Value,
};

use crate::counts::{Clicks, Counts, DIMENSIONS, Dimension, HOURS};
use crate::sketch::Sketch;
use crate::store::{OlderHour, Stored, StoredDay};
use crate::tally::{DAY_MS, HOUR_MS, link_of_name};
use crate::top::Top;

const HOURS_PER_DAY: i64 = HOURS as i64;

/// The hours that are asked for, since the Unix epoch; none: all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window(Option<Range<i64>>);

impl Window {
    /// Widened to whole hours; none if it is empty or ends before it begins.
    pub(crate) fn new(range: Option<wire::Range>) -> Option<Self> {
        let range = range.unwrap_or_default();
        if (range.from_ms, range.to_ms) == (0, 0) {
            return Some(Self(None));
        }
        let from = range.from_ms.div_euclid(HOUR_MS);
        let to = range.to_ms.saturating_add(HOUR_MS - 1).div_euclid(HOUR_MS);
        (range.from_ms < range.to_ms).then_some(Self(Some(from..to)))
    }

    /// The days that it touches.
    pub(crate) fn days(&self) -> Range<i32> {
        let day = |day: i64| i32::try_from(day.max(0)).unwrap_or(i32::MAX);
        match &self.0 {
            None => 0..i32::MAX,
            Some(hours) => {
                let last = (hours.end - 1).div_euclid(HOURS_PER_DAY);
                day(hours.start.div_euclid(HOURS_PER_DAY))..day(last.saturating_add(1))
            }
        }
    }

    pub(crate) fn hours(&self) -> Range<i64> {
        self.0.clone().unwrap_or(0..i64::MAX)
    }

    /// Whether it begins and ends with a day.
    pub(crate) fn is_of_days(&self) -> bool {
        self.0.as_ref().is_none_or(|hours| {
            [hours.start, hours.end]
                .iter()
                .all(|hour| hour % HOURS_PER_DAY == 0)
        })
    }

    fn whole_days(&self) -> Option<wire::Range> {
        let days = self.days();
        self.0.as_ref().map(|_| wire::Range {
            from_ms: i64::from(days.start) * DAY_MS,
            to_ms: i64::from(days.end) * DAY_MS,
        })
    }
}

/// How finely clicks are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interval {
    Total,
    Hour,
    Day,
}

/// A link's answer, but for how far everything is counted.
pub(crate) fn link(
    stored: &Stored,
    window: &Window,
    interval: Interval,
    by: &[Dimension],
    top: usize,
) -> LinkStatsResponse {
    let mut series = Series::new(window, interval);
    series.add_older(&stored.older);
    let mut values: Vec<Tops<'_>> = by.iter().map(|_| Tops::default()).collect();
    let mut visitor_days = 0;
    for rows in stored.days.chunk_by(|a, b| a.day == b.day) {
        let visitors = visitors(rows);
        visitor_days += visitors;
        series.visitors(rows[0].day, visitors);
        for row in rows {
            let counts = read(row, DIMENSIONS);
            series.add(row, counts.as_ref());
            for (values, dimension) in values.iter_mut().zip(by) {
                if let Some(counts) = &counts {
                    values.add(&counts.tops[*dimension as usize]);
                }
            }
        }
    }
    let breakdowns = by.iter().zip(values).map(|(dimension, values)| {
        let (values, other) = values.most(top);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let value = |(value, clicks)| Value {
            value: text(value),
            clicks,
        };
        Breakdown {
            by: to_wire(*dimension).into(),
            values: values.into_iter().map(value).collect(),
            other,
        }
    });
    LinkStatsResponse {
        clicks: series.sum.clicks,
        bots: series.sum.bots,
        counted_up_to_ms: 0,
        visitor_days,
        breakdowns: breakdowns.collect(),
        series: series.points(),
        days: window.whole_days(),
    }
}

/// A tenant's answer, but for how far everything is counted.
pub(crate) fn tenant(
    stored: &Stored,
    window: &Window,
    interval: Interval,
    top: usize,
) -> TenantStatsResponse {
    let mut series = Series::new(window, interval);
    series.add_older(&stored.older);
    let mut links = Tops::default();
    for row in &stored.days {
        let counts = read(row, 1);
        series.add(row, counts.as_ref());
        if let Some(counts) = counts.as_ref().filter(|_| top > 0) {
            links.add(&counts.tops[0]);
        }
    }
    let (links, other) = links.most(top);
    let links = links.into_iter().filter_map(|(name, clicks)| {
        let (link, domain, slug) = link_of_name(name)?;
        Some(TopLink {
            link_id: link.as_bytes().to_vec(),
            domain,
            slug: slug.to_owned(),
            clicks,
        })
    });
    TenantStatsResponse {
        clicks: series.sum.clicks,
        bots: series.sum.bots,
        counted_up_to_ms: 0,
        links: links.collect(),
        other,
        series: series.points(),
        days: window.whole_days(),
    }
}

/// None where they were not asked for, or cannot be read: then the row's sums are all
/// that is known.
fn read(row: &StoredDay, tops: usize) -> Option<Counts<'_>> {
    let counts = Some(&row.counts).filter(|counts| !counts.is_empty())?;
    let read = Counts::read(counts, tops);
    if read.is_none() {
        tracing::error!(day = row.day, "counts of a day cannot be read");
    }
    read
}

/// Of one day: whoever came by two partitions is one visitor.
fn visitors(rows: &[StoredDay]) -> u64 {
    match rows {
        [row] => row.visitors.cast_unsigned(),
        rows => {
            let mut all = Sketch::new();
            for sketch in rows.iter().filter_map(|row| Sketch::read(&row.sketch)) {
                all.add_sketch(&sketch);
            }
            all.estimate()
        }
    }
}

/// Clicks by interval.
struct Series {
    hours: Range<i64>,
    interval: Interval,
    sum: Clicks,
    /// By the hour with which an interval begins.
    points: BTreeMap<i64, (Clicks, Option<u64>)>,
}

impl Series {
    fn new(window: &Window, interval: Interval) -> Self {
        Self {
            hours: window.hours(),
            interval,
            sum: Clicks::default(),
            points: BTreeMap::new(),
        }
    }

    fn add(&mut self, row: &StoredDay, counts: Option<&Counts<'_>>) {
        let first = i64::from(row.day) * HOURS_PER_DAY;
        let is_whole = self.hours.start <= first && first + HOURS_PER_DAY <= self.hours.end;
        match counts {
            Some(counts) if !is_whole || self.interval == Interval::Hour => {
                for (hour, clicks) in (first..).zip(counts.hours) {
                    if self.hours.contains(&hour) && clicks != Clicks::default() {
                        self.count(hour, clicks);
                    }
                }
            }
            _ if is_whole => {
                let clicks = Clicks {
                    clicks: row.clicks.cast_unsigned(),
                    bots: row.bots.cast_unsigned(),
                };
                self.count(first, clicks);
            }
            _ => {}
        }
    }

    fn add_older(&mut self, hours: &[OlderHour]) {
        for older in hours {
            let clicks = Clicks {
                clicks: older.clicks.cast_unsigned(),
                bots: older.bots.cast_unsigned(),
            };
            self.count(older.hour, clicks);
        }
    }

    fn count(&mut self, hour: i64, clicks: Clicks) {
        self.sum += clicks;
        let start = match self.interval {
            Interval::Total => return,
            Interval::Hour => hour,
            Interval::Day => hour - hour.rem_euclid(HOURS_PER_DAY),
        };
        self.points.entry(start).or_default().0 += clicks;
    }

    fn visitors(&mut self, day: i32, visitors: u64) {
        if self.interval == Interval::Day {
            let start = i64::from(day) * HOURS_PER_DAY;
            self.points.entry(start).or_default().1 = Some(visitors);
        }
    }

    fn points(self) -> Vec<Point> {
        let points = self.points.into_iter();
        let point = |(hour, (clicks, visitors)): (i64, (Clicks, Option<u64>))| Point {
            start_ms: hour * HOUR_MS,
            clicks: clicks.clicks,
            bots: clicks.bots,
            visitors,
        };
        points.map(point).filter(|point| point.clicks > 0).collect()
    }
}

/// The most frequent values of several days.
#[derive(Default)]
struct Tops<'a> {
    values: HashMap<&'a [u8], u64>,
    other: u64,
}

impl<'a> Tops<'a> {
    fn add(&mut self, top: &Top<'a>) {
        for (value, clicks) in top.values() {
            *self.values.entry(value).or_default() += clicks;
        }
        self.other += top.other();
    }

    /// So many of them, and all that is of no value among these.
    fn most(self, count: usize) -> (Vec<(&'a [u8], u64)>, u64) {
        let mut values: Vec<(&[u8], u64)> = self.values.into_iter().collect();
        // What comes as often stands in the order of its letters, as the next time.
        values.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        let rest = values.split_off(count.min(values.len()));
        let other = rest.iter().map(|(_, clicks)| clicks).sum::<u64>() + self.other;
        (values, other)
    }
}

pub(crate) fn from_wire(dimension: wire::Dimension) -> Option<Dimension> {
    match dimension {
        wire::Dimension::Unspecified => None,
        wire::Dimension::Referrer => Some(Dimension::Referrer),
        wire::Dimension::Country => Some(Dimension::Country),
        wire::Dimension::Device => Some(Dimension::Device),
        wire::Dimension::Browser => Some(Dimension::Browser),
        wire::Dimension::Os => Some(Dimension::Os),
        wire::Dimension::Language => Some(Dimension::Language),
    }
}

fn to_wire(dimension: Dimension) -> wire::Dimension {
    match dimension {
        Dimension::Referrer => wire::Dimension::Referrer,
        Dimension::Country => wire::Dimension::Country,
        Dimension::Device => wire::Dimension::Device,
        Dimension::Browser => wire::Dimension::Browser,
        Dimension::Os => wire::Dimension::Os,
        Dimension::Language => wire::Dimension::Language,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(from_ms: i64, to_ms: i64) -> Option<Window> {
        Window::new(Some(wire::Range { from_ms, to_ms }))
    }

    #[test]
    fn a_window_is_widened_to_hours_and_knows_its_days() {
        let all = Window::new(None).unwrap();
        assert_eq!((all.days(), all.is_of_days()), (0..i32::MAX, true));
        let days = window(2 * DAY_MS, 4 * DAY_MS).unwrap();
        assert_eq!(
            (days.days(), days.hours(), days.is_of_days()),
            (2..4, 48..96, true)
        );
        let part = window(2 * DAY_MS + 1, 3 * DAY_MS + 1).unwrap();
        assert_eq!(
            (part.days(), part.hours(), part.is_of_days()),
            (2..4, 48..73, false)
        );
        let whole = part.whole_days().unwrap();
        assert_eq!((whole.from_ms, whole.to_ms), (2 * DAY_MS, 4 * DAY_MS));
        assert_eq!(window(5, 5), None);
        assert_eq!(window(6, 5), None);
    }
}
