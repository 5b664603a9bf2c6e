//! Tests that load a whole machine, or judge what a cluster does on one that is not loaded.
//! `cargo xtask test` runs them after all others; each waits for the one before it.

mod handover;
pub(super) mod logs;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Held for as long as a test of these takes.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
