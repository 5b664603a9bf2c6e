//! Every metric of a shard node.

use prometheus::{Gauge, GaugeVec, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use waypost_proto::rpc_times::RpcTimes;
use waypost_runtime::metrics::{Label, Registry, SIZES};

use crate::store;

/// The RPCs that answer about links.
const RPCS: &[&str] = &[
    "create_batch",
    "resolve_batch",
    "update",
    "delete",
    "list",
    "lease_visits",
    "return_visits",
    "claim",
    "export",
    "import",
    "watch",
];

/// What a statement does.
const OPERATION: Label = Label::one_of(
    "operation",
    &[
        "create",
        "resolve",
        "resolve_replica",
        "write",
        "list",
        "lease_visits",
        "claim",
        "export",
        "import",
    ],
);

/// Handles to the metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(crate) rpcs: RpcTimes,
    pub(crate) batch_items: HistogramVec,
    pub(crate) queue_items: IntGaugeVec,
    pub(crate) sessions: IntGaugeVec,
    pub(crate) sessions_max: IntGaugeVec,
    pub(crate) sessions_lost: IntCounterVec,
    pub(crate) replicas_usable: IntGauge,
    /// Without labels; there is none where there are no replicas.
    pub(crate) replication_lag: GaugeVec,
    pub(crate) moved: IntCounterVec,
    pub(crate) frozen: IntCounterVec,
    #[cfg_attr(
        not(feature = "cluster"),
        expect(dead_code, reason = "one process has nobody to hand prefixes to")
    )]
    pub(crate) handed_over: IntCounterVec,
    pub(crate) rows_damaged: IntCounterVec,
    pub(crate) visits_leased: IntCounter,
    pub(crate) links_purged: IntCounter,
    pub(crate) leader: IntGauge,
    pub(crate) watchers: IntGauge,
    pub(crate) watchers_lagged: IntCounter,
    pub(crate) outbox_age: Gauge,
    pub(crate) changes_told: IntCounter,
    pub(crate) changes_reopened: IntCounter,
    pub(crate) cache_puts: IntCounterVec,
    pub(crate) size: Size,
}

/// What a shard holds; told by its leader, which alone has series for it.
#[derive(Debug, Clone)]
pub(crate) struct Size {
    /// All without labels.
    pub(crate) links: IntGaugeVec,
    pub(crate) bytes: IntGaugeVec,
    pub(crate) prefixes: IntGaugeVec,
    pub(crate) coming: IntGaugeVec,
    pub(crate) epoch: IntGaugeVec,
}

impl Size {
    pub(crate) fn tell(&self, size: store::Size) {
        let none: [&str; 0] = [];
        if let Some(links) = size.links {
            self.links.with_label_values(&none).set(links);
        }
        self.bytes.with_label_values(&none).set(size.bytes);
        self.prefixes.with_label_values(&none).set(size.prefixes);
        self.coming.with_label_values(&none).set(size.coming);
        self.epoch.with_label_values(&none).set(size.epoch);
    }

    /// Another process tells it from now on.
    pub(crate) fn forget(&self) {
        let gauges = [
            &self.links,
            &self.bytes,
            &self.prefixes,
            &self.coming,
            &self.epoch,
        ];
        for gauge in gauges {
            gauge.reset();
        }
    }
}

