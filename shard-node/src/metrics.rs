//! Every metric of a shard node.

use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, core::Collector,
};

/// Handles to the metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// `rpc`: create_batch, resolve_batch, update, delete, list, lease_visits, claim,
    /// export, import, watch; `outcome`: ok, or
    /// the gRPC code in snake case. For watch: until the stream begins.
    pub(crate) rpc_seconds: HistogramVec,
    /// `operation`: create, resolve, resolve_replica, write, list, lease_visits, claim,
    /// export, import.
    pub(crate) batch_items: HistogramVec,
    /// `operation` as above.
    pub(crate) queue_items: IntGaugeVec,
    /// `operation` as above.
    pub(crate) sessions_lost: IntCounterVec,
    pub(crate) replicas_usable: IntGauge,
    /// Without labels; there is none where there are no replicas.
    pub(crate) replication_lag: GaugeVec,
    /// `rpc` as above, without watch.
    pub(crate) moved: IntCounterVec,
    /// `rpc` as above, or relay, purge.
    pub(crate) rows_damaged: IntCounterVec,
    pub(crate) visits_leased: IntCounter,
    pub(crate) links_purged: IntCounter,
    pub(crate) leader: IntGauge,
    pub(crate) watchers: IntGauge,
    pub(crate) watchers_lagged: IntCounter,
    pub(crate) outbox_age: Gauge,
    pub(crate) changes_told: IntCounter,
    pub(crate) changes_reopened: IntCounter,
    /// `outcome`: ok, failed.
    pub(crate) cache_puts: IntCounterVec,
}

impl Metrics {
    /// Makes the metrics known to a registry.
    ///
    /// # Errors
    /// If the registry has metrics of these names already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            rpc_seconds: add(
                registry,
                HistogramVec::new(
                    HistogramOpts::new("waypost_shard_rpc_seconds", "Time of an RPC").buckets(
                        vec![
                            0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
                            2.5,
                        ],
                    ),
                    &["rpc", "outcome"],
                ),
            )?,
            batch_items: add(
                registry,
                HistogramVec::new(
                    HistogramOpts::new(
                        "waypost_shard_batch_items",
                        "Items that one statement served, over all requests",
                    )
                    .buckets(vec![
                        1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0,
                    ]),
                    &["operation"],
                ),
            )?,
            queue_items: add(
                registry,
                IntGaugeVec::new(
                    Opts::new("waypost_shard_queue_items", "Items that wait or run"),
                    &["operation"],
                ),
            )?,
            sessions_lost: add(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "waypost_shard_sessions_lost_total",
                        "Database sessions given up after an error or a deadline",
                    ),
                    &["operation"],
                ),
            )?,
            replicas_usable: add(
                registry,
                IntGauge::new(
                    "waypost_shard_replicas_usable",
                    "Replicas that can be read should the primary be lost",
                ),
            )?,
            replication_lag: add(
                registry,
                GaugeVec::new(
                    Opts::new(
                        "waypost_shard_replication_lag_seconds",
                        "How far the furthest standby is behind: what the loss of the primary would cost",
                    ),
                    &[],
                ),
            )?,
            moved: add(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "waypost_shard_moved_total",
                        "Items answered that another shard owns their prefix",
                    ),
                    &["rpc"],
                ),
            )?,
            rows_damaged: add(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "waypost_shard_rows_damaged_total",
                        "Stored rows met that cannot be read or bear no signature of ours; each is logged",
                    ),
                    &["rpc"],
                ),
            )?,
            visits_leased: add(
                registry,
                IntCounter::new(
                    "waypost_shard_visits_leased_total",
                    "Visits of links with a limit that were leased to gateways",
                ),
            )?,
            links_purged: add(
                registry,
                IntCounter::new(
                    "waypost_shard_links_purged_total",
                    "Expired links that became tombstones",
                ),
            )?,
            leader: add(
                registry,
                IntGauge::new(
                    "waypost_shard_leader",
                    "1 while this process relays the shard's outbox",
                ),
            )?,
            watchers: add(
                registry,
                IntGauge::new("waypost_shard_watchers", "Open change streams"),
            )?,
            watchers_lagged: add(
                registry,
                IntCounter::new(
                    "waypost_shard_watchers_lagged_total",
                    "Change streams ended because their reader fell behind",
                ),
            )?,
            outbox_age: add(
                registry,
                Gauge::new(
                    "waypost_shard_outbox_age_seconds",
                    "Age of the oldest change that is not in Redis yet; told by the leader",
                ),
            )?,
            changes_told: add(
                registry,
                IntCounter::new(
                    "waypost_shard_changes_told_total",
                    "Changes sent to the change streams",
                ),
            )?,
            changes_reopened: add(
                registry,
                IntCounter::new(
                    "waypost_shard_changes_reopened_total",
                    "Changes that Redis had acknowledged, made due again because its nodes changed roles or a leader began",
                ),
            )?,
            cache_puts: add(
                registry,
                IntCounterVec::new(
                    Opts::new("waypost_shard_cache_puts_total", "Changes applied to Redis"),
                    &["outcome"],
                ),
            )?,
        })
    }
}

fn add<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: Result<M, prometheus::Error>,
) -> Result<M, prometheus::Error> {
    let metric = metric?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
