//! Where clicks wait for the next commit.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus::IntCounter;

use super::hit::Taken;

/// Clicks in all buffers: more than a second at the highest rate that was seen of two
/// cores, for when the disk or the machine has no time for us; some 60 MB when full.
const CAPACITY: usize = 262_144;

/// The most that a buffer keeps allocated between commits: what a busy thread records
/// from one to the next.
const KEPT: usize = 8_192;

#[derive(Debug)]
pub(super) struct Buffers {
    buffers: Box<[Mutex<Vec<Taken>>]>,
    recorded: IntCounter,
    lost: IntCounter,
}

thread_local! {
    /// The number of this thread among those that have recorded a click: which buffer
    /// it uses.
    static NUMBER: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    };
}

impl Buffers {
    /// Buffers for so many threads that record: then none shares one.
    pub(super) fn new(threads: usize, recorded: IntCounter, lost: IntCounter) -> Self {
        Self {
            buffers: (0..threads.max(1)).map(|_| Mutex::default()).collect(),
            recorded,
            lost,
        }
    }

    pub(super) fn push(&self, click: Taken) {
        let count = self.buffers.len();
        let mut buffer = lock(&self.buffers[NUMBER.with(|number| number % count)]);
        if buffer.len() < CAPACITY / count {
            buffer.push(click);
        } else {
            self.recorded.inc();
            self.lost.inc();
        }
    }

    /// Everything that is in here, a recorder's clicks in order.
    pub(super) fn drain(&self) -> Vec<Taken> {
        let mut drained = Vec::new();
        for buffer in &*self.buffers {
            // Swapped, so that no recorder waits while clicks are moved.
            let taken = {
                let mut buffer = lock(buffer);
                let fresh = Vec::with_capacity(buffer.len().min(KEPT));
                std::mem::replace(&mut *buffer, fresh)
            };
            drained.extend(taken);
        }
        // Here and not for each click: threads would take the counter from each other.
        self.recorded.inc_by(drained.len() as u64);
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
        let buffers = Buffers::new(4, counter("recorded"), counter("lost"));
        for _ in 0..CAPACITY / 4 + 3 {
            buffers.push(taken("abcdefgh"));
        }
        assert_eq!(buffers.drain().len(), 65_536);
        assert_eq!((buffers.recorded.get(), buffers.lost.get()), (65_539, 3));
        assert!(buffers.drain().is_empty());
    }
}
