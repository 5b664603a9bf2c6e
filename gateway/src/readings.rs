//! What is read when somebody scrapes, since following it at every change would cost
//! redirects something.

use std::sync::Arc;

use prometheus::{GaugeVec, IntGauge, IntGaugeVec};
use waypost_runtime::metrics::{self, Label, Registry};

use crate::l1::L1;
use crate::lanes::Lanes;
use crate::shards::Shards;

const SHARD: Label = Label::such("shard", "the ids of the map");

#[derive(Debug)]
pub(crate) struct Readings {
    l1_bytes: IntGauge,
    l1_max_bytes: IntGauge,
    l1_links: IntGauge,
    heartbeat_age: GaugeVec,
    unapplied: GaugeVec,
    waiting: IntGaugeVec,
    prefixes: IntGaugeVec,
    epoch: IntGaugeVec,
    lanes: IntGaugeVec,
}

/// What the readings are taken from.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) l1: Arc<L1>,
    pub(crate) l1_max_bytes: u64,
    pub(crate) shards: Shards,
    pub(crate) lanes: Lanes,
}

impl Readings {
    pub(crate) fn register(registry: &Registry) -> metrics::Result<Self> {
        Ok(Self {
            l1_bytes: registry.gauge("waypost_l1_bytes", "Memory that links take in the cache")?,
            l1_max_bytes: registry.gauge("waypost_l1_max_bytes", "Memory that they may take")?,
            l1_links: registry.gauge("waypost_l1_links", "Links in memory")?,
            heartbeat_age: registry.real_gauges(
                "waypost_shard_heartbeat_age_seconds",
                "Time since the last heartbeat of a shard's change stream, of which one comes every 0.25 s; since the start if there was none",
                &[SHARD],
            )?,
            unapplied: registry.real_gauges(
                "waypost_shard_unapplied_seconds",
                "Age of the oldest change that Redis lacked at the shard's last heartbeat; above 1 s Redis is passed over",
                &[SHARD],
            )?,
            waiting: registry.gauges(
                "waypost_shard_call_queue_items",
                "Slugs or links that wait for a call to the shard",
                &[SHARD, Label::one_of("rpc", &["resolve", "create"])],
            )?,
            prefixes: registry.gauges(
                "waypost_ownership_prefixes",
                "Prefixes, of 3,844, that a shard owns as far as this process knows",
                &[SHARD],
            )?,
            epoch: registry.gauges(
                "waypost_ownership_epoch",
                "Highest epoch of what this process knows of a shard's prefixes: it rises when some move there",
                &[SHARD],
            )?,
            lanes: registry.gauges(
                "waypost_gateway_lane_requests",
                "Requests to the API that are worked on",
                &[Label::one_of("lane", &["reads", "batches", "single"])],
            )?,
        })
    }

    /// Takes the readings before each scrape.
    pub(crate) fn take_from(self, sources: Sources, registry: &Registry) {
        registry.read_before_scrapes(move || self.take(&sources));
    }

    fn take(&self, sources: &Sources) {
        self.l1_bytes.set(sources.l1.weight().cast_signed());
        self.l1_max_bytes.set(sources.l1_max_bytes.cast_signed());
        self.l1_links.set(sources.l1.len().cast_signed() as i64);
        for (lane, count) in sources.lanes.in_use() {
            self.lanes.with_label_values(&[lane]).set(count as i64);
        }
        // Of shards that have left the map nothing is to be seen.
        for gauges in [&self.waiting, &self.prefixes, &self.epoch] {
            gauges.reset();
        }
        self.heartbeat_age.reset();
        self.unapplied.reset();
        let owned = sources.shards.routes().holdings();
        for index in sources.shards.routes().shards() {
            let shard = sources.shards.at(index);
            let (freshness, waiting) = (&shard.freshness, shard.waiting());
            let shard = shard.peer.id().as_str();
            let age = freshness.silence().as_secs_f64();
            self.heartbeat_age.with_label_values(&[shard]).set(age);
            let unapplied = freshness.unapplied().as_secs_f64();
            self.unapplied.with_label_values(&[shard]).set(unapplied);
            let (prefixes, epoch) = owned.get(index.get()).copied().unwrap_or_default();
            let prefixes = i64::from(prefixes);
            self.prefixes.with_label_values(&[shard]).set(prefixes);
            self.epoch.with_label_values(&[shard]).set(epoch.into());
            let (reads, creates) = waiting;
            for (rpc, count) in [("resolve", reads), ("create", creates)] {
                let gauge = self.waiting.with_label_values(&[shard, rpc]);
                gauge.set(count as i64);
            }
        }
    }
}
