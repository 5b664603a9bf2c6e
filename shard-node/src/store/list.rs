//! A place in a tenant's links, newest first.

use waypost_domain::{Link, Timestamp};

/// A place in the order of a list: later creation first, then lower slug. Any text may
/// stand for the slug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPlace {
    pub created_at: Timestamp,
    pub slug: String,
}

/// A row that a list comes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub place: ListPlace,
    pub entry: Entry,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Link(Box<Link>),
    /// Another shard owns its prefix, and lists it.
    Moved,
    /// It cannot be read.
    Damaged,
}
