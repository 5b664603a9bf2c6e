//! Redirects out of the gateway's memory, each click on its way to the broker,
//! against nginx that answers out of a map.

use std::process::Command;

use super::load::{CONNECTIONS, Load, Order};
use super::report::{Bound, Goal, Report};
use super::subject::{Turn, spread};
use super::turns::{self, Spread};
use super::yardstick::nginx::{self, Nginx};
use super::{Bench, WARMUP_SECONDS};
use crate::Error;
use crate::programs::{CLICK_COST, TRACE_COST};

const LINKS: usize = 10_000;

pub(super) fn run(bench: &Bench) -> Result<Report, Error> {
    let cluster = bench.cluster().start()?;
    let links = bench.links(&cluster, LINKS)?;
    let nginx = Nginx::start(&bench.sandbox, &links)?;
    let load = Load::Redirects(&links, Order::Uniform);
    let ours = |seconds| Turn::take(&cluster, load, CONNECTIONS, seconds);
    let yardstick = |seconds| nginx.turn(&bench.sandbox, load, CONNECTIONS, seconds);
    ours(WARMUP_SECONDS)?;
    yardstick(WARMUP_SECONDS)?;
    let pairs = turns::take(
        bench.repeats,
        || ours(bench.seconds),
        || yardstick(bench.seconds),
    )?;
    let mut report = report(&pairs);
    let [click] = alone(bench, CLICK_COST.1)?;
    report.figure("of which a click's record, alone", "ns", click);
    let [without, with] = alone(bench, TRACE_COST.1)?;
    report.figure("of which traces, without a collector, alone", "ns", without);
    report.figure("of which traces, untraced beside others, alone", "ns", with);
    Ok(report)
}

/// What a part of a redirect takes with nothing else to do, in nanoseconds: an example
/// says it in columns, a turn a line.
fn alone<const COLUMNS: usize>(bench: &Bench, example: &str) -> Result<[Spread; COLUMNS], Error> {
    let failed = |reason: String| Error::Step(format!("measure with {example}: {reason}"));
    let program = bench.programs.join("examples").join(example);
    let output = Command::new(program).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(output.status.to_string()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut turns: [Vec<f64>; COLUMNS] = std::array::from_fn(|_| Vec::new());
    for line in text.lines() {
        let values: Result<Vec<f64>, _> = line.split(' ').map(str::parse).collect();
        let values = values.map_err(|error| failed(error.to_string()))?;
        for (turns, value) in turns.iter_mut().zip(values) {
            turns.push(value);
        }
    }
    Ok(turns.map(Spread::of))
}

fn report(pairs: &[(Turn, nginx::Turn)]) -> Report {
    let (ours, yardstick): (Vec<Turn>, Vec<nginx::Turn>) = pairs.iter().copied().unzip();
    let gateway = |turn: &Turn| turn.micros(|spent| spent.gateways);
    let ratios = pairs
        .iter()
        .map(|(ours, nginx)| gateway(ours) / nginx.micros);
    let mut report = Report::new("redirect-hot");
    report.goal(Goal {
        what: "gateway's CPU per request, to nginx's",
        unit: "x",
        bound: Bound::AtMost(1.0),
        seen: Spread::of(ratios),
    });
    let rate = spread(&ours, |turn| turn.answered.rate());
    let nginx_rate = spread(&yardstick, |turn| turn.answered.rate());
    report.compared("redirects", "1/s", rate, nginx_rate);
    let micros = spread(&yardstick, |turn| turn.micros);
    report.compared("CPU per request", "us", spread(&ours, gateway), micros);
    report.turns(&ours);
    report
}
