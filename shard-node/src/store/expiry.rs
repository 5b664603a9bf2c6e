//! Expired links that become tombstones.

use waypost_domain::{DomainId, Timestamp};

/// A place in the order of expiry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    pub valid_until: Timestamp,
    pub slug: String,
    pub domain: DomainId,
}

/// What a step of the purge has done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Purged {
    /// Links that are tombstones now.
    pub buried: usize,
    /// Rows that stay as they are: they cannot be read, or bear no signature of ours.
    pub damaged: usize,
    /// Where the next step goes on; unset: at the end.
    pub next: Option<Expired>,
}
