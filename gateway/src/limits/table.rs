//! What is kept of those that a limit holds for, in bounded memory.
//!
//! A subject has eight places, which its hash chooses. Where all are taken, who has
//! taken the least gives way: many that come once cannot push out one that is limited.

use std::sync::{Mutex, PoisonError};

/// Places for one hash.
const WAYS: usize = 8;

/// 65,536 subjects at the same time, in 3 MiB.
const SETS: usize = 8_192;

/// Of one subject; times are in microseconds since the process began.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cell {
    key: u64,
    /// See [`super::rate`].
    pub(crate) paid_at: u64,
    /// Nothing is granted before.
    pub(super) shut_until: u64,
    /// Granted by the shared limit and not used yet, and how long that is believed.
    #[cfg(feature = "cluster")]
    pub(super) allotted: u32,
    #[cfg(feature = "cluster")]
    pub(super) allotted_until: u64,
}

impl Cell {
    /// When it will be as good as new.
    fn forgotten_at(&self) -> u64 {
        self.paid_at.max(self.shut_until)
    }
}

#[derive(Debug)]
pub(crate) struct Table {
    sets: Box<[Mutex<[Cell; WAYS]>]>,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self {
            sets: (0..SETS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Works with a subject's cell, which is new if it has none.
    pub(crate) fn with<T>(&self, key: u64, work: impl FnOnce(&mut Cell) -> T) -> T {
        let mut set = self.set(key);
        let place = set
            .iter()
            .position(|cell| cell.key == key)
            .unwrap_or_else(|| {
                let least = (0..WAYS).min_by_key(|way| set[*way].forgotten_at());
                let place = least.expect("there are places");
                set[place] = Cell {
                    key,
                    ..Cell::default()
                };
                place
            });
        work(&mut set[place])
    }

    /// Looks at a subject's cell without giving it one.
    pub(crate) fn look<T>(&self, key: u64, work: impl FnOnce(&Cell) -> T) -> Option<T> {
        let set = self.set(key);
        set.iter().find(|cell| cell.key == key).map(work)
    }

    fn set(&self, key: u64) -> std::sync::MutexGuard<'_, [Cell; WAYS]> {
        self.sets[key as usize % SETS]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_that_come_once_never_push_out_one_that_is_limited() {
        let table = Table::new();
        table.with(7, |cell| cell.paid_at = 1_000_000);
        table.with(7 + SETS as u64, |cell| cell.shut_until = 1_000_000);
        for n in 2..1_000 {
            table.with(7 + n * SETS as u64, |cell| cell.paid_at = n);
        }
        assert_eq!(table.look(7, |cell| cell.paid_at), Some(1_000_000));
        let shut = table.look(7 + SETS as u64, |cell| cell.shut_until);
        assert_eq!(shut, Some(1_000_000));
    }

    #[test]
    fn a_subject_finds_what_it_left_and_no_other_subjects() {
        let table = Table::new();
        table.with(1, |cell| cell.paid_at = 5);
        table.with(1 + SETS as u64, |cell| assert_eq!(cell.paid_at, 0));
        table.with(1, |cell| assert_eq!(cell.paid_at, 5));
        assert!(table.look(2, |_| ()).is_none());
    }
}
