//! What every store must do. Each store runs all of it.

use uuid::Uuid;
use waypost_domain::{ChangeId, Epoch, Patch, State, Timestamp, Version};
use waypost_shard_node::store::{
    Created, Cursor, LinkStore as _, Purpose, Resolved, Session as _, Write, WriteKind, Writer,
    Written,
};

use crate::fixture::*;

mod ends;
mod lists;
mod sources;
mod visits;
mod writes;

pub(crate) use ends::*;
pub(crate) use lists::*;
pub(crate) use sources::*;
pub(crate) use visits::*;
pub(crate) use writes::*;

/// Makes a test of each behaviour for a store, given what opens a database.
macro_rules! conformance {
    ($open:expr; $($behaviour:ident)*) => {
        $(
            #[tokio::test]
            async fn $behaviour() {
                crate::conformance::$behaviour(&$open.await).await;
            }
        )*
    };
    ($open:expr) => {
        crate::conformance::conformance! {
            $open;
            a_created_link_reads_back_in_full
            outcomes_come_in_the_order_of_the_items
            a_repeated_create_makes_no_second_link
            a_slug_of_another_create_is_a_conflict
            a_batch_with_taken_slugs_and_retries_stores_the_others
            the_same_slug_twice_in_a_batch_is_stored_once
            an_update_changes_what_it_names_and_nothing_else
            an_update_of_a_wrong_version_changes_nothing
            a_change_that_is_tried_twice_is_made_once
            another_tenants_link_is_absent_to_writes
            a_deleted_link_is_a_tombstone_and_stays_one
            an_owner_recreates_an_alias_with_a_new_life_and_a_higher_version
            another_tenants_link_and_its_fresh_tombstone_are_conflicts
            a_prefix_that_moved_answers_so_whether_found_or_not
            versions_carry_the_owners_epoch_and_never_run_backwards
            every_stored_link_is_signed
            the_outbox_has_each_change_once_and_no_create_or_failure
            a_cursor_sees_each_change_once_in_portions
            applied_changes_are_kept_for_their_time_and_can_be_made_due_again
            each_change_of_destination_is_audited
            ownership_names_every_prefix_and_is_seeded_once
            a_store_tells_how_much_it_holds
            a_database_of_another_shard_is_refused
            a_schema_of_a_later_release_is_refused
            a_live_link_is_found_by_its_source_whatever_its_slug
            a_key_that_was_used_for_another_request_is_reused
            a_claimed_key_is_reused_by_another_request
            a_dead_link_is_not_found_by_its_source
            a_used_up_link_is_found_by_its_key_alone_and_keeps_its_slug
            a_link_that_is_off_is_found_by_its_key_alone
            an_edit_of_what_decides_the_answer_lets_go_of_the_source
            two_slugs_of_one_source_in_a_batch_make_one_link
            a_link_of_a_moved_prefix_is_not_found_by_its_source
            of_a_hundred_racing_creates_of_a_source_one_makes_the_link
            what_the_operator_takes_down_is_out_of_its_owners_reach
            a_takedown_that_is_tried_twice_is_made_once
            a_tombstone_that_is_taken_down_is_nobodys_to_recreate
            a_takedown_that_is_lifted_leaves_what_was_there_before
            an_edit_that_changes_nothing_makes_no_version
            an_edit_that_would_end_a_link_before_it_begins_is_refused
            a_row_that_was_forged_is_never_signed_again
            a_damaged_row_fails_alone_in_a_look_up
            a_change_of_a_damaged_row_is_told_without_it
            a_list_has_each_link_once_newest_first_whatever_the_page
            a_list_passes_over_moved_and_damaged_rows_and_says_so
            racing_leases_grant_every_visit_and_not_one_more
            a_lease_that_is_tried_twice_is_granted_once
            edits_of_the_limit_keep_what_is_leased_and_a_new_life_does_not
            leases_of_many_links_come_in_order
            a_key_is_claimed_by_one_request
            of_racing_claims_of_a_key_one_request_wins
            links_that_expired_long_ago_become_tombstones
            an_expired_link_that_its_owner_extends_stays
            what_is_exported_can_be_imported_as_it_was
            an_import_replaces_what_is_older_and_nobody_elses
            an_epoch_begins_for_all_prefixes_that_are_owned_and_in_none_later
        }
    };
}
pub(crate) use conformance;

