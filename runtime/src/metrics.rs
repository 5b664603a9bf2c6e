//! The metrics of a process: none without a description, out of which
//! `docs/metrics.md` is made.
//!
//! A series of a counter exists from the start, at 0, if its labels say all that they
//! may say: Prometheus takes no rate over the step from nothing to one, and would not
//! see a failure that happens once.

use std::fmt;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{MetricFamily, MetricType};
pub use prometheus::{Error, Result};
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts,
};

/// Seconds, for what a client waits for. Holds each threshold of the objectives: 10, 50
/// and 250 ms.
pub const LATENCY_SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
];

/// How many of something were done at once.
pub const SIZES: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
];

/// A label, and what it may say.
#[derive(Debug, Clone, Copy)]
pub struct Label {
    name: &'static str,
    values: Values,
}

#[derive(Debug, Clone, Copy)]
enum Values {
    OneOf(&'static [&'static str]),
    /// Few, and known only when the process runs; in words.
    Such(&'static str),
}

impl Label {
    /// A label that says one of these.
    #[must_use]
    pub const fn one_of(name: &'static str, values: &'static [&'static str]) -> Self {
        let values = Values::OneOf(values);
        Self { name, values }
    }

    /// A label of whose values only the kind is known, and that they are few: the ids of
    /// shards, never a slug, a URL or an address.
    #[must_use]
    pub const fn such(name: &'static str, kind: &'static str) -> Self {
        let values = Values::Such(kind);
        Self { name, values }
    }
}

/// How one metric is documented.
#[derive(Debug, Clone)]
struct Description {
    name: String,
    kind: &'static str,
    labels: Vec<Label>,
    help: String,
}

/// All metrics of a process, with what they mean. Cheap to clone.
#[derive(Clone, Default)]
pub struct Registry {
    inner: prometheus::Registry,
    described: Arc<Mutex<Vec<Description>>>,
    readings: Arc<Mutex<Vec<Reading>>>,
}

type Reading = Box<dyn Fn() + Send>;

impl Registry {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// # Errors
    /// As all others: if the name is taken.
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter> {
        self.add(IntCounter::new(name, help)?, "counter", &[], name, help)
    }

    /// Counters by labels.
    ///
    /// # Errors
    /// As all others.
    pub fn counters(&self, name: &str, help: &str, labels: &[Label]) -> Result<IntCounterVec> {
        let counters = IntCounterVec::new(Opts::new(name, help), &names(labels))?;
        for values in combinations(labels) {
            counters.with_label_values(&values);
        }
        self.add(counters, "counter", labels, name, help)
    }

    /// # Errors
    /// As all others.
    pub fn gauge(&self, name: &str, help: &str) -> Result<IntGauge> {
        self.add(IntGauge::new(name, help)?, "gauge", &[], name, help)
    }

    /// Gauges by labels.
    ///
    /// # Errors
    /// As all others.
    pub fn gauges(&self, name: &str, help: &str, labels: &[Label]) -> Result<IntGaugeVec> {
        let gauges = IntGaugeVec::new(Opts::new(name, help), &names(labels))?;
        self.add(gauges, "gauge", labels, name, help)
    }

    /// A gauge of what is no whole number.
    ///
    /// # Errors
    /// As all others.
    pub fn real_gauge(&self, name: &str, help: &str) -> Result<Gauge> {
        self.add(Gauge::new(name, help)?, "gauge", &[], name, help)
    }

    /// Such gauges by labels.
    ///
    /// # Errors
    /// As all others.
    pub fn real_gauges(&self, name: &str, help: &str, labels: &[Label]) -> Result<GaugeVec> {
        let gauges = GaugeVec::new(Opts::new(name, help), &names(labels))?;
        self.add(gauges, "gauge", labels, name, help)
    }

    /// # Errors
    /// As all others.
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let histogram = Histogram::with_opts(options)?;
        self.add(histogram, "histogram", &[], name, help)
    }

