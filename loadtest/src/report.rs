//! What a run found: the same figures as text, JSON and a page.

pub mod curve;
pub mod html;
pub mod text;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::mix::Kind;
use crate::objective::{Bound, Objective};
use crate::options::Plan;
use crate::record::{Latencies, Second, Tally};
use crate::schedule::Arrivals;
use crate::span::Pretty;

/// A step whose answers come at less than this share of the rate they were due
/// at is past saturation.
const SUSTAINED_SHARE: f64 = 0.95;
/// When this program notices due requests later than this, one time in a
/// hundred, its own lateness is part of what it shows.
const LATE_GENERATOR: Duration = Duration::from_millis(1);

/// A whole run. Field names are the JSON format, which `version` numbers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "each field is the option of its name")]
pub struct Report {
    /// Of this format.
    pub version: u32,
    pub targets: Vec<String>,
    pub mix: String,
    pub arrivals: Arrivals,
    pub zipf: f64,
    pub seed: u64,
    pub connections: usize,
    pub threads: usize,
    pub deadline_ms: f64,
    pub warmup_seconds: f64,
    /// One for each rate, in order.
    pub steps: Vec<StepReport>,
    /// The highest rate that was sustained before one was not.
    pub sustainable_rate: Option<f64>,
    pub verdict: Verdict,
}

/// Whether the objectives are met.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// Every step keeps up with its rate and meets them all; for a ramp, at
    /// least its first step does. Without objectives there is nothing to miss.
    pub met: bool,
    /// As given.
    pub objectives: Vec<String>,
}

/// One rate.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepReport {
    /// Requests a second asked for.
    pub intended_rate: f64,
    /// Requests a second that came due (random with Poisson arrivals).
    pub offered_rate: f64,
    /// Expected answers a second, up to the end of the step.
    pub achieved_rate: f64,
    /// Length of the recorded part.
    pub duration_seconds: f64,
    /// All kinds together.
    pub total: KindReport,
    /// Each kind.
    pub kinds: BTreeMap<Kind, KindReport>,
    /// How late this program noticed that requests were due.
    pub generator_lag_ms: Percentiles,
    /// Whether that is late enough to spoil the latencies.
    pub generator_late: bool,
    /// Each objective with what was seen.
    pub checks: Vec<Check>,
    /// Whether the rate was kept up and all objectives met.
    pub sustained: bool,
    /// Second by second.
    pub timeline: Vec<Tick>,
}

/// Requests of one kind, or all.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KindReport {
    /// That came due.
    pub requests: u64,
    /// Not answered as expected.
    pub errors: u64,
    /// Errors by class.
    pub errors_by_class: BTreeMap<String, u64>,
    /// From the intended start.
    pub latency_ms: Percentiles,
    /// From the moment a connection took it: what a closed loop would show.
    pub service_ms: Percentiles,
    /// Latency over percentile, for drawing: (percentile, milliseconds).
    pub latency_curve: Vec<(f64, f64)>,
    /// The same for the service time.
    pub service_curve: Vec<(f64, f64)>,
}

/// Milliseconds.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Percentiles {
    pub count: u64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    #[serde(rename = "p99.9")]
    pub p999: f64,
    pub max: f64,
}

/// An objective and what was seen.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// For reading.
    pub objective: String,
    /// Milliseconds, or a share; none when there was nothing to see.
    pub actual: Option<f64>,
    /// Whether it is met.
    pub met: bool,
}

/// One second of a step.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tick {
    /// Since the recorded part began.
    pub seconds: f64,
    /// Expected answers a second.
    pub rate: f64,
    /// Milliseconds from the intended start.
    pub p50_ms: f64,
    /// Milliseconds from the intended start.
    pub p99_ms: f64,
    /// Failed in this second.
    pub errors: u64,
}

impl Report {
    /// Of a plan's steps.
    #[must_use]
    pub fn new(plan: &Plan, steps: Vec<StepReport>) -> Self {
        let sustained = steps.iter().take_while(|step| step.sustained).count();
        let kept_up = if plan.rates.until_saturation() {
            sustained > 0
        } else {
            sustained == steps.len()
        };
        let sustainable_rate = steps[..sustained]
            .iter()
            .map(|step| step.intended_rate)
            .max_by(f64::total_cmp);
        Self {
            version: 1,
            targets: plan.targets.iter().map(|t| t.url().to_string()).collect(),
            mix: plan.mix.to_string(),
            arrivals: plan.arrivals,
            zipf: plan.zipf,
            seed: plan.seed,
            connections: plan.connections,
            threads: plan.threads,
            deadline_ms: millis(plan.deadline),
            warmup_seconds: plan.warmup.as_secs_f64(),
            sustainable_rate,
            verdict: Verdict {
                met: plan.objectives.is_empty() || kept_up,
                objectives: plan.objectives.iter().map(ToString::to_string).collect(),
            },
            steps,
        }
    }
}

