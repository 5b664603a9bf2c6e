//! What a keygen counts.

use prometheus::IntCounter;
use waypost_proto::rpc_times::RpcTimes;
use waypost_runtime::metrics::{Label, Registry};

/// Cheap to clone: the numbers are shared.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) rpcs: RpcTimes,
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
        let requests = registry.counters(
            "waypost_keygen_requests_total",
            "Requests: those that got their slugs (leased) or moved counters (raised), those outside the limits (refused), those that the database did not answer (failed)",
            &[Label::one_of(
                "outcome",
                &["leased", "raised", "refused", "failed"],
            )],
        )?;
        Ok(Self {
            rpcs: RpcTimes::register(
                registry,
                "waypost_keygen_rpc_seconds",
                "Time of an RPC",
                &["lease_slugs", "raise_counters"],
            )?,
            leased: requests.with_label_values(&["leased"]),
            raised: requests.with_label_values(&["raised"]),
            refused: requests.with_label_values(&["refused"]),
            failed: requests.with_label_values(&["failed"]),
            slugs: registry.counter("waypost_keygen_slugs_total", "Slugs handed out")?,
            withheld: registry.counter(
                "waypost_keygen_slugs_withheld_total",
                "Slugs asked for and not given, since the prefix has none left in its epoch",
            )?,
        })
    }
}
