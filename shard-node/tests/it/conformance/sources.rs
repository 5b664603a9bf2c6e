//! Creates that may be repeated.

use std::collections::BTreeSet;

use tokio::task::JoinSet;
use uuid::Uuid;
use waypost_domain::{Change, CreateId, Link, NewLink, Patch, SlugKind, Source, State, Timestamp};
use waypost_shard_node::store::{Created, Purpose, Resolved, Session as _, WriteKind};
use waypost_shard_node::store::{LinkStore as _, Writer};

use super::writes::to_state;
use crate::fixture::*;

/// A create by `findIfExists`.
pub(crate) fn derived(slug: &str, id: u8) -> NewLink {
    NewLink {
        kind: SlugKind::Derived,
        source: Some(Source {
            id: [id; 16],
            digest: None,
        }),
        ..minted(slug)
    }
}

/// A create under an `Idempotency-Key`.
pub(crate) fn keyed(mut new: NewLink, id: u8, digest: u8) -> NewLink {
    new.source = Some(Source {
        id: [id; 16],
        digest: Some([digest; 16]),
    });
    new
}

async fn try_create(
    session: &mut impl waypost_shard_node::store::Session,
    new: &NewLink,
) -> Created {
    let outcomes = session.create_batch(std::slice::from_ref(new)).await;
    outcomes.unwrap().remove(0)
}

pub(crate) async fn a_live_link_is_found_by_its_source_whatever_its_slug(database: &impl Database) {
    let mut session = database.session().await;
    let first = derived("so000001", 1);
    let link = create(&mut session, &first).await;
    assert_eq!(link.source, first.source);
    // The same try again, and others.
    assert_eq!(create(&mut session, &first).await, link);
    for slug in ["so000001", "so000002", "tp000001"] {
        let outcome = try_create(&mut session, &derived(slug, 1)).await;
        assert_eq!(outcome, Created::Existing(Box::new(link.clone())));
    }
    // One that is taken down is still there, whatever it was before.
    for state in [State::Active, State::Disabled] {
        written(&write(&mut session, "so000001", to_state(state)).await);
        let block = to_state(State::Blocked);
        let link = written(&write_by(&mut session, Writer::Operator, "so000001", block).await);
        let outcome = try_create(&mut session, &derived("so000001", 1)).await;
        assert_eq!(outcome, Created::Existing(Box::new(link)));
        let lift = to_state(State::Active);
        written(&write_by(&mut session, Writer::Operator, "so000001", lift).await);
    }
    written(&write(&mut session, "so000001", to_state(State::Active)).await);
    // Another tenant's source is another one, and this slug is taken.
    let mut stranger = derived("so000001", 1);
    stranger.tenant = "other".to_owned();
    let outcome = try_create(&mut session, &stranger).await;
    assert_eq!(outcome, Created::Conflict);
    let other = try_create(&mut session, &derived("so000001", 2)).await;
    assert_eq!(other, Created::Conflict);
    assert_eq!(database.count("SELECT count(*) FROM links").await, 1);
}

pub(crate) async fn a_key_that_was_used_for_another_request_is_reused(database: &impl Database) {
    let mut session = database.session().await;
    for (kind, slug) in [
        (minted as fn(&str) -> NewLink, "re000001"),
        (alias, "re-alias"),
    ] {
        let mut first = keyed(kind(slug), 3, 7);
        if first.kind == SlugKind::Minted {
            first.kind = SlugKind::Derived;
        }
        let again = NewLink {
            create_id: CreateId(Uuid::new_v4()),
            ..first.clone()
        };
        let other = keyed(again.clone(), 3, 8);
        let link = create(&mut session, &first).await;
        let outcome = try_create(&mut session, &again).await;
        assert_eq!(outcome, Created::Existing(Box::new(link.clone())));
        assert_eq!(try_create(&mut session, &other).await, Created::Reused);
        // Not even an edit frees the key, as long as the link lives.
        update(&mut session, slug, "https://example.org/edited").await;
        assert_eq!(try_create(&mut session, &other).await, Created::Reused);
        // Nor does its end, and the same request does not bring it back.
        delete(&mut session, slug).await;
        assert_eq!(try_create(&mut session, &other).await, Created::Reused);
        assert_eq!(try_create(&mut session, &again).await, Created::Ended);
        stored(&try_create(&mut session, &keyed(again, 4, 7)).await);
        database.execute("DELETE FROM links").await;
    }
}

pub(crate) async fn a_claimed_key_is_reused_by_another_request(database: &impl Database) {
    let mut session = database.session().await;
    let claim = "INSERT INTO claims (created_at, source_id, digest)
                 SELECT created_at, substr(source, 1, 16), substr(source, 17, 16) FROM links";
    create(&mut session, &keyed(alias("cl-first"), 4, 1)).await;
    database.execute(claim).await;
    database.execute("DELETE FROM links").await;
    let other = try_create(&mut session, &keyed(alias("cl-other"), 4, 2)).await;
    assert_eq!(other, Created::Reused);
    create(&mut session, &keyed(alias("cl-again"), 4, 1)).await;
}