pub(crate) async fn a_created_link_reads_back_in_full(database: &impl Database) {
    let mut session = database.session().await;
    let mut new = alias("full-house");
    new.long_url = url("https://example.com/a?q=%C3%A4#f");
    new.redirect_status = waypost_domain::RedirectStatus::PermanentRedirect;
    new.valid_since = Timestamp::from_millis(1_700_000_000_123);
    new.valid_until = Some(Timestamp::MAX);
    new.max_visits = Some(i64::MAX as u64);
    new.title = Some("Ein \"Titel\" mit \\ und 'so'".to_owned());
    new.tags = vec![
        "a b".to_owned(),
        "\"{,}\\".to_owned(),
        String::new(),
        "NULL".to_owned(),
    ];
    new.forward_query = true;
    new.password_hash = Some("$argon2id$x".to_owned());
    let created = create(&mut session, &new).await;
    assert_eq!(created.long_url, new.long_url);
    assert_eq!(created.tags, new.tags);
    assert_eq!(created.valid_until, new.valid_until);
    assert_eq!(created.state, State::Active);
    assert_eq!(created.created_at, created.updated_at);
    let mut reader = database.store().connect(Purpose::Read).await.unwrap();
    let read = reader
        .resolve_batch(std::slice::from_ref(&new.key))
        .await
        .unwrap();
    assert_eq!(read, [Resolved::Found(Box::new(created))]);
}

pub(crate) async fn outcomes_come_in_the_order_of_the_items(database: &impl Database) {
    let mut session = database.session().await;
    create(&mut session, &minted("mm000000")).await;
    let batch = [
        alias("zz-alias"),
        minted("zz000000"),
        minted("mm000000"),
        alias("aa-alias"),
        minted("aa000000"),
    ];
    let outcomes = session.create_batch(&batch).await.unwrap();
    assert_eq!(outcomes[2], Created::Conflict);
    for at in [0, 1, 3, 4] {
        assert_eq!(stored(&outcomes[at]).key, batch[at].key);
        assert_eq!(stored(&outcomes[at]).create_id, batch[at].create_id);
    }
    let keys = [
        key("zz000000"),
        key("nosuchlink"),
        key("aa-alias"),
        key("zz000000"),
    ];
    let resolved = session.resolve_batch(&keys).await.unwrap();
    let slugs: Vec<Option<String>> = resolved
        .iter()
        .map(|outcome| match outcome {
            Resolved::Found(link) => Some(link.key.slug.to_string()),
            _ => None,
        })
        .collect();
    let expected = [Some("zz000000"), None, Some("aa-alias"), Some("zz000000")];
    assert_eq!(slugs, expected.map(|slug| slug.map(str::to_owned)));
}

pub(crate) async fn a_repeated_create_makes_no_second_link(database: &impl Database) {
    let mut session = database.session().await;
    for new in [minted("rr000001"), alias("rr-again")] {
        let first = create(&mut session, &new).await;
        let again = create(&mut session, &new).await;
        assert_eq!(again, first);
    }
    assert_eq!(database.count("SELECT count(*) FROM links").await, 2);
    // Even after an edit the answer is the link, and the edit stays.
    let edited = update(&mut session, "rr-again", "https://example.org/").await;
    let mut new = alias("rr-again");
    new.create_id = edited.create_id;
    assert_eq!(create(&mut session, &new).await, edited);
    // A stranger with the same id learns nothing.
    new.tenant = "other".to_owned();
    let outcomes = session.create_batch(&[new]).await.unwrap();
    assert_eq!(outcomes, [Created::Conflict]);
}

