//! Counting clicks: one consumer, from the broker into Postgres, against `COPY` of the
//! same clicks at the same server.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use waypost_testbed::Cluster;

use super::Bench;
use super::cpu::spent;
use super::report::{Bound, Goal, Report};
use super::scrape::Scrape;
use super::turns::{self, Spread};
use crate::Error;
use crate::programs::CLICK_FILL;

/// What is to be reached, in clicks a second.
const FEW_LINKS_GOAL: f64 = 200_000.0;
const MANY_LINKS_GOAL: f64 = 25_000.0;

/// So many for a second of a turn. The consumer takes some 200,000 at once, of which the
/// first are not measured: there must be many times that.
const CLICKS_PER_SECOND: u64 = 400_000;
const QUICK_CLICKS: u64 = 40_000;

/// Between two looks at how many are counted.
const LOOK: Duration = Duration::from_millis(20);

/// For a turn: ten times what the goal asks for is no figure any more.
const TOO_SLOW: u32 = 20;

/// Clicks as `COPY` stores them: no index, no key.
const TABLE: &str = "DROP TABLE IF EXISTS yardstick; CREATE TABLE yardstick (
    time_ms bigint, domain integer, slug text, link_id uuid, tenant text, status integer,
    referrer_host text, user_agent text, language text, country text, visitor bigint,
    prefetch boolean)";

const EMPTY: &str = "TRUNCATE link_day, tenant_day, producer_state; CHECKPOINT";

/// Clicks that come.
#[derive(Debug, Clone, Copy)]
struct Stream {
    links: usize,
    is_zipf: bool,
}

const FEW_LINKS: Stream = Stream {
    links: 10_000,
    is_zipf: false,
};

const MANY_LINKS: Stream = Stream {
    links: 1_000_000,
    is_zipf: true,
};

/// One turn of ours.
#[derive(Debug, Clone, Copy)]
struct Counted {
    rate: f64,
    consumer_us: f64,
    postgres_us: f64,
    rows_per_click: f64,
}

pub(super) fn run(bench: &Bench) -> Result<Report, Error> {
    let cluster = bench.cluster().start()?;
    let mut report = Report::new("clicks");
    let few = pairs(bench, &cluster, FEW_LINKS)?;
    let many = pairs(bench, &cluster, MANY_LINKS)?;
    let rates = |pairs: &[(Counted, f64)]| Spread::of(pairs.iter().map(|(ours, _)| ours.rate));
    report.goal(Goal {
        what: "clicks counted of 10,000 links",
        unit: "1/s",
        bound: Bound::AtLeast(FEW_LINKS_GOAL),
        seen: rates(&few),
    });
    report.goal(Goal {
        what: "clicks counted of 1,000,000 links, by Zipf",
        unit: "1/s",
        bound: Bound::AtLeast(MANY_LINKS_GOAL),
        seen: rates(&many),
    });
    for (pairs, name) in [(&few, NAMES_OF_FEW), (&many, NAMES_OF_MANY)] {
        let copied = Spread::of(pairs.iter().map(|(_, copied)| *copied));
        report.compared(name[0], "1/s", rates(pairs), copied);
        let ratio = pairs.iter().map(|(ours, copied)| ours.rate / copied);
        report.figure(name[1], "x", Spread::of(ratio));
        let of = |of: fn(&Counted) -> f64| Spread::of(pairs.iter().map(|(ours, _)| of(ours)));
        report.figure(name[2], "us", of(|ours| ours.consumer_us));
        report.figure(name[3], "us", of(|ours| ours.postgres_us));
        report.figure(name[4], "", of(|ours| ours.rows_per_click));
    }
    report.note("the broker and the reading from it share the cores with both".to_owned());
    Ok(report)
}

const NAMES_OF_FEW: [&str; 5] = [
    "10,000 links, to COPY",
    "10,000 links, ratio to COPY",
    "10,000 links, CPU per click, consumer",
    "10,000 links, CPU per click, Postgres",
    "10,000 links, rows written per click",
];

const NAMES_OF_MANY: [&str; 5] = [
    "1,000,000 links, to COPY",
    "1,000,000 links, ratio to COPY",
    "1,000,000 links, CPU per click, consumer",
    "1,000,000 links, CPU per click, Postgres",
    "1,000,000 links, rows written per click",
];

