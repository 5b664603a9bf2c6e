//! From a create that was checked to a stored link, new or found.

use std::sync::Arc;

use http::StatusCode;
use uuid::Uuid;
use waypost_domain::source::{Asked, End};
use waypost_domain::{
    CreateId, DomainId, Link, LinkKey, LongUrl, NewLink, RedirectStatus, Slug, SlugKind, Source,
    State, Timestamp,
};

use super::create::hash;
use super::idempotency::ItemKey;
use super::{Api, Problem};
use crate::shards::{Claimed, Created, Resolved};

/// Slugs that are tried before a create gives up: a minted slug is unique by
/// construction, so that more than one collision means a broken keygen.
const MINT_TRIES: usize = 3;

/// Slugs of a source's series that are tried in their order, so that a link that was
/// deleted and is asked for again gets its slug back. Those before it are taken by
/// links that were edited to lead elsewhere.
const SERIES_TRIES: u32 = 8;

/// Slugs that are tried after those, wherever in the series, so that a source never
/// runs out of them. All of them together are a bound on one create's calls.
const RANDOM_TRIES: usize = 8;

/// How far the gateway's clock, by which a span ends, may be from the shard's, by which
/// it begins.
const CLOCKS_APART_MS: i64 = 5_000;

/// A create that was checked and needs a slug.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) tenant: String,
    pub(super) long_url: LongUrl,
    pub(super) alias: Option<Slug>,
    pub(super) redirect_status: RedirectStatus,
    pub(super) valid_since: Option<Timestamp>,
    pub(super) end: End,
    pub(super) title: Option<String>,
    pub(super) tags: Vec<String>,
    pub(super) max_visits: Option<u64>,
    pub(super) forward_query: bool,
    /// In clear: it is hashed when all else is right.
    pub(super) password: Option<String>,
    /// A link that leads to the same in the same way is as good as a new one.
    pub(super) find_if_exists: bool,
}

/// What a create came to.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) link: Link,
    /// Else the link was there already.
    pub(super) is_new: bool,
}

impl Wanted {
    /// What sources derive from.
    fn asked(&self) -> Asked<'_> {
        Asked {
            domain: DomainId::MAIN,
            tenant: &self.tenant,
            long_url: &self.long_url,
            redirect_status: self.redirect_status,
            valid_since: self.valid_since,
            end: self.end,
            max_visits: self.max_visits,
            forward_query: self.forward_query,
            password: self.password.as_deref(),
            alias: self.alias.as_ref(),
            title: self.title.as_deref(),
            tags: &self.tags,
            find_if_exists: self.find_if_exists,
        }
    }

    /// What is asked of the shard, once the password is hashed.
    fn at(
        self,
        slug: Slug,
        kind: SlugKind,
        source: Option<Source>,
        password_hash: Option<String>,
        now: Timestamp,
    ) -> NewLink {
        NewLink {
            key: LinkKey {
                domain: DomainId::MAIN,
                slug,
            },
            kind,
            create_id: CreateId(Uuid::new_v4()),
            long_url: self.long_url,
            redirect_status: self.redirect_status,
            tenant: self.tenant,
            valid_since: self.valid_since,
            valid_until: self.end.instant(now),
            max_visits: self.max_visits,
            title: self.title,
            tags: self.tags,
            forward_query: self.forward_query,
            password_hash,
            source,
        }
    }
}

/// Stores a link under its alias, under a slug that follows from its source, or under
/// the first minted slug that is free. With a key, the same request again is answered
/// by the link that it made.
pub(super) async fn place(
    api: &Api,
    mut wanted: Wanted,
    key: Option<ItemKey<'_>>,
    now: Timestamp,
) -> Result<Placed, Problem> {
    api.0.rules.protection.check(&wanted.long_url)?;
    let is_reserved = |alias: &Slug| api.0.rules.protection.is_reserved(alias);
    if wanted.alias.as_ref().is_some_and(is_reserved) {
        return Err(Problem::alias_reserved());
    }
    let keyed = key.map(|key| key.source(&api.0.sources, &wanted.asked()));
    let found = wanted
        .find_if_exists
        .then(|| api.0.sources.of_destination(&wanted.asked()));
    let hash = match wanted.password.take() {
        Some(password) => Some(hash(api, password).await?),
        None => None,
    };
    if let Some(alias) = wanted.alias.take() {
        if let Some(source) = keyed {
            claim(api, source).await?;
        }
        return at_alias(api, wanted, hash, (alias, keyed), now).await;
    }
    match (found, keyed) {
        (Some(found), keyed) => {
            if let Some(source) = keyed {
                claim(api, source).await?;
            }
            derived(api, wanted, hash, found, now).await
        }
        (None, Some(keyed)) => derived(api, wanted, hash, keyed, now).await,
        (None, None) => minted(api, wanted, hash, now).await,
    }
}

/// Binds a key to this one request where all requests with that key meet, since the
/// link itself will be elsewhere.
async fn claim(api: &Api, source: Source) -> Result<(), Problem> {
    let key = LinkKey {
        domain: DomainId::MAIN,
        slug: source.slug(0),
    };
    match api.lookup().shards.claim(&key, source).await? {
        Claimed::Claimed => Ok(()),
        Claimed::Reused => Err(Problem::key_reused()),
    }
}