    /// Histograms by labels.
    ///
    /// # Errors
    /// As all others.
    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[Label],
    ) -> Result<HistogramVec> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let histograms = HistogramVec::new(options, &names(labels))?;
        self.add(histograms, "histogram", labels, name, help)
    }

    /// Calls this before each scrape, to set gauges of what is not worth following at
    /// every change. It must not block.
    pub fn read_before_scrapes(&self, reading: impl Fn() + Send + 'static) {
        lock(&self.readings).push(Box::new(reading));
    }

    /// What the operating system says of this process.
    pub(crate) fn add_process(&self) -> Result<()> {
        let collector = ProcessCollector::for_self();
        for family in collector.collect() {
            lock(&self.described).push(Description {
                name: family.name().to_owned(),
                kind: match family.get_field_type() {
                    MetricType::COUNTER => "counter",
                    _ => "gauge",
                },
                labels: Vec::new(),
                help: family.help().trim_end_matches('.').to_owned(),
            });
        }
        self.inner.register(Box::new(collector))
    }

    /// All series as they are now.
    #[must_use]
    pub fn gather(&self) -> Vec<MetricFamily> {
        for reading in lock(&self.readings).iter() {
            reading();
        }
        self.inner.gather()
    }

    /// A row of a table for each metric, by name: name, type, labels, meaning.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut described = lock(&self.described).clone();
        described.sort_by(|one, other| one.name.cmp(&other.name));
        let mut text = String::new();
        for Description {
            name,
            kind,
            labels,
            help,
        } in described
        {
            let labels: Vec<String> = labels.iter().map(ToString::to_string).collect();
            let labels = labels.join("; ");
            let _ = writeln!(text, "| `{name}` | {kind} | {labels} | {help} |");
        }
        text
    }

    fn add<M: Collector + Clone + 'static>(
        &self,
        metric: M,
        kind: &'static str,
        labels: &[Label],
        name: &str,
        help: &str,
    ) -> Result<M> {
        self.inner.register(Box::new(metric.clone()))?;
        lock(&self.described).push(Description {
            name: name.to_owned(),
            kind,
            labels: labels.to_vec(),
            help: help.to_owned(),
        });
        Ok(metric)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: ", self.name)?;
        match self.values {
            Values::OneOf(values) => write!(f, "`{}`", values.join("`, `")),
            Values::Such(kind) => f.write_str(kind),
        }
    }
}

fn names(labels: &[Label]) -> Vec<&'static str> {
    labels.iter().map(|label| label.name).collect()
}

/// What the labels may say together; nothing if one of them does not say what it may.
fn combinations(labels: &[Label]) -> Vec<Vec<&'static str>> {
    let mut all = vec![Vec::new()];
    for label in labels {
        let Values::OneOf(values) = label.values else {
            return Vec::new();
        };
        let longer = all.iter().flat_map(|begun: &Vec<_>| {
            let with = |value| begun.iter().copied().chain([value]).collect();
            values.iter().copied().map(with)
        });
        all = longer.collect();
    }
    all
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_there_from_the_start_where_it_is_known_what_their_labels_say() {
        let registry = Registry::new();
        let tier = Label::one_of("tier", &["l1", "redis"]);
        let result = Label::one_of("result", &["hit", "miss"]);
        let shard = Label::such("shard", "the ids of the map");
        registry
            .counters("waypost_a_total", "A", &[tier, result])
            .unwrap();
        registry
            .counters("waypost_b_total", "B", &[tier, shard])
            .unwrap();
        let families = registry.gather();
        let values = |metric: &prometheus::proto::Metric| -> Vec<String> {
            let labels = metric.get_label().iter();
            labels.map(|label| label.value().to_owned()).collect()
        };
        let series = families.iter().flat_map(MetricFamily::get_metric);
        let said: Vec<_> = series.map(values).collect();
        let expected = [
            ["hit", "l1"],
            ["hit", "redis"],
            ["miss", "l1"],
            ["miss", "redis"],
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn a_metric_is_described_by_its_type_its_labels_and_its_meaning() {
        let registry = Registry::new();
        let labels = [
            Label::one_of("rpc", &["resolve", "list"]),
            Label::such("shard", "the ids of the map"),
        ];
        registry.gauges("waypost_calls", "Calls", &labels).unwrap();
        assert!(registry.gauge("waypost_calls", "Others").is_err());
        assert_eq!(
            registry.markdown(),
            "| `waypost_calls` | gauge | `rpc`: `resolve`, `list`; `shard`: the ids of the map | Calls |\n"
        );
    }

    #[test]
    fn readings_are_made_before_each_scrape() {
        let registry = Registry::new();
        let gauge = registry.gauge("waypost_scrapes", "Scrapes").unwrap();
        let set = gauge.clone();
        registry.read_before_scrapes(move || set.inc());
        let _ = registry.gather();
        let families = registry.gather();
        assert_eq!(families[0].get_metric()[0].get_gauge().get_value(), 2.0);
    }
}
