//! The most frequent values of many, in bounded room.
//!
//! The Space-Saving algorithm (Metwally, Agrawal, El Abbadi, 2005): a value for which
//! there is no room takes the place of the least frequent one, and notes how much of
//! its count it took over. So a value with more than 1 in [`MAX_VALUES`] of the clicks
//! is always held, and no count is ever told too high.

use prost::bytes::Buf;
use prost::encoding::{decode_varint, encode_varint};

/// The values that are held.
pub(crate) const MAX_VALUES: usize = 100;

/// Of the values that come at once, the most frequent of which are looked at one by
/// one; the others are not among the most frequent of all for it.
const MAX_AT_ONCE: usize = 4 * MAX_VALUES;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Top<'a> {
    entries: Vec<Entry<'a>>,
    /// Clicks whose value is not known any more.
    other: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry<'a> {
    value: &'a [u8],
    count: u64,
    /// Of the count, what may be other values'.
    inherited: u64,
}

impl<'a> Top<'a> {
    /// From the front of what was stored; none if it is none.
    pub(crate) fn read(bytes: &mut &'a [u8]) -> Option<Self> {
        let length = decode_varint(bytes).ok()?;
        let other = decode_varint(bytes).ok()?;
        let mut entries = Vec::with_capacity(length.min(MAX_VALUES as u64) as usize);
        for _ in 0..length {
            let size = usize::try_from(decode_varint(bytes).ok()?).ok()?;
            let value = bytes.get(..size)?;
            bytes.advance(size);
            let (count, inherited) = (decode_varint(bytes).ok()?, decode_varint(bytes).ok()?);
            entries.push(Entry {
                value,
                count,
                inherited: inherited.min(count),
            });
        }
        Some(Self { entries, other })
    }

    pub(crate) fn write(&self, into: &mut Vec<u8>) {
        encode_varint(self.entries.len() as u64, into);
        encode_varint(self.other, into);
        for entry in &self.entries {
            encode_varint(entry.value.len() as u64, into);
            into.extend_from_slice(entry.value);
            encode_varint(entry.count, into);
            encode_varint(entry.inherited, into);
        }
    }

    /// Adds counts of different values; changes their order.
    pub(crate) fn add(&mut self, values: &mut [(&'a [u8], u64)]) {
        // The most frequent first, so that the others do not drive them out.
        let descending = |a: &(_, u64), b: &(_, u64)| b.1.cmp(&a.1);
        let looked_at = match values.len() > MAX_AT_ONCE {
            true => {
                let (most, at, rest) = values.select_nth_unstable_by(MAX_AT_ONCE, descending);
                self.other += at.1 + rest.iter().map(|(_, count)| count).sum::<u64>();
                most
            }
            false => values,
        };
        if self.entries.len() + looked_at.len() > MAX_VALUES {
            looked_at.sort_unstable_by(descending);
        }
        for (value, count) in looked_at {
            self.add_one(value, *count);
        }
    }

    fn add_one(&mut self, value: &'a [u8], count: u64) {
        if let Some(held) = self.entries.iter_mut().find(|entry| entry.value == value) {
            held.count += count;
        } else if self.entries.len() < MAX_VALUES {
            self.entries.push(Entry {
                value,
                count,
                inherited: 0,
            });
        } else if let Some(least) = self.entries.iter_mut().min_by_key(|entry| entry.count) {
            *least = Entry {
                value,
                count: least.count + count,
                inherited: least.count,
            };
        }
    }

    /// The values with what is surely theirs, in no order.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&'a [u8], u64)> {
        let sure = |entry: &Entry<'a>| (entry.value, entry.count - entry.inherited);
        self.entries
            .iter()
            .map(sure)
            .filter(|(_, count)| *count > 0)
    }

    /// Clicks that are not surely any value's.
    pub(crate) fn other(&self) -> u64 {
        let inherited = self.entries.iter().map(|entry| entry.inherited);
        self.other + inherited.sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn total(top: &Top<'_>) -> u64 {
        top.values().map(|(_, count)| count).sum::<u64>() + top.other()
    }

    #[test]
    fn ten_thousand_values_leave_room_for_the_frequent_ones() {
        let names: Vec<String> = (0..10_000).map(|n| format!("host-{n}.example")).collect();
        let mut top = Top::default();
        for round in 0..100 {
            // Two that are followed a lot, among hundreds that come once.
            let mut values: Vec<(&[u8], u64)> = names[round * 100..(round + 1) * 100]
                .iter()
                .map(|name| (name.as_bytes(), 1))
                .collect();
            values.extend([(&b"large.example"[..], 50), (b"small.example", 5)]);
            top.add(&mut values);
        }
        assert_eq!(total(&top), 100 * 155);
        let counts: BTreeMap<&[u8], u64> = top.values().collect();
        assert_eq!(counts[&b"large.example"[..]], 5_000);
        assert!((400..=500).contains(&counts[&b"small.example"[..]]));
        let mut bytes = Vec::new();
        top.write(&mut bytes);
        assert!(bytes.len() < MAX_VALUES * 32, "{}", bytes.len());
    }

    proptest! {
        #[test]
        fn nothing_is_told_too_high_and_nothing_is_lost(
            portions in proptest::collection::vec(
                proptest::collection::btree_map(0..600_u16, 1..50_u64, 0..500), 0..12),
        ) {
            let names: Vec<[u8; 2]> = (0..600_u16).map(u16::to_be_bytes).collect();
            let (mut truth, mut clicks) = (BTreeMap::new(), 0);
            let mut stored = Vec::new();
            Top::default().write(&mut stored);
            for portion in &portions {
                let mut top = Top::read(&mut &stored[..]).unwrap();
                let mut values: Vec<(&[u8], u64)> =
                    portion.iter().map(|(n, count)| (&names[usize::from(*n)][..], *count)).collect();
                top.add(&mut values);
                for (n, count) in portion {
                    *truth.entry(names[usize::from(*n)].to_vec()).or_insert(0) += count;
                    clicks += count;
                }
                let mut bytes = Vec::new();
                top.write(&mut bytes);
                stored = bytes;
            }
            let top = Top::read(&mut &stored[..]).unwrap();
            prop_assert_eq!(total(&top), clicks);
            let told: BTreeMap<&[u8], u64> = top.values().collect();
            for (value, count) in &told {
                prop_assert!(*count <= truth[*value]);
            }
            if truth.len() <= MAX_VALUES {
                prop_assert_eq!(top.other(), 0);
            }
            for (value, count) in &truth {
                // Half as much again for what did not come one by one.
                if *count > clicks * 3 / 2 / MAX_VALUES as u64 {
                    prop_assert!(top.entries.iter().any(|entry| entry.value == &value[..]));
                }
            }
        }
    }
}