pub(crate) async fn a_dead_link_is_not_found_by_its_source(database: &impl Database) {
    let mut session = database.session().await;
    let new = derived("de000001", 1);
    let mut lives = vec![create(&mut session, &new).await];
    let again = || NewLink {
        create_id: CreateId(Uuid::new_v4()),
        ..new.clone()
    };

    delete(&mut session, "de000001").await;
    lives.push(create(&mut session, &again()).await);
    // Expired. The source has its digest, or this edit would let it go.
    delete(&mut session, "de000001").await;
    let mut short = keyed(again(), 9, 9);
    short.valid_until = Timestamp::from_millis(1);
    lives.push(create(&mut session, &short).await);
    short.create_id = CreateId(Uuid::new_v4());
    lives.push(create(&mut session, &short).await);

    assert!(versions_rise(&lives.iter().collect::<Vec<_>>()));
    let ids: BTreeSet<Uuid> = lives.iter().map(|link| link.id.0).collect();
    assert_eq!(ids.len(), lives.len());
    assert_eq!(database.count("SELECT count(*) FROM links").await, 1);
}

/// Makes it look as if so many visits of all links had been leased.
async fn lease_all(database: &impl Database, leased: &'static str) {
    database.execute("DELETE FROM visits").await;
    database
        .execute(
            "INSERT INTO visits (leased, domain, granted, link_id, lease_id, slug, returns)
             SELECT 2, domain, 0, link_id, link_id, slug, signature FROM links",
        )
        .await;
    database.execute(leased).await;
}

pub(crate) async fn a_used_up_link_is_found_by_its_key_alone_and_keeps_its_slug(
    database: &impl Database,
) {
    let mut session = database.session().await;
    let limited = |new: NewLink| NewLink {
        max_visits: Some(3),
        ..new
    };
    let find = |slug| limited(derived(slug, 1));
    let by_key = |slug| limited(keyed(derived(slug, 2), 2, 7));
    let found = create(&mut session, &find("uu000001")).await;
    let made = create(&mut session, &by_key("uk000001")).await;
    lease_all(database, "UPDATE visits SET leased = 2").await;
    let outcome = try_create(&mut session, &find("uu000001")).await;
    assert_eq!(outcome, Created::Existing(Box::new(found.clone())));
    lease_all(database, "UPDATE visits SET leased = 3").await;
    // A gateway may hold a visit still: another life would have all of its own beside it.
    let outcome = try_create(&mut session, &find("uu000001")).await;
    assert_eq!(outcome, Created::Conflict);
    let next = create(&mut session, &find("uu000002")).await;
    let outcome = try_create(&mut session, &find("uu000001")).await;
    assert_eq!(outcome, Created::Existing(Box::new(next)));
    let outcome = try_create(&mut session, &by_key("uk000001")).await;
    assert_eq!(outcome, Created::Existing(Box::new(made)));
    let key = std::slice::from_ref(&found.key);
    let held = session.resolve_batch(key).await.unwrap();
    assert_eq!(held, [Resolved::Found(Box::new(found))]);
    // Taken down, it is found again, or asking again were a way around.
    let block = to_state(State::Blocked);
    written(&write_by(&mut session, Writer::Operator, "uu000001", block).await);
    delete(&mut session, "uu000002").await;
    let outcome = try_create(&mut session, &find("uu000001")).await;
    let is_blocked = |link: &Link| link.state == State::Blocked;
    assert!(matches!(outcome, Created::Existing(link) if is_blocked(&link)));
}

pub(crate) async fn a_link_that_is_off_is_found_by_its_key_alone(database: &impl Database) {
    let mut session = database.session().await;
    create(&mut session, &derived("of000001", 1)).await;
    create(&mut session, &keyed(derived("ok000001", 2), 2, 7)).await;
    written(&write(&mut session, "of000001", to_state(State::Disabled)).await);
    let off = written(&write(&mut session, "ok000001", to_state(State::Disabled)).await);
    let outcome = try_create(&mut session, &derived("of000001", 1)).await;
    assert_eq!(outcome, Created::Conflict);
    create(&mut session, &derived("of000002", 1)).await;
    let again = keyed(derived("ok000001", 2), 2, 7);
    let outcome = try_create(&mut session, &again).await;
    assert_eq!(outcome, Created::Existing(Box::new(off)));
}

