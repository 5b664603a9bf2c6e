//! The testbed's own parts do what tests of the cluster rest on.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod broker;
mod cluster;
mod guardian;
mod patience;
mod postgres;
mod proxy;
mod redis_cluster;
mod standbys;
