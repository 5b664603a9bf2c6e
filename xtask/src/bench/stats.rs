//! How long statistics take of 90 days of links that were followed a hundred million
//! times.
//!
//! Nobody follows that often for a benchmark: the rows of the rollups are written into
//! the database, each day with all the referrers, countries and so on that there is room
//! for. Everything else is as it always is, from HTTP to Postgres and back.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use waypost_testbed::cluster::Shard;
use waypost_testbed::{Cluster, http};

use super::load::Load;
use super::report::{Bound, Goal, Report};
use super::subject::{Turn, spread};
use super::turns::Spread;
use super::{Bench, WARMUP_SECONDS};
use crate::Error;

/// Looked at in turn, so that it is not the same rows each time.
const LINKS: usize = 20;

const DAYS: u64 = 90;
const CLICKS_PER_LINK: u64 = 100_000_000;
const CLICKS_PER_DAY: u64 = CLICKS_PER_LINK.div_ceil(DAYS);

/// Days of each link before those that are asked for, for its sum of all times: a year in
/// all.
const OLDER_DAYS: u64 = 275;

/// People who look at statistics at the same time, each at once again.
const CONNECTIONS: usize = 8;

/// As the design measures latencies: an open loop at half of what can be answered.
const SHARE_OF_PEAK: f64 = 0.5;

/// Of each of the six dimensions: as many values as a row holds.
const VALUES: u64 = 100;

/// For one answer; it takes milliseconds.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn run(bench: &Bench) -> Result<Report, Error> {
    let cluster = bench.cluster().start()?;
    let links = bench.links(&cluster, LINKS)?;
    let slugs: Vec<String> = links.read()?.into_iter().map(|(slug, _)| slug).collect();
    let slugs = &slugs[..LINKS.min(slugs.len())];
    simulate(&cluster, slugs)?;
    let from = database_day(&cluster, DAYS - 1)?;
    let query = format!("?from={from}&by=referrer,country,device,browser,os,language");
    let paths: Vec<String> = slugs
        .iter()
        .map(|slug| format!("/api/v1/links/{slug}/stats{query}"))
        .collect();
    let file = bench.sandbox.folder().join("stats-paths");
    let failed = |error: std::io::Error| Error::Step(format!("write the paths: {error}"));
    std::fs::write(&file, paths.join("\n")).map_err(failed)?;
    let token = cluster.token();
    check(&cluster, &paths[0], &token)?;
    let load = Load::Reads(&token, &file);
    let take = |seconds| Turn::take(&cluster, load, CONNECTIONS, seconds);
    take(WARMUP_SECONDS)?;
    let turns = (0..bench.repeats).map(|_| take(bench.seconds));
    let turns = turns.collect::<Result<Vec<_>, _>>()?;
    let rate = spread(&turns, |turn| turn.answered.rate());
    let half = rate.median * SHARE_OF_PEAK;
    let opened = (0..bench.repeats).map(|_| open(bench, &cluster, &paths, &token, half));
    let opened = opened.collect::<Result<Vec<_>, _>>()?;
    let mut report = Report::new("stats");
    report.goal(Goal {
        what: "p99 of 90 days with 10^8 clicks",
        unit: "ms",
        bound: Bound::AtMost(50.0),
        seen: spread(&opened, |times| percentile(times, 0.99)),
    });
    report.figure("p50", "ms", spread(&opened, |times| percentile(times, 0.5)));
    report.figure("rate of the open loop", "1/s", Spread::once(half));
    report.figure("answers, closed loop of 8", "1/s", rate);
    let bytes = Spread::once(counts().len() as f64);
    report.figure("counts of one day of one link", "bytes", bytes);
    report.turns(&turns);
    Ok(report)
}

/// Milliseconds that the answers of one turn took, each from when its request was due,
/// in ascending order.
fn open(
    bench: &Bench,
    cluster: &Cluster,
    paths: &[String],
    token: &str,
    rate: f64,
) -> Result<Vec<f64>, Error> {
    let address = cluster.gateways[0].address();
    let count = (rate * bench.seconds as f64).ceil().max(1.0) as u32;
    let (next, began) = (AtomicU32::new(0), Instant::now());
    let ask = || -> Result<Vec<f64>, Error> {
        let mut times = Vec::new();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                return Ok(times);
            }
            let due = began + Duration::from_secs_f64(f64::from(n) / rate);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let path = &paths[n as usize % paths.len()];
            let answer = http::get_with(&address, path, token, TIMEOUT);
            let answer = answer.map_err(|error| Error::Step(format!("ask {path}: {error}")))?;
            if answer.status != 200 {
                return Err(Error::Step(format!("{path} answers {}", answer.status)));
            }
            times.push(due.elapsed().as_secs_f64() * 1e3);
        }
    };
    let mut times = thread::scope(|scope| {
        // More than are ever waited for at once, so that none is sent late.
        let askers: Vec<_> = (0..4 * CONNECTIONS).map(|_| scope.spawn(ask)).collect();
        let panicked = || Error::Step("an asker panicked".to_owned());
        let times = askers
            .into_iter()
            .map(|asker| asker.join().map_err(|_| panicked())?);
        times.collect::<Result<Vec<_>, _>>()
    })?
    .concat();
    times.sort_unstable_by(f64::total_cmp);
    Ok(times)
}

