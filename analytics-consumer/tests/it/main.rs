//! Counting on real databases and a real broker: each click once, whatever happens.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod days;
mod histories;
#[cfg(feature = "sqlite")]
mod in_process;
mod rollups;
#[cfg(feature = "cluster")]
mod topic;
mod transfer;

/// Of a process of its own.
fn metrics() -> waypost_analytics_consumer::Metrics {
    let registry = waypost_runtime::metrics::Registry::new();
    waypost_analytics_consumer::Metrics::register(&registry).unwrap()
}
