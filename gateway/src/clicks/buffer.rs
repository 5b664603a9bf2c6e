//! Where clicks wait for the next commit.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus::IntCounter;

use super::hit::Taken;

/// Threads that record at the same time rarely share a buffer.
const BUFFERS: usize = 16;

/// Clicks in one buffer: 130,000 in all, or a second at the rate of a large
/// gateway; some 60 MB when full.
const CAPACITY: usize = 8_192;

/// What a buffer keeps allocated between commits.
const KEPT: usize = 256;

#[derive(Debug)]
pub(super) struct Buffers {
    buffers: [Mutex<Vec<Taken>>; BUFFERS],
    recorded: IntCounter,
    lost: IntCounter,
}

thread_local! {
    /// Which buffer this thread uses; spreads threads evenly.
    static BUFFER: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % BUFFERS
    };
}

impl Buffers {
    pub(super) fn new(recorded: IntCounter, lost: IntCounter) -> Self {
        Self {
            buffers: std::array::from_fn(|_| Mutex::new(Vec::new())),
            recorded,
            lost,
        }
    }

    pub(super) fn push(&self, click: Taken) {
        self.recorded.inc();
        let mut buffer = lock(&self.buffers[BUFFER.with(|buffer| *buffer)]);
        if buffer.len() < CAPACITY {
            buffer.push(click);
        } else {
            self.lost.inc();
        }
    }

    /// Everything that is in here, a recorder's clicks in order.
    pub(super) fn drain(&self) -> Vec<Taken> {
        let mut drained = Vec::new();
        for buffer in &self.buffers {
            // Swapped, so that no recorder waits while clicks are moved.
            let taken = {
                let mut buffer = lock(buffer);
                let fresh = Vec::with_capacity(buffer.len().min(KEPT));
                std::mem::replace(&mut *buffer, fresh)
            };
            drained.extend(taken);
        }
        drained
    }
}

fn lock(buffer: &Mutex<Vec<Taken>>) -> MutexGuard<'_, Vec<Taken>> {
    buffer.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clicks::hit::tests::taken;

    #[test]
    fn a_full_buffer_counts_what_it_cannot_take() {
        let counter = |name| IntCounter::new(name, "help").unwrap();
        let buffers = Buffers::new(counter("recorded"), counter("lost"));
        for _ in 0..CAPACITY + 3 {
            buffers.push(taken("abcdefgh"));
        }
        assert_eq!((buffers.recorded.get(), buffers.lost.get()), (8_195, 3));
        assert_eq!(buffers.drain().len(), CAPACITY);
        assert!(buffers.drain().is_empty());
    }
}
