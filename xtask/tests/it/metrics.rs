//! The page of metrics, and that all who name a metric name one that there is.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::promql::{self, Selector};

/// Labels that a metric may have. Each multiplies the series: think before adding one, and
/// never is it to hold what visitors or clients choose.
const LABELS: [&str; 21] = [
    "call",
    "code",
    "direction",
    "file",
    "fingerprint",
    "from",
    "lane",
    "limit",
    "operation",
    "outcome",
    "reason",
    "result",
    "revision",
    "route",
    "rpc",
    "shard",
    "side",
    "tier",
    "version",
    "work",
    "le",
];

/// What Prometheus adds to each series: how it found the target.
const TARGET: [&str; 4] = ["job", "instance", "region", "shard"];

/// Series that Prometheus makes itself.
const OWN: [&str; 3] = ["up", "ALERTS", "ALERTS_FOR_STATE"];

/// A row of the page.
#[derive(Debug)]
pub(crate) struct Metric {
    pub(crate) kind: String,
    unit: String,
    /// Each with its values, if they are all known.
    labels: BTreeMap<String, Option<Vec<String>>>,
    meaning: String,
}

/// All metrics, by name, and all series that rules record.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) metrics: BTreeMap<String, Metric>,
    recorded: BTreeMap<String, Vec<String>>,
}

pub(crate) fn root() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().expect("the workspace is there")
}

impl Known {
    pub(crate) fn read() -> Self {
        let page = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
        let rows = page.lines().filter(|line| line.starts_with("| `"));
        let metrics = rows.map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [name, kind, unit, labels, meaning, _of] = cells[..] else {
                panic!("six cells, not {row}");
            };
            let metric = Metric {
                kind: kind.to_owned(),
                unit: unit.to_owned(),
                labels: labels
                    .split(';')
                    .filter(|l| !l.is_empty())
                    .map(label)
                    .collect(),
                meaning: meaning.to_owned(),
            };
            (name.trim_matches('`').to_owned(), metric)
        });
        let mut recorded: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for rule in rules() {
            if rule.is_recorded {
                recorded.entry(rule.name).or_default().extend(rule.labels);
            }
        }
        let metrics = metrics.collect();
        Self { metrics, recorded }
    }

    /// The metric that a series belongs to, and the labels that the series has besides.
    pub(crate) fn metric(&self, series: &str) -> Option<&Metric> {
        let of = |end| {
            let metric = self.metrics.get(series.strip_suffix(end)?)?;
            (metric.kind == "histogram").then_some(metric)
        };
        let plain = self.metrics.get(series).filter(|m| m.kind != "histogram");
        plain
            .or_else(|| of("_bucket"))
            .or_else(|| of("_sum"))
            .or_else(|| of("_count"))
    }

    /// Says what in an expression there is not.
    pub(crate) fn check(&self, expression: &str) -> Result<(), String> {
        let found = promql::read(expression);
        let mut labels: Vec<String> = TARGET.map(str::to_owned).to_vec();
        for selector in &found.selectors {
            let name = &selector.name;
            let own = match self.metric(name) {
                Some(metric) => {
                    check_values(metric, selector)?;
                    let le = name.ends_with("_bucket").then(|| "le".to_owned());
                    metric.labels.keys().cloned().chain(le).collect()
                }
                None if OWN.contains(&name.as_str()) => {
                    ["alertname", "alertstate", "severity", "slo"]
                        .map(str::to_owned)
                        .to_vec()
                }
                None => match self.recorded.get(name) {
                    Some(labels) => labels.clone(),
                    None => return Err(format!("there is no {name}: {expression}")),
                },
            };
            let has = |label: &str| own.iter().any(|l| l == label) || TARGET.contains(&label);
            if let Some([label, ..]) = selector.matchers.iter().find(|[label, ..]| !has(label)) {
                return Err(format!("{name} has no label {label}: {expression}"));
            }
            labels.extend(own);
        }
        match found.labels.iter().find(|label| !labels.contains(label)) {
            Some(label) => Err(format!("nothing has the label {label}: {expression}")),
            None => Ok(()),
        }
    }
}

