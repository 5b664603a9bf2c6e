//! Creating links over HTTP, one a call and many a call, against inserts of single
//! rows by pgbench at the same server, as durable.

use waypost_testbed::Cluster;
use waypost_testbed::cluster::Shard;

use super::cpu::Spent;
use super::load::{CONNECTIONS, Load};
use super::report::{Bound, Goal, Report};
use super::subject::{Turn, spread};
use super::turns::{self, Spread};
use super::yardstick::pgbench::Pgbench;
use super::{Bench, WARMUP_SECONDS};
use crate::Error;

const BATCH: usize = 500;

/// Calls with a batch at the same time: enough to keep the shard busy, few enough
/// not to be shed.
const BATCH_CONNECTIONS: usize = 4;

/// One turn of ours.
#[derive(Debug, Clone, Copy)]
struct Creates {
    single: Turn,
    batch: Turn,
}

impl Creates {
    /// Rows a second.
    fn batch_rate(&self) -> f64 {
        self.batch.answered.rate() * BATCH as f64
    }
}

pub(super) fn run(bench: &Bench) -> Result<Report, Error> {
    let cluster = bench.cluster().start()?;
    let yardstick = Pgbench::insert(&bench.sandbox, &cluster.shards[0])?;
    let ours = |seconds| turn(&cluster, seconds);
    ours(WARMUP_SECONDS)?;
    yardstick.turn(WARMUP_SECONDS)?;
    let pairs = turns::take(
        bench.repeats,
        || ours(bench.seconds),
        || yardstick.turn(bench.seconds),
    )?;
    Ok(report(&pairs))
}

fn turn(cluster: &Cluster, seconds: u64) -> Result<Creates, Error> {
    let token = cluster.token();
    let before = rows(cluster)?;
    let single = Load::Creates(&token);
    let single = Turn::take(cluster, single, CONNECTIONS, seconds)?;
    let batch = Load::Batches(&token, BATCH);
    let batch = Turn::take(cluster, batch, BATCH_CONNECTIONS, seconds)?;
    // The answer to a batch is 200 whatever its links came to.
    let told = single.answered.requests + batch.answered.requests * BATCH as u64;
    let stored = rows(cluster)? - before;
    if stored < told {
        return Err(Error::Step(format!(
            "{told} links were to be created, and {stored} are stored"
        )));
    }
    Ok(Creates { single, batch })
}

fn rows(cluster: &Cluster) -> Result<u64, Error> {
    let postgres = &cluster.shards[0].postgres;
    let count = postgres.query(Shard::DATABASE, "SELECT count(*) FROM links")?;
    let count = count.parse();
    count.map_err(|_| Error::Step("the links cannot be counted".to_owned()))
}

fn report(pairs: &[(Creates, f64)]) -> Report {
    let (ours, rates): (Vec<Creates>, Vec<f64>) = pairs.iter().copied().unzip();
    let single = |ours: &Creates| ours.single.answered.rate();
    let mut report = Report::new("create");
    report.goal(Goal {
        what: "links created one a call, to pgbench's inserts",
        unit: "x",
        bound: Bound::AtLeast(1.5),
        seen: Spread::of(pairs.iter().map(|(ours, rate)| single(ours) / rate)),
    });
    report.goal(Goal {
        what: "links created 500 a call, to pgbench's inserts",
        unit: "x",
        bound: Bound::AtLeast(4.0),
        seen: Spread::of(pairs.iter().map(|(ours, rate)| ours.batch_rate() / rate)),
    });
    let inserts = Spread::of(rates);
    report.compared("links, one a call", "1/s", spread(&ours, single), inserts);
    let batch = spread(&ours, Creates::batch_rate);
    report.compared("links, 500 a call", "1/s", batch, inserts);
    let per_link = spread(&ours, |ours| ours.batch.micros(Spent::ours) / BATCH as f64);
    report.figure("CPU per link, 500 a call, all our programs", "us", per_link);
    let singles: Vec<Turn> = ours.iter().map(|ours| ours.single).collect();
    report.turns(&singles);
    report
}
