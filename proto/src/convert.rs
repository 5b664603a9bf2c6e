//! Between messages and the domain's types. What comes in is checked here, once;
//! behind this module nothing is invalid.

use bytes::Bytes;
use uuid::Uuid;
use waypost_domain::{
    Change, CreateId, DomainId, Link, LinkId, LinkKey, LongUrl, NewLink, Patch, RedirectStatus,
    Slug, SlugKind, Source, State, Timestamp, Version, signature,
};

use crate::link as message;

/// A message's field does not hold what it must.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the field `{0}` is missing or invalid")]
pub struct Invalid(pub &'static str);

impl From<Invalid> for tonic::Status {
    fn from(invalid: Invalid) -> Self {
        Self::invalid_argument(invalid.to_string())
    }
}

impl From<Link> for message::Link {
    fn from(link: Link) -> Self {
        let bytes = |uuid: Uuid| Bytes::copy_from_slice(uuid.as_bytes());
        Self {
            domain: link.key.domain.0,
            slug: link.key.slug.into(),
            link_id: bytes(link.id.0),
            long_url: String::from(link.long_url).into(),
            redirect_status: link.redirect_status.code().into(),
            tenant: link.tenant,
            state: link.state as i32,
            version: link.version.get(),
            created_at_ms: link.created_at.millis(),
            updated_at_ms: link.updated_at.millis(),
            valid_since_ms: link.valid_since.map(Timestamp::millis),
            valid_until_ms: link.valid_until.map(Timestamp::millis),
            max_visits: link.max_visits,
            title: link.title,
            tags: link.tags,
            forward_query: link.forward_query,
            password_hash: link.password_hash,
            create_id: bytes(link.create_id.0),
            source: link.source.map(|source| source.to_bytes().into()),
            signature: Bytes::copy_from_slice(&link.signature),
        }
    }
}

impl From<&Link> for message::Link {
    fn from(link: &Link) -> Self {
        link.clone().into()
    }
}

impl TryFrom<message::Link> for Link {
    type Error = Invalid;

    fn try_from(link: message::Link) -> Result<Self, Invalid> {
        Ok(Self {
            key: key_of(link.domain, &link.slug)?,
            id: LinkId(uuid("link_id", &link.link_id)?),
            long_url: stored_url(&link.long_url)?,
            redirect_status: redirect_status(link.redirect_status)?,
            tenant: link.tenant,
            state: State::from_number(link.state).ok_or(Invalid("state"))?,
            version: Version::from_stored(link.version).ok_or(Invalid("version"))?,
            created_at: timestamp("created_at_ms", link.created_at_ms)?,
            updated_at: timestamp("updated_at_ms", link.updated_at_ms)?,
            valid_since: optional_timestamp("valid_since_ms", link.valid_since_ms)?,
            valid_until: optional_timestamp("valid_until_ms", link.valid_until_ms)?,
            max_visits: link.max_visits,
            title: link.title,
            tags: link.tags,
            forward_query: link.forward_query,
            password_hash: link.password_hash,
            create_id: CreateId(uuid("create_id", &link.create_id)?),
            source: source(link.source.as_deref())?,
            signature: <[u8; signature::LEN]>::try_from(&*link.signature)
                .map_err(|_| Invalid("signature"))?,
        })
    }
}

impl From<&NewLink> for message::NewLink {
    fn from(link: &NewLink) -> Self {
        Self {
            domain: link.key.domain.0,
            slug: link.key.slug.to_string(),
            long_url: link.long_url.as_str().as_bytes().to_vec(),
            redirect_status: link.redirect_status.code().into(),
            tenant: link.tenant.clone(),
            valid_since_ms: link.valid_since.map(Timestamp::millis),
            valid_until_ms: link.valid_until.map(Timestamp::millis),
            max_visits: link.max_visits,
            title: link.title.clone(),
            tags: link.tags.clone(),
            forward_query: link.forward_query,
            password_hash: link.password_hash.clone(),
            create_id: link.create_id.0.as_bytes().to_vec(),
            kind: match link.kind {
                SlugKind::Minted => message::SlugKind::Minted,
                SlugKind::Alias => message::SlugKind::Alias,
                SlugKind::Derived => message::SlugKind::Derived,
            }
            .into(),
            source: link.source.map(|source| source.to_bytes()),
        }
    }
}

impl TryFrom<message::NewLink> for NewLink {
    type Error = Invalid;

    fn try_from(link: message::NewLink) -> Result<Self, Invalid> {
        let source = source(link.source.as_deref())?;
        Ok(Self {
            key: key_of(link.domain, &link.slug)?,
            kind: match link.kind() {
                message::SlugKind::Minted => SlugKind::Minted,
                message::SlugKind::Alias => SlugKind::Alias,
                message::SlugKind::Derived if source.is_some() => SlugKind::Derived,
                message::SlugKind::Derived => return Err(Invalid("source")),
                message::SlugKind::Unspecified => return Err(Invalid("kind")),
            },
            create_id: CreateId(uuid("create_id", &link.create_id)?),
            long_url: long_url(&link.long_url)?,
            redirect_status: redirect_status(link.redirect_status)?,
            tenant: link.tenant,
            valid_since: optional_timestamp("valid_since_ms", link.valid_since_ms)?,
            valid_until: optional_timestamp("valid_until_ms", link.valid_until_ms)?,
            max_visits: link.max_visits,
            title: link.title,
            tags: link.tags,
            forward_query: link.forward_query,
            password_hash: link.password_hash,
            source,
        })
    }
}

impl From<&LinkKey> for message::Key {
    fn from(key: &LinkKey) -> Self {
        Self {
            domain: key.domain.0,
            slug: key.slug.to_string(),
        }
    }
}

impl TryFrom<message::Key> for LinkKey {
    type Error = Invalid;

    fn try_from(key: message::Key) -> Result<Self, Invalid> {
        key_of(key.domain, &key.slug)
    }
}

impl From<&Patch> for message::Patch {
    fn from(patch: &Patch) -> Self {
        fn set<T: Clone>(
            change: &Change<T>,
            field: message::Field,
            clear: &mut Vec<i32>,
        ) -> Option<T> {
            match change {
                Change::Keep => None,
                Change::Clear => {
                    clear.push(field.into());
                    None
                }
                Change::Set(value) => Some(value.clone()),
            }
        }
        let mut clear = Vec::new();
        let into = &mut clear;
        Self {
            long_url: patch
                .long_url
                .as_ref()
                .map(|url| url.as_str().as_bytes().to_vec()),
            redirect_status: patch.redirect_status.map(|status| status.code().into()),
            state: patch.state.map(|state| state as i32),
            valid_since_ms: set(&patch.valid_since, message::Field::ValidSince, into)
                .map(Timestamp::millis),
            valid_until_ms: set(&patch.valid_until, message::Field::ValidUntil, into)
                .map(Timestamp::millis),
            max_visits: set(&patch.max_visits, message::Field::MaxVisits, into),
            title: set(&patch.title, message::Field::Title, into),
            tags: patch.tags.clone().map(|tags| message::Tags { tags }),
            forward_query: patch.forward_query,
            password_hash: set(&patch.password_hash, message::Field::Password, into),
            clear,
        }
    }
}

impl TryFrom<message::Patch> for Patch {
    type Error = Invalid;

    fn try_from(patch: message::Patch) -> Result<Self, Invalid> {
        let clears = |field: message::Field| patch.clear.contains(&field.into());
        fn change<T>(value: Option<T>, clear: bool) -> Change<T> {
            match value {
                _ if clear => Change::Clear,
                Some(value) => Change::Set(value),
                None => Change::Keep,
            }
        }
        let state = patch
            .state
            .map(|state| State::from_number(state).ok_or(Invalid("state")))
            .transpose()?;
        if state == Some(State::Deleted) {
            return Err(Invalid("state"));
        }
        let valid_since = optional_timestamp("valid_since_ms", patch.valid_since_ms)?;
        let valid_until = optional_timestamp("valid_until_ms", patch.valid_until_ms)?;
        let cleared_tags = clears(message::Field::Tags).then(Vec::new);
        Ok(Self {
            long_url: patch.long_url.as_deref().map(long_url).transpose()?,
            redirect_status: patch.redirect_status.map(redirect_status).transpose()?,
            state,
            valid_since: change(valid_since, clears(message::Field::ValidSince)),
            valid_until: change(valid_until, clears(message::Field::ValidUntil)),
            max_visits: change(patch.max_visits, clears(message::Field::MaxVisits)),
            title: change(patch.title.clone(), clears(message::Field::Title)),
            tags: cleared_tags.or(patch.tags.clone().map(|tags| tags.tags)),
            forward_query: patch.forward_query,
            password_hash: change(
                patch.password_hash.clone(),
                clears(message::Field::Password),
            ),
        })
    }
}

fn key_of(domain: u32, slug: &str) -> Result<LinkKey, Invalid> {
    Ok(LinkKey {
        domain: DomainId(domain),
        slug: Slug::parse(slug).map_err(|_| Invalid("slug"))?,
    })
}

fn uuid(field: &'static str, bytes: &[u8]) -> Result<Uuid, Invalid> {
    Uuid::from_slice(bytes).map_err(|_| Invalid(field))
}

fn source(bytes: Option<&[u8]>) -> Result<Option<Source>, Invalid> {
    bytes
        .map(|bytes| Source::from_bytes(bytes).ok_or(Invalid("source")))
        .transpose()
}

fn long_url(bytes: &[u8]) -> Result<LongUrl, Invalid> {
    std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| LongUrl::parse(text).ok())
        .ok_or(Invalid("long_url"))
}