impl Metrics {
    /// Makes the metrics known to a registry.
    ///
    /// # Errors
    /// If the registry has metrics of these names already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            rpcs: RpcTimes::register(
                registry,
                "waypost_shard_rpc_seconds",
                "Time of an RPC; of watch, until the stream begins",
                RPCS,
            )?,
            batch_items: registry.histograms(
                "waypost_shard_batch_items",
                "Items that one statement served, over all requests",
                SIZES,
                &[OPERATION],
            )?,
            queue_items: registry.gauges(
                "waypost_shard_queue_items",
                "Items that wait or run",
                &[OPERATION],
            )?,
            sessions: registry.gauges(
                "waypost_shard_sessions",
                "Database sessions that are open, at work or idle",
                &[OPERATION],
            )?,
            sessions_max: registry.gauges(
                "waypost_shard_sessions_max",
                "Database sessions that are to be open",
                &[OPERATION],
            )?,
            sessions_lost: registry.counters(
                "waypost_shard_sessions_lost_total",
                "Database sessions given up after an error or a deadline",
                &[OPERATION],
            )?,
            replicas_usable: registry.gauge(
                "waypost_shard_replicas_usable",
                "Replicas that can be read should the primary be lost",
            )?,
            replication_lag: registry.real_gauges(
                "waypost_shard_replication_lag_seconds",
                "How far the furthest standby is behind: what the loss of the primary would cost; none where there are no standbys",
                &[],
            )?,
            moved: registry.counters(
                "waypost_shard_moved_total",
                "Items answered that another shard owns their prefix",
                &[Label::one_of("rpc", RPCS)],
            )?,
            frozen: registry.counters(
                "waypost_shard_frozen_total",
                "Writes put off because their prefix was about to move to another shard; gateways try them again",
                &[Label::one_of("rpc", &["create_batch", "update", "delete", "lease_visits", "claim"])],
            )?,
            handed_over: registry.counters(
                "waypost_shard_prefixes_handed_over_total",
                "Prefixes whose owner has changed at this process",
                &[Label::one_of("direction", &["given", "taken"])],
            )?,
            rows_damaged: registry.counters(
                "waypost_shard_rows_damaged_total",
                "Stored rows met that cannot be read or bear no signature of ours; each is logged",
                &[Label::such("rpc", "as of waypost_shard_rpc_seconds, or `relay`, `purge`")],
            )?,
            visits_leased: registry.counter(
                "waypost_shard_visits_leased_total",
                "Visits of links with a limit that were leased to gateways",
            )?,
            links_purged: registry.counter(
                "waypost_shard_links_purged_total",
                "Expired links that became tombstones",
            )?,
            leader: registry.gauge(
                "waypost_shard_leader",
                "1 while this process relays the shard's outbox, else 0",
            )?,
            watchers: registry.gauge("waypost_shard_watchers", "Open change streams")?,
            watchers_lagged: registry.counter(
                "waypost_shard_watchers_lagged_total",
                "Change streams ended because their reader fell behind",
            )?,
            outbox_age: registry.real_gauge(
                "waypost_shard_outbox_age_seconds",
                "Age of the oldest change that is not in Redis yet; told by the leader",
            )?,
            changes_told: registry.counter(
                "waypost_shard_changes_told_total",
                "Changes sent to the change streams",
            )?,
            changes_reopened: registry.counter(
                "waypost_shard_changes_reopened_total",
                "Changes that Redis had acknowledged, made due again because its nodes changed roles or a leader began",
            )?,
            cache_puts: registry.counters(
                "waypost_shard_cache_puts_total",
                "Changes applied to Redis",
                &[Label::one_of("outcome", &["ok", "failed"])],
            )?,
            size: Size {
                links: registry.gauges(
                    "waypost_shard_links",
                    "Links and tombstones that the shard holds, as the database estimates them; told by the leader",
                    &[],
                )?,
                bytes: registry.gauges(
                    "waypost_shard_stored_bytes",
                    "Bytes of these rows and their indexes on disk; told by the leader",
                    &[],
                )?,
                prefixes: registry.gauges(
                    "waypost_shard_prefixes",
                    "Prefixes, of 3,844, that the shard owns; told by the leader",
                    &[],
                )?,
                coming: registry.gauges(
                    "waypost_shard_coming_prefixes",
                    "Prefixes on their way here that another shard still owns, or has just given up; told by the leader",
                    &[],
                )?,
                epoch: registry.gauges(
                    "waypost_shard_epoch",
                    "Highest epoch of ownership that the shard knows: it rises when prefixes move; told by the leader",
                    &[],
                )?,
            },
        })
    }
}
