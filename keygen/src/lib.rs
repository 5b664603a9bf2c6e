//! Leases of unique, unguessable slugs from durable counters.
//!
//! A lease moves the counters of its prefixes in one committed transaction and
//! only then turns the ranges that are now its own into slugs. So what a crash
//! costs is a range that nobody uses, never a slug that two callers hold.

#[cfg(feature = "postgres")]
mod config;
mod metrics;
#[cfg(feature = "postgres")]
mod serve;
mod service;
pub mod store;

#[cfg(feature = "postgres")]
pub use config::Options;
#[cfg(feature = "postgres")]
pub use serve::{serve, serve_on};
pub use service::Keygen;

/// A keygen on a SQLite file, for the all-in-one process.
///
/// # Errors
/// If the file cannot be opened or holds another schema.
#[cfg(feature = "sqlite")]
pub async fn open_sqlite(
    path: &std::path::Path,
    mint: waypost_domain::mint::Mint,
    registry: &waypost_runtime::metrics::Registry,
) -> Result<Keygen<store::SqliteCounters>, waypost_runtime::Error> {
    let store = store::SqliteCounters::open(path).await.map_err(|error| {
        waypost_runtime::Error::failed(format!("open the key counters {}", path.display()), error)
    })?;
    Keygen::new(store, mint, registry)
}

/// Registers all metrics of this service, for those who want to know which there are.
///
/// # Errors
/// If the registry has metrics of these names already.
pub fn register_metrics(
    registry: &waypost_runtime::metrics::Registry,
) -> waypost_runtime::metrics::Result<()> {
    metrics::Metrics::register(registry).map(drop)
}