pub(crate) async fn a_slug_of_another_create_is_a_conflict(database: &impl Database) {
    let mut session = database.session().await;
    for kind in [minted, alias] {
        let first = create(&mut session, &kind("cc000001")).await;
        let outcomes = session.create_batch(&[kind("cc000001")]).await.unwrap();
        assert_eq!(outcomes, [Created::Conflict]);
        let read = session.resolve_batch(&[key("cc000001")]).await.unwrap();
        assert_eq!(read, [Resolved::Found(Box::new(first))]);
        database.execute("DELETE FROM links").await;
    }
}

pub(crate) async fn a_batch_with_taken_slugs_and_retries_stores_the_others(
    database: &impl Database,
) {
    let mut session = database.session().await;
    for kind in [minted, alias] {
        let again = kind("ee000002");
        let first = create(&mut session, &again).await;
        create(&mut session, &kind("ee000003")).await;
        let batch = [kind("ee000001"), again, kind("ee000003"), kind("ee000004")];
        let outcomes = session.create_batch(&batch).await.unwrap();
        assert_eq!(stored(&outcomes[0]).create_id, batch[0].create_id);
        assert_eq!(stored(&outcomes[1]), first);
        assert_eq!(outcomes[2], Created::Conflict);
        assert_eq!(stored(&outcomes[3]).create_id, batch[3].create_id);
        assert_eq!(database.count("SELECT count(*) FROM links").await, 4);
        database.execute("DELETE FROM links").await;
    }
}

pub(crate) async fn the_same_slug_twice_in_a_batch_is_stored_once(database: &impl Database) {
    let mut session = database.session().await;
    for kind in [minted, alias] {
        let (first, other) = (kind("dd000001"), kind("dd000001"));
        let batch = [first.clone(), other, first.clone()];
        let outcomes = session.create_batch(&batch).await.unwrap();
        assert_eq!(stored(&outcomes[0]).create_id, first.create_id);
        assert_eq!(outcomes[1], Created::Conflict);
        assert_eq!(stored(&outcomes[2]), stored(&outcomes[0]));
        assert_eq!(database.count("SELECT count(*) FROM links").await, 1);
        database.execute("DELETE FROM links").await;
    }
}

pub(crate) async fn an_update_changes_what_it_names_and_nothing_else(database: &impl Database) {
    let mut session = database.session().await;
    let mut new = alias("uu-link");
    new.title = Some("old".to_owned());
    new.tags = vec!["kept".to_owned()];
    new.max_visits = Some(3);
    let created = create(&mut session, &new).await;
    let patch = Patch {
        long_url: Some(url("https://example.org/new")),
        state: Some(State::Disabled),
        title: waypost_domain::Change::Clear,
        ..Patch::default()
    };
    let updated =
        written(&write(&mut session, "uu-link", WriteKind::Update(Box::new(patch))).await);
    let mut expected = created.clone();
    expected.long_url = url("https://example.org/new");
    expected.state = State::Disabled;
    expected.title = None;
    expected.version = created.version.next(Epoch::FIRST);
    expected.updated_at = updated.updated_at;
    expected.signature = updated.signature;
    assert_eq!(updated, expected);
    let read = session.resolve_batch(&[key("uu-link")]).await.unwrap();
    assert_eq!(read, [Resolved::Found(Box::new(updated))]);
}

pub(crate) async fn an_update_of_a_wrong_version_changes_nothing(database: &impl Database) {
    let mut session = database.session().await;
    let created = create(&mut session, &alias("vv-link")).await;
    let edited = update(&mut session, "vv-link", "https://example.org/1").await;
    let mut stale = Write {
        key: key("vv-link"),
        writer: acme(),
        if_version: Some(created.version),
        change_id: ChangeId(Uuid::new_v4()),
        kind: to_url("https://example.org/2"),
    };
    for kind in [stale.kind.clone(), WriteKind::Delete] {
        stale.kind = kind;
        let outcome = session.write(&stale).await.unwrap();
        assert_eq!(outcome, Written::VersionMismatch(Box::new(edited.clone())));
    }
    let read = session.resolve_batch(&[key("vv-link")]).await.unwrap();
    assert_eq!(read, [Resolved::Found(Box::new(edited.clone()))]);
    stale.if_version = Some(edited.version);
    let deleted = written(&session.write(&stale).await.unwrap());
    assert_eq!(deleted.state, State::Deleted);
}

