//! What a create, an edit or a deletion makes of the row that is there. Free of
//! I/O, so that both stores decide alike.

use std::time::Duration;

use uuid::Uuid;
use waypost_domain::{
    ChangeId, Epoch, Link, LinkId, NewLink, Slug, SlugKind, Source, State, Timestamp, Version,
    signature,
};

use super::{Write, WriteKind, Writer, Written, columns};

/// How long nobody but its owner gets a slug whose link was deleted or expired:
/// printed and mailed links live on, and must not lead to a stranger.
pub const QUARANTINE: Duration = Duration::from_secs(90 * 24 * 3600);

/// How long an `Idempotency-Key` names its request: longer than anybody repeats one. A
/// link that it made and that has ended is not made again as long.
pub const KEY_LIFE: Duration = Duration::from_hours(7 * 24);

/// What to do about a create whose slug has a row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OnExisting {
    /// It is the same create again.
    Repeat,
    Conflict,
    /// It is sent again under its `Idempotency-Key`, and what it made has ended.
    Ended,
    /// The `Idempotency-Key` that has made it is used for another request.
    Reused,
    /// The slug is free for a new life: replace the row by this one.
    Recreate(Box<Link>),
}

/// What to do about a create whose source has a live link.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OnSource {
    /// It is the same create again.
    Repeat,
    Existing,
    Reused,
}

/// What a row remembers beside its link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Memory {
    last_change: Option<ChangeId>,
    /// What a link was when it was taken down.
    before_block: Option<State>,
}

impl Memory {
    pub(super) fn new(last_change: Option<Uuid>, before_block: Option<i32>) -> Self {
        Self {
            last_change: last_change.map(ChangeId),
            before_block: columns::before_block(before_block),
        }
    }
}

/// What to do about a change of a row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OnWrite {
    Absent,
    Gone,
    Blocked,
    VersionMismatch,
    NeverValid,
    /// It is the row's last change already, or asks for what is so.
    Repeat,
    /// Replace the row by this one.
    Write(Box<Link>),
}

impl OnWrite {
    /// What is answered where nothing was to be written.
    pub(super) fn answer(self, existing: Link) -> Written {
        let existing = Box::new(existing);
        match self {
            Self::Absent => Written::Absent,
            Self::Gone => Written::Gone(existing),
            Self::Blocked => Written::Blocked(existing),
            Self::VersionMismatch => Written::VersionMismatch(existing),
            Self::NeverValid => Written::NeverValid(existing),
            Self::Repeat => Written::Link(existing),
            Self::Write(link) => Written::Link(link),
        }
    }
}

/// What to do about a row to take over whose slug has one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OnImport {
    Write,
    /// What is there is as new, or newer.
    Keep,
    /// What is there is another link: only its owner makes room.
    Conflict,
}

/// The first life of a slug. The signature is still to be set.
#[must_use]
pub(super) fn first_life(new: &NewLink, epoch: Epoch, now: Timestamp) -> Link {
    life(new, Version::first(epoch), now)
}

/// Decides about a create whose slug is taken by `existing`.
#[must_use]
pub(super) fn on_existing(
    existing: &Link,
    new: &NewLink,
    epoch: Epoch,
    now: Timestamp,
) -> OnExisting {
    if existing.create_id == new.create_id && existing.tenant == new.tenant {
        return OnExisting::Repeat;
    }
    // A minted slug is unique: meeting a row means that the key is burned.
    if new.kind == SlugKind::Minted {
        return OnExisting::Conflict;
    }
    if let Some(decided) = on_ended_by_key(existing, new, now) {
        return decided;
    }
    let is_own = existing.tenant == new.tenant;
    let ended = ended_at(existing, now);
    let free = match new.kind {
        // One that is used up or off has not ended: gateways may hold visits of it.
        SlugKind::Derived => is_own && ended.is_some(),
        _ => ended.is_some_and(|end| is_own || now >= end.after(QUARANTINE)),
    };
    if !free {
        return OnExisting::Conflict;
    }
    OnExisting::Recreate(Box::new(life(new, existing.version.next(epoch), now)))
}

