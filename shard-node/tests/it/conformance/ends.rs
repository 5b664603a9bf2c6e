//! Links that end, and links that go from one database to another.

use std::time::Duration;

use waypost_domain::{Change, Link, Patch, State, Timestamp, Version};
use waypost_shard_node::store::{
    Expired, Imported, Resolved, Session, Transferred, WriteKind, Writer,
};

use super::writes::to_state;
use crate::fixture::*;

/// Long before every test.
fn past(millis: i64) -> Option<Timestamp> {
    Timestamp::from_millis(1_700_000_000_000 + millis)
}

const HOUR: Duration = Duration::from_secs(3_600);

async fn until(session: &mut impl Session, slug: &str, at: Option<Timestamp>) -> Link {
    let mut new = alias(slug);
    new.valid_until = at;
    create(session, &new).await
}

async fn read(session: &mut impl Session, slug: &str) -> Link {
    match session.resolve_batch(&[key(slug)]).await.unwrap().remove(0) {
        Resolved::Found(link) => *link,
        other => panic!("not found: {other:?}"),
    }
}

/// All steps of a pass: how many tombstones each made, and the damaged rows in all.
async fn purge(session: &mut impl Session, age: Duration, step: u32) -> (Vec<usize>, usize) {
    let (mut buried, mut damaged) = (Vec::new(), 0);
    let mut after: Option<Expired> = None;
    loop {
        let purged = session.purge(age, after.as_ref(), step).await.unwrap();
        buried.push(purged.buried);
        damaged += purged.damaged;
        after = purged.next;
        if after.is_none() {
            return (buried, damaged);
        }
    }
}

pub(crate) async fn links_that_expired_long_ago_become_tombstones(database: &impl Database) {
    let mut session = database.session().await;
    let first = until(&mut session, "ex-first", past(1)).await;
    until(&mut session, "ex-second", past(1)).await;
    until(&mut session, "ex-third", past(2)).await;
    until(&mut session, "ex-never", None).await;
    until(&mut session, "ex-later", Some(Timestamp::MAX)).await;
    until(&mut session, "mo-moved", past(1)).await;
    until(&mut session, "ex-evil", past(1)).await;
    until(&mut session, "ex-block", past(1)).await;
    until(&mut session, "ex-off", past(3)).await;
    let state = |state| {
        WriteKind::Update(Box::new(Patch {
            state: Some(state),
            ..Patch::default()
        }))
    };
    let block = state(State::Blocked);
    written(&write_by(&mut session, Writer::Operator, "ex-block", block).await);
    written(&write(&mut session, "ex-off", state(State::Disabled)).await);
    database
        .execute("UPDATE prefix_owner SET epoch = 2, state = 'moved', moved_to = 's7' WHERE prefix = 'mo'")
        .await;
    database
        .execute("UPDATE links SET long_url = 'https://evil.example/' WHERE slug = 'ex-evil'")
        .await;
    database.execute("DELETE FROM outbox").await;
    let age = Duration::from_millis(
        (Timestamp::from(std::time::SystemTime::now()).millis() - past(0).unwrap().millis()) as u64,
    );
    // None has been over for so long yet.
    assert_eq!(purge(&mut session, age + HOUR, 10).await, (vec![0], 0));
    let (buried, damaged) = purge(&mut session, age - HOUR, 2).await;
    assert_eq!(buried.iter().sum::<usize>(), 4, "{buried:?}");
    assert_eq!(damaged, 1);
    for slug in ["ex-first", "ex-second", "ex-third", "ex-off"] {
        let stone = read(&mut session, slug).await;
        assert_eq!(stone.state, State::Deleted);
        assert!(key_ring().verify(&stone));
    }
    let stone = read(&mut session, "ex-first").await;
    assert!(versions_rise(&[&first, &stone]));
    assert_eq!((stone.id, stone.valid_until), (first.id, first.valid_until));
    assert_eq!(read(&mut session, "ex-never").await.state, State::Active);
    assert_eq!(read(&mut session, "ex-later").await.state, State::Active);
    assert_eq!(read(&mut session, "ex-evil").await.state, State::Active);
    assert_eq!(read(&mut session, "ex-block").await.state, State::Blocked);
    let stones = "SELECT count(*) FROM links WHERE state = 4";
    assert_eq!(database.count(stones).await, 4);
    let told = session.oldest(100).await.unwrap();
    assert_eq!(told.len(), 4);
    let is_stone = |link: &Link| link.state == State::Deleted;
    assert!(
        told.iter()
            .all(|change| change.link.as_deref().is_some_and(is_stone))
    );
    assert_eq!(purge(&mut session, age - HOUR, 10).await, (vec![0], 1));
}

