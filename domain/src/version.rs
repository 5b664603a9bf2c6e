//! The version of a link: what every cache compares to know the newer value.

use crate::Epoch;

/// The number of low bits that count changes; the epoch is above them.
const COUNTER_BITS: u32 = 32;

/// Grows with each change of a link, over its deletions and new lives, and over
/// changes of its owner: the owner's epoch in the high 21 bits, a counter in the
/// low 32. Below 2^53, so that JSON numbers hold it. 0 is no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

impl Version {
    /// The version of a slug's first link under an owner of this epoch.
    #[must_use]
    pub const fn first(epoch: Epoch) -> Self {
        Self(((epoch.get() as u64) << COUNTER_BITS) | 1)
    }

    /// A stored version; `None` for 0 and from 2^53 on.
    #[must_use]
    pub const fn from_stored(version: u64) -> Option<Self> {
        if version == 0 || version >= 1 << 53 {
            None
        } else {
            Some(Self(version))
        }
    }

    /// The version after this one, written by an owner of this epoch.
    #[must_use]
    pub fn next(self, epoch: Epoch) -> Self {
        Self((self.0 + 1).max(Self::first(epoch).0))
    }

    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_never_runs_backwards() {
        let first = Version::first(Epoch::FIRST);
        let second = first.next(Epoch::FIRST);
        assert!(second > first);
        let third = second.next(Epoch::new(2).unwrap());
        assert_eq!(third, Version::first(Epoch::new(2).unwrap()));
        // An owner that has not yet heard of the newer epoch still goes up.
        assert!(third.next(Epoch::FIRST) > third);
        assert!(Version::first(Epoch::MAX).get() < 1 << 53);
    }
}
