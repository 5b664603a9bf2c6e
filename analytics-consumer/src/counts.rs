//! The counts of a day as they are stored: by hour, and the most frequent values of
//! some dimensions.

use prost::bytes::Buf as _;
use prost::encoding::{decode_varint, encode_varint};

use crate::top::Top;

/// The first byte of what is stored.
const VERSION: u8 = 1;

pub(crate) const HOURS: usize = 24;

/// What the clicks of people on a link are told apart by, in the order in which it is
/// stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dimension {
    Referrer,
    Country,
    Device,
    Browser,
    Os,
    Language,
}

pub(crate) const DIMENSIONS: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Clicks {
    pub(crate) clicks: u64,
    /// Of these, by programs.
    pub(crate) bots: u64,
}

impl std::ops::AddAssign for Clicks {
    fn add_assign(&mut self, other: Self) {
        self.clicks += other.clicks;
        self.bots += other.bots;
    }
}

/// Of one link or one tenant on one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counts<'a> {
    pub(crate) hours: [Clicks; HOURS],
    pub(crate) tops: Vec<Top<'a>>,
}

impl<'a> Counts<'a> {
    pub(crate) fn new(tops: usize) -> Self {
        Self {
            hours: [Clicks::default(); HOURS],
            tops: vec![Top::default(); tops],
        }
    }

    /// From what was stored; none if it is none with so many tops.
    pub(crate) fn read(mut bytes: &'a [u8], tops: usize) -> Option<Self> {
        let mut counts = Self::new(0);
        let [VERSION, a, b, c, rest @ ..] = bytes else {
            return None;
        };
        let (set, rest) = (u32::from_be_bytes([0, *a, *b, *c]), rest);
        bytes = rest;
        for (hour, clicks) in counts.hours.iter_mut().enumerate() {
            if set >> hour & 1 == 1 {
                clicks.clicks = decode_varint(&mut bytes).ok()?;
                clicks.bots = decode_varint(&mut bytes).ok()?;
            }
        }
        for _ in 0..tops {
            counts.tops.push(Top::read(&mut bytes)?);
        }
        (!bytes.has_remaining()).then_some(counts)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, 0, 0, 0];
        let mut set = 0_u32;
        for (hour, clicks) in self.hours.iter().enumerate() {
            if *clicks != Clicks::default() {
                set |= 1 << hour;
                encode_varint(clicks.clicks, &mut bytes);
                encode_varint(clicks.bots, &mut bytes);
            }
        }
        bytes[1..4].copy_from_slice(&set.to_be_bytes()[1..]);
        for top in &self.tops {
            top.write(&mut bytes);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_back_and_a_few_clicks_take_a_few_bytes() {
        let mut counts = Counts::new(DIMENSIONS);
        let clicks = Clicks { clicks: 3, bots: 1 };
        counts.hours[0] = clicks;
        counts.hours[23] = clicks;
        counts.tops[Dimension::Referrer as usize].add(&mut [(b"example.com", 2), (b"", 1)]);
        counts.tops[Dimension::Language as usize].add(&mut [(b"de", 4)]);
        let bytes = counts.to_bytes();
        assert!(bytes.len() < 50, "{}", bytes.len());
        assert_eq!(Counts::read(&bytes, DIMENSIONS), Some(counts));
        for cut in 0..bytes.len() {
            assert_eq!(Counts::read(&bytes[..cut], DIMENSIONS), None);
        }
        assert_eq!(Counts::read(&[&bytes[..], &[0]].concat(), DIMENSIONS), None);
        assert_eq!(
            Counts::read(&[&[2], &bytes[1..]].concat(), DIMENSIONS),
            None
        );
    }
}