impl StepReport {
    /// Of what all workers recorded.
    #[must_use]
    pub fn new(
        plan: &Plan,
        rate: f64,
        kinds: &BTreeMap<Kind, Tally>,
        lag: &Latencies,
        timeline: Vec<Tick>,
    ) -> Self {
        let mut total = Tally::default();
        for tally in kinds.values() {
            total.merge(tally);
        }
        let seconds = plan.duration.as_secs_f64();
        let offered_rate = total.due as f64 / seconds;
        let achieved_rate = total.answered_in_time as f64 / seconds;
        let checks: Vec<_> = plan
            .objectives
            .iter()
            .map(|objective| check(objective, &total, kinds))
            .collect();
        Self {
            intended_rate: rate,
            offered_rate,
            achieved_rate,
            duration_seconds: seconds,
            sustained: achieved_rate >= SUSTAINED_SHARE * offered_rate
                && checks.iter().all(|check| check.met),
            total: KindReport::new(&total),
            kinds: kinds
                .iter()
                .map(|(kind, tally)| (*kind, KindReport::new(tally)))
                .collect(),
            generator_late: lag.percentile(99.0) > LATE_GENERATOR,
            generator_lag_ms: Percentiles::new(lag),
            checks,
            timeline,
        }
    }
}

fn check(objective: &Objective, total: &Tally, kinds: &BTreeMap<Kind, Tally>) -> Check {
    let tally = match objective.kind {
        None => Some(total),
        Some(kind) => kinds.get(&kind),
    };
    let actual = tally.and_then(|tally| match objective.bound {
        Bound::Latency { percentile, .. } => {
            (tally.latency.count() > 0).then(|| millis(tally.latency.percentile(percentile)))
        }
        Bound::Errors(_) => (tally.due > 0).then(|| tally.failed() as f64 / tally.due as f64),
    });
    let limit = match objective.bound {
        Bound::Latency { limit, .. } => millis(limit),
        Bound::Errors(share) => share,
    };
    Check {
        objective: objective.to_string(),
        actual,
        // Nothing seen is nothing shown to be good.
        met: actual.is_some_and(|actual| actual <= limit),
    }
}

impl KindReport {
    fn new(tally: &Tally) -> Self {
        Self {
            requests: tally.due,
            errors: tally.failed(),
            errors_by_class: tally
                .failures
                .iter()
                .map(|(failure, count)| (failure.to_string(), *count))
                .collect(),
            latency_ms: Percentiles::new(&tally.latency),
            service_ms: Percentiles::new(&tally.service),
            latency_curve: curve::points(&tally.latency),
            service_curve: curve::points(&tally.service),
        }
    }
}

impl Percentiles {
    fn new(latencies: &Latencies) -> Self {
        let at = |percentile| millis(latencies.percentile(percentile));
        Self {
            count: latencies.count(),
            mean: millis(latencies.mean()),
            p50: at(50.0),
            p90: at(90.0),
            p95: at(95.0),
            p99: at(99.0),
            p999: at(99.9),
            max: millis(latencies.max()),
        }
    }

    /// Some of the values in their units, or dashes: without any latency there
    /// is no percentile, and a 0 would look like a good one.
    fn for_reading<const N: usize>(&self, values: [f64; N]) -> [String; N] {
        values.map(|millis| match self.count {
            0 => "-".to_owned(),
            _ => Pretty(Duration::from_secs_f64(millis / 1e3)).to_string(),
        })
    }
}

impl Tick {
    /// Of what was seen in a span of time that ended so long after the start.
    #[must_use]
    pub fn new(at: Duration, span: Duration, seen: &Second) -> Self {
        Self {
            seconds: at.as_secs_f64(),
            rate: seen.answered as f64 / span.as_secs_f64().max(f64::MIN_POSITIVE),
            p50_ms: millis(seen.latency.percentile(50.0)),
            p99_ms: millis(seen.latency.percentile(99.0)),
            errors: seen.failed,
        }
    }
}

/// The report for programs.
#[must_use]
pub fn json(report: &Report) -> String {
    serde_json::to_string_pretty(report).expect("numbers and strings can be written as JSON")
}

fn millis(span: Duration) -> f64 {
    // Microseconds are the histograms' resolution; more digits would be noise.
    (span.as_secs_f64() * 1e6).round() / 1e3
}