pub(crate) async fn an_expired_link_that_its_owner_extends_stays(database: &impl Database) {
    let mut session = database.session().await;
    until(&mut session, "ex-tend", past(1)).await;
    let patch = Patch {
        valid_until: Change::Set(Timestamp::MAX),
        ..Patch::default()
    };
    written(&write(&mut session, "ex-tend", WriteKind::Update(Box::new(patch))).await);
    assert_eq!(purge(&mut session, HOUR, 10).await, (vec![0], 0));
}

/// All rows, by pages of this size.
async fn export(session: &mut impl Session, size: u32) -> Vec<Transferred> {
    let mut all: Vec<Transferred> = Vec::new();
    loop {
        let after = all.last().map(|row| row.link.key.clone());
        let page = session.export(after.as_ref(), size).await.unwrap();
        let is_last = page.rows.len() < size as usize;
        all.extend(page.rows);
        if is_last {
            return all;
        }
    }
}

pub(crate) async fn what_is_exported_can_be_imported_as_it_was(database: &impl Database) {
    let mut session = database.session().await;
    let mut new = super::sources::keyed(alias("tr-full"), 1, 2);
    new.title = Some("a \"title\"".to_owned());
    new.tags = vec!["a".to_owned(), "b,c".to_owned()];
    new.max_visits = Some(500);
    new.valid_since = past(1);
    new.password_hash = Some("hash".to_owned());
    let full = create(&mut session, &new).await;
    let lease = waypost_shard_node::store::Lease {
        key: full.key.clone(),
        link_id: full.id,
        wanted: 40,
        lease_id: uuid::Uuid::new_v4(),
        returned: 0,
    };
    session.lease_visits(&[lease]).await.unwrap();
    for slug in ["tr-link", "tr-stone", "mo-moved", "tr-evil", "tr-evil2"] {
        create(&mut session, &alias(slug)).await;
    }
    update(&mut session, "tr-link", "https://example.org/").await;
    delete(&mut session, "tr-stone").await;
    create(&mut session, &alias("tr-taken")).await;
    written(&write(&mut session, "tr-taken", to_state(State::Disabled)).await);
    let block = to_state(State::Blocked);
    written(&write_by(&mut session, Writer::Operator, "tr-taken", block).await);
    database
        .execute("UPDATE prefix_owner SET epoch = 2, state = 'moved', moved_to = 's7' WHERE prefix = 'mo'")
        .await;
    database
        .execute("UPDATE links SET long_url = 'https://evil.example/' WHERE slug = 'tr-evil'")
        .await;
    database
        .execute("UPDATE links SET long_url = 'evil' WHERE slug = 'tr-evil2'")
        .await;
    let rows = export(&mut session, 1).await;
    let slugs: Vec<&str> = rows.iter().map(|row| row.link.key.slug.as_str()).collect();
    assert_eq!(slugs, ["tr-full", "tr-link", "tr-stone", "tr-taken"]);
    assert_eq!(rows[3].before_block, Some(State::Disabled));
    assert_eq!(*rows[0].link, full);
    assert_eq!(rows[0].visits_leased, 40);
    assert_eq!(rows[2].link.state, State::Deleted);
    assert_eq!(export(&mut session, 100).await, rows);
    let page = session.export(None, 100).await.unwrap();
    assert_eq!(page.damaged, 2);

    // Somewhere else.
    for table in [
        "DELETE FROM links",
        "DELETE FROM visits",
        "DELETE FROM outbox",
    ] {
        database.execute(table).await;
    }
    let mut unsigned = rows.clone();
    for row in &mut unsigned {
        row.link.signature = [0; waypost_domain::signature::LEN];
    }
    unsigned.reverse();
    let written: Vec<Imported> = rows
        .iter()
        .rev()
        .map(|row| Imported::Written(row.link.clone()))
        .collect();
    assert_eq!(session.import(&unsigned).await.unwrap(), written);
    assert_eq!(export(&mut session, 2).await, rows);
    assert_eq!(session.oldest(100).await.unwrap().len(), 4);
    let kept: Vec<Imported> = rows
        .iter()
        .rev()
        .map(|row| Imported::Kept(row.link.clone()))
        .collect();
    assert_eq!(session.import(&unsigned).await.unwrap(), kept);
    assert_eq!(session.oldest(100).await.unwrap().len(), 4, "told once");
    let lift = to_state(State::Active);
    let lifted = write_by(&mut session, Writer::Operator, "tr-taken", lift).await;
    assert_eq!(
        crate::fixture::written(&lifted).state,
        State::Disabled,
        "as it was before"
    );
}

