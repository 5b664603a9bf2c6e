//! The developer entry as people and load tests use it: as a program.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;
mod cluster;
mod dashboards;
mod docker;
mod live;
mod metrics;
mod promql;
mod redis_join;
mod rules;
