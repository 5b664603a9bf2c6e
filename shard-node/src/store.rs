//! Where a shard's links are kept, and what each way of keeping them must do.
//!
//! A store opens sessions; a session does one thing at a time. What runs many
//! requests over few sessions is [`crate::lane`].

use std::collections::BTreeSet;
use std::time::Duration;

use waypost_domain::{
    ChangeId, Epoch, Link, LinkKey, NewLink, Patch, Prefix, ShardId, Timestamp, Version,
    shard_map::ShardMap,
};
use waypost_proto::link as message;

mod columns;
mod error;
mod expiry;
mod list;
#[cfg(feature = "postgres")]
pub mod postgres;
mod rules;
mod sources;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod transfer;
mod visits;

pub use error::Error;
pub use expiry::{Expired, Purged};
pub use list::{Entry, ListPlace, Listed};
pub use rules::{KEY_LIFE, QUARANTINE};
pub use sources::{Claim, Claimed};
pub use transfer::{Exported, Imported, Transferred};
pub use visits::{Lease, Leased};

/// What a session is for, as far as a store treats sessions differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Read,
    Write,
    Relay,
}

/// A shard's database. Cheap to clone.
pub trait LinkStore: Clone + Send + Sync + 'static {
    type Session: Session;
    /// What traces call its database.
    const SYSTEM: &'static str;

    /// Opens a session of its own, within a few seconds.
    fn connect(
        &self,
        purpose: Purpose,
    ) -> impl Future<Output = Result<Self::Session, Error>> + Send;

    /// Brings the schema to this release's version and seeds the ownership of the
    /// prefixes once: when the database has none yet. Several processes may do so
    /// at the same time.
    fn prepare(&self, map: &ShardMap) -> impl Future<Output = Result<(), Error>> + Send;
}