pub(crate) async fn an_import_replaces_what_is_older_and_nobody_elses(database: &impl Database) {
    let mut session = database.session().await;
    let old = create(&mut session, &alias("im-link")).await;
    let new = update(&mut session, "im-link", "https://example.org/").await;
    let given = |link: &Link| Transferred {
        link: Box::new(link.clone()),
        visits_leased: 0,
        before_block: None,
    };
    let kept = Imported::Kept(Box::new(new.clone()));
    assert_eq!(session.import(&[given(&old)]).await.unwrap(), [kept]);

    let mut newest = new.clone();
    newest.version = Version::from_stored(new.version.get() + 100).unwrap();
    newest.long_url = url("https://example.org/imported");
    newest.signature = key_ring().sign(&newest);
    let mut moved = newest.clone();
    moved.key = key("mo-link");
    // The same twice: the second meets the first.
    let batch = [given(&newest), given(&moved), given(&newest)];
    database
        .execute("UPDATE prefix_owner SET epoch = 2, state = 'moved', moved_to = 's7' WHERE prefix = 'mo'")
        .await;
    let outcomes = session.import(&batch).await.unwrap();
    assert_eq!(outcomes[0], Imported::Written(Box::new(newest.clone())));
    assert!(matches!(outcomes[1], Imported::Moved(_)));
    assert_eq!(outcomes[2], Imported::Kept(Box::new(newest.clone())));
    assert_eq!(read(&mut session, "im-link").await, newest);
    let audited = "SELECT count(*) FROM audit WHERE new_url = 'https://example.org/imported'";
    assert_eq!(database.count(audited).await, 1);

    let mut stranger = newest.clone();
    stranger.tenant = "other".to_owned();
    stranger.version = Version::from_stored(new.version.get() + 200).unwrap();
    let conflict = Imported::Conflict(Box::new(newest.clone()));
    assert_eq!(
        session.import(&[given(&stranger)]).await.unwrap(),
        [conflict]
    );
    // Its owner may have made another link there since: nobody can tell which is meant.
    let mut other = newest.clone();
    other.id = waypost_domain::LinkId(uuid::Uuid::new_v4());
    other.version = Version::from_stored(new.version.get() + 200).unwrap();
    let conflict = Imported::Conflict(Box::new(newest.clone()));
    assert_eq!(session.import(&[given(&other)]).await.unwrap(), [conflict]);
    // A damaged row is mended by a newer one, which is all that can be known of it.
    database.execute("UPDATE links SET long_url = 'evil'").await;
    let damaged = session.import(&[given(&newest)]).await.unwrap();
    assert_eq!(damaged, [Imported::Damaged]);
    newest.version = Version::from_stored(new.version.get() + 101).unwrap();
    newest.signature = key_ring().sign(&newest);
    let mended = Imported::Written(Box::new(newest.clone()));
    assert_eq!(session.import(&[given(&newest)]).await.unwrap(), [mended]);
    assert_eq!(read(&mut session, "im-link").await, newest);
}

pub(crate) async fn an_epoch_begins_for_all_prefixes_that_are_owned_and_in_none_later(
    database: &impl Database,
) {
    let mut session = database.session().await;
    let old = create(&mut session, &alias("ep-link")).await;
    for later in [
        "UPDATE prefix_owner SET epoch = 9 WHERE prefix = 'la'",
        "UPDATE prefix_owner SET epoch = 2, state = 'moved', moved_to = 's7' WHERE prefix = 'mo'",
    ] {
        database.execute(later).await;
    }
    let seventh = waypost_domain::Epoch::new(7).unwrap();
    for _ in 0..2 {
        session.begin_epoch(seventh).await.unwrap();
        let owners = session.ownership().await.unwrap();
        let epochs = |owner: &waypost_shard_node::store::PrefixOwner| owner.epoch.get();
        assert_eq!(
            owners.iter().filter(|owner| epochs(owner) == 7).count(),
            3_842
        );
        let of = |text: &str| owners.iter().find(|owner| owner.prefix == prefix(text));
        assert_eq!(of("la").map(epochs), Some(9));
        assert_eq!(of("mo").map(epochs), Some(2));
    }
    session
        .begin_epoch(waypost_domain::Epoch::FIRST)
        .await
        .unwrap();
    let new = update(&mut session, "ep-link", "https://example.org/").await;
    assert_eq!(new.version, Version::first(seventh));
    assert!(new.version > old.version);
}
