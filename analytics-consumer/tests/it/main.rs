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
