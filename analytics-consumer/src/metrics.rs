//! What is counted about counting.

use std::time::Duration;

use prometheus::{Gauge, Histogram, IntCounter, IntGauge};
use waypost_proto::rpc_times::RpcTimes;
use waypost_runtime::metrics::{self, Registry, SIZES};

use crate::store::Applied;

/// Up to the deadline of a transaction.
const TRANSACTION_SECONDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Cheap to clone: the numbers are shared.
#[derive(Debug, Clone)]
pub struct Metrics {
    clicks: IntCounter,
    duplicates: IntCounter,
    forgotten: IntCounter,
    too_late: IntCounter,
    batches: IntCounter,
    rows: IntCounter,
    unreadable: IntCounter,
    transaction: Histogram,
    transaction_batches: Histogram,
    pub(crate) rpcs: RpcTimes,
    dead_letters: IntCounter,
    lag_records: IntGauge,
    lag_seconds: Gauge,
    /// Portions that another consumer had counted: its partition moved.
    #[cfg_attr(
        not(feature = "cluster"),
        expect(dead_code, reason = "only a consumer of Kafka sees it")
    )]
    pub(crate) fenced: IntCounter,
    /// Transactions that failed and are tried again.
    pub(crate) retries: IntCounter,
    /// Times that a partition's log began anew or had lost its beginning.
    #[cfg_attr(
        not(feature = "cluster"),
        expect(dead_code, reason = "only a consumer of Kafka sees it")
    )]
    pub(crate) log_gaps: IntCounter,
}

impl Metrics {
    /// Makes the metrics known to a registry.
    ///
    /// # Errors
    /// If the registry has metrics of these names already.
    pub fn register(registry: &Registry) -> metrics::Result<Self> {
        Ok(Self {
            clicks: registry.counter("waypost_analytics_clicks_total", "Clicks counted")?,
            duplicates: registry.counter(
                "waypost_analytics_duplicate_batches_total",
                "Batches that came again and were not counted again",
            )?,
            forgotten: registry.counter(
                "waypost_analytics_forgotten_batches_total",
                "Missing batches that will not be counted should they still come",
            )?,
            too_late: registry.counter(
                "waypost_analytics_too_late_batches_total",
                "Batches left out, since the start of the gateway that made them is forgotten",
            )?,
            batches: registry.counter(
                "waypost_analytics_batches_total",
                "Batches taken, those that came again among them",
            )?,
            rows: registry.counter("waypost_analytics_rows_total", "Rows of rollups written")?,
            unreadable: registry.counter(
                "waypost_analytics_unreadable_rows_total",
                "Rows of rollups begun anew, since what was stored cannot be read",
            )?,
            transaction: registry.histogram(
                "waypost_analytics_transaction_seconds",
                "Time of a transaction that counts, those that failed among them",
                &TRANSACTION_SECONDS,
            )?,
            transaction_batches: registry.histogram(
                "waypost_analytics_transaction_batches",
                "Batches of clicks that one transaction counted",
                SIZES,
            )?,
            rpcs: RpcTimes::register(
                registry,
                "waypost_analytics_rpc_seconds",
                "Time of an RPC, which asks for statistics",
                &["link_stats", "tenant_stats"],
            )?,
            dead_letters: registry.counter(
                "waypost_analytics_dead_letters_total",
                "Messages that could not be read and were put aside",
            )?,
            lag_records: registry.gauge(
                "waypost_analytics_lag_records",
                "Messages in this process's partitions of the log that are not counted yet",
            )?,
            lag_seconds: registry.real_gauge(
                "waypost_analytics_lag_seconds",
                "Age of the time up to which all partitions are counted, by whichever process",
            )?,
            fenced: registry.counter(
                "waypost_analytics_fenced_total",
                "Portions given up, since another consumer had counted them",
            )?,
            retries: registry.counter(
                "waypost_analytics_retries_total",
                "Transactions that failed and were tried again",
            )?,
            log_gaps: registry.counter(
                "waypost_analytics_log_gaps_total",
                "Times that a partition did not go on where counting had ended",
            )?,
        })
    }

    /// A transaction with so many batches.
    pub(crate) fn tried(&self, batches: usize, took: Duration) {
        self.batches.inc_by(batches as u64);
        self.transaction.observe(took.as_secs_f64());
        self.transaction_batches.observe(batches as f64);
    }

    pub(crate) fn applied(&self, applied: &Applied) {
        self.too_late.inc_by(applied.too_late);
        self.rows.inc_by(applied.rows);
        self.unreadable.inc_by(applied.unreadable);
        self.clicks.inc_by(applied.clicks);
        self.duplicates.inc_by(applied.duplicates);
        self.forgotten.inc_by(applied.forgotten);
        self.dead_letters.inc_by(applied.dead_letters);
    }

    #[cfg_attr(
        not(feature = "cluster"),
        expect(dead_code, reason = "only a consumer of Kafka looks")
    )]
    pub(crate) fn behind(&self, records: i64) {
        self.lag_records.set(records);
    }

    pub(crate) fn counted_up_to(&self, age: Duration) {
        self.lag_seconds.set(age.as_secs_f64());
    }
}