/// One connection. After an error that is [`Error::breaks_session`], or when a
/// call was not awaited to its end, it must be dropped.
pub trait Session: Send + 'static {
    /// Creates links; one outcome per link, in order. A link that fails for its
    /// own data fails alone. After an error some may be stored: repeating the call
    /// with the same create ids is safe.
    fn create_batch(
        &mut self,
        links: &[NewLink],
    ) -> impl Future<Output = Result<Vec<Created>, Error>> + Send;

    /// Looks links up; one outcome per key, in order.
    fn resolve_batch(
        &mut self,
        keys: &[LinkKey],
    ) -> impl Future<Output = Result<Vec<Resolved>, Error>> + Send;

    /// Applies an edit or a deletion, and writes what the relay needs to tell it
    /// on, in one transaction. After an error it may be stored: repeating the call
    /// with the same change id is safe.
    fn write(&mut self, write: &Write) -> impl Future<Output = Result<Written, Error>> + Send;

    /// The rows of a tenant's links after a place, or from the newest on: at most
    /// `limit`, and fewer only if there are no more. Tombstones are none.
    fn list(
        &mut self,
        tenant: &str,
        after: Option<&ListPlace>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Listed>, Error>> + Send;

    /// Leases visits; one outcome per lease, in order. Repeating the call is safe.
    fn lease_visits(
        &mut self,
        leases: &[Lease],
    ) -> impl Future<Output = Result<Vec<Leased>, Error>> + Send;

    /// Binds an Idempotency-Key to a request.
    fn claim(&mut self, claim: &Claim) -> impl Future<Output = Result<Claimed, Error>> + Send;

    /// Removes claims that were made so long ago, the first ones first. Gives how many,
    /// at most `limit`; if just as many, there may be more.
    fn forget_claims(
        &mut self,
        age: Duration,
        limit: u32,
    ) -> impl Future<Output = Result<u64, Error>> + Send;

    /// Makes tombstones of links that expired so long ago, at most `limit`, as deletions
    /// would: a step, after where the last one ended.
    fn purge(
        &mut self,
        age: Duration,
        after: Option<&Expired>,
        limit: u32,
    ) -> impl Future<Output = Result<Purged, Error>> + Send;

    /// Rows after a key, in the order of their keys: at most `limit`, and fewer only if
    /// there are no more. Tombstones too, of owned prefixes only.
    fn export(
        &mut self,
        after: Option<&LinkKey>,
        limit: u32,
    ) -> impl Future<Output = Result<Exported, Error>> + Send;

    /// Takes rows over as they are, but for the signature; one outcome per row, in
    /// order. Repeating the call is safe.
    fn import(
        &mut self,
        rows: &[Transferred],
    ) -> impl Future<Output = Result<Vec<Imported>, Error>> + Send;

    /// Lets the owned prefixes begin an epoch, unless they are in a later one.
    fn begin_epoch(&mut self, epoch: Epoch) -> impl Future<Output = Result<(), Error>> + Send;

    /// Where the server is in the shard's log.
    fn position(&mut self) -> impl Future<Output = Result<Position, Error>> + Send;

    /// The owners of all prefixes.
    fn ownership(&mut self) -> impl Future<Output = Result<Vec<PrefixOwner>, Error>> + Send;

    /// How much the shard holds, at the cost of a few pages.
    fn size(&mut self) -> impl Future<Output = Result<Size, Error>> + Send;

    /// Tries to become the one session that relays the outbox. It stays so until
    /// it is dropped or its connection is lost.
    fn try_lead(&mut self) -> impl Future<Output = Result<bool, Error>> + Send;

    /// The changes that were committed since the cursor's last call and are neither
    /// told nor applied yet, at most `limit` of them, and the state of the outbox. What
    /// belongs to a prefix that this shard does not own is not due.
    fn poll(
        &mut self,
        cursor: &Cursor,
        limit: u32,
    ) -> impl Future<Output = Result<Poll, Error>> + Send;

    /// The oldest changes that are due to be applied.
    fn oldest(&mut self, limit: u32) -> impl Future<Output = Result<Vec<Change>, Error>> + Send;

    /// Marks changes as applied. They are kept until [`Session::forget`].
    fn acknowledge(&mut self, places: &[Place]) -> impl Future<Output = Result<(), Error>> + Send;

    /// Makes changes due again that were applied, the last ones first. Gives them,
    /// at most `limit`; if just as many, there may be more.
    fn reopen(&mut self, limit: u32) -> impl Future<Output = Result<Vec<Place>, Error>> + Send;

    /// Removes changes that were applied so long ago, the first ones first. Gives how
    /// many, at most `limit`; if just as many, there may be more.
    fn forget(
        &mut self,
        age: Duration,
        limit: u32,
    ) -> impl Future<Output = Result<u64, Error>> + Send;
}

/// How much a shard holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Rows, tombstones among them, as the database estimates them; none if it does not.
    pub links: Option<i64>,
    /// On disk, with the indexes.
    pub bytes: i64,
    /// Prefixes that it owns.
    pub prefixes: i64,
    /// Prefixes on their way here.
    pub coming: i64,
    /// The highest of all prefixes.
    pub epoch: i64,
}

/// What became of a link to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// It is stored; by this call or by an earlier one with the same create id.
    Stored {
        link: Box<Link>,
        /// It took the place of an earlier life, of which caches may know.
        replaced: bool,
    },
    /// A live link has the same source already, made by another create.
    Existing(Box<Link>),
    /// The source's Idempotency-Key was used for another request.
    Reused,
    /// The link that this very request made was deleted or has expired.
    Ended,
    /// The slug belongs to another create.
    Conflict,
    Moved(PrefixOwner),
    /// Its prefix is about to move to another shard: nothing was done.
    Frozen,
    /// Its data cannot be stored, now or later.
    Refused,
    /// The row that is there was not written by us; it stays as it is.
    Damaged,
}