/// Of a link that a shard has stored, whose signature covers it.
fn stored_url(bytes: &[u8]) -> Result<LongUrl, Invalid> {
    std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| LongUrl::from_canonical(text.to_owned()))
        .ok_or(Invalid("long_url"))
}

fn redirect_status(code: u32) -> Result<RedirectStatus, Invalid> {
    RedirectStatus::from_code(code).ok_or(Invalid("redirect_status"))
}

fn timestamp(field: &'static str, millis: i64) -> Result<Timestamp, Invalid> {
    Timestamp::from_millis(millis).ok_or(Invalid(field))
}

fn optional_timestamp(
    field: &'static str,
    millis: Option<i64>,
) -> Result<Option<Timestamp>, Invalid> {
    millis.map(|millis| timestamp(field, millis)).transpose()
}

#[cfg(test)]
pub(crate) mod tests {
    use waypost_domain::Epoch;

    use super::*;

    pub(crate) fn link(slug: &str) -> Link {
        Link {
            key: key_of(0, slug).unwrap(),
            id: LinkId(Uuid::from_u128(7)),
            long_url: LongUrl::parse("https://example.com/a?b=c").unwrap(),
            redirect_status: RedirectStatus::PermanentRedirect,
            tenant: "default".to_owned(),
            state: State::Active,
            version: Version::first(Epoch::FIRST),
            created_at: Timestamp::from_millis(1_000).unwrap(),
            updated_at: Timestamp::from_millis(2_000).unwrap(),
            valid_since: Timestamp::from_millis(3_000),
            valid_until: None,
            max_visits: Some(5),
            title: Some("title".to_owned()),
            tags: vec!["a".to_owned(), "b".to_owned()],
            forward_query: true,
            password_hash: None,
            create_id: CreateId(Uuid::from_u128(8)),
            source: Some(Source {
                id: [1; 16],
                digest: Some([2; 16]),
            }),
            signature: [9; signature::LEN],
        }
    }

    #[test]
    fn a_link_survives_the_wire() {
        let link = link("abcdefgh");
        assert_eq!(Link::try_from(message::Link::from(&link)), Ok(link));
    }

    #[test]
    fn a_patch_survives_the_wire() {
        let patch = Patch {
            long_url: Some(LongUrl::parse("https://example.com/").unwrap()),
            state: Some(State::Disabled),
            valid_since: Change::Clear,
            valid_until: Change::Set(Timestamp::from_millis(4).unwrap()),
            title: Change::Clear,
            tags: Some(vec!["x".to_owned()]),
            forward_query: Some(false),
            ..Patch::default()
        };
        assert_eq!(Patch::try_from(message::Patch::from(&patch)), Ok(patch));
    }

    #[test]
    fn invalid_fields_are_named() {
        let mut bad = message::Link::from(&link("abcdefgh"));
        bad.long_url = Bytes::from_static(b"javascript:alert(1)");
        assert_eq!(Link::try_from(bad), Err(Invalid("long_url")));
        let deleted = message::Patch {
            state: Some(State::Deleted as i32),
            ..message::Patch::default()
        };
        assert_eq!(Patch::try_from(deleted), Err(Invalid("state")));
    }
}
