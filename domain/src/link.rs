//! A link: a slug, where it leads, and under which conditions.

use uuid::Uuid;

use crate::{LongUrl, Slug, Timestamp, Version};

/// The domain that a slug belongs to. There is one, id 0, until branded domains
/// come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(pub u32);

impl DomainId {
    pub const MAIN: Self = Self(0);
}

/// What a link is found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkKey {
    pub domain: DomainId,
    pub slug: Slug,
}

/// Names one life of a slug: a slug that is deleted and made again leads a new
/// life, and its clicks are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub Uuid);

/// Names one attempt to create a link, over all its retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CreateId(pub Uuid);

/// Names one edit or deletion: the retry of one whose answer was lost is recognised
/// by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeId(pub Uuid);

/// How a redirect is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RedirectStatus {
    MovedPermanently,
    Found,
    TemporaryRedirect,
    PermanentRedirect,
}

impl RedirectStatus {
    /// From 301, 302, 307 or 308; `None` for any other number.
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            301 => Self::MovedPermanently,
            302 => Self::Found,
            307 => Self::TemporaryRedirect,
            308 => Self::PermanentRedirect,
            _ => return None,
        })
    }

    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::MovedPermanently => 301,
            Self::Found => 302,
            Self::TemporaryRedirect => 307,
            Self::PermanentRedirect => 308,
        }
    }

    /// Whether a client may keep the answer (301 and 308).
    #[must_use]
    pub const fn is_permanent(self) -> bool {
        matches!(self, Self::MovedPermanently | Self::PermanentRedirect)
    }
}

/// The state of a link, stored as its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Active = 1,
    /// Switched off by its owner; can be switched on again.
    Disabled = 2,
    /// Taken down by the operator.
    Blocked = 3,
    /// A tombstone: the slug had a link.
    Deleted = 4,
}

impl State {
    #[must_use]
    pub const fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            1 => Self::Active,
            2 => Self::Disabled,
            3 => Self::Blocked,
            4 => Self::Deleted,
            _ => return None,
        })
    }

    /// The name that the API uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Blocked => "blocked",
            Self::Deleted => "deleted",
        }
    }
}

/// A link as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub key: LinkKey,
    pub id: LinkId,
    pub long_url: LongUrl,
    pub redirect_status: RedirectStatus,
    pub tenant: String,
    pub state: State,
    pub version: Version,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub valid_since: Option<Timestamp>,
    pub valid_until: Option<Timestamp>,
    pub max_visits: Option<u64>,
    pub title: Option<String>,
    pub tags: Vec<String>,
    pub forward_query: bool,
    pub password_hash: Option<String>,
    pub create_id: CreateId,
    pub source: Option<Source>,
    pub signature: [u8; crate::signature::LEN],
}

/// What a visitor gets to see of a link at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Redirect,
    /// Asks for a password first.
    Password,
    /// 404: disabled, or its time has not come.
    NotFound,
    /// 410: deleted or expired.
    Gone,
    /// 451: taken down.
    Blocked,
}

/// The part of a link that decides what a visitor sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    pub state: State,
    pub valid_since: Option<Timestamp>,
    pub valid_until: Option<Timestamp>,
    pub has_password: bool,
}

impl Conditions {
    /// Decides what a visitor sees at `now`, visit limits apart.
    #[must_use]
    pub fn verdict(&self, now: Timestamp) -> Verdict {
        match self.state {
            State::Deleted => return Verdict::Gone,
            State::Blocked => return Verdict::Blocked,
            State::Disabled => return Verdict::NotFound,
            State::Active => {}
        }
        if self.valid_until.is_some_and(|until| now >= until) {
            return Verdict::Gone;
        }
        if self.valid_since.is_some_and(|since| now < since) {
            return Verdict::NotFound;
        }
        if self.has_password {
            return Verdict::Password;
        }
        Verdict::Redirect
    }
}

/// What a create that may be repeated is found by, whichever gateway is asked.
///
/// It follows from the tenant and either the `Idempotency-Key` or, for
/// `findIfExists`, the destination and everything else that decides the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source {
    pub id: [u8; 16],
    /// Of the whole request, where the caller has named it by an `Idempotency-Key`:
    /// the same key with another request is a mistake.
    pub digest: Option<[u8; 16]>,
}