pub(crate) async fn a_change_that_is_tried_twice_is_made_once(database: &impl Database) {
    let mut session = database.session().await;
    let created = create(&mut session, &alias("rr-link")).await;
    let edit = Write {
        key: key("rr-link"),
        writer: acme(),
        // The second try no longer meets it, and is none the worse for it.
        if_version: Some(created.version),
        change_id: ChangeId(Uuid::new_v4()),
        kind: to_url("https://example.org/once"),
    };
    let edited = written(&session.write(&edit).await.unwrap());
    let again = written(&session.write(&edit).await.unwrap());
    assert_eq!(again, edited);
    let deletion = Write {
        if_version: Some(edited.version),
        change_id: ChangeId(Uuid::new_v4()),
        kind: WriteKind::Delete,
        ..edit
    };
    let deleted = written(&session.write(&deletion).await.unwrap());
    let again = written(&session.write(&deletion).await.unwrap());
    assert_eq!(again, deleted);
    assert_eq!(session.oldest(10).await.unwrap().len(), 2, "told once each");
    // Not even the owner's next life of the slug can be deleted by an old retry.
    let next = create(&mut session, &alias("rr-link")).await;
    let late = session.write(&deletion).await.unwrap();
    assert_eq!(late, Written::VersionMismatch(Box::new(next)));
    let others = Write {
        writer: Writer::Tenant("other".to_owned()),
        ..deletion
    };
    assert_eq!(session.write(&others).await.unwrap(), Written::Absent);
}

pub(crate) async fn another_tenants_link_is_absent_to_writes(database: &impl Database) {
    let mut session = database.session().await;
    let mut new = alias("tt-link");
    new.tenant = "other".to_owned();
    let created = create(&mut session, &new).await;
    for kind in [to_url("https://evil.example/"), WriteKind::Delete] {
        assert_eq!(
            write(&mut session, "tt-link", kind.clone()).await,
            Written::Absent
        );
        assert_eq!(write(&mut session, "tt-none", kind).await, Written::Absent);
    }
    let read = session.resolve_batch(&[key("tt-link")]).await.unwrap();
    assert_eq!(read, [Resolved::Found(Box::new(created))]);
}

pub(crate) async fn a_deleted_link_is_a_tombstone_and_stays_one(database: &impl Database) {
    let mut session = database.session().await;
    let created = create(&mut session, &minted("xx000001")).await;
    let deleted = delete(&mut session, "xx000001").await;
    assert_eq!(deleted.state, State::Deleted);
    assert!(versions_rise(&[&created, &deleted]));
    let gone = Written::Gone(Box::new(deleted.clone()));
    assert_eq!(
        write(&mut session, "xx000001", WriteKind::Delete).await,
        gone
    );
    let edit = to_url("https://example.org/");
    assert_eq!(write(&mut session, "xx000001", edit).await, gone);
    let read = session.resolve_batch(&[key("xx000001")]).await.unwrap();
    assert_eq!(read, [Resolved::Found(Box::new(deleted))]);
    // A minted slug leads one life only.
    let outcomes = session.create_batch(&[minted("xx000001")]).await.unwrap();
    assert_eq!(outcomes, [Created::Conflict]);
}

pub(crate) async fn an_owner_recreates_an_alias_with_a_new_life_and_a_higher_version(
    database: &impl Database,
) {
    let mut session = database.session().await;
    let first = create(&mut session, &alias("yy-link")).await;
    let stone = delete(&mut session, "yy-link").await;
    let mut again = alias("yy-link");
    again.title = Some("second life".to_owned());
    // Twice in one batch: the second meets the new life.
    let outcomes = session
        .create_batch(&[again.clone(), alias("yy-link")])
        .await
        .unwrap();
    assert!(matches!(
        outcomes[0],
        Created::Stored { replaced: true, .. }
    ));
    assert_eq!(outcomes[1], Created::Conflict);
    let second = stored(&outcomes[0]);
    assert_ne!(second.id, first.id);
    assert_eq!(second.state, State::Active);
    assert!(versions_rise(&[&first, &stone, &second]));
    assert!(key_ring().verify(&second));
    let read = session.resolve_batch(&[key("yy-link")]).await.unwrap();
    assert_eq!(read, [Resolved::Found(Box::new(second))]);
    assert_eq!(database.count("SELECT count(*) FROM links").await, 1);
    assert_eq!(database.count("SELECT count(*) FROM outbox").await, 2);
}

