//! Rows on their way out of a shard and into one.

use waypost_domain::{Link, State};
use waypost_proto::link as message;

use super::PrefixOwner;

/// A row with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transferred {
    pub link: Box<Link>,
    /// How many of the link's visits were leased.
    pub visits_leased: u64,
    /// What a link was when it was taken down, if it is and that is known. Not signed: it
    /// decides no answer before the operator lets the link up, and then leads nowhere else.
    pub before_block: Option<State>,
}

impl From<Transferred> for message::ExportedLink {
    fn from(row: Transferred) -> Self {
        Self {
            link: Some((*row.link).into()),
            visits_leased: row.visits_leased,
            state_before_block: row.before_block.map_or(0, |state| state as i32),
        }
    }
}

/// Some rows in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exported {
    pub rows: Vec<Transferred>,
    /// Rows that are left out: they cannot be read, or bear no signature of ours.
    pub damaged: usize,
    /// The slugs of the first of these, as they are stored.
    pub first_damaged: Vec<String>,
}

/// Damaged rows of a page that are named: all may be damaged.
const MAX_NAMED: usize = 20;

impl Exported {
    /// Notes a row that is left out.
    pub(super) fn leave_out(&mut self, slug: &str) {
        self.damaged += 1;
        if self.first_damaged.len() < MAX_NAMED {
            self.first_damaged.push(slug.to_owned());
        }
    }
}

/// What became of a row to take over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Imported {
    Written(Box<Link>),
    /// What is there is as new, or newer.
    Kept(Box<Link>),
    /// What is there is another link, perhaps another tenant's.
    Conflict(Box<Link>),
    Moved(PrefixOwner),
    /// Its data cannot be stored, now or later.
    Refused,
    /// What is there is damaged, and not older.
    Damaged,
}
