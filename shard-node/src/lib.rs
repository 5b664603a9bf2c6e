//! The storage node of one shard: links in Postgres or SQLite, over gRPC.
//!
//! [`store`] keeps links; [`lane`] runs many requests over few database sessions;
//! [`relay`] tells changes on; [`service`] is the gRPC side of all that. [`mover`] is an
//! operator's tool, which moves prefixes from one shard to another.

pub mod cache;
pub mod changes;
#[cfg(feature = "cluster")]
pub mod config;
#[cfg(feature = "cluster")]
mod handover;
pub mod lane;
mod lookout;
mod measure;
pub mod metrics;
#[cfg(feature = "cluster")]
pub mod mover;
#[cfg(feature = "cluster")]
mod peers;
mod purge;
pub mod relay;
#[cfg(feature = "cluster")]
mod serve;
pub mod service;
#[cfg(feature = "sqlite")]
mod standalone;
pub mod store;

#[cfg(feature = "cluster")]
pub use serve::{serve, serve_on};
#[cfg(feature = "sqlite")]
pub use standalone::{OpenError, open_sqlite};

/// Registers all metrics of this service, for those who want to know which there are.
///
/// # Errors
/// If the registry has metrics of these names already.
pub fn register_metrics(
    registry: &waypost_runtime::metrics::Registry,
) -> waypost_runtime::metrics::Result<()> {
    metrics::Metrics::register(registry).map(drop)
}
