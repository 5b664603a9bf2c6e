//! Who may change what, and what must not be signed.

use waypost_domain::{Change, ChangeId, Patch, State, Timestamp};
use waypost_shard_node::store::{
    Created, Resolved, Session as _, Write, WriteKind, Writer, Written,
};

use crate::fixture::*;

pub(crate) fn to_state(state: State) -> WriteKind {
    WriteKind::Update(Box::new(Patch {
        state: Some(state),
        ..Patch::default()
    }))
}

pub(crate) async fn what_the_operator_takes_down_is_out_of_its_owners_reach(
    database: &impl Database,
) {
    let mut session = database.session().await;
    let mut new = alias("td-link");
    new.valid_until = Timestamp::from_millis(1);
    let created = create(&mut session, &new).await;
    let block = || to_state(State::Blocked);
    let outcome = write_by(&mut session, Writer::Operator, "td-link", block()).await;
    let blocked = written(&outcome);
    assert_eq!(blocked.state, State::Blocked);
    assert!(versions_rise(&[&created, &blocked]));
    assert!(key_ring().verify(&blocked));

    let refusal = Written::Blocked(Box::new(blocked.clone()));
    let tries = [
        to_url("https://example.org/"),
        to_state(State::Active),
        to_state(State::Disabled),
        WriteKind::Delete,
    ];
    for kind in tries {
        assert_eq!(write(&mut session, "td-link", kind).await, refusal);
    }
    let stranger = Writer::Tenant("other".to_owned());
    let outcome = write_by(&mut session, stranger, "td-link", WriteKind::Delete).await;
    assert_eq!(outcome, Written::Absent);
    // It has expired, and is nobody's to make anew.
    let outcomes = session.create_batch(&[alias("td-link")]).await.unwrap();
    assert_eq!(outcomes, [Created::Conflict]);

    let unblock = || to_state(State::Active);
    let outcome = write_by(&mut session, Writer::Operator, "td-link", unblock()).await;
    let restored = written(&outcome);
    assert_eq!(restored.state, State::Active);
    assert!(versions_rise(&[&blocked, &restored]));
    let off = written(&write(&mut session, "td-link", to_state(State::Disabled)).await);
    // What was not taken down is not let up.
    let outcome = write_by(&mut session, Writer::Operator, "td-link", unblock()).await;
    assert_eq!(written(&outcome), off);
    let outcome = write_by(&mut session, Writer::Operator, "td-none", block()).await;
    assert_eq!(outcome, Written::Absent);
}

pub(crate) async fn a_tombstone_that_is_taken_down_is_nobodys_to_recreate(
    database: &impl Database,
) {
    let mut session = database.session().await;
    let find = || super::sources::derived("ts000001", 1);
    for new in [alias("ts-alias"), find()] {
        let slug = new.key.slug.as_str().to_owned();
        create(&mut session, &new).await;
        let stone = delete(&mut session, &slug).await;
        let lift = to_state(State::Active);
        let outcome = write_by(&mut session, Writer::Operator, &slug, lift).await;
        assert_eq!(outcome, Written::Gone(Box::new(stone.clone())));
        let block = to_state(State::Blocked);
        let blocked = written(&write_by(&mut session, Writer::Operator, &slug, block).await);
        assert_eq!(blocked.state, State::Blocked);
        assert!(versions_rise(&[&stone, &blocked]));
    }
    let outcomes = session.create_batch(&[alias("ts-alias"), find()]).await;
    let outcomes = outcomes.unwrap();
    assert_eq!(outcomes[0], Created::Conflict);
    // Which is refused, as everything that finds a link that was taken down.
    let is_blocked = |outcome: &Created| matches!(outcome, Created::Existing(link) if link.state == State::Blocked);
    assert!(is_blocked(&outcomes[1]), "{:?}", outcomes[1]);
}

pub(crate) async fn a_takedown_that_is_lifted_leaves_what_was_there_before(
    database: &impl Database,
) {
    let mut session = database.session().await;
    for before in [State::Active, State::Disabled, State::Deleted] {
        create(&mut session, &alias("tl-link")).await;
        match before {
            State::Deleted => drop(delete(&mut session, "tl-link").await),
            _ => drop(write(&mut session, "tl-link", to_state(before)).await),
        }
        // Twice, and it is still known what it was.
        for _ in 0..2 {
            let block = to_state(State::Blocked);
            write_by(&mut session, Writer::Operator, "tl-link", block).await;
        }
        let lift = to_state(State::Active);
        let lifted = written(&write_by(&mut session, Writer::Operator, "tl-link", lift).await);
        assert_eq!(lifted.state, before);
        assert!(key_ring().verify(&lifted));
        let remembered = "SELECT count(*) FROM links WHERE state_before_block IS NOT NULL";
        assert_eq!(database.count(remembered).await, 0);
        database.execute("DELETE FROM links").await;
    }
}

pub(crate) async fn an_edit_that_changes_nothing_makes_no_version(database: &impl Database) {
    let mut session = database.session().await;
    let created = create(&mut session, &alias("no-link")).await;
    let same = Patch {
        long_url: Some(created.long_url.clone()),
        state: Some(State::Active),
        valid_until: Change::Clear,
        tags: Some(Vec::new()),
        ..Patch::default()
    };
    for patch in [same.clone(), Patch::default()] {
        let kind = WriteKind::Update(Box::new(patch));
        let outcome = write(&mut session, "no-link", kind).await;
        assert_eq!(outcome, Written::Link(Box::new(created.clone())));
    }
    assert!(session.oldest(10).await.unwrap().is_empty());
    let title = Patch {
        title: Change::Set("a title".to_owned()),
        ..same
    };
    let kind = WriteKind::Update(Box::new(title));
    let titled = written(&write(&mut session, "no-link", kind).await);
    assert!(versions_rise(&[&created, &titled]));
}

