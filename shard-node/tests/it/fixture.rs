//! A database for a test, and links to put there.

use std::time::Duration;

use uuid::Uuid;
use waypost_domain::shard_map::{Shard, ShardMap};
use waypost_domain::signature::KeyRing;
use waypost_domain::{
    ChangeId, CreateId, DomainId, Link, LinkKey, LongUrl, NewLink, Patch, Prefix, RedirectStatus,
    ShardId, Slug, SlugKind, Version,
};
use waypost_shard_node::store::{Created, LinkStore, Session, Write, WriteKind, Writer, Written};

/// What the conformance suite needs of a database beside the store: to change
/// and count rows behind its back.
pub(crate) trait Database {
    type Store: LinkStore;

    fn store(&self) -> &Self::Store;
    async fn execute(&self, sql: &'static str);
    async fn count(&self, sql: &'static str) -> i64;

    async fn session(&self) -> <Self::Store as LinkStore>::Session {
        let purpose = waypost_shard_node::store::Purpose::Write;
        self.store().connect(purpose).await.unwrap()
    }
}

pub(crate) fn shard(id: &str) -> ShardId {
    ShardId::parse(id).unwrap()
}

/// A map of one shard, `s0`.
pub(crate) fn map() -> ShardMap {
    map_of(&["s0"])
}

pub(crate) fn map_of(ids: &[&str]) -> ShardMap {
    let shards = ids.iter().map(|id| Shard {
        id: shard(id),
        region: "local".to_owned(),
        nodes: vec!["127.0.0.1:1".to_owned()],
    });
    ShardMap::seed(shards.collect()).unwrap()
}

pub(crate) fn key_ring() -> KeyRing {
    KeyRing::parse(&format!("1:{}", "5a".repeat(32))).unwrap()
}

pub(crate) fn key(slug: &str) -> LinkKey {
    LinkKey {
        domain: DomainId::MAIN,
        slug: Slug::parse(slug).unwrap(),
    }
}

pub(crate) fn url(text: &str) -> LongUrl {
    LongUrl::parse(text).unwrap()
}

pub(crate) fn minted(slug: &str) -> NewLink {
    NewLink {
        key: key(slug),
        kind: SlugKind::Minted,
        create_id: CreateId(Uuid::new_v4()),
        long_url: url(&format!("https://example.com/{slug}")),
        redirect_status: RedirectStatus::Found,
        tenant: "acme".to_owned(),
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

pub(crate) fn alias(slug: &str) -> NewLink {
    NewLink {
        kind: SlugKind::Alias,
        ..minted(slug)
    }
}

pub(crate) async fn create(session: &mut impl Session, link: &NewLink) -> Link {
    let outcomes = session.create_batch(std::slice::from_ref(link)).await;
    stored(&outcomes.unwrap()[0])
}

pub(crate) fn stored(outcome: &Created) -> Link {
    match outcome {
        Created::Stored { link, .. } => (**link).clone(),
        other => panic!("not stored: {other:?}"),
    }
}

pub(crate) fn acme() -> Writer {
    Writer::Tenant("acme".to_owned())
}

pub(crate) async fn write(session: &mut impl Session, slug: &str, kind: WriteKind) -> Written {
    write_by(session, acme(), slug, kind).await
}

pub(crate) async fn write_by(
    session: &mut impl Session,
    writer: Writer,
    slug: &str,
    kind: WriteKind,
) -> Written {
    let write = Write {
        key: key(slug),
        writer,
        if_version: None,
        change_id: ChangeId(Uuid::new_v4()),
        kind,
    };
    session.write(&write).await.unwrap()
}

pub(crate) async fn update(session: &mut impl Session, slug: &str, to: &str) -> Link {
    written(&write(session, slug, to_url(to)).await)
}

pub(crate) async fn delete(session: &mut impl Session, slug: &str) -> Link {
    written(&write(session, slug, WriteKind::Delete).await)
}

pub(crate) fn to_url(to: &str) -> WriteKind {
    WriteKind::Update(Box::new(Patch {
        long_url: Some(url(to)),
        ..Patch::default()
    }))
}

pub(crate) fn written(outcome: &Written) -> Link {
    match outcome {
        Written::Link(link) => (**link).clone(),
        other => panic!("not written: {other:?}"),
    }
}

pub(crate) fn versions_rise(links: &[&Link]) -> bool {
    let versions: Vec<Version> = links.iter().map(|link| link.version).collect();
    versions.is_sorted_by(|a, b| a < b)
}

pub(crate) fn prefix(text: &str) -> Prefix {
    Prefix::parse(text).unwrap()
}

/// Waits until a condition holds, for as long as a busy machine may take.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "waited in vain: {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