pub(crate) async fn another_tenants_link_and_its_fresh_tombstone_are_conflicts(
    database: &impl Database,
) {
    let mut session = database.session().await;
    create(&mut session, &alias("qq-link")).await;
    let mut stranger = alias("qq-link");
    stranger.tenant = "other".to_owned();
    let batch = [stranger];
    assert_eq!(
        session.create_batch(&batch).await.unwrap(),
        [Created::Conflict]
    );
    delete(&mut session, "qq-link").await;
    assert_eq!(
        session.create_batch(&batch).await.unwrap(),
        [Created::Conflict]
    );
}

pub(crate) async fn a_prefix_that_moved_answers_so_whether_found_or_not(database: &impl Database) {
    let mut session = database.session().await;
    create(&mut session, &alias("aa-here")).await;
    database
        .execute("UPDATE prefix_owner SET epoch = 2, state = 'moved', moved_to = 's7' WHERE prefix = 'aa'")
        .await;
    let keys = [key("aa-here"), key("aa-none"), key("bb-none")];
    let resolved = session.resolve_batch(&keys).await.unwrap();
    let owner = waypost_shard_node::store::PrefixOwner {
        prefix: prefix("aa"),
        shard: shard("s7"),
        epoch: Epoch::new(2).unwrap(),
    };
    let moved = Resolved::Moved(owner.clone());
    assert_eq!(resolved, [moved.clone(), moved, Resolved::Absent]);
    let batch = [alias("aa-here"), minted("aa000001"), alias("bb-mine")];
    let outcomes = session.create_batch(&batch).await.unwrap();
    assert_eq!(
        outcomes[..2],
        [Created::Moved(owner.clone()), Created::Moved(owner.clone())]
    );
    stored(&outcomes[2]);
    for slug in ["aa-here", "aa-none"] {
        for kind in [to_url("https://example.org/"), WriteKind::Delete] {
            let outcome = write(&mut session, slug, kind).await;
            assert_eq!(outcome, Written::Moved(owner.clone()));
        }
    }
    assert_eq!(database.count("SELECT count(*) FROM outbox").await, 0);
    assert_eq!(database.count("SELECT count(*) FROM links").await, 2);
}

pub(crate) async fn versions_carry_the_owners_epoch_and_never_run_backwards(
    database: &impl Database,
) {
    let mut session = database.session().await;
    let created = create(&mut session, &alias("ee-link")).await;
    assert_eq!(created.version, Version::first(Epoch::FIRST));
    database
        .execute("UPDATE prefix_owner SET epoch = 9 WHERE prefix = 'ee'")
        .await;
    let edited = update(&mut session, "ee-link", "https://example.org/1").await;
    assert_eq!(edited.version, Version::first(Epoch::new(9).unwrap()));
    // A database that was put back to an older epoch still counts upwards.
    database
        .execute("UPDATE prefix_owner SET epoch = 2 WHERE prefix = 'ee'")
        .await;
    let deleted = delete(&mut session, "ee-link").await;
    let again = create(&mut session, &alias("ee-link")).await;
    assert!(versions_rise(&[&created, &edited, &deleted, &again]));
}

pub(crate) async fn every_stored_link_is_signed(database: &impl Database) {
    let mut session = database.session().await;
    let ring = key_ring();
    assert!(ring.verify(&create(&mut session, &alias("ss-link")).await));
    assert!(ring.verify(&update(&mut session, "ss-link", "https://example.org/").await));
    assert!(ring.verify(&delete(&mut session, "ss-link").await));
    let read = session.resolve_batch(&[key("ss-link")]).await.unwrap();
    assert!(matches!(&read[0], Resolved::Found(link) if ring.verify(link)));
}

