//! Which batches of a producer are counted: all below a mark, but for some that are
//! missing.

use std::ops::Range;

/// The most ranges of missing batches that are remembered of one producer. A
/// gateway has some megabytes in flight, so far fewer arrive out of order; long
/// gaps are one range.
const MAX_MISSING: usize = 256;

/// The sequences of one (gateway, boot, partition) that are counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Seen {
    /// One beyond the highest that is counted.
    next: u64,
    /// Below `next` and not counted; in order, apart and not empty.
    missing: Vec<Range<u64>>,
    /// How many were missing for so long that they are taken for lost.
    forgotten: u64,
}

impl Seen {
    /// From what was stored: the highest counted sequence, and starts and ends of
    /// what is missing.
    pub(crate) fn from_stored(high_water: i64, missing: &[i64]) -> Self {
        let missing = missing
            .chunks_exact(2)
            .map(|pair| pair[0].cast_unsigned()..pair[1].cast_unsigned())
            .collect();
        Self {
            next: high_water.cast_unsigned().wrapping_add(1),
            missing,
            forgotten: 0,
        }
    }

    /// The other way round. At least one must be counted.
    pub(crate) fn to_stored(&self) -> (i64, Vec<i64>) {
        let missing = self.missing.iter();
        let missing = missing.flat_map(|range| [range.start, range.end].map(u64::cast_signed));
        (self.next.wrapping_sub(1).cast_signed(), missing.collect())
    }

    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Whether the batch is to be counted; from now on it is.
    pub(crate) fn admit(&mut self, sequence: u64) -> bool {
        if sequence >= self.next {
            if sequence > self.next {
                self.missing.push(self.next..sequence);
            }
            self.next = sequence + 1;
        } else {
            let at = self.missing.partition_point(|range| range.end <= sequence);
            let Some(range) = self.missing.get(at).filter(|r| r.contains(&sequence)) else {
                return false;
            };
            let halves = [range.start..sequence, sequence + 1..range.end];
            let halves = halves.into_iter().filter(|half| !half.is_empty());
            self.missing.splice(at..=at, halves);
        }
        while self.missing.len() > MAX_MISSING {
            // The oldest is the least likely to come.
            let oldest = self.missing.remove(0);
            self.forgotten += oldest.end - oldest.start;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_sequence_is_admitted_once_whatever_the_order(
            sequences in proptest::collection::vec(0..200_u64, 0..400),
        ) {
            let mut seen = Seen::default();
            let mut counted = HashSet::new();
            for sequence in sequences {
                prop_assert_eq!(seen.admit(sequence), counted.insert(sequence));
                let (high_water, missing) = seen.to_stored();
                prop_assert_eq!(&Seen::from_stored(high_water, &missing), &seen);
            }
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_given_up_is_counted() {
        let mut seen = Seen::default();
        for gap in 1..=300 {
            assert!(seen.admit(gap * 10));
        }
        assert_eq!(seen.missing.len(), MAX_MISSING);
        // Of the first gap 10 were missing, of each other 9.
        assert_eq!(seen.forgotten(), 10 + 43 * 9);
        assert!(!seen.admit(5), "given up");
        assert!(seen.admit(2_995));
    }
}