/// Decides about a create under the `Idempotency-Key` that has made a link which is over. A
/// request that is sent again because its answer was lost must not bring it back.
fn on_ended_by_key(existing: &Link, new: &NewLink, now: Timestamp) -> Option<OnExisting> {
    let (made, asked) = existing.source.zip(new.source)?;
    let (made_by, asked_by) = made.digest.zip(asked.digest)?;
    let is_its_key = made.id == asked.id && existing.tenant == new.tenant;
    let end = ended_at(existing, now)?;
    if !is_its_key || now >= end.after(KEY_LIFE) {
        return None;
    }
    Some(if made_by == asked_by {
        OnExisting::Ended
    } else {
        OnExisting::Reused
    })
}

/// Whether a link is one that a create with its source is answered with. Under an
/// Idempotency-Key that is what the first request made, be it off or used up by now;
/// who asks for any link like this one wants one that leads somewhere.
#[must_use]
pub(super) fn is_live(link: &Link, used_up: bool, now: Timestamp) -> bool {
    let is_keyed = link.source.is_some_and(|source| source.digest.is_some());
    let leads_somewhere = match link.state {
        State::Active => !used_up,
        State::Disabled | State::Deleted => false,
        // Whoever is told so refuses it: another in its place would be a way around.
        State::Blocked => true,
    };
    (is_keyed || leads_somewhere) && ended_at(link, now).is_none()
}

/// Decides about a create whose source has a live link.
#[must_use]
pub(super) fn on_source(found: &Link, new: &NewLink) -> OnSource {
    let digest = |source: Option<Source>| source.and_then(|source| source.digest);
    if found.create_id == new.create_id {
        OnSource::Repeat
    } else if digest(found.source) == digest(new.source) {
        OnSource::Existing
    } else {
        OnSource::Reused
    }
}

/// The source that a create is looked for by.
#[must_use]
pub(super) fn sought(new: &NewLink) -> Option<Source> {
    // A minted slug follows from nothing: such a create is repeated by its id.
    new.source.filter(|_| new.kind != SlugKind::Minted)
}

/// Decides about a change of `existing`. The signature is still to be set.
#[must_use]
pub(super) fn on_write(
    existing: &Link,
    memory: Memory,
    write: &Write,
    epoch: Epoch,
    now: Timestamp,
) -> OnWrite {
    if matches!(&write.writer, Writer::Tenant(tenant) if *tenant != existing.tenant) {
        return OnWrite::Absent;
    }
    if memory.last_change == Some(write.change_id) {
        return OnWrite::Repeat;
    }
    let is_operator = write.writer == Writer::Operator;
    // Or deleting before and recreating after would be a way around a takedown.
    if existing.state == State::Deleted && !(is_operator && takes_down(&write.kind)) {
        return OnWrite::Gone;
    }
    // Or deleting and recreating it would be a way around the takedown.
    if existing.state == State::Blocked && !is_operator {
        return OnWrite::Blocked;
    }
    if write
        .if_version
        .is_some_and(|version| version != existing.version)
    {
        return OnWrite::VersionMismatch;
    }
    let mut link = existing.clone();
    match &write.kind {
        WriteKind::Update(patch) => patch.apply(&mut link),
        WriteKind::Delete => link.state = State::Deleted,
    }
    if is_operator && link.state == State::Active {
        link.state = match existing.state {
            // It may have been off, or gone, by its owner's will.
            State::Blocked => memory.before_block.unwrap_or(State::Active),
            // What was not taken down is not let up.
            other => other,
        };
    }
    if link == *existing {
        return OnWrite::Repeat;
    }
    // The edit may name one end alone. What was so before is no reason to refuse a title.
    if is_never_valid(&link) && !is_never_valid(existing) {
        return OnWrite::NeverValid;
    }
    if link.source.is_some_and(|source| source.digest.is_none()) && !answers_alike(existing, &link)
    {
        // Who asks for what the link was is to get that, and not what it has become.
        link.source = None;
    }
    link.version = existing.version.next(epoch);
    link.updated_at = now.max(existing.updated_at);
    OnWrite::Write(Box::new(link))
}