pub(crate) async fn the_outbox_has_each_change_once_and_no_create_or_failure(
    database: &impl Database,
) {
    let mut session = database.session().await;
    create(&mut session, &alias("oo-link")).await;
    let mut stale = Write {
        key: key("oo-link"),
        writer: acme(),
        if_version: Version::from_stored(1),
        change_id: ChangeId(Uuid::new_v4()),
        kind: WriteKind::Delete,
    };
    session.write(&stale).await.unwrap();
    stale.writer = Writer::Tenant("other".to_owned());
    session.write(&stale).await.unwrap();
    assert!(session.oldest(10).await.unwrap().is_empty());
    update(&mut session, "oo-link", "https://example.org/1").await;
    let deleted = delete(&mut session, "oo-link").await;
    write(&mut session, "oo-link", WriteKind::Delete).await;
    let changes = session.oldest(10).await.unwrap();
    assert_eq!(changes.len(), 2);
    assert!(
        changes
            .iter()
            .all(|change| change.link.as_deref() == Some(&deleted))
    );
    session.acknowledge(&[changes[0].place]).await.unwrap();
    let left = session.oldest(10).await.unwrap();
    assert_eq!(left, changes[1..]);
}

pub(crate) async fn a_cursor_sees_each_change_once_in_portions(database: &impl Database) {
    let mut session = database.session().await;
    create(&mut session, &alias("pp-link")).await;
    update(&mut session, "pp-link", "https://example.org/before").await;
    let start = session
        .poll(&Cursor::starting_at(i64::MAX), 2)
        .await
        .unwrap();
    assert!(start.changes.is_empty());
    assert!(start.oldest.is_some_and(|oldest| oldest <= start.clock));
    // The floor may lie below what was committed while others were writing.
    let before: Vec<_> = session.oldest(2).await.unwrap();
    session.acknowledge(&[before[0].place]).await.unwrap();
    let mut cursor = Cursor::starting_at(start.floor);
    for number in 0..5 {
        update(
            &mut session,
            "pp-link",
            &format!("https://example.org/{number}"),
        )
        .await;
    }
    let mut portions = Vec::new();
    loop {
        let poll = session.poll(&cursor, 2).await.unwrap();
        let told = poll
            .changes
            .iter()
            .filter(|change| cursor.tell(change))
            .count();
        cursor.raise(poll.floor);
        portions.push(told);
        if poll.changes.len() < 2 {
            break;
        }
    }
    assert_eq!(portions, [2, 2, 1]);
    let idle = session.poll(&cursor, 2).await.unwrap();
    assert_eq!(
        idle.changes
            .iter()
            .filter(|change| cursor.tell(change))
            .count(),
        0
    );
    // Acknowledged rows take nothing away from later ones.
    let all: Vec<_> = session
        .oldest(100)
        .await
        .unwrap()
        .iter()
        .map(|change| change.place)
        .collect();
    session.acknowledge(&all).await.unwrap();
    update(&mut session, "pp-link", "https://example.org/after").await;
    let poll = session.poll(&cursor, 2).await.unwrap();
    assert_eq!(
        poll.changes
            .iter()
            .filter(|change| cursor.tell(change))
            .count(),
        1
    );
}

pub(crate) async fn applied_changes_are_kept_for_their_time_and_can_be_made_due_again(
    database: &impl Database,
) {
    let mut session = database.session().await;
    for slug in ["ka-link", "kb-link", "kc-link", "kd-link"] {
        create(&mut session, &alias(slug)).await;
        update(&mut session, slug, "https://example.org/kept").await;
    }
    let all = session.oldest(10).await.unwrap();
    for change in &all[..3] {
        session.acknowledge(&[change.place]).await.unwrap();
    }
    assert_eq!(session.oldest(10).await.unwrap(), all[3..]);
    let cursor = Cursor::starting_at(all[0].place.position);
    let poll = session.poll(&cursor, 10).await.unwrap();
    assert_eq!(poll.changes, all[3..], "what is applied was told");

    let hour = std::time::Duration::from_secs(3_600);
    assert_eq!(session.forget(hour, 10).await.unwrap(), 0);
    assert_eq!(session.reopen(1).await.unwrap(), [all[2].place]);
    assert_eq!(session.oldest(10).await.unwrap(), all[2..]);
    let now = std::time::Duration::ZERO;
    assert_eq!(session.forget(now, 1).await.unwrap(), 1);
    assert_eq!(session.reopen(10).await.unwrap(), [all[1].place]);
    assert_eq!(
        session.forget(now, 10).await.unwrap(),
        0,
        "nothing due goes"
    );
    assert_eq!(session.oldest(10).await.unwrap(), all[1..]);
}