/// What is known of a slug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// Tombstones too.
    Found(Box<Link>),
    Absent,
    Moved(PrefixOwner),
    /// Its row cannot be read.
    Damaged,
}

/// A change of one stored link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub key: LinkKey,
    /// Whose link it must be.
    pub writer: Writer,
    /// The version it must have.
    pub if_version: Option<Version>,
    /// Names this change, however often it is tried.
    pub change_id: ChangeId,
    pub kind: WriteKind,
}

/// Who changes a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writer {
    /// The tenant whose link it is. What was taken down is out of its reach.
    Tenant(String),
    /// Takes links down and lets them up again, whoever's they are.
    Operator,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteKind {
    Update(Box<Patch>),
    Delete,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    Link(Box<Link>),
    /// There is no such link, or it is another tenant's.
    Absent,
    /// It is a tombstone already.
    Gone(Box<Link>),
    /// It has another version than the caller named.
    VersionMismatch(Box<Link>),
    /// It was taken down: only the operator changes it.
    Blocked(Box<Link>),
    /// With this edit it would end before it begins.
    NeverValid(Box<Link>),
    Moved(PrefixOwner),
    /// Its prefix is about to move to another shard: nothing was done.
    Frozen,
    /// Its data cannot be stored, now or later.
    Refused,
    /// The row that is there was not written by us; it stays as it is.
    Damaged,
}

/// Where one server of a shard is in the log of all changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Names the log: the same at a primary and its standbys, and nowhere else.
    pub log: i64,
    /// Up to here a primary has written the log, and a standby has it replayed.
    pub at: u64,
    pub is_standby: bool,
}

/// Who owns a prefix, as the shard's database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixOwner {
    pub prefix: Prefix,
    pub shard: ShardId,
    pub epoch: Epoch,
}

impl From<&PrefixOwner> for message::PrefixOwner {
    fn from(owner: &PrefixOwner) -> Self {
        Self {
            prefix: owner.prefix.to_string(),
            shard: owner.shard.to_string(),
            epoch: owner.epoch.get(),
        }
    }
}

/// One row of the outbox, with the link as it is now; without it if its row is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub place: Place,
    pub link: Option<Box<Link>>,
}

/// Where a change stands in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Changes of a later position may become visible earlier, but never after
    /// the cursor's floor has passed them.
    pub position: i64,
    pub id: i64,
}

/// The state of the outbox at a glance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poll {
    /// The database's clock.
    pub clock: Timestamp,
    /// When the oldest change that is still due was written.
    pub oldest: Option<Timestamp>,
    /// The cursor's next floor: no change that is yet to be told, apart from those
    /// given here, has or will have a lower position.
    pub floor: i64,
    /// Counts the changes of owners and epochs.
    pub ownership: i64,
    /// Not more than the limit; if just as many, there may be more.
    pub changes: Vec<Change>,
}

/// Remembers which changes have been told. The positions of the outbox are given
/// out before the commit, so that a higher one can become visible first; what
/// is told above the floor is therefore remembered one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    floor: i64,
    told: BTreeSet<Place>,
}

impl Cursor {
    /// Begins at a floor: what has a lower position counts as told.
    #[must_use]
    pub fn starting_at(floor: i64) -> Self {
        Self {
            floor,
            told: BTreeSet::new(),
        }
    }

    #[must_use]
    pub fn floor(&self) -> i64 {
        self.floor
    }

    /// What has been told from the floor on.
    pub fn told(&self) -> impl Iterator<Item = Place> {
        self.told.iter().copied()
    }

    /// Notes a change as told; false if it had been.
    pub fn tell(&mut self, change: &Change) -> bool {
        change.place.position >= self.floor && self.told.insert(change.place)
    }

    /// Forgets what lies below a new floor.
    pub fn raise(&mut self, floor: i64) {
        self.floor = self.floor.max(floor);
        let first = Place {
            position: self.floor,
            id: i64::MIN,
        };
        self.told = self.told.split_off(&first);
    }
}
