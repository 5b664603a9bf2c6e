//! Counts every click once: from the click log to rollups, and answers statistics.
//!
//! Counts, the identities of the batches that are counted and the log's next offset
//! change in one transaction, so that nothing that happens between two statements
//! counts a click twice or not at all.

mod agent;
mod batch;
mod bots;
#[cfg(feature = "cluster")]
mod config;
#[cfg(feature = "cluster")]
mod consumer;
mod counts;
#[cfg(feature = "sqlite")]
mod in_process;
mod metrics;
mod seen;
#[cfg(feature = "cluster")]
mod serve;
mod service;
mod sketch;
mod stats;
pub mod store;
mod tally;
mod top;
mod trace;
mod transfer;

pub use batch::{Invalid, decode};
#[cfg(feature = "cluster")]
pub use config::Options;
#[cfg(feature = "sqlite")]
pub use in_process::{ApplyError, InProcess, open_sqlite};
pub use metrics::Metrics;
#[cfg(feature = "cluster")]
pub use serve::{serve, serve_on};
pub use service::Analytics;

/// Registers all metrics of this service, for those who want to know which there are.
///
/// # Errors
/// If the registry has metrics of these names already.
pub fn register_metrics(
    registry: &waypost_runtime::metrics::Registry,
) -> waypost_runtime::metrics::Result<()> {
    Metrics::register(registry).map(drop)
}