pub(crate) async fn each_change_of_destination_is_audited(database: &impl Database) {
    let mut session = database.session().await;
    create(&mut session, &alias("au-link")).await;
    update(&mut session, "au-link", "https://example.org/1").await;
    let disable = Patch {
        state: Some(State::Disabled),
        ..Patch::default()
    };
    write(
        &mut session,
        "au-link",
        WriteKind::Update(Box::new(disable)),
    )
    .await;
    delete(&mut session, "au-link").await;
    create(&mut session, &alias("au-link")).await;
    let rows = "SELECT count(*) FROM audit WHERE tenant = 'acme' AND slug = 'au-link'";
    assert_eq!(database.count(rows).await, 2);
    let edit = "SELECT count(*) FROM audit WHERE old_url = 'https://example.com/au-link'
                AND new_url = 'https://example.org/1'";
    assert_eq!(database.count(edit).await, 1);
}

pub(crate) async fn ownership_names_every_prefix_and_is_seeded_once(database: &impl Database) {
    let mut session = database.session().await;
    let owners = session.ownership().await.unwrap();
    assert_eq!(owners.len(), waypost_domain::Prefix::COUNT);
    assert!(
        owners
            .iter()
            .all(|owner| owner.shard == shard("s0") && owner.epoch == Epoch::FIRST)
    );
    // Another map changes nothing: the database is the truth by now.
    database
        .store()
        .prepare(&map_of(&["s0", "s1"]))
        .await
        .unwrap();
    assert_eq!(session.ownership().await.unwrap(), owners);
    let moved = "SELECT count(*) FROM prefix_owner WHERE state <> 'owned'";
    assert_eq!(database.count(moved).await, 0);
}

pub(crate) async fn a_store_tells_how_much_it_holds(database: &impl Database) {
    let mut session = database.session().await;
    let before = session.size().await.unwrap();
    assert_eq!(before.prefixes, waypost_domain::Prefix::COUNT as i64);
    assert_eq!(before.epoch, 1);
    database
        .execute("UPDATE prefix_owner SET state = 'moved', moved_to = 's1', epoch = 7 WHERE prefix = 'aa'")
        .await;
    let links: Vec<_> = (0..100).map(|n| minted(&format!("ab{n:06}"))).collect();
    session.create_batch(&links).await.unwrap();
    let after = session.size().await.unwrap();
    assert_eq!((after.prefixes, after.epoch), (before.prefixes - 1, 7));
    assert!(after.bytes > before.bytes, "{after:?}");
    // The database's own statistics come with a delay, if it has any.
    if before.links.is_some() {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
        while session.size().await.unwrap().links != Some(100) {
            assert!(tokio::time::Instant::now() < deadline, "{after:?}");
            tokio::task::yield_now().await;
        }
    }
}

pub(crate) async fn a_database_of_another_shard_is_refused(database: &impl Database) {
    database.execute("UPDATE shard SET id = 's9'").await;
    let error = database.store().prepare(&map()).await.unwrap_err();
    assert!(error.is_permanent());
    assert!(error.to_string().contains("s9"), "{error}");
}

pub(crate) async fn a_schema_of_a_later_release_is_refused(database: &impl Database) {
    database
        .execute("UPDATE _sqlx_migrations SET version = 99 WHERE version = 3")
        .await;
    let error = database.store().prepare(&map()).await.unwrap_err();
    assert!(error.is_permanent());
    assert!(error.to_string().contains("version 99"), "{error}");
}
