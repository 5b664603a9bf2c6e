//! Whether a redirect costs the same in a cluster that is larger: more links, more
//! shards, more gateways, each against the smallest, which takes turns with it.

use std::sync::Arc;

use waypost_testbed::service::Kind;
use waypost_testbed::{Cluster, Sandbox};

use super::cpu::Spent;
use super::links::Links;
use super::load::{CONNECTIONS, Load, Order};
use super::report::{Bound, Goal, Report};
use super::subject::{Turn, spread};
use super::turns::{self, Spread};
use super::{Bench, WARMUP_SECONDS};
use crate::Error;

const FEW_LINKS: usize = 10_000;
const MANY_LINKS: usize = 1_000_000;

/// So that all links fit: memory grows with the links, the cost of a redirect is not
/// to.
const L1_MIB: &str = "1024";

/// Each is more than the smallest in one thing.
const LARGER: [(&str, Size); 3] = [
    (
        "CPU per redirect, 1,000,000 links to 10,000",
        Size {
            links: MANY_LINKS,
            ..SMALLEST
        },
    ),
    (
        "CPU per redirect, 4 shards to 1",
        Size {
            shards: 4,
            ..SMALLEST
        },
    ),
    (
        "CPU per redirect, 3 gateways to 1",
        Size {
            gateways: 3,
            ..SMALLEST
        },
    ),
];

const SMALLEST: Size = Size {
    links: FEW_LINKS,
    shards: 1,
    gateways: 1,
};

#[derive(Debug, Clone, Copy)]
struct Size {
    links: usize,
    shards: usize,
    gateways: usize,
}

/// A cluster with its links, whose memory is warm.
struct Side {
    cluster: Cluster,
    links: Links,
}

impl Side {
    fn start(bench: &Bench, size: Size) -> Result<Self, Error> {
        // Two clusters run side by side, and each has a sandbox of its own.
        let sandbox: Arc<Sandbox> = Sandbox::create()?;
        let cluster = bench
            .cluster()
            .sandbox(&sandbox)
            .shards(size.shards)
            .gateways(size.gateways)
            .set(Kind::Gateway, "WAYPOST_L1_MIB", L1_MIB)
            .start()?;
        let links = bench.links(&cluster, size.links)?;
        let side = Self { cluster, links };
        side.warm(bench)?;
        Ok(side)
    }

    /// Gateways other than the first have not created the links and meet them here.
    fn warm(&self, bench: &Bench) -> Result<(), Error> {
        if self.cluster.gateways.len() > 1 && !bench.is_quick {
            let walk = Load::Redirects(&self.links, Order::Walk);
            Turn::take(&self.cluster, walk, CONNECTIONS, bench.seconds)?;
        }
        self.turn(WARMUP_SECONDS)?;
        Ok(())
    }

    fn turn(&self, seconds: u64) -> Result<Turn, Error> {
        let load = Load::Redirects(&self.links, Order::Zipf);
        Turn::take(&self.cluster, load, CONNECTIONS, seconds)
    }
}

pub(super) fn run(bench: &Bench) -> Result<Report, Error> {
    let smallest = Side::start(bench, SMALLEST)?;
    let mut report = Report::new("scale");
    let mut all = Vec::new();
    for (what, size) in LARGER {
        eprintln!("xtask: {what}");
        let larger = Side::start(bench, size)?;
        let pairs = turns::take(
            bench.repeats,
            || larger.turn(bench.seconds),
            || smallest.turn(bench.seconds),
        )?;
        let micros = |turn: &Turn| turn.micros(Spent::ours);
        let ratios = pairs
            .iter()
            .map(|(larger, smallest)| micros(larger) / micros(smallest));
        report.goal(Goal {
            what,
            unit: "x",
            bound: Bound::AtMost(1.2),
            seen: Spread::of(ratios),
        });
        let (larger, smallest): (Vec<Turn>, Vec<Turn>) = pairs.iter().copied().unzip();
        let theirs = spread(&smallest, micros);
        report.compared(what, "us", spread(&larger, micros), theirs);
        let hits = spread(&larger, |turn| turn.counts.share(turn.counts.l1_hits));
        report.figure("share of L1 hits in the larger", "", hits);
        all.extend(smallest);
    }
    report.turns(&all);
    Ok(report)
}
