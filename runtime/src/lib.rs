//! The life of a process: configuration, logs, traces, metrics, the admin port, watched
//! files, drain.
//!
//! A binary's `main` is one call of [`main`], with a function that binds, builds,
//! serves and drains.

pub mod admin;
pub mod config;
#[cfg(feature = "database")]
pub mod database;
#[cfg(feature = "grpc")]
pub mod grpc;
pub mod kafka;
mod logs;
pub mod metrics;
mod process;
#[cfg(feature = "redis")]
pub mod redis;
pub mod secrets;
mod shutdown;
#[cfg(feature = "grpc")]
pub mod tls;
pub mod traces;
pub mod watched;

pub use process::{Error, Process, bind, main, with_causes};
pub use shutdown::Shutdown;
