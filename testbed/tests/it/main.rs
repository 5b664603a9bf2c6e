//! The testbed's own parts do what tests of the cluster rest on.

mod broker;
mod guardian;
mod patience;
mod postgres;
mod proxy;
mod redis_cluster;
