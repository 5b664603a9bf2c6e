//! How long a redirect takes at half of what the gateway can do, where most links
//! that are asked for are in memory and the rest at the shard.
//!
//! The latency is that of an open loop: from the time at which a request was due.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;
use waypost_testbed::Cluster;
use waypost_testbed::service::Kind;

use super::Bench;
use super::links::Links;
use super::load::{CONNECTIONS, Load, Order};
use super::report::{Bound, Goal, Report};
use super::subject::{Turn, spread};
use super::turns::Spread;
use crate::Error;
use crate::programs::LOADTEST;

const LINKS: usize = 1_000_000;

/// By Zipf's law, with exponent one, so many of them get 85 % of the requests.
const POPULAR: usize = 115_000;

/// Holds about as many: what a gateway has by default. The rest is read from
/// Postgres, each time: with Redis there would soon be nothing left to read there.
const L1_MIB: &str = "64";

/// Until the popular links are in memory, and have been found there once.
const FILL_SECONDS: u64 = 20;

const SHARE_OF_PEAK: f64 = 0.5;

/// What is not recorded at the start of an open loop.
const WARMUP: &str = "2s";

/// What one turn of the open loop found.
#[derive(Debug, Clone, Copy)]
struct Opened {
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    lag_p99_ms: f64,
    is_late: bool,
    errors: f64,
}

pub(super) fn run(bench: &Bench) -> Result<Report, Error> {
    let cluster = bench
        .cluster()
        .set(Kind::Gateway, "WAYPOST_L1_MIB", L1_MIB)
        .set(Kind::Gateway, "WAYPOST_REDIS", "")
        .start()?;
    let links = bench.links(&cluster, LINKS)?;
    let closed = |order, seconds| {
        let load = Load::Redirects(&links, order);
        Turn::take(&cluster, load, CONNECTIONS, seconds)
    };
    let fill_seconds = if bench.is_quick { 1 } else { FILL_SECONDS };
    closed(Order::WalkPopular(POPULAR), fill_seconds)?;
    closed(Order::Zipf, bench.seconds)?;
    let turns = (0..bench.repeats).map(|_| closed(Order::Zipf, bench.seconds));
    let turns = turns.collect::<Result<Vec<_>, _>>()?;
    let peak = spread(&turns, |turn| turn.answered.rate());
    let rate = (peak.median * SHARE_OF_PEAK).round();
    eprintln!(
        "xtask: the peak is {:.0} a second, sends {rate:.0}",
        peak.median
    );
    let opened = (0..bench.repeats).map(|_| open(bench, &cluster, &links, rate));
    let opened = opened.collect::<Result<Vec<_>, _>>()?;
    Ok(report(&turns, peak, rate, &opened))
}

/// One turn of the open loop.
fn open(bench: &Bench, cluster: &Cluster, links: &Links, rate: f64) -> Result<Opened, Error> {
    let file = bench.sandbox.folder().join("latency.json");
    let failed = |reason: String| Error::Step(format!("{LOADTEST} failed: {reason}"));
    let status = Command::new(bench.programs.join(LOADTEST))
        .args(["--target", &cluster.url(0), "--rate", &rate.to_string()])
        .args(["--duration", &format!("{}s", bench.seconds)])
        .args(["--warmup", WARMUP, "--zipf", "1"])
        .args(["--connections", &CONNECTIONS.to_string(), "--slugs"])
        .arg(links.lines())
        .arg("--json")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(|error| failed(error.to_string()))?;
    // Without objectives it succeeds once it has a report.
    if !status.success() {
        return Err(failed(status.to_string()));
    }
    super::subject::rest(cluster)?;
    let text = fs::read_to_string(&file).map_err(|error| failed(error.to_string()))?;
    let report: Value = serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
    let opened = Opened::read(&report["steps"][0]);
    opened.ok_or_else(|| failed("its report is not as expected".to_owned()))
}

impl Opened {
    fn read(step: &Value) -> Option<Self> {
        let latency = &step["total"]["latencyMs"];
        Some(Self {
            p50_ms: latency["p50"].as_f64()?,
            p99_ms: latency["p99"].as_f64()?,
            p999_ms: latency["p99.9"].as_f64()?,
            lag_p99_ms: step["generatorLagMs"]["p99"].as_f64()?,
            is_late: step["generatorLate"].as_bool()?,
            errors: step["total"]["errors"].as_f64()?,
        })
    }
}

fn report(turns: &[Turn], peak: Spread, rate: f64, opened: &[Opened]) -> Report {
    let mut report = Report::new("latency");
    report.goal(Goal {
        what: "p50 at half of the peak, open loop",
        unit: "ms",
        bound: Bound::AtMost(0.5),
        seen: spread(opened, |turn| turn.p50_ms),
    });
    report.goal(Goal {
        what: "p99 at half of the peak, open loop",
        unit: "ms",
        bound: Bound::AtMost(5.0),
        seen: spread(opened, |turn| turn.p99_ms),
    });
    report.figure("p99.9", "ms", spread(opened, |turn| turn.p999_ms));
    report.figure(
        "requests not answered as expected",
        "",
        spread(opened, |turn| turn.errors),
    );
    report.figure("peak, closed loop", "1/s", peak);
    report.figure("rate of the open loop", "1/s", Spread::once(rate));
    let lag = spread(opened, |turn| turn.lag_p99_ms);
    report.figure("generator's own lateness, p99", "ms", lag);
    if opened.iter().any(|turn| turn.is_late) {
        report.note("the generator lacked CPU: the latencies are upper bounds".to_owned());
    }
    report.turns(turns);
    report
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_step_of_the_generators_report_is_read() {
        let step = json!({
            "total": {"errors": 2, "latencyMs": {"p50": 0.3, "p99": 4.5, "p99.9": 9.0}},
            "generatorLagMs": {"p99": 0.2},
            "generatorLate": false,
        });
        let opened = Opened::read(&step).unwrap();
        assert_eq!(
            (opened.p50_ms, opened.p99_ms, opened.errors),
            (0.3, 4.5, 2.0)
        );
        assert!(Opened::read(&json!({})).is_none());
    }
}
