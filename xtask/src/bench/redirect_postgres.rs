//! Redirects without any cache, each read from the shard's Postgres, against point
//! reads by pgbench.

use waypost_testbed::service::Kind;

use super::load::{CONNECTIONS, Load, Order};
use super::report::{Bound, Goal, Report};
use super::subject::{Turn, spread};
use super::turns::{self, Spread};
use super::yardstick::pgbench::Pgbench;
use super::{Bench, WARMUP_SECONDS};
use crate::Error;

const LINKS: usize = 1_000_000;

pub(super) fn run(bench: &Bench) -> Result<Report, Error> {
    let cluster = bench
        .cluster()
        .set(Kind::Gateway, "WAYPOST_L1_MIB", "0")
        .set(Kind::Gateway, "WAYPOST_REDIS", "")
        .start()?;
    let links = bench.links(&cluster, LINKS)?;
    let yardstick = Pgbench::select(&bench.sandbox, &cluster.shards[0], links.count())?;
    let load = Load::Redirects(&links, Order::Uniform);
    let ours = |seconds| Turn::take(&cluster, load, CONNECTIONS, seconds);
    ours(WARMUP_SECONDS)?;
    yardstick.turn(WARMUP_SECONDS)?;
    let pairs = turns::take(
        bench.repeats,
        || ours(bench.seconds),
        || yardstick.turn(bench.seconds),
    )?;
    let (turns, rates): (Vec<Turn>, Vec<f64>) = pairs.iter().copied().unzip();
    let mut report = Report::new("redirect-postgres");
    report.goal(Goal {
        what: "redirects, to pgbench's point reads",
        unit: "x",
        bound: Bound::AtLeast(1.5),
        seen: Spread::of(pairs.iter().map(|(turn, rate)| turn.answered.rate() / rate)),
    });
    let rate = spread(&turns, |turn| turn.answered.rate());
    report.compared("redirects, point reads", "1/s", rate, Spread::of(rates));
    report.turns(&turns);
    Ok(report)
}