pub(crate) async fn an_edit_of_what_decides_the_answer_lets_go_of_the_source(
    database: &impl Database,
) {
    let mut session = database.session().await;
    let new = derived("ed000001", 1);
    create(&mut session, &new).await;
    let edit = |patch| WriteKind::Update(Box::new(patch));
    let keeps = [
        Patch {
            title: Change::Set("a title".to_owned()),
            ..Patch::default()
        },
        Patch {
            tags: Some(vec!["tag".to_owned()]),
            state: Some(State::Disabled),
            ..Patch::default()
        },
        // What is so already is no change.
        Patch {
            long_url: Some(new.long_url.clone()),
            forward_query: Some(false),
            valid_until: Change::Clear,
            ..Patch::default()
        },
    ];
    for patch in keeps {
        let link = written(&write(&mut session, "ed000001", edit(patch)).await);
        assert_eq!(link.source, new.source);
    }
    let lets_go = [
        Patch {
            long_url: Some(url("https://example.org/")),
            ..Patch::default()
        },
        Patch {
            redirect_status: Some(waypost_domain::RedirectStatus::PermanentRedirect),
            ..Patch::default()
        },
        Patch {
            forward_query: Some(true),
            ..Patch::default()
        },
        Patch {
            valid_since: Change::Set(Timestamp::from_millis(1).unwrap()),
            ..Patch::default()
        },
        Patch {
            valid_until: Change::Set(Timestamp::MAX),
            ..Patch::default()
        },
        Patch {
            max_visits: Change::Set(1),
            ..Patch::default()
        },
        Patch {
            password_hash: Change::Set("hash".to_owned()),
            ..Patch::default()
        },
    ];
    for (at, patch) in lets_go.into_iter().enumerate() {
        database.execute("DELETE FROM links").await;
        create(&mut session, &derived("ed000001", 1)).await;
        let link = written(&write(&mut session, "ed000001", edit(patch)).await);
        assert_eq!(link.source, None, "edit {at}");
    }
    // The slug is the edited link's now, and the next one of the series is free.
    let outcome = try_create(&mut session, &derived("ed000001", 1)).await;
    assert_eq!(outcome, Created::Conflict);
    let next = create(&mut session, &derived("ed000002", 1)).await;
    let outcome = try_create(&mut session, &derived("ed000001", 1)).await;
    assert_eq!(outcome, Created::Existing(Box::new(next)));
}

pub(crate) async fn two_slugs_of_one_source_in_a_batch_make_one_link(database: &impl Database) {
    let mut session = database.session().await;
    create(&mut session, &alias("ba000002")).await;
    let batch = [
        derived("ba000003", 1),
        derived("ba000001", 1),
        keyed(alias("ba-other"), 2, 2),
        derived("ba000001", 1),
        keyed(alias("ba-third"), 2, 3),
        // The first of this source meets another's slug.
        derived("ba000002", 5),
        derived("ba000004", 5),
        keyed(alias("ba-other"), 2, 2),
    ];
    let outcomes = session.create_batch(&batch).await.unwrap();
    let first = outcomes
        .iter()
        .find_map(|outcome| match outcome {
            Created::Stored { link, .. } if link.source == batch[0].source => Some(link.clone()),
            _ => None,
        })
        .unwrap();
    let found = |at: usize| outcomes[at] == Created::Existing(first.clone());
    let finds = [0, 1, 3].into_iter().filter(|at| found(*at)).count();
    assert_eq!(finds, 2, "{outcomes:?}");
    let alias = stored(&outcomes[2]);
    assert_eq!(outcomes[4], Created::Reused);
    assert_eq!(outcomes[5], Created::Conflict);
    assert_eq!(stored(&outcomes[6]).key, batch[6].key);
    assert_eq!(outcomes[7], Created::Existing(Box::new(alias)));
    assert_eq!(database.count("SELECT count(*) FROM links").await, 4);
}

pub(crate) async fn a_link_of_a_moved_prefix_is_not_found_by_its_source(database: &impl Database) {
    let mut session = database.session().await;
    create(&mut session, &keyed(alias("mo-alias"), 1, 1)).await;
    database
        .execute("UPDATE prefix_owner SET epoch = 2, state = 'moved', moved_to = 's7' WHERE prefix = 'mo'")
        .await;
    create(&mut session, &keyed(alias("other-one"), 1, 1)).await;
}

pub(crate) async fn of_a_hundred_racing_creates_of_a_source_one_makes_the_link(
    database: &impl Database,
) {
    let mut racers = JoinSet::new();
    for racer in 0..10 {
        let store = database.store().clone();
        racers.spawn(async move {
            let mut session = store.connect(Purpose::Write).await.unwrap();
            let mut outcomes = Vec::new();
            for round in 0..10 {
                // Some come by another slug of the series, some in batches.
                let slug = ["ra000001", "ra000002"][(racer + round) % 2];
                let batch = [derived(slug, 1), derived("ra000001", 1)];
                let batch = &batch[..1 + round % 2];
                outcomes.extend(session.create_batch(batch).await.unwrap());
            }
            outcomes
        });
    }
    let outcomes = racers.join_all().await.concat();
    assert_eq!(outcomes.len(), 150);
    let made: Vec<_> = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Created::Stored { .. }))
        .collect();
    assert_eq!(made.len(), 1, "{made:?}");
    let link = stored(made[0]);
    let found = Created::Existing(Box::new(link));
    let finds = outcomes.iter().filter(|outcome| **outcome == found).count();
    assert_eq!(finds, 149);
    assert_eq!(database.count("SELECT count(*) FROM links").await, 1);
}
