//! `cargo xtask bench`: how fast, as ratios to a yardstick that takes turns with us
//! on the same cores.
//!
//! One file for each benchmark; each reads as what it starts, what takes turns, and
//! what of it is reported.

mod clicks;
mod cpu;
mod create;
mod latency;
mod links;
mod load;
mod machine;
mod memory;
mod moves;
mod one_person;
mod redirect_hot;
mod redirect_postgres;
mod redirect_redis;
mod report;
mod scale;
mod scrape;
mod stats;
mod subject;
mod turns;
mod yardstick;

use std::path::PathBuf;
use std::sync::Arc;

use clap::ValueEnum;
use serde_json::json;
use waypost_testbed::cluster::Builder;
use waypost_testbed::{Cluster, Sandbox};

use crate::Error;
use crate::packages::Purpose;
use crate::{programs, steps};
use links::Links;
use machine::Machine;
use report::Report;

/// A turn that is thrown away, before those that count: connections, caches and
/// memory are as they will be.
const WARMUP_SECONDS: u64 = 1;

/// So many links stand for any number, where it is only to be seen that a benchmark
/// works.
const QUICK_LINKS: usize = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Redirects out of the gateway's memory, against nginx
    RedirectHot,
    /// Redirects out of Redis, against redis-benchmark
    RedirectRedis,
    /// Redirects out of Postgres, against pgbench
    RedirectPostgres,
    /// Creating links, against pgbench
    Create,
    /// Time of a redirect at half of the peak, against the objective
    Latency,
    /// Cost of a redirect in larger clusters, against the smallest
    Scale,
    /// Bytes of a link, against its encoded value
    Memory,
    /// Counting clicks, against COPY
    Clicks,
    /// Time of a link's statistics, against the objective
    Stats,
    /// Moving prefixes to a new shard, against COPY
    Moves,
    /// Memory of `waypost` at a million links, against what is promised
    OnePerson,
    /// All of them
    All,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What to measure
    #[arg(value_enum)]
    name: Name,
    /// Turns of each side
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    repeats: u16,
    /// Length of a turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// One short turn over few links: shows that a benchmark works, and nothing else
    #[arg(long)]
    quick: bool,
    /// Cargo's profile to build with: dev, release or dist
    #[arg(long, default_value = "dist")]
    profile: String,
    /// Where the JSON goes; by default bench/NAME.json in cargo's target folder, or
    /// bench/NAME-quick.json
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Name {
    /// One after the other.
    const EACH: [Self; 11] = [
        Self::RedirectHot,
        Self::RedirectRedis,
        Self::RedirectPostgres,
        Self::Create,
        Self::Latency,
        Self::Scale,
        Self::Memory,
        Self::Clicks,
        Self::Stats,
        Self::Moves,
        Self::OnePerson,
    ];

    fn text(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn run(self, bench: &Bench) -> Result<Report, Error> {
        match self {
            Self::RedirectHot => redirect_hot::run(bench),
            Self::RedirectRedis => redirect_redis::run(bench),
            Self::RedirectPostgres => redirect_postgres::run(bench),
            Self::Create => create::run(bench),
            Self::Latency => latency::run(bench),
            Self::Scale => scale::run(bench),
            Self::Memory => memory::run(bench),
            Self::Clicks => clicks::run(bench),
            Self::Stats => stats::run(bench),
            Self::Moves => moves::run(bench),
            Self::OnePerson => one_person::run(bench),
            Self::All => Err(Error::Step("all of them is not one".to_owned())),
        }
    }
}

/// What every benchmark is given.
struct Bench {
    programs: PathBuf,
    /// Its own: nothing is left of the one before.
    sandbox: Arc<Sandbox>,
    repeats: usize,
    seconds: u64,
    is_quick: bool,
}

impl Bench {
    fn new(options: &Options, programs: PathBuf) -> Result<Self, Error> {
        let (repeats, seconds) = match options.quick {
            true => (1, 1),
            false => (options.repeats.into(), options.seconds),
        };
        Ok(Self {
            programs,
            sandbox: Sandbox::create()?,
            repeats,
            seconds,
            is_quick: options.quick,
        })
    }

    /// One shard with two nodes, one gateway, and everything else that there is.
    fn cluster(&self) -> Builder {
        Cluster::builder()
            .shards(1)
            .gateways(1)
            .programs(&self.programs)
            .sandbox(&self.sandbox)
    }

    /// Creates so many links, or few if it is only to be seen that a benchmark works.
    fn links(&self, cluster: &Cluster, count: usize) -> Result<Links, Error> {
        let count = if self.is_quick {
            count.min(QUICK_LINKS)
        } else {
            count
        };
        Links::create(&self.programs, cluster, count)
    }
}

pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let names = match options.name {
        Name::All => Name::EACH.to_vec(),
        name => vec![name],
    };
    if options.json.is_some() && names.len() > 1 {
        return Err(Error::Step(
            "--json takes the figures of one benchmark".to_owned(),
        ));
    }
    let programs = programs::build(&options.profile, Purpose::Bench)?;
    if names.contains(&Name::OnePerson) {
        programs::build_waypost(&options.profile)?;
    }
    let folder = steps::target_folder()?.join("bench");
    // What says nothing must not take the place of what does.
    let suffix = if options.quick { "-quick" } else { "" };
    for name in names {
        let text = name.text();
        eprintln!("xtask: measures {text}");
        let machine = Machine::look();
        let bench = Bench::new(options, programs.clone())?;
        let (repeats, seconds) = (bench.repeats, bench.seconds);
        let asked = json!({
            "repeats": repeats,
            "seconds": seconds,
            "quick": options.quick,
            "profile": options.profile,
        });
        let report = name.run(&bench)?;
        let file = options.json.clone();
        let file = file.unwrap_or_else(|| folder.join(format!("{text}{suffix}.json")));
        report.publish(&machine, &asked, &file)?;
    }
    Ok(())
}
