//! Leases of visits, for links with `max_visits`.

use uuid::Uuid;
use waypost_domain::{Link, LinkId, LinkKey, State};

use super::PrefixOwner;

/// The most that one lease grants: as many are lost with the gateway that holds it.
const MAX_LEASE: u64 = 1_000;

/// So many of the last visits are leased one by one, so that none of them waits at one
/// gateway while another has visitors.
const ONE_BY_ONE: u64 = 100;

/// Requests that gave visits back and are remembered. A gateway repeats a request
/// within seconds, and hardly any two of its requests give back.
const MAX_RETURNS: usize = 32;

/// Asks for visits of one life of a slug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub key: LinkKey,
    pub link_id: LinkId,
    /// 0: only gives back.
    pub wanted: u32,
    /// Names the request, however often it is tried.
    pub lease_id: Uuid,
    /// Visits of earlier leases that will not be made.
    pub returned: u32,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leased {
    Granted(u32),
    /// None is left.
    UsedUp(Box<Link>),
    /// The slug has no such life, or that has no limit.
    Absent,
    Moved(PrefixOwner),
    /// Its prefix is about to move to another shard: nothing was done.
    Frozen,
    /// Its row was not written by us.
    Damaged,
}

/// What was leased of one life's visits, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) link_id: Uuid,
    pub(super) leased: u64,
    /// The last lease, and what it granted.
    pub(super) lease_id: Uuid,
    pub(super) granted: u32,
    /// The latest requests that gave back, the last one first, 16 bytes each.
    pub(super) returns: Vec<u8>,
}

impl Account {
    pub(super) fn new(link_id: LinkId) -> Self {
        Self {
            link_id: link_id.0,
            leased: 0,
            // Nobody's request has this name: theirs are random.
            lease_id: Uuid::nil(),
            granted: 0,
            returns: Vec::new(),
        }
    }

    /// How many visits a link has; `None` if the lease is not about it, or it has no
    /// limit.
    pub(super) fn limit(link: &Link, lease: &Lease) -> Option<u64> {
        let is_it = link.id == lease.link_id && link.state != State::Deleted;
        link.max_visits.filter(|_| is_it)
    }

    /// Leases visits of a link that has `max` of them; `None` if none is left. Never
    /// is more leased than that, however often a request comes.
    pub(super) fn lease(&mut self, max: u64, lease: &Lease) -> Option<u32> {
        if self.lease_id == lease.lease_id {
            return Some(self.granted);
        }
        self.take_back(lease);
        if lease.wanted == 0 {
            return Some(0);
        }
        let left = max.saturating_sub(self.leased);
        let granted = match left {
            0 => return None,
            1..=ONE_BY_ONE => 1,
            _ => (left - ONE_BY_ONE).min(MAX_LEASE).min(lease.wanted.into()),
        };
        self.leased += granted;
        self.granted = granted as u32;
        self.lease_id = lease.lease_id;
        Some(self.granted)
    }

    fn take_back(&mut self, lease: &Lease) {
        let id = lease.lease_id.as_bytes();
        if lease.returned == 0 || self.returns.chunks(id.len()).any(|known| known == id) {
            return;
        }
        self.leased = self.leased.saturating_sub(lease.returned.into());
        self.returns.splice(..0, *id);
        self.returns.truncate(MAX_RETURNS * id.len());
    }
}

#[cfg(test)]
mod tests {
    use waypost_domain::{DomainId, Slug};

    use super::*;

    fn lease(wanted: u32, returned: u32) -> Lease {
        Lease {
            key: LinkKey {
                domain: DomainId::MAIN,
                slug: Slug::parse("abcdefgh").unwrap(),
            },
            link_id: LinkId(Uuid::from_u128(1)),
            wanted,
            lease_id: Uuid::new_v4(),
            returned,
        }
    }

    #[test]
    fn the_last_hundred_are_leased_one_by_one_and_none_beyond() {
        let mut account = Account::new(LinkId(Uuid::from_u128(1)));
        let mut grants = Vec::new();
        while let Some(granted) = account.lease(2_150, &lease(5_000, 0)) {
            grants.push(granted);
        }
        assert_eq!(grants[..3], [1_000, 1_000, 50]);
        assert_eq!(grants[3..], [1; 100]);
        // A higher limit keeps what was leased, and so does a lower one.
        assert_eq!(account.lease(2_151, &lease(9, 0)), Some(1));
        assert_eq!(account.lease(10, &lease(9, 0)), None);
        assert_eq!(account.leased, 2_151);
    }

    #[test]
    fn a_repeated_request_gets_and_gives_back_once() {
        let mut account = Account::new(LinkId(Uuid::from_u128(1)));
        assert_eq!(account.lease(1_000, &lease(500, 0)), Some(500));
        let (first, other) = (lease(10, 300), lease(10, 100));
        assert_eq!(account.lease(1_000, &first), Some(10));
        assert_eq!(account.leased, 210);
        assert_eq!(account.lease(1_000, &first), Some(10));
        assert_eq!(account.leased, 210);
        // Another was served meanwhile: the retry gets a lease of its own.
        assert_eq!(account.lease(1_000, &other), Some(10));
        assert_eq!(account.lease(1_000, &first), Some(10));
        assert_eq!(account.leased, 130);
        assert_eq!(account.lease(1_000, &lease(0, 1_000)), Some(0));
        assert_eq!(account.leased, 0);
        for _ in 0..100 {
            account.lease(1_000, &lease(0, 1));
        }
        assert_eq!(account.returns.len(), MAX_RETURNS * 16);
    }
}
