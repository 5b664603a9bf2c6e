//! A row of `links`, between what a database holds and the domain's link.

use uuid::Uuid;
use waypost_domain::signature::KeyRing;
use waypost_domain::{
    CreateId, DomainId, Epoch, Link, LinkId, LinkKey, LongUrl, Prefix, RedirectStatus, ShardId,
    Slug, Source, State, Timestamp, Version, signature,
};

use super::{Error, PrefixOwner};

/// The columns of a link in the order that both stores read and write them; the
/// table goes by the name `l`.
macro_rules! link_columns {
    () => {
        "l.domain, l.slug, l.link_id, l.long_url, l.redirect_status, l.tenant, l.state, l.version, \
         l.created_at, l.updated_at, l.valid_since, l.valid_until, l.max_visits, l.title, l.tags, \
         l.forward_query, l.password_hash, l.create_id, l.source, l.signature"
    };
}
pub(super) use link_columns;

/// A row's values, not yet checked.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) domain: i64,
    pub(super) slug: String,
    pub(super) link_id: Uuid,
    pub(super) long_url: String,
    pub(super) redirect_status: i64,
    pub(super) tenant: String,
    pub(super) state: i64,
    pub(super) version: i64,
    pub(super) created_at: i64,
    pub(super) updated_at: i64,
    pub(super) valid_since: Option<i64>,
    pub(super) valid_until: Option<i64>,
    pub(super) max_visits: Option<i64>,
    pub(super) title: Option<String>,
    pub(super) tags: Vec<String>,
    pub(super) forward_query: bool,
    pub(super) password_hash: Option<String>,
    pub(super) create_id: Uuid,
    pub(super) source: Option<Vec<u8>>,
    pub(super) signature: Vec<u8>,
}

impl TryFrom<Columns> for Link {
    type Error = Error;

    fn try_from(row: Columns) -> Result<Self, Error> {
        let damaged = Error::Damaged;
        let time = |column, millis| Timestamp::from_millis(millis).ok_or(damaged(column));
        Ok(Self {
            key: LinkKey {
                domain: DomainId(u32::try_from(row.domain).map_err(|_| damaged("domain"))?),
                slug: Slug::parse(&row.slug).map_err(|_| damaged("slug"))?,
            },
            id: LinkId(row.link_id),
            long_url: LongUrl::from_canonical(row.long_url).ok_or(damaged("long_url"))?,
            redirect_status: u32::try_from(row.redirect_status)
                .ok()
                .and_then(RedirectStatus::from_code)
                .ok_or(damaged("redirect_status"))?,
            tenant: row.tenant,
            state: i32::try_from(row.state)
                .ok()
                .and_then(State::from_number)
                .ok_or(damaged("state"))?,
            version: u64::try_from(row.version)
                .ok()
                .and_then(Version::from_stored)
                .ok_or(damaged("version"))?,
            created_at: time("created_at", row.created_at)?,
            updated_at: time("updated_at", row.updated_at)?,
            valid_since: row
                .valid_since
                .map(|at| time("valid_since", at))
                .transpose()?,
            valid_until: row
                .valid_until
                .map(|at| time("valid_until", at))
                .transpose()?,
            max_visits: row
                .max_visits
                .map(|max| u64::try_from(max).map_err(|_| damaged("max_visits")))
                .transpose()?,
            title: row.title,
            tags: row.tags,
            forward_query: row.forward_query,
            password_hash: row.password_hash,
            create_id: CreateId(row.create_id),
            source: row
                .source
                .map(|bytes| Source::from_bytes(&bytes).ok_or(damaged("source")))
                .transpose()?,
            signature: <[u8; signature::LEN]>::try_from(row.signature)
                .map_err(|_| damaged("signature"))?,
        })
    }
}

/// A link that was read, unless its row is damaged: then that is logged, and the row
/// fails alone.
pub(super) fn whole(slug: &str, link: Result<Link, Error>) -> Option<Link> {
    match link {
        Ok(link) => Some(link),
        Err(error) => {
            tracing::error!(slug, %error, "stored row damaged");
            None
        }
    }
}

/// The same, and its signature is ours: it may be answered, changed and signed again.
/// Otherwise a row that somebody has put there would get a good signature.
pub(super) fn authentic(key_ring: &KeyRing, slug: &str, link: Result<Link, Error>) -> Option<Link> {
    let is_ours = |link: Link| match key_ring.verify(&link) {
        true => Ok(link),
        false => Err(Error::Damaged("signature")),
    };
    whole(slug, link.and_then(is_ours))
}

/// Reads what a link was when it was taken down.
pub(super) fn before_block(number: Option<i32>) -> Option<State> {
    number.and_then(State::from_number)
}

/// Reads one of the two halves of a source.
pub(super) fn half(bytes: &[u8]) -> Result<[u8; 16], Error> {
    bytes.try_into().map_err(|_| Error::Damaged("source"))
}

/// Reads a row of `prefix_owner`: who owns the prefix, and whether it is not
/// `this` shard.
pub(super) fn owner(
    this: &ShardId,
    prefix: &str,
    epoch: i64,
    moved_to: Option<&str>,
) -> Result<(PrefixOwner, bool), Error> {
    let shard = match moved_to {
        Some(other) => ShardId::parse(other).ok_or(Error::Damaged("moved_to"))?,
        None => this.clone(),
    };
    let owner = PrefixOwner {
        prefix: Prefix::parse(prefix).ok_or(Error::Damaged("prefix"))?,
        epoch: u32::try_from(epoch)
            .ok()
            .and_then(Epoch::new)
            .ok_or(Error::Damaged("epoch"))?,
        shard,
    };
    Ok((owner, moved_to.is_some()))
}
