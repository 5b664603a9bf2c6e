//! The shard node against real databases.

#![expect(clippy::unwrap_used, reason = "in a test, that is how to fail")]

#[cfg(feature = "cluster")]
mod cluster;
mod conformance;
mod fixture;
#[cfg(feature = "cluster")]
mod handover;
#[cfg(feature = "cluster")]
mod life;
#[cfg(feature = "cluster")]
mod node;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "cluster")]
mod redis_access;
#[cfg(feature = "cluster")]
mod replicas;
#[cfg(feature = "sqlite")]
mod sqlite;
