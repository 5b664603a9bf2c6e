//! Rows on their way out of a shard and into one.

use waypost_domain::Link;

use super::PrefixOwner;

/// A row with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transferred {
    pub link: Box<Link>,
    /// How many of the link's visits were leased.
    pub visits_leased: u64,
}

/// Some rows in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exported {
    pub rows: Vec<Transferred>,
    /// Rows that are left out: they cannot be read, or bear no signature of ours.
    pub damaged: usize,
}

/// What became of a row to take over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Imported {
    Written(Box<Link>),
    /// What is there is as new, or newer.
    Kept(Box<Link>),
    /// What is there is another tenant's.
    Conflict(Box<Link>),
    Moved(PrefixOwner),
    /// Its data cannot be stored, now or later.
    Refused,
    /// What is there is damaged, and not older.
    Damaged,
}