fn check_values(metric: &Metric, selector: &Selector) -> Result<(), String> {
    for [label, operator, value] in &selector.matchers {
        let Some(Some(values)) = metric.labels.get(label) else {
            continue;
        };
        let alternatives: Vec<&str> = match operator.as_str() {
            "=" | "!=" => vec![value],
            _ => value.split('|').collect(),
        };
        for alternative in alternatives {
            // A variable of a dashboard stands for some of them.
            let is_known = alternative.starts_with('$')
                || alternative == ".*"
                || values.iter().any(|value| value == alternative);
            if !is_known {
                let name = &selector.name;
                return Err(format!("{label} of {name} never is {alternative}"));
            }
        }
    }
    Ok(())
}

fn label(text: &str) -> (String, Option<Vec<String>>) {
    let (name, values) = text.split_once(':').expect("a label says what it may say");
    let values: Vec<&str> = values.trim().split(", ").collect();
    let is_closed = values
        .iter()
        .all(|v| v.len() > 2 && v.starts_with('`') && v.ends_with('`'));
    let values = values
        .iter()
        .map(|value| value.trim_matches('`').to_owned());
    (
        name.trim().trim_matches('`').to_owned(),
        is_closed.then(|| values.collect()),
    )
}

/// One rule of Prometheus.
pub(crate) struct Rule {
    /// Of the series, or of the alert.
    pub(crate) name: String,
    pub(crate) is_recorded: bool,
    pub(crate) expression: String,
    /// That it sets, and that it groups by.
    labels: Vec<String>,
    pub(crate) text: String,
}

/// The rules of both files, which are all written in the same few ways.
pub(crate) fn rules() -> Vec<Rule> {
    let mut rules = Vec::new();
    for file in ["slo.yaml", "causes.yaml"] {
        let text = fs::read_to_string(root().join("deploy/prometheus/rules").join(file)).unwrap();
        for text in text.split("\n      - ").skip(1) {
            let (kind, rest) = text.split_once(": ").unwrap();
            let Some(is_recorded) = ["alert", "record"].iter().position(|k| *k == kind) else {
                panic!("a rule begins with what it is: {text}");
            };
            let name = rest.lines().next().unwrap().to_owned();
            let (_, expression) = text.split_once("\n        expr: ").unwrap();
            let expression = match expression.strip_prefix("|-\n") {
                Some(block) => {
                    let lines = block
                        .lines()
                        .take_while(|line| line.starts_with("          "));
                    lines.collect::<Vec<_>>().join("\n")
                }
                None => expression.lines().next().unwrap().to_owned(),
            };
            let mut labels = promql::read(&expression).labels;
            labels.push("slo".to_owned());
            rules.push(Rule {
                name,
                is_recorded: is_recorded == 1,
                expression,
                labels,
                text: text.to_owned(),
            });
        }
    }
    rules
}

#[test]
fn every_metric_says_what_it_is_under_a_name_that_says_whose_it_is() {
    let known = Known::read();
    assert!(known.metrics.len() > 60, "{} metrics", known.metrics.len());
    for (name, metric) in &known.metrics {
        let is_ours = name.starts_with("waypost_") || name.starts_with("process_");
        assert!(is_ours, "{name} does not begin with waypost_");
        assert!(metric.meaning.len() > 5, "{name} has no meaning");
        assert!(!metric.unit.is_empty(), "{name} has no unit");
        for label in metric.labels.keys() {
            assert!(
                LABELS.contains(&label.as_str()),
                "{name} has a label {label}"
            );
        }
    }
}

#[test]
fn rules_name_metrics_labels_and_values_that_there_are() {
    let known = Known::read();
    let rules = rules();
    assert!(rules.len() > 100, "{} rules", rules.len());
    for rule in rules {
        known.check(&rule.expression).unwrap();
    }
}

#[test]
fn what_there_is_not_is_noticed() {
    let known = Known::read();
    for wrong in [
        "waypost_nothing_total",
        "waypost_http_request_duration_seconds",
        "waypost_keys_in_stock_bucket",
        "rate(waypost_clicks_lost_total{reason=\"boredom\"}[5m])",
        "rate(waypost_cache_lookups_total{result=~\"hit|hits\"}[5m])",
        "waypost_keys_in_stock{route=\"redirect\"}",
        "sum by (route) (waypost_keys_in_stock)",
        "slo:nothing",
    ] {
        assert!(known.check(wrong).is_err(), "{wrong}");
    }
    let right = "sum by (region, le) (rate(waypost_http_request_duration_seconds_bucket{route=\"redirect\",code=~\"5..\"}[5m]))";
    known.check(right).unwrap();
}
