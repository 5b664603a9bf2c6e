//! What is counted on a click's way. Recorded clicks are, in the end, acknowledged
//! or lost: nothing else happens to them. While nothing moves, what was recorded and
//! what an earlier start left is what was acknowledged, what was lost and what waits.

use prometheus::{Gauge, IntCounter, IntGauge};
use waypost_runtime::metrics::{Label, Registry};

/// Cheap to clone: the numbers are shared.
#[derive(Debug, Clone)]
pub(super) struct Metrics {
    /// Clicks that redirects handed over.
    pub(super) recorded: IntCounter,
    /// Clicks committed to disk.
    pub(super) spooled: IntCounter,
    /// Clicks that the log has, those of earlier starts included.
    pub(super) acked: IntCounter,
    /// Batches that the log refused and that are sent again.
    pub(super) retries: IntCounter,
    /// The buffers were full: the thread of the spool did not keep up.
    pub(super) lost_buffer: IntCounter,
    /// The spool was full and the oldest went.
    pub(super) lost_full: IntCounter,
    /// Records that could not be read back.
    pub(super) lost_damaged: IntCounter,
    /// The disk refused them, and too many waited in memory.
    pub(super) lost_disk: IntCounter,
    /// The log never takes the batch they are in.
    pub(super) lost_refused: IntCounter,
    /// In memory only when the process had to end.
    pub(super) lost_exit: IntCounter,
    /// Neither acknowledged nor lost, as far as is known: what an earlier start left
    /// counts from when it is read.
    pub(super) waiting: IntGauge,
    /// What the segments hold on disk.
    pub(super) bytes: IntGauge,
    /// What they may hold.
    pub(super) max_bytes: IntGauge,
    /// Seconds since the oldest click that the log does not have was spooled; 0: it
    /// has all.
    pub(super) oldest: Gauge,
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let lost = registry.counters(
            "waypost_clicks_lost_total",
            "Clicks that were answered and will never be counted. buffer: the spool's thread did not keep up, spool_full: the oldest went, damaged: could not be read back, disk: it refused them and too many waited, refused: the log never takes them, exit: in memory only when the process had to end",
            &[Label::one_of(
                "reason",
                &["buffer", "spool_full", "damaged", "disk", "refused", "exit"],
            )],
        )?;
        Ok(Self {
            recorded: registry.counter("waypost_clicks_recorded_total", "Clicks recorded")?,
            spooled: registry
                .counter("waypost_clicks_spooled_total", "Clicks committed to disk")?,
            acked: registry.counter(
                "waypost_clicks_acked_total",
                "Clicks that the click log acknowledged",
            )?,
            retries: registry.counter(
                "waypost_click_batches_retried_total",
                "Batches of clicks that were refused and are sent again",
            )?,
            lost_buffer: lost.with_label_values(&["buffer"]),
            lost_full: lost.with_label_values(&["spool_full"]),
            lost_damaged: lost.with_label_values(&["damaged"]),
            lost_disk: lost.with_label_values(&["disk"]),
            lost_refused: lost.with_label_values(&["refused"]),
            lost_exit: lost.with_label_values(&["exit"]),
            waiting: registry.gauge(
                "waypost_clicks_waiting",
                "Clicks in the spool or on their way, neither acknowledged nor lost",
            )?,
            bytes: registry.gauge(
                "waypost_click_spool_bytes",
                "Bytes of clicks on disk that wait to be acknowledged",
            )?,
            max_bytes: registry.gauge(
                "waypost_click_spool_max_bytes",
                "Bytes of clicks on disk, at most: then the oldest are dropped",
            )?,
            oldest: registry.real_gauge(
                "waypost_click_oldest_unsent_seconds",
                "How long the oldest unacknowledged click has waited; 0: all are acknowledged",
            )?,
        })
    }
}