/// What an expired link becomes. The signature is still to be set.
#[must_use]
pub(super) fn on_expiry(mut link: Link, epoch: Epoch, now: Timestamp) -> Link {
    link.state = State::Deleted;
    link.version = link.version.next(epoch);
    link.updated_at = now.max(link.updated_at);
    link
}

/// Decides about a row to take over, by what the row that is there says of itself,
/// which may be all that can be read of it.
#[must_use]
pub(super) fn on_import(tenant: &str, id: LinkId, version: i64, given: &Link) -> OnImport {
    if tenant != given.tenant || id != given.id {
        OnImport::Conflict
    } else if version >= given.version.get().cast_signed() {
        OnImport::Keep
    } else {
        OnImport::Write
    }
}

/// Since when a link has been over for good; `None` while it is not. One that was
/// taken down is never over, or recreating it would be a way around.
fn ended_at(link: &Link, now: Timestamp) -> Option<Timestamp> {
    match link.state {
        // It may have expired long before somebody or something deleted it.
        State::Deleted => {
            let end = link.valid_until.unwrap_or(link.updated_at);
            Some(end.max(link.created_at).min(link.updated_at))
        }
        State::Active | State::Disabled => link.valid_until.filter(|until| *until <= now),
        State::Blocked => None,
    }
}

/// Whether two states of a link are the same but for what does not show in an answer.
/// Switching off and on does not count.
fn answers_alike(a: &Link, b: &Link) -> bool {
    let deciding = |link: &Link| {
        (
            link.long_url.clone(),
            link.redirect_status,
            link.forward_query,
            link.valid_since,
            link.valid_until,
            link.max_visits,
            link.password_hash.clone(),
        )
    };
    deciding(a) == deciding(b)
}

fn is_never_valid(link: &Link) -> bool {
    let both = link.valid_since.zip(link.valid_until);
    both.is_some_and(|(since, until)| since >= until)
}

fn takes_down(kind: &WriteKind) -> bool {
    matches!(kind, WriteKind::Update(patch) if patch.state == Some(State::Blocked))
}

fn life(new: &NewLink, version: Version, now: Timestamp) -> Link {
    Link {
        key: new.key.clone(),
        id: LinkId(Uuid::now_v7()),
        long_url: new.long_url.clone(),
        redirect_status: new.redirect_status,
        tenant: new.tenant.clone(),
        state: State::Active,
        version,
        created_at: now,
        updated_at: now,
        valid_since: new.valid_since,
        valid_until: new.valid_until,
        max_visits: new.max_visits,
        title: new.title.clone(),
        tags: new.tags.clone(),
        forward_query: new.forward_query,
        password_hash: new.password_hash.clone(),
        create_id: new.create_id,
        source: new.source,
        signature: [0; signature::LEN],
    }
}

/// The prefix of a slug as databases hold it.
#[must_use]
pub(super) fn prefix_text(slug: &Slug) -> &str {
    &slug.as_str()[..2]
}

