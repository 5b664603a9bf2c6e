//! What a keygen counts.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// Cheap to clone: the numbers are shared.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// Requests that got their slugs.
    pub(crate) leased: IntCounter,
    /// Requests that moved counters to where others stand.
    pub(crate) raised: IntCounter,
    /// Requests outside the limits: a caller of another release, or a mistake.
    pub(crate) refused: IntCounter,
    /// Requests that the database did not answer.
    pub(crate) failed: IntCounter,
    /// Slugs handed out.
    pub(crate) slugs: IntCounter,
    /// Slugs asked for and not given: the prefix has none left in this epoch, or
    /// the caller's epoch is over.
    pub(crate) withheld: IntCounter,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let requests = IntCounterVec::new(
            Opts::new(
                "waypost_keygen_requests_total",
                "Requests by outcome: leased, raised, refused, failed",
            ),
            &["outcome"],
        )?;
        let slugs = IntCounter::new("waypost_keygen_slugs_total", "Slugs handed out")?;
        let withheld = IntCounter::new(
            "waypost_keygen_slugs_withheld_total",
            "Slugs asked for and not given, since the prefix has none left in its epoch",
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(slugs.clone()))?;
        registry.register(Box::new(withheld.clone()))?;
        Ok(Self {
            leased: requests.with_label_values(&["leased"]),
            raised: requests.with_label_values(&["raised"]),
            refused: requests.with_label_values(&["refused"]),
            failed: requests.with_label_values(&["failed"]),
            slugs,
            withheld,
        })
    }
}
