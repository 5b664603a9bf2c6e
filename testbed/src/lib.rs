//! A real local cluster on loopback: starts the parts, breaks them, removes them.
//!
//! Everything here blocks and needs no async runtime, so that the developer entry
//! builds in seconds; a test on a runtime calls it from `spawn_blocking` or before
//! the runtime starts.

pub mod error;
mod port;
mod postgres;
mod process;
mod program;
mod sandbox;
mod secret;

pub use error::{Error, Result};
pub use port::Port;
pub use postgres::Postgres;
pub use sandbox::Sandbox;
