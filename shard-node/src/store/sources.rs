//! What creates that may be repeated meet: the live links that were made with their
//! sources, and the requests that an `Idempotency-Key` was used for. Free of I/O.

use std::collections::HashMap;

use waypost_domain::{Link, NewLink};

use super::Created;
use super::rules::{self, OnSource};

/// The part of a source that names it.
pub(super) type Id = [u8; 16];
type Digest = [u8; 16];

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