pub(crate) async fn an_edit_that_would_end_a_link_before_it_begins_is_refused(
    database: &impl Database,
) {
    let mut session = database.session().await;
    let at = |millis| Timestamp::from_millis(millis);
    let mut new = alias("nv-link");
    (new.valid_since, new.valid_until) = (at(1_000), at(2_000));
    let created = create(&mut session, &new).await;
    let since = |millis| Patch {
        valid_since: Change::Set(at(millis).unwrap()),
        ..Patch::default()
    };
    let until = |millis| Patch {
        valid_until: Change::Set(at(millis).unwrap()),
        ..Patch::default()
    };
    for patch in [since(2_000), since(3_000), until(1_000), until(1)] {
        let kind = WriteKind::Update(Box::new(patch));
        let outcome = write(&mut session, "nv-link", kind).await;
        assert_eq!(outcome, Written::NeverValid(Box::new(created.clone())));
    }
    let kind = WriteKind::Update(Box::new(since(1_999)));
    written(&write(&mut session, "nv-link", kind).await);
}

pub(crate) async fn a_takedown_that_is_tried_twice_is_made_once(database: &impl Database) {
    let mut session = database.session().await;
    create(&mut session, &alias("tw-link")).await;
    let takedown = Write {
        key: key("tw-link"),
        writer: Writer::Operator,
        if_version: None,
        change_id: ChangeId(uuid::Uuid::new_v4()),
        kind: to_state(State::Blocked),
    };
    let once = written(&session.write(&takedown).await.unwrap());
    let twice = written(&session.write(&takedown).await.unwrap());
    assert_eq!(once, twice);
    assert_eq!(session.oldest(10).await.unwrap().len(), 1);
}

pub(crate) async fn a_row_that_was_forged_is_never_signed_again(database: &impl Database) {
    let mut session = database.session().await;
    let forgeries = [
        "UPDATE links SET long_url = 'https://evil.example/'",
        "UPDATE links SET tenant = 'acme', state = 1 WHERE tenant <> 'acme'",
        // Nothing that a link could have.
        "UPDATE links SET long_url = 'evil'",
    ];
    for (at, forgery) in forgeries.into_iter().enumerate() {
        let mut new = alias("fo-link");
        if at == 1 {
            new.tenant = "other".to_owned();
        }
        new.valid_until = Timestamp::from_millis(1);
        new.source = super::sources::derived("fo-link", 7).source;
        create(&mut session, &new).await;
        database.execute(forgery).await;
        for kind in [to_url("https://example.org/"), WriteKind::Delete] {
            let outcome = write(&mut session, "fo-link", kind).await;
            assert_eq!(outcome, Written::Damaged, "forgery {at}");
        }
        let takedown = to_state(State::Blocked);
        let outcome = write_by(&mut session, Writer::Operator, "fo-link", takedown).await;
        assert_eq!(outcome, Written::Damaged, "forgery {at}");
        // By its slug, and by its source; the others of the batch come through.
        let batch = [
            alias("fo-aaaa"),
            alias("fo-link"),
            super::sources::derived("fo000001", 7),
            alias("fo-zzzz"),
        ];
        let outcomes = session.create_batch(&batch).await.unwrap();
        stored(&outcomes[0]);
        assert_eq!(outcomes[1..3], [Created::Damaged, Created::Damaged]);
        stored(&outcomes[3]);
        assert_eq!(database.count("SELECT count(*) FROM outbox").await, 0);
        database.execute("DELETE FROM links").await;
    }
}

pub(crate) async fn a_damaged_row_fails_alone_in_a_look_up(database: &impl Database) {
    let mut session = database.session().await;
    create(&mut session, &alias("da-good")).await;
    create(&mut session, &alias("da-link")).await;
    database
        .execute("UPDATE links SET long_url = 'evil' WHERE slug = 'da-link'")
        .await;
    let keys = [key("da-link"), key("da-good"), key("da-none")];
    let resolved = session.resolve_batch(&keys).await.unwrap();
    assert_eq!(resolved[0], Resolved::Damaged);
    assert!(matches!(resolved[1], Resolved::Found(_)));
    assert_eq!(resolved[2], Resolved::Absent);
}

pub(crate) async fn a_change_of_a_damaged_row_is_told_without_it(database: &impl Database) {
    let mut session = database.session().await;
    for slug in ["dc-good", "dc-link"] {
        create(&mut session, &alias(slug)).await;
        update(&mut session, slug, "https://example.org/").await;
    }
    database
        .execute("UPDATE links SET long_url = 'evil' WHERE slug = 'dc-link'")
        .await;
    let start = waypost_shard_node::store::Cursor::starting_at(0);
    for changes in [
        session.oldest(10).await.unwrap(),
        session.poll(&start, 10).await.unwrap().changes,
    ] {
        let whole: Vec<bool> = changes.iter().map(|change| change.link.is_some()).collect();
        assert_eq!(whole, [true, false]);
    }
}
