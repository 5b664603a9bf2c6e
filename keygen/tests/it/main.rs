//! Keygen on real databases: no slug is ever handed out twice.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod counters;
#[cfg(feature = "postgres")]
mod process;
mod service;