/// Of times in ascending order, by the nearest rank.
fn percentile(times: &[f64], share: f64) -> f64 {
    let rank = (times.len() as f64 * share).ceil() as usize;
    times[rank.clamp(1, times.len()) - 1]
}

/// That the answer is what was simulated: what cannot be read would be fast.
fn check(cluster: &Cluster, path: &str, token: &str) -> Result<(), Error> {
    let failed = |reason: String| Error::Step(format!("statistics are not as expected: {reason}"));
    let address = cluster.gateways[0].address();
    let answer = http::get_with(&address, path, token, TIMEOUT);
    let answer = answer.map_err(|error| failed(error.to_string()))?;
    let read: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let values = |by: &str| read["breakdowns"][by]["values"].as_array().map(Vec::len);
    let is_whole = read["clicks"] == CLICKS_PER_DAY * DAYS
        && read["allTime"]["clicks"] == CLICKS_PER_DAY * (DAYS + OLDER_DAYS)
        && [values("referrer"), values("language")] == [Some(50), Some(50)];
    is_whole.then_some(()).ok_or_else(|| failed(answer.body))
}

/// A day of UTC, so many days ago.
fn database_day(cluster: &Cluster, ago: u64) -> Result<String, Error> {
    let sql = format!("SELECT (now() AT TIME ZONE 'utc')::date - {ago}");
    Ok(cluster.postgres.query(Cluster::ANALYTICS_DATABASE, &sql)?)
}

/// Writes the rows of each link, as the consumer would have.
fn simulate(cluster: &Cluster, slugs: &[String]) -> Result<(), Error> {
    let listed: Vec<String> = slugs.iter().map(|slug| format!("('{slug}')")).collect();
    let slugs = listed.join(",");
    let mut ids = Vec::new();
    for shard in &cluster.shards {
        let sql = format!(
            "SELECT link_id FROM links JOIN (VALUES {slugs}) AS wanted(slug) \
             ON links.slug = wanted.slug"
        );
        let found = shard.postgres.query(Shard::DATABASE, &sql)?;
        ids.extend(found.lines().map(|id| format!("('{id}'::uuid)")));
    }
    let (ids, counts) = (ids.join(","), hex(&counts()));
    let days = DAYS + OLDER_DAYS;
    // A sketch's registers: they are where a row's other columns are not, and are read
    // only of days that have several rows.
    let sql = format!(
        "INSERT INTO link_day (link_id, day, partition, tenant, clicks, bots, visitors, counts, \
                               sketch) \
         SELECT id, extract(epoch FROM now())::bigint / 86400 - ago, 0, 'default', \
                {CLICKS_PER_DAY}, {bots}, 400000, '\\x{counts}', \
                decode(repeat(md5(id::text || ago), 768), 'hex') \
         FROM (VALUES {ids}) AS link(id), generate_series(0, {days} - 1) AS ago; \
         ANALYZE link_day",
        bots = CLICKS_PER_DAY / 10,
    );
    cluster.postgres.query(Cluster::ANALYTICS_DATABASE, &sql)?;
    cluster
        .postgres
        .query(Cluster::ANALYTICS_DATABASE, "VACUUM link_day")?;
    Ok(())
}

/// The counts of one day in the format in which they are stored: a version, which hours
/// there are, their clicks and bots, and six lists of values.
fn counts() -> Vec<u8> {
    const VERSION: u8 = 1;
    let mut bytes = vec![VERSION, 0xff, 0xff, 0xff];
    let (bots, people) = (CLICKS_PER_DAY / 10, CLICKS_PER_DAY - CLICKS_PER_DAY / 10);
    for hour in 0..24 {
        let part = |all: u64| all / 24 + u64::from(hour < all % 24);
        varint(part(people) + part(bots), &mut bytes);
        varint(part(bots), &mut bytes);
    }
    for dimension in 0..6 {
        varint(VALUES, &mut bytes);
        varint(people / 5, &mut bytes);
        for value in 0..VALUES {
            let name = match dimension {
                0 => format!("www.news-{value}.example.com"),
                _ => format!("value-{value}"),
            };
            varint(name.len() as u64, &mut bytes);
            bytes.extend(name.bytes());
            varint(people / 5 * 4 / VALUES, &mut bytes);
            varint(0, &mut bytes);
        }
    }
    bytes
}

/// As in protocol buffers.
fn varint(mut value: u64, into: &mut Vec<u8>) {
    while value > 0x7f {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
