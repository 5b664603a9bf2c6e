//! A real local cluster on loopback: starts the parts, breaks them, removes them.
//!
//! Everything here blocks and needs no async runtime, so that the developer entry
//! builds in seconds; a test on a runtime calls it from `spawn_blocking` or before
//! the runtime starts.

pub mod broker;
pub mod cache;
pub mod certificates;
pub mod cluster;
mod error;
pub mod http;
pub mod kubernetes;
pub mod mount;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod pip;
mod port;
pub mod postgres;
mod process;
mod program;
pub mod prometheus;
pub mod proxy;
mod redis_cluster;
mod resp;
mod sandbox;
pub mod schemathesis;
mod secret;
mod server;
pub mod service;
pub mod token;

pub use broker::Broker;
pub use cluster::Cluster;
pub use error::{Error, Result};
pub use port::Port;
pub use postgres::Postgres;
pub use proxy::Proxy;
pub use redis_cluster::{RedisCluster, RedisNode};
pub use sandbox::Sandbox;
pub use server::Server;
pub use service::Service;
