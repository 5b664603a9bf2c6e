//! A budget for retries: when many calls fail, trying each again would only add
//! load to what is already in trouble.

use std::sync::atomic::{AtomicU32, Ordering};

/// Calls that pay for one retry: retries add at most a tenth.
const CALLS_PER_RETRY: u32 = 10;

/// Retries that may be saved up, so that the loss of a node at low load is
/// covered in full.
const MOST_SAVED: u32 = 50;

/// Counted in tenths of a retry.
#[derive(Debug)]
pub(crate) struct Budget(AtomicU32);

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicU32::new(MOST_SAVED * CALLS_PER_RETRY))
    }
}

impl Budget {
    /// A call is made.
    pub(crate) fn deposit(&self) {
        self.change(|saved| (saved < MOST_SAVED * CALLS_PER_RETRY).then_some(saved + 1));
    }

    /// Whether a retry may be made; takes it from the budget.
    pub(crate) fn withdraw(&self) -> bool {
        self.change(|saved| saved.checked_sub(CALLS_PER_RETRY))
    }

    fn change(&self, next: impl FnMut(u32) -> Option<u32>) -> bool {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_add_at_most_a_tenth_in_the_long_run() {
        let budget = Budget::default();
        while budget.withdraw() {}
        let retries = (0..1_000)
            .filter(|_| {
                budget.deposit();
                budget.withdraw()
            })
            .count();
        assert_eq!(retries, 100);
    }
}