fn pairs(bench: &Bench, cluster: &Cluster, stream: Stream) -> Result<Vec<(Counted, f64)>, Error> {
    let clicks = match bench.is_quick {
        true => QUICK_CLICKS,
        false => CLICKS_PER_SECOND * bench.seconds,
    };
    let file = bench.sandbox.folder().join("clicks.copy");
    turns::take(
        bench.repeats,
        || count(bench, cluster, stream, clicks, &file),
        || copy(cluster, clicks, &file),
    )
}

/// Fills the topic while nobody reads, and then lets the consumer count.
fn count(
    bench: &Bench,
    cluster: &Cluster,
    stream: Stream,
    clicks: u64,
    file: &Path,
) -> Result<Counted, Error> {
    let consumer = &cluster.consumers[0];
    if consumer.is_running() {
        consumer.kill()?;
    }
    fill(bench, cluster, stream, clicks, file)?;
    let database = Cluster::ANALYTICS_DATABASE;
    for statement in EMPTY.split("; ") {
        cluster.postgres.query(database, statement)?;
    }
    consumer.start_again()?;
    consumer.wait_ready()?;
    let counted = || -> Result<f64, Error> {
        Ok(Scrape::of(consumer)?.total("waypost_analytics_clicks_total", &[]))
    };
    let given_up = Instant::now() + Duration::from_secs(bench.seconds * u64::from(TOO_SLOW) + 60);
    let wait = |enough: &dyn Fn(f64) -> bool| loop {
        let now = counted()?;
        if enough(now) {
            return Ok(now);
        }
        if Instant::now() > given_up {
            return Err(Error::Step(format!("{now} of {clicks} clicks are counted")));
        }
        std::thread::sleep(LOOK);
    };
    // From the first portion on: before it the consumer joins its group.
    let spent_by = || [spent(consumer.pid()), spent(cluster.postgres.pid())];
    let first = wait(&|counted| counted > 0.0)?;
    let (began, before) = (Instant::now(), spent_by());
    wait(&|counted| counted >= clicks as f64)?;
    let (took, after) = (began.elapsed(), spent_by());
    let seen = clicks as f64 - first;
    let sum = "SELECT sum(clicks) FROM link_day";
    let stored = cluster.postgres.query(database, sum)?;
    if stored != clicks.to_string() {
        let problem = format!("of {clicks} clicks {stored} are stored");
        return Err(Error::Step(problem));
    }
    let micros = |at: usize| (after[at] - before[at]).as_secs_f64() * 1e6 / seen;
    let rows = Scrape::of(consumer)?.total("waypost_analytics_rows_total", &[]);
    consumer.kill()?;
    Ok(Counted {
        rate: seen / took.as_secs_f64(),
        consumer_us: micros(0),
        postgres_us: micros(1),
        rows_per_click: rows / clicks as f64,
    })
}

/// Clicks a second that `COPY` stores, of those that were last counted.
fn copy(cluster: &Cluster, clicks: u64, file: &Path) -> Result<f64, Error> {
    let consumer = &cluster.consumers[0];
    if consumer.is_running() {
        consumer.kill()?;
    }
    let database = Cluster::ANALYTICS_DATABASE;
    for statement in TABLE.split("; ").chain(["CHECKPOINT"]) {
        cluster.postgres.query(database, statement)?;
    }
    let began = Instant::now();
    let statement = format!("\\copy yardstick FROM '{}'", file.display());
    cluster.postgres.query(database, &statement)?;
    Ok(clicks as f64 / began.elapsed().as_secs_f64())
}

fn fill(
    bench: &Bench,
    cluster: &Cluster,
    stream: Stream,
    clicks: u64,
    file: &Path,
) -> Result<(), Error> {
    // Each time another start of a gateway.
    let boot = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |now| now.as_micros());
    let mut command = Command::new(bench.programs.join("examples").join(CLICK_FILL.1));
    command
        .args(["--kafka", cluster.broker.servers()])
        .args(["--topic", cluster.broker.topic()])
        .args(["--boot", &boot.to_string()])
        .args(["--clicks", &clicks.to_string()])
        .args(["--links", &stream.links.to_string()])
        .arg("--copy")
        .arg(file);
    if stream.is_zipf {
        command.arg("--zipf");
    }
    let status = command.status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Error::Step(format!("filling the topic failed: {status}"))),
        Err(error) => Err(Error::Step(format!(
            "filling the topic did not start: {error}"
        ))),
    }
}
