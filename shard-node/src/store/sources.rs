//! What creates that may be repeated meet: the live links that were made with their
//! sources, and the requests that an `Idempotency-Key` was used for. Free of I/O.

use std::collections::HashMap;

use waypost_domain::{Link, LinkKey, NewLink};

use super::rules::{self, OnSource};
use super::{Created, PrefixOwner};

/// The part of a source that names it.
pub(super) type Id = [u8; 16];
type Digest = [u8; 16];

/// Binds an Idempotency-Key to one request, wherever its link will live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The first slug that the source derives, which says whose claim it is to keep.
    pub key: LinkKey,
    pub id: [u8; 16],
    pub digest: [u8; 16],
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// Now, or earlier by the same request.
    Claimed,
    Reused,
    Moved(PrefixOwner),
    /// Its prefix is about to move to another shard: nothing was done.
    Frozen,
}

/// Whether a source is bound.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Held {
    Free,
    /// To this very request.
    Already,
    ByOther,
}

/// What is stored under some sources.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// By tenant and source; `None` where the row is damaged.
    live: HashMap<(String, Id), Option<Link>>,
    claimed: HashMap<Id, Digest>,
}

impl Sources {
    /// Notes a live link, over a damaged one of its source.
    pub(super) fn add(&mut self, link: Link) {
        if let Some(source) = link.source {
            let under = (link.tenant.clone(), source.id);
            let known = self.live.entry(under).or_default();
            known.get_or_insert(link);
        }
    }

    /// Notes a row that nobody can tell to be dead.
    pub(super) fn add_damaged(&mut self, tenant: String, source: Id) {
        self.live.entry((tenant, source)).or_default();
    }

    pub(super) fn add_claim(&mut self, source: Id, digest: Digest) {
        self.claimed.insert(source, digest);
    }

    /// Whether a source is bound, by a claim or by a link.
    pub(super) fn held(&self, claim: &Claim) -> Held {
        if let Some(claimed) = self.claimed.get(&claim.id) {
            return match *claimed == claim.digest {
                true => Held::Already,
                false => Held::ByOther,
            };
        }
        // Of a damaged row nobody can tell by which request it was made.
        let is_other = |link: &Option<Link>| {
            let source = link.as_ref().and_then(|link| link.source);
            source.and_then(|source| source.digest) != Some(claim.digest)
        };
        let mut links = self.live.iter();
        match links.any(|((_, id), link)| *id == claim.id && is_other(link)) {
            true => Held::ByOther,
            false => Held::Free,
        }
    }

    /// What a create is answered for its source; `None`: it goes on to its slug.
    pub(super) fn answer(&self, new: &NewLink) -> Option<Created> {
        let source = rules::sought(new)?;
        match self.live.get(&(new.tenant.clone(), source.id)) {
            Some(Some(found)) => {
                return Some(match rules::on_source(found, new) {
                    OnSource::Repeat => Created::Stored {
                        link: Box::new(found.clone()),
                        replaced: false,
                    },
                    OnSource::Existing => Created::Existing(Box::new(found.clone())),
                    OnSource::Reused => Created::Reused,
                });
            }
            Some(None) => return Some(Created::Damaged),
            None => {}
        }
        let claimed = self.claimed.get(&source.id)?;
        (source.digest.as_ref() != Some(claimed)).then_some(Created::Reused)
    }
}