#[cfg(test)]
mod tests {
    use waypost_domain::{CreateId, DomainId, LinkKey, LongUrl, RedirectStatus};

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000)
            .unwrap()
            .after(Duration::from_millis(millis))
    }

    fn new(tenant: &str, create_id: u128, kind: SlugKind) -> NewLink {
        NewLink {
            key: LinkKey {
                domain: DomainId::MAIN,
                slug: Slug::parse("abcdefgh").unwrap(),
            },
            kind,
            create_id: CreateId(Uuid::from_u128(create_id)),
            long_url: LongUrl::parse("https://example.com/").unwrap(),
            redirect_status: RedirectStatus::Found,
            tenant: tenant.to_owned(),
            valid_since: None,
            valid_until: None,
            max_visits: None,
            title: None,
            tags: Vec::new(),
            forward_query: false,
            password_hash: None,
            source: None,
        }
    }

    fn tombstone(of: &NewLink, now: Timestamp) -> Link {
        let mut link = first_life(of, Epoch::FIRST, now);
        link.state = State::Deleted;
        link
    }

    #[test]
    fn a_strangers_tombstone_is_free_after_ninety_days_and_not_before() {
        let stone = tombstone(&new("a", 1, SlugKind::Alias), at(0));
        let other = new("b", 2, SlugKind::Alias);
        let day_90 = at(0).after(QUARANTINE);
        let before = Timestamp::from_millis(day_90.millis() - 1).unwrap();
        let decide = |now| on_existing(&stone, &other, Epoch::FIRST, now);
        assert_eq!(decide(before), OnExisting::Conflict);
        assert!(matches!(decide(day_90), OnExisting::Recreate(_)));
    }

    #[test]
    fn the_ninety_days_of_a_purged_link_run_from_its_end() {
        let mut link = first_life(&new("a", 1, SlugKind::Alias), Epoch::FIRST, at(0));
        link.valid_until = Some(at(10));
        let month = Duration::from_hours(30 * 24);
        let stone = on_expiry(link.clone(), Epoch::FIRST, at(10).after(month));
        assert!(stone.version > link.version);
        assert!(stone.updated_at > link.updated_at);
        let other = new("b", 2, SlugKind::Alias);
        let decide = |now| on_existing(&stone, &other, Epoch::FIRST, now);
        assert_eq!(decide(at(9).after(QUARANTINE)), OnExisting::Conflict);
        let free = decide(at(10).after(QUARANTINE));
        assert!(matches!(free, OnExisting::Recreate(_)));
    }

    #[test]
    fn an_expired_link_is_its_owners_to_recreate_and_a_blocked_one_is_nobodys() {
        let mut expired = first_life(&new("a", 1, SlugKind::Alias), Epoch::FIRST, at(0));
        expired.valid_until = Some(at(10));
        let again = new("a", 2, SlugKind::Alias);
        let decide = |link: &Link, now| on_existing(link, &again, Epoch::FIRST, now);
        assert_eq!(decide(&expired, at(9)), OnExisting::Conflict);
        let OnExisting::Recreate(life) = decide(&expired, at(10)) else {
            panic!("the expired slug was not recreated");
        };
        assert!(life.version > expired.version);
        assert_ne!(life.id, expired.id);
        expired.state = State::Blocked;
        assert_eq!(decide(&expired, at(10)), OnExisting::Conflict);
    }

    #[test]
    fn a_key_brings_no_link_back_that_has_ended_until_it_is_forgotten() {
        let keyed = |create_id, digest| NewLink {
            source: Some(Source {
                id: [1; 16],
                digest: Some([digest; 16]),
            }),
            ..new("a", create_id, SlugKind::Derived)
        };
        let deleted = tombstone(&keyed(1, 1), at(0));
        let mut expired = first_life(&keyed(1, 1), Epoch::FIRST, at(0));
        expired.valid_until = Some(at(0));
        let forgotten = at(0).after(KEY_LIFE);
        let before = Timestamp::from_millis(forgotten.millis() - 1).unwrap();
        for link in [deleted, expired] {
            let decide = |new: &NewLink, now| on_existing(&link, new, Epoch::FIRST, now);
            assert_eq!(decide(&keyed(2, 1), before), OnExisting::Ended);
            assert_eq!(decide(&keyed(2, 2), before), OnExisting::Reused);
            let again = decide(&keyed(2, 1), forgotten);
            assert!(matches!(again, OnExisting::Recreate(_)));
            // Who asks for any link like it has no request in mind.
            let found = NewLink {
                source: Some(Source {
                    id: [1; 16],
                    digest: None,
                }),
                ..keyed(2, 1)
            };
            let again = decide(&found, before);
            assert!(matches!(again, OnExisting::Recreate(_)));
        }
    }

    #[test]
    fn a_minted_slug_is_never_recreated() {
        let stone = tombstone(&new("a", 1, SlugKind::Minted), at(0));
        let minted = new("a", 2, SlugKind::Minted);
        let decision = on_existing(&stone, &minted, Epoch::FIRST, at(1).after(QUARANTINE));
        assert_eq!(decision, OnExisting::Conflict);
    }
}
