//! What is counted about counting.

use prometheus::{IntCounter, IntGauge, Registry};

use crate::store::Applied;

/// Cheap to clone: the numbers are shared.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    clicks: IntCounter,
    duplicates: IntCounter,
    forgotten: IntCounter,
    dead_letters: IntCounter,
    counted_up_to_ms: IntGauge,
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
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let counted_up_to_ms = IntGauge::new(
            "waypost_analytics_counted_up_to_milliseconds",
            "Time of the newest click counted by this process, since the Unix epoch",
        )?;
        registry.register(Box::new(counted_up_to_ms.clone()))?;
        Ok(Self {
            clicks: counter("waypost_analytics_clicks_total", "Clicks counted")?,
            duplicates: counter(
                "waypost_analytics_duplicate_batches_total",
                "Batches that came again and were not counted again",
            )?,
            forgotten: counter(
                "waypost_analytics_forgotten_batches_total",
                "Missing batches that will not be counted should they still come",
            )?,
            dead_letters: counter(
                "waypost_analytics_dead_letters_total",
                "Messages that could not be read and were put aside",
            )?,
            counted_up_to_ms,
            fenced: counter(
                "waypost_analytics_fenced_total",
                "Portions given up, since another consumer had counted them",
            )?,
            retries: counter(
                "waypost_analytics_retries_total",
                "Transactions that failed and were tried again",
            )?,
            log_gaps: counter(
                "waypost_analytics_log_gaps_total",
                "Times that a partition did not go on where counting had ended",
            )?,
        })
    }

    pub(crate) fn applied(&self, applied: &Applied) {
        self.clicks.inc_by(applied.clicks);
        self.duplicates.inc_by(applied.duplicates);
        self.forgotten.inc_by(applied.forgotten);
        self.dead_letters.inc_by(applied.dead_letters);
        if let Some(newest) = applied.newest_ms {
            // Clicks of an outage come late and do not turn the time back.
            let newest = newest.max(self.counted_up_to_ms.get());
            self.counted_up_to_ms.set(newest);
        }
    }
}
