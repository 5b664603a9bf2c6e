//! The words of sharding.
//!
//! * **prefix**: the first two characters of a slug; the unit that moves.
//! * **shard**: one Postgres (or SQLite) database and the shard-node processes
//!   before it. It owns a set of prefixes.
//! * **epoch**: counts the owners that a prefix has had. It grows with each
//!   change of owner, so of two statements about a prefix the one with the
//!   higher epoch is right.
//! * **home**: the region where a shard's primary is.

use std::fmt;

/// Names a shard: 1 to 32 characters of `[0-9a-z-]`. It never changes, unlike
/// the addresses of the shard's nodes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(Box<str>);

impl ShardId {
    pub const MAX_LEN: usize = 32;

    /// Checks a text and takes it; `None` if it is not of the shape above.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let shape = (1..=Self::MAX_LEN).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_digit() || b.is_ascii_lowercase() || b == b'-');
        shape.then(|| Self(text.into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShardId({})", self.0)
    }
}

/// How many owners a prefix has had, the present one included. 0 stands for
/// "as the distributed map says", which any owner's word overrules; owners
/// begin at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u32);

impl Epoch {
    /// The epoch of a map that only seeds.
    pub const SEED: Self = Self(0);
    /// The epoch of a prefix's first owner.
    pub const FIRST: Self = Self(1);
    /// 21 bits: an epoch is the high part of a [`crate::Version`].
    pub const MAX: Self = Self((1 << 21) - 1);

    /// `None` above [`Epoch::MAX`].
    #[must_use]
    pub fn new(epoch: u32) -> Option<Self> {
        (epoch <= Self::MAX.0).then_some(Self(epoch))
    }

    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}
