//! What a link takes: in a gateway's memory, in Redis and in Postgres.

use std::fs;

use waypost_testbed::cluster::Shard;
use waypost_testbed::service::Kind;
use waypost_testbed::{Cluster, RedisCluster, RedisNode};

use super::Bench;
use super::links::Links;
use super::load::{CONNECTIONS, Load, Order};
use super::report::{Bound, Goal, Report};
use super::subject::Turn;
use super::turns::Spread;
use crate::Error;

const LINKS: usize = 1_000_000;

/// Asked for before the others, so that what a gateway needs for its work is not
/// taken for the price of links.
const FIRST_LINKS: usize = 500;
const FIRST_SECONDS: u64 = 3;

/// More than they need, in MiB.
const L1_MIB: &str = "1024";

/// All of them are in L1 if so many are found there.
const ALL: f64 = 0.999;

/// To ask for each once. A turn that others slow down is too short.
const FILLS: usize = 6;

/// So much longer than the rate says, since asking for a link takes longer as long as
/// it is not there.
const FILL_SLACK: f64 = 1.5;
const FILL_SECONDS_MAX: f64 = 120.0;

/// An even sample of the links for what an average can be taken of.
const SAMPLE: usize = 200;

pub(super) fn run(bench: &Bench) -> Result<Report, Error> {
    let cluster = bench.cluster();
    let cluster = cluster
        .set(Kind::Gateway, "WAYPOST_L1_MIB", L1_MIB)
        .start()?;
    let first = bench.links(&cluster, FIRST_LINKS)?;
    let redis_before = redis_bytes(&cluster.redis)?;
    let links = bench.links(&cluster, LINKS)?;
    super::subject::rest(&cluster)?;
    let count = links.count() as f64;
    let redis = (redis_bytes(&cluster.redis)? - redis_before) / count;

    // Who created them has them in memory already, and much else.
    cluster.gateways[0].restart()?;
    let walk = Load::Redirects(&first, Order::Walk);
    Turn::take(&cluster, walk, CONNECTIONS, FIRST_SECONDS)?;
    let before = resident_bytes(cluster.gateways[0].pid())?;
    let share = fill(&cluster, &links, bench.seconds)?;
    let l1 = (resident_bytes(cluster.gateways[0].pid())? - before) / count;

    let value = average_value(&cluster.redis, &links)?;
    let row = |function: &str| relation_bytes(&cluster, function).map(|bytes| bytes / count);
    let mut report = Report::new("memory");
    report.goal(Goal {
        what: "gateway's memory per link, beyond its value",
        unit: "B",
        bound: Bound::AtMost(64.0),
        seen: Spread::once(l1 - value),
    });
    report.goal(Goal {
        what: "row with its indexes",
        unit: "B",
        bound: Bound::AtMost(350.0),
        seen: Spread::once(row("pg_total_relation_size")?),
    });
    report.figure("gateway's memory per link", "B", Spread::once(l1));
    report.figure("encoded value", "B", Spread::once(value));
    report.figure(
        "Redis's memory per link, masters alone",
        "B",
        Spread::once(redis),
    );
    report.figure("row", "B", Spread::once(row("pg_table_size")?));
    report.figure(
        "indexes of a row",
        "B",
        Spread::once(row("pg_indexes_size")?),
    );
    report.figure("share of links found in L1", "", Spread::once(share));
    report.note(format!("of {} links", links.count()));
    Ok(report)
}

/// Asks for every link until all of them are in memory; answers the share that is.
fn fill(cluster: &Cluster, links: &Links, seconds: u64) -> Result<f64, Error> {
    let turn = |order, seconds| {
        let load = Load::Redirects(links, order);
        Turn::take(cluster, load, CONNECTIONS, seconds)
    };
    let mut rate = turn(Order::Walk, seconds)?.answered.rate();
    for _ in 0..FILLS {
        let needed = FILL_SLACK * links.count() as f64 / rate;
        let filled = turn(
            Order::Walk,
            needed.clamp(1.0, FILL_SECONDS_MAX).ceil() as u64,
        )?;
        rate = filled.answered.rate();
        let seen = turn(Order::Uniform, seconds)?;
        let share = seen.counts.share(seen.counts.l1_hits);
        if share >= ALL {
            return Ok(share);
        }
    }
    Err(Error::Step(
        "the links do not all come into memory".to_owned(),
    ))
}

fn resident_bytes(pid: u32) -> Result<f64, Error> {
    status_bytes(pid, "VmRSS:")
}

/// A line of what the kernel says of a process's memory.
pub(super) fn status_bytes(pid: u32, line: &str) -> Result<f64, Error> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|text| text.strip_prefix(line));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    let bytes = kib.map(|kib| kib * 1024.0);
    bytes.ok_or_else(|| Error::Step(format!("the memory of process {pid} cannot be read")))
}

/// What the masters use; a replica uses as much again.
fn redis_bytes(redis: &RedisCluster) -> Result<f64, Error> {
    let of = |node: &RedisNode| {
        let text = node.query("INFO memory")?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("used_memory:"));
        let bytes = line.and_then(|bytes| bytes.trim().parse::<f64>().ok());
        bytes.ok_or_else(|| Error::Step("Redis does not say what it uses".to_owned()))
    };
    redis
        .nodes()
        .iter()
        .filter(|node| node.is_master())
        .map(of)
        .sum()
}

/// Bytes of a value as it is cached.
fn average_value(redis: &RedisCluster, links: &Links) -> Result<f64, Error> {
    let pairs = links.read()?;
    let step = (pairs.len() / SAMPLE).max(1);
    let lengths: Vec<f64> = pairs
        .iter()
        .step_by(step)
        .filter_map(|(slug, _)| {
            let ask = |node: &RedisNode| node.query(&format!("STRLEN w1:0:{slug}")).ok();
            let length = redis.nodes().iter().find_map(ask)?;
            length.parse::<f64>().ok().filter(|length| *length > 0.0)
        })
        .collect();
    if lengths.is_empty() {
        return Err(Error::Step("Redis holds no links".to_owned()));
    }
    Ok(lengths.iter().sum::<f64>() / lengths.len() as f64)
}

fn relation_bytes(cluster: &Cluster, function: &str) -> Result<f64, Error> {
    let sql = format!("SELECT {function}('links')");
    let bytes = cluster.shards[0].postgres.query(Shard::DATABASE, &sql)?;
    let bytes = bytes.parse();
    bytes.map_err(|_| Error::Step("Postgres does not say what it stores".to_owned()))
}