async fn at_alias(
    api: &Api,
    wanted: Wanted,
    hash: Option<String>,
    (alias, source): (Slug, Option<Source>),
    now: Timestamp,
) -> Result<Placed, Problem> {
    let (may_exist, end) = (wanted.find_if_exists, wanted.end);
    let new = Arc::new(wanted.at(alias, SlugKind::Alias, source, hash, now));
    let stamp = api.lookup().stamp(&new.key);
    match api.lookup().shards.create(&new).await? {
        Created::Created(link) => {
            api.lookup().learn(&link, stamp).await;
            Ok(Placed::new(*link))
        }
        Created::Existing(link) => {
            api.lookup().learn(&link, stamp).await;
            Placed::found(*link)
        }
        Created::Reused => Err(Problem::key_reused()),
        Created::Ended => Err(Problem::key_ended()),
        Created::Conflict if may_exist => {
            let key = Arc::new(new.key.clone());
            match api.lookup().shards.resolve(&key).await? {
                Resolved::Found(link, _) if leads_the_same_way(&link, &new, end) => {
                    Placed::found(*link)
                }
                _ => Err(Problem::alias_taken()),
            }
        }
        Created::Conflict => Err(Problem::alias_taken()),
    }
}

/// Whether a link that holds an alias is as good as the one that is asked for. One with
/// a password never is: that it is the same cannot be seen.
fn leads_the_same_way(link: &Link, new: &NewLink, end: End) -> bool {
    let ends_alike = match end {
        End::Never | End::At(_) => link.valid_until == new.valid_until,
        End::After(span) => link.valid_until.is_some_and(|until| {
            let due = link.created_at.after(span);
            (until.millis() - due.millis()).abs() <= CLOCKS_APART_MS
        }),
    };
    link.tenant == new.tenant
        && matches!(link.state, State::Active | State::Blocked)
        && link.long_url == new.long_url
        && link.redirect_status == new.redirect_status
        && link.forward_query == new.forward_query
        && link.valid_since == new.valid_since
        && ends_alike
        && link.max_visits == new.max_visits
        && link.password_hash.is_none()
        && new.password_hash.is_none()
}

async fn derived(
    api: &Api,
    wanted: Wanted,
    hash: Option<String>,
    source: Source,
    now: Timestamp,
) -> Result<Placed, Problem> {
    let somewhere = std::iter::repeat_with(|| fastrand::u32(SERIES_TRIES..));
    let numbers = (0..SERIES_TRIES).chain(somewhere.take(RANDOM_TRIES));
    let mut new = Arc::new(wanted.at(source.slug(0), SlugKind::Derived, Some(source), hash, now));
    for number in numbers {
        Arc::make_mut(&mut new).key.slug = source.slug(number);
        let stamp = api.lookup().stamp(&new.key);
        match api.lookup().shards.create(&new).await? {
            Created::Created(link) => {
                api.lookup().learn(&link, stamp).await;
                return Ok(Placed::new(*link));
            }
            Created::Existing(link) => {
                api.lookup().learn(&link, stamp).await;
                return Placed::found(*link);
            }
            Created::Reused => return Err(Problem::key_reused()),
            Created::Ended => return Err(Problem::key_ended()),
            Created::Conflict => api.lookup().metrics.series_conflict(),
        }
    }
    tracing::error!("all slugs tried of a series were taken");
    Err(Problem::no_keys())
}

async fn minted(
    api: &Api,
    wanted: Wanted,
    hash: Option<String>,
    now: Timestamp,
) -> Result<Placed, Problem> {
    let mut new = Arc::new(wanted.at(take_key(api).await?, SlugKind::Minted, None, hash, now));
    for _ in 0..MINT_TRIES {
        let stamp = api.lookup().stamp(&new.key);
        match api.lookup().shards.create(&new).await? {
            Created::Created(link) => {
                api.lookup().keep(&link, stamp);
                // Nobody can have asked for this slug yet, so that nobody waits.
                drop(api.lookup().write_through(&link, stamp));
                return Ok(Placed::new(*link));
            }
            Created::Reused | Created::Ended | Created::Existing(_) => {
                return Err(Problem::key_reused());
            }
            Created::Conflict => {
                api.lookup().metrics.key_conflict();
                Arc::make_mut(&mut new).key.slug = take_key(api).await?;
            }
        }
    }
    tracing::error!("several minted slugs in a row were taken, keygen repeats itself");
    Err(Problem::no_keys())
}

async fn take_key(api: &Api) -> Result<Slug, Problem> {
    loop {
        let slug = api.0.keys.take().await.ok_or_else(Problem::no_keys)?;
        // One in 10^12 is a word that is never looked up.
        if !Slug::is_reserved(slug.as_str()) {
            return Ok(slug);
        }
    }
}

impl Placed {
    /// 201, or 200 if the link was there already.
    pub(super) fn status(&self) -> StatusCode {
        if self.is_new {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        }
    }

    fn new(link: Link) -> Self {
        Self { link, is_new: true }
    }

    /// A link that was taken down is no answer, and no other is made in its place, or
    /// asking again would be a way around.
    fn found(link: Link) -> Result<Self, Problem> {
        if link.state == State::Blocked {
            return Err(Problem::blocked());
        }
        Ok(Self {
            link,
            is_new: false,
        })
    }
}
