//! Redirects out of Redis, with nothing in the gateway's memory, against bare reads
//! of Redis.

use waypost_testbed::service::Kind;

use super::load::{CONNECTIONS, Load, Order};
use super::report::{Bound, Goal, Report};
use super::subject::{Turn, spread};
use super::turns::{self, Spread};
use super::yardstick::redis_benchmark::RedisBenchmark;
use super::{Bench, WARMUP_SECONDS};
use crate::Error;

/// Creating them puts them into Redis.
const LINKS: usize = 10_000;

pub(super) fn run(bench: &Bench) -> Result<Report, Error> {
    let cluster = bench.cluster();
    let cluster = cluster.set(Kind::Gateway, "WAYPOST_L1_MIB", "0").start()?;
    let links = bench.links(&cluster, LINKS)?;
    let yardstick = RedisBenchmark::prepare(&cluster.redis)?;
    let load = Load::Redirects(&links, Order::Uniform);
    let ours = |seconds| Turn::take(&cluster, load, CONNECTIONS, seconds);
    ours(WARMUP_SECONDS)?;
    let pairs = turns::take(
        bench.repeats,
        || ours(bench.seconds),
        || yardstick.turn(bench.seconds),
    )?;
    let (turns, rates): (Vec<Turn>, Vec<f64>) = pairs.iter().copied().unzip();
    let mut report = Report::new("redirect-redis");
    report.goal(Goal {
        what: "redirects, to redis-benchmark's reads",
        unit: "x",
        bound: Bound::AtLeast(0.7),
        seen: Spread::of(pairs.iter().map(|(turn, rate)| turn.answered.rate() / rate)),
    });
    let rate = spread(&turns, |turn| turn.answered.rate());
    report.compared("redirects, reads", "1/s", rate, Spread::of(rates));
    report.turns(&turns);
    Ok(report)
}
