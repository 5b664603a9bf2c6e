//! Our side of a comparison: a cluster, its links, and a turn of load on it.

use std::ops::Sub;
use std::thread;
use std::time::{Duration, Instant};

use waypost_testbed::Cluster;

use super::cpu::Spent;
use super::load::{self, Answered, Load};
use super::scrape::Scrape;
use super::turns::Spread;
use crate::Error;

/// After this much all clicks of a turn are counted, or something is wrong.
const REST_DEADLINE: Duration = Duration::from_secs(180);

/// So long the cluster is looked at.
const REST_WINDOW: Duration = Duration::from_millis(400);

/// What heartbeats, polls and an idle Redis Cluster take of one core.
const REST_SHARE: f64 = 0.15;

/// What the gateways have counted so far, or in a turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) redirects: f64,
    pub(crate) l1_hits: f64,
    pub(crate) redis_hits: f64,
    pub(crate) recorded: f64,
    pub(crate) spooled: f64,
    pub(crate) acked: f64,
    pub(crate) lost: f64,
    /// Of these, those for which there was no room in memory.
    pub(crate) lost_in_buffer: f64,
    /// Links that shards were asked for, and the statements that read them.
    pub(crate) reads: f64,
    pub(crate) read_statements: f64,
}

impl Counts {
    fn so_far(cluster: &Cluster) -> Result<Self, Error> {
        let scrapes = cluster.gateways.iter().map(Scrape::of);
        let scrapes = scrapes.collect::<Result<Vec<_>, _>>()?;
        let total = |name: &str, labels: &[&str]| {
            let totals = scrapes.iter().map(|scrape| scrape.total(name, labels));
            totals.sum()
        };
        let nodes = cluster.shards.iter().flat_map(|shard| &shard.nodes);
        let nodes = nodes.map(Scrape::of).collect::<Result<Vec<_>, _>>()?;
        let reads = |name: &str| {
            let resolve = ["operation=\"resolve\""];
            nodes
                .iter()
                .map(|scrape| scrape.total(name, &resolve))
                .sum()
        };
        let hits = |tier: &str| {
            let labels = [&format!("tier=\"{tier}\""), "result=\"hit\""];
            total("waypost_cache_lookups_total", &labels)
        };
        Ok(Self {
            redirects: total(
                "waypost_http_request_duration_seconds_count",
                &["route=\"redirect\"", "code=\"302\""],
            ),
            l1_hits: hits("l1"),
            redis_hits: hits("redis"),
            recorded: total("waypost_clicks_recorded_total", &[]),
            spooled: total("waypost_clicks_spooled_total", &[]),
            acked: total("waypost_clicks_acked_total", &[]),
            lost: total("waypost_clicks_lost_total", &[]),
            lost_in_buffer: total("waypost_clicks_lost_total", &["reason=\"buffer\""]),
            reads: reads("waypost_shard_batch_items_sum"),
            read_statements: reads("waypost_shard_batch_items_count"),
        })
    }

    /// So many of all redirects; 0 if there were none.
    pub(crate) fn share(&self, hits: f64) -> f64 {
        hits / self.redirects.max(1.0)
    }

    fn is_all_delivered(&self) -> bool {
        self.acked + self.lost >= self.recorded
    }
}

impl Sub for Counts {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            redirects: self.redirects - before.redirects,
            l1_hits: self.l1_hits - before.l1_hits,
            redis_hits: self.redis_hits - before.redis_hits,
            recorded: self.recorded - before.recorded,
            spooled: self.spooled - before.spooled,
            acked: self.acked - before.acked,
            lost: self.lost - before.lost,
            lost_in_buffer: self.lost_in_buffer - before.lost_in_buffer,
            reads: self.reads - before.reads,
            read_statements: self.read_statements - before.read_statements,
        }
    }
}

/// One turn of ours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) answered: Answered,
    /// From the first request until its last click is counted: what a turn leaves to
    /// be done is part of its price.
    pub(crate) spent: Spent,
    pub(crate) counts: Counts,
}

impl Turn {
    /// Sends load to all gateways of a cluster, and returns when it has come to rest.
    pub(crate) fn take(
        cluster: &Cluster,
        load: Load<'_>,
        connections: usize,
        seconds: u64,
    ) -> Result<Self, Error> {
        let spent = Spent::so_far(cluster);
        let counts = Counts::so_far(cluster)?;
        let count = cluster.gateways.len();
        let urls: Vec<String> = (0..count).map(|index| cluster.url(index)).collect();
        let answered = load::run(cluster.sandbox(), &urls, load, connections, seconds)?;
        if answered.failed > 0 {
            let failed = answered.failed;
            return Err(Error::Step(format!(
                "{failed} requests of a turn were not answered as expected"
            )));
        }
        rest(cluster)?;
        Ok(Self {
            answered,
            spent: Spent::so_far(cluster) - spent,
            counts: Counts::so_far(cluster)? - counts,
        })
    }

    /// Microseconds per request.
    pub(crate) fn micros(&self, of: impl Fn(&Spent) -> Duration) -> f64 {
        of(&self.spent).as_secs_f64() * 1e6 / self.answered.requests as f64
    }
}

/// Waits until every click is counted and nobody works any more, so that a turn
/// takes nothing from the next.
pub(crate) fn rest(cluster: &Cluster) -> Result<(), Error> {
    let started = Instant::now();
    loop {
        let before = Spent::so_far(cluster);
        thread::sleep(REST_WINDOW);
        let spent = (Spent::so_far(cluster) - before).all();
        let is_idle = spent.as_secs_f64() < REST_SHARE * REST_WINDOW.as_secs_f64();
        if is_idle && Counts::so_far(cluster)?.is_all_delivered() {
            return Ok(());
        }
        if started.elapsed() > REST_DEADLINE {
            return Err(Error::Step(format!(
                "the cluster still works {REST_DEADLINE:?} after its turn"
            )));
        }
    }
}

/// Over all turns of ours.
pub(crate) fn spread<'a, T: 'a>(
    turns: impl IntoIterator<Item = &'a T>,
    value: impl Fn(&T) -> f64,
) -> Spread {
    Spread::of(turns.into_iter().map(value))
}