impl Source {
    /// From [`Source::to_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (id, digest) = bytes.split_first_chunk()?;
        Some(Self {
            id: *id,
            digest: match digest {
                [] => None,
                digest => Some(digest.try_into().ok()?),
            },
        })
    }

    /// As it is stored and sent: 16 bytes, or 32 with a digest.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [
            &self.id[..],
            self.digest.as_ref().map_or(&[], |digest| &digest[..]),
        ]
        .concat()
    }
}

/// Where a slug comes from, which decides what a conflict means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlugKind {
    /// From a key lease, unique by construction: a conflict is retried with the
    /// next key.
    Minted,
    /// Chosen by the caller: a conflict is the caller's to solve.
    Alias,
    /// One of a series that follows from the link's [`Source`]: a live link with that
    /// source is found instead, and a conflict is retried with the next of the series.
    Derived,
}

/// What a create asks for. The shard adds id, version, times and signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLink {
    pub key: LinkKey,
    pub kind: SlugKind,
    pub create_id: CreateId,
    pub long_url: LongUrl,
    pub redirect_status: RedirectStatus,
    pub tenant: String,
    pub valid_since: Option<Timestamp>,
    pub valid_until: Option<Timestamp>,
    pub max_visits: Option<u64>,
    pub title: Option<String>,
    pub tags: Vec<String>,
    pub forward_query: bool,
    pub password_hash: Option<String>,
    pub source: Option<Source>,
}

/// What an edit does to a field that may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Change<T> {
    #[default]
    Keep,
    Clear,
    Set(T),
}

impl<T: Clone> Change<T> {
    fn apply(&self, field: &mut Option<T>) {
        match self {
            Self::Keep => {}
            Self::Clear => *field = None,
            Self::Set(value) => *field = Some(value.clone()),
        }
    }
}

/// An edit: what is not named stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Patch {
    pub long_url: Option<LongUrl>,
    pub redirect_status: Option<RedirectStatus>,
    /// Never [`State::Deleted`]: deleting is a request of its own.
    pub state: Option<State>,
    pub valid_since: Change<Timestamp>,
    pub valid_until: Change<Timestamp>,
    pub max_visits: Change<u64>,
    pub title: Change<String>,
    pub tags: Option<Vec<String>>,
    pub forward_query: Option<bool>,
    pub password_hash: Change<String>,
}

impl Patch {
    /// Changes the named fields. Version, time and signature are the store's to
    /// set.
    pub fn apply(&self, link: &mut Link) {
        if let Some(long_url) = &self.long_url {
            link.long_url = long_url.clone();
        }
        if let Some(status) = self.redirect_status {
            link.redirect_status = status;
        }
        if let Some(state) = self.state {
            link.state = state;
        }
        if let Some(tags) = &self.tags {
            link.tags.clone_from(tags);
        }
        if let Some(forward_query) = self.forward_query {
            link.forward_query = forward_query;
        }
        self.valid_since.apply(&mut link.valid_since);
        self.valid_until.apply(&mut link.valid_until);
        self.max_visits.apply(&mut link.max_visits);
        self.title.apply(&mut link.title);
        self.password_hash.apply(&mut link.password_hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_follows_state_then_time_then_password() {
        let at = |millis| Timestamp::from_millis(millis).unwrap();
        let open = Conditions {
            state: State::Active,
            valid_since: Some(at(10)),
            valid_until: Some(at(20)),
            has_password: false,
        };
        assert_eq!(open.verdict(at(9)), Verdict::NotFound);
        assert_eq!(open.verdict(at(10)), Verdict::Redirect);
        assert_eq!(open.verdict(at(19)), Verdict::Redirect);
        assert_eq!(open.verdict(at(20)), Verdict::Gone);
        let with = |state, has_password| Conditions {
            state,
            has_password,
            ..open
        };
        assert_eq!(with(State::Active, true).verdict(at(15)), Verdict::Password);
        assert_eq!(with(State::Active, true).verdict(at(25)), Verdict::Gone);
        assert_eq!(
            with(State::Disabled, true).verdict(at(15)),
            Verdict::NotFound
        );
        assert_eq!(
            with(State::Blocked, false).verdict(at(25)),
            Verdict::Blocked
        );
        assert_eq!(with(State::Deleted, false).verdict(at(15)), Verdict::Gone);
    }
}
