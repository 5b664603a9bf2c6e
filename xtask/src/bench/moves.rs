//! Moving prefixes with their links to a new shard, against `COPY` of the same rows from
//! the one database into the other.

use std::process::{Command, Stdio};
use std::time::Instant;

use waypost_testbed::Cluster;
use waypost_testbed::cluster::Shard;
use waypost_testbed::service::Kind;

use super::Bench;
use super::report::Report;
use super::turns::Spread;
use crate::Error;

/// A third of them moves.
const LINKS: usize = 600_000;

/// As the rows are stored where they come, with all indexes.
const COPY_TABLE: &str = "CREATE TABLE moved (LIKE links INCLUDING ALL)";

pub(super) fn run(bench: &Bench) -> Result<Report, Error> {
    let cluster = bench.cluster().shards(3).empty_shards(1).start()?;
    let links = bench.links(&cluster, LINKS)?;
    let began = Instant::now();
    let told = move_prefixes(bench, &cluster)?;
    let seconds = began.elapsed().as_secs_f64();
    let count = "SELECT count(*) FROM links";
    let count = cluster.shards[2].postgres.query(Shard::DATABASE, count)?;
    let moved: f64 = count.parse().map_err(|_| failed(&count))?;
    let held: Vec<f64> = told.lines().filter_map(held_ms).collect();
    if moved < links.count() as f64 / 5.0 || held.is_empty() {
        return Err(failed(&told));
    }
    let copied = moved / copy_back(&cluster)?;
    let mut report = Report::new("moves");
    let (ours, yardstick) = (Spread::once(moved / seconds), Spread::once(copied));
    report.compared("links moved", "1/s", ours, yardstick);
    let longest = held.iter().copied().fold(0.0, f64::max);
    report.figure(
        "writes held, each group of prefixes",
        "ms",
        Spread::of(held),
    );
    report.figure("writes held, the longest", "ms", Spread::once(longest));
    report.note(format!(
        "{moved} of {} links moved, in {seconds:.1} s",
        links.count()
    ));
    Ok(report)
}

/// Answers what it said.
fn move_prefixes(bench: &Bench, cluster: &Cluster) -> Result<String, Error> {
    let output = Command::new(bench.programs.join(Kind::ShardNode.program()))
        .args(["move-prefixes", "--to", "s2"])
        .env("WAYPOST_SHARD_MAP", cluster.shard_map())
        .env("WAYPOST_SECRETS_DIR", &cluster.secrets.folder)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(&error.to_string()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(failed(&text(&output.stderr))),
    }
}

/// Of a line that ends in "writes held for N ms at most".
fn held_ms(line: &str) -> Option<f64> {
    let (_, end) = line.split_once("writes held for ")?;
    end.split_once(' ')?.0.parse().ok()
}

/// Seconds that it takes to copy all rows of the new shard into a table of another.
fn copy_back(cluster: &Cluster) -> Result<f64, Error> {
    let (from, to) = (&cluster.shards[2], &cluster.shards[0]);
    to.postgres.query(Shard::DATABASE, COPY_TABLE)?;
    let psql = |shard: &Shard, sql: &str| {
        let mut psql = Command::new("psql");
        psql.args([&shard.url(), "-qX", "-c", sql]);
        psql
    };
    let began = Instant::now();
    let failed = |error: std::io::Error| failed(&error.to_string());
    let mut reads = psql(from, "COPY links TO STDOUT (FORMAT binary)")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let rows = reads.stdout.take().map_or_else(Stdio::null, Stdio::from);
    let wrote = psql(to, "COPY moved FROM STDIN (FORMAT binary)")
        .stdin(rows)
        .status()
        .map_err(failed)?;
    let read = reads.wait().map_err(failed)?;
    match wrote.success() && read.success() {
        true => Ok(began.elapsed().as_secs_f64()),
        false => Err(Error::Step("psql did not copy the rows".to_owned())),
    }
}

fn failed(reason: &str) -> Error {
    Error::Step(format!("prefixes did not move: {reason}"))
}
