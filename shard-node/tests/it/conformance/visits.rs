//! Leases of visits, and claims of keys.

use std::time::Duration;

use tokio::task::JoinSet;
use uuid::Uuid;
use waypost_domain::{Change, Epoch, Link, Patch, Source};
use waypost_shard_node::store::{
    Claim, Claimed, Lease, Leased, LinkStore as _, PrefixOwner, Purpose, Session, WriteKind,
};

use super::sources::keyed;
use crate::fixture::*;

fn lease(link: &Link, wanted: u32) -> Lease {
    Lease {
        key: link.key.clone(),
        link_id: link.id,
        wanted,
        lease_id: Uuid::new_v4(),
        returned: 0,
    }
}

async fn limited(session: &mut impl Session, slug: &str, max: u64) -> Link {
    let mut new = alias(slug);
    new.max_visits = Some(max);
    create(session, &new).await
}

async fn limit(session: &mut impl Session, slug: &str, max_visits: Change<u64>) -> Link {
    let patch = Patch {
        max_visits,
        ..Patch::default()
    };
    written(&write(session, slug, WriteKind::Update(Box::new(patch))).await)
}

async fn try_lease(session: &mut impl Session, lease: &Lease) -> Leased {
    let outcomes = session.lease_visits(std::slice::from_ref(lease)).await;
    outcomes.unwrap().remove(0)
}

pub(crate) async fn racing_leases_grant_every_visit_and_not_one_more(database: &impl Database) {
    let mut session = database.session().await;
    let link = limited(&mut session, "vi-race", 3_210).await;
    let mut racers = JoinSet::new();
    for racer in 1..=6 {
        let (store, link) = (database.store().clone(), link.clone());
        racers.spawn(async move {
            let mut session = store.connect(Purpose::Write).await.unwrap();
            let mut granted = 0;
            loop {
                let batch = [lease(&link, racer * 10), lease(&link, 1)];
                for leased in session.lease_visits(&batch).await.unwrap() {
                    match leased {
                        Leased::Granted(visits) => granted += u64::from(visits),
                        Leased::UsedUp(_) => return granted,
                        other => panic!("not leased: {other:?}"),
                    }
                }
            }
        });
    }
    let granted: u64 = racers.join_all().await.iter().sum();
    assert_eq!(granted, 3_210);
    let leased = "SELECT leased FROM visits WHERE slug = 'vi-race'";
    assert_eq!(database.count(leased).await, 3_210);
}

pub(crate) async fn a_lease_that_is_tried_twice_is_granted_once(database: &impl Database) {
    let mut session = database.session().await;
    let link = limited(&mut session, "vi-again", 1_000).await;
    let mut other = database.session().await;
    let first = lease(&link, 50);
    for session in [&mut session, &mut other] {
        assert_eq!(try_lease(session, &first).await, Leased::Granted(50));
    }
    let mut second = lease(&link, 10);
    second.returned = 30;
    let twice = [second.clone(), second.clone()];
    let outcomes = session.lease_visits(&twice).await.unwrap();
    assert_eq!(outcomes, [Leased::Granted(10), Leased::Granted(10)]);
    let leased = "SELECT leased FROM visits WHERE slug = 'vi-again'";
    assert_eq!(database.count(leased).await, 30);
    // Another's lease came in between: it gets a new one, and gives back no second time.
    try_lease(&mut session, &lease(&link, 5)).await;
    try_lease(&mut session, &second).await;
    assert_eq!(database.count(leased).await, 45);
}

pub(crate) async fn edits_of_the_limit_keep_what_is_leased_and_a_new_life_does_not(
    database: &impl Database,
) {
    let mut session = database.session().await;
    let link = limited(&mut session, "vi-edit", 2).await;
    for _ in 0..2 {
        let outcome = try_lease(&mut session, &lease(&link, 9)).await;
        assert_eq!(outcome, Leased::Granted(1));
    }
    let outcome = try_lease(&mut session, &lease(&link, 9)).await;
    assert_eq!(outcome, Leased::UsedUp(Box::new(link.clone())));
    limit(&mut session, "vi-edit", Change::Set(3)).await;
    assert_eq!(
        try_lease(&mut session, &lease(&link, 9)).await,
        Leased::Granted(1)
    );
    let lower = limit(&mut session, "vi-edit", Change::Set(1)).await;
    let outcome = try_lease(&mut session, &lease(&link, 9)).await;
    assert_eq!(outcome, Leased::UsedUp(Box::new(lower)));
    limit(&mut session, "vi-edit", Change::Clear).await;
    assert_eq!(
        try_lease(&mut session, &lease(&link, 9)).await,
        Leased::Absent
    );
    delete(&mut session, "vi-edit").await;
    assert_eq!(
        try_lease(&mut session, &lease(&link, 9)).await,
        Leased::Absent
    );

    let next = limited(&mut session, "vi-edit", 1).await;
    assert_eq!(
        try_lease(&mut session, &lease(&link, 9)).await,
        Leased::Absent
    );
    assert_eq!(
        try_lease(&mut session, &lease(&next, 9)).await,
        Leased::Granted(1)
    );
    let leased = "SELECT leased FROM visits WHERE slug = 'vi-edit'";
    assert_eq!(database.count(leased).await, 1);
}

pub(crate) async fn leases_of_many_links_come_in_order(database: &impl Database) {
    let mut session = database.session().await;
    let links = [
        limited(&mut session, "vz-link", 500).await,
        limited(&mut session, "va-link", 500).await,
        limited(&mut session, "mo-link", 500).await,
        limited(&mut session, "ve-link", 500).await,
    ];
    database
        .execute("UPDATE prefix_owner SET epoch = 2, state = 'moved', moved_to = 's7' WHERE prefix = 'mo'")
        .await;
    // Whoever raises a limit by hand gets nothing for it.
    database
        .execute("UPDATE links SET max_visits = 1000000 WHERE slug = 've-link'")
        .await;
    let mut absent = lease(&links[0], 5);
    absent.key = key("nosuchlink");
    let batch = [
        lease(&links[0], 10),
        absent,
        lease(&links[1], 20),
        lease(&links[2], 30),
        lease(&links[3], 40),
        lease(&links[0], 50),
    ];
    let outcomes = session.lease_visits(&batch).await.unwrap();
    let moved = Leased::Moved(PrefixOwner {
        prefix: prefix("mo"),
        shard: shard("s7"),
        epoch: Epoch::new(2).unwrap(),
    });
    let expected = [
        Leased::Granted(10),
        Leased::Absent,
        Leased::Granted(20),
        moved,
        Leased::Damaged,
        Leased::Granted(50),
    ];
    assert_eq!(outcomes, expected);
}

pub(crate) async fn a_key_is_claimed_by_one_request(database: &impl Database) {
    let mut session = database.session().await;
    let claim = |id: u8, digest: u8| Claim {
        key: key("cl000001"),
        id: [id; 16],
        digest: [digest; 16],
    };
    for _ in 0..2 {
        let claimed = session.claim(&claim(1, 1)).await.unwrap();
        assert_eq!(claimed, Claimed::Claimed);
    }
    let other = session.claim(&claim(1, 2)).await.unwrap();
    assert_eq!(other, Claimed::Reused);
    // A link of another request holds its key as well, and one of the same does not.
    let link = create(&mut session, &keyed(alias("cl-link"), 2, 1)).await;
    assert_eq!(
        link.source.unwrap(),
        Source {
            id: [2; 16],
            digest: Some([1; 16])
        }
    );
    let other = session.claim(&claim(2, 2)).await.unwrap();
    assert_eq!(other, Claimed::Reused);
    let same = session.claim(&claim(2, 1)).await.unwrap();
    assert_eq!(same, Claimed::Claimed);

    let day = Duration::from_secs(24 * 3_600);
    assert_eq!(session.forget_claims(day, 10).await.unwrap(), 0);
    assert_eq!(session.forget_claims(Duration::ZERO, 1).await.unwrap(), 1);
    assert_eq!(session.forget_claims(Duration::ZERO, 10).await.unwrap(), 1);
    let other = session.claim(&claim(1, 2)).await.unwrap();
    assert_eq!(other, Claimed::Claimed);
    database
        .execute("UPDATE prefix_owner SET epoch = 2, state = 'moved', moved_to = 's7' WHERE prefix = 'cl'")
        .await;
    let moved = session.claim(&claim(3, 1)).await.unwrap();
    assert!(matches!(moved, Claimed::Moved(_)));
    assert_eq!(database.count("SELECT count(*) FROM claims").await, 1);
}

pub(crate) async fn of_racing_claims_of_a_key_one_request_wins(database: &impl Database) {
    let mut racers = JoinSet::new();
    for racer in 0..8_u8 {
        let store = database.store().clone();
        racers.spawn(async move {
            let mut session = store.connect(Purpose::Write).await.unwrap();
            let claim = Claim {
                key: key("cl000001"),
                id: [7; 16],
                digest: [racer; 16],
            };
            session.claim(&claim).await.unwrap()
        });
    }
    let outcomes = racers.join_all().await;
    let wins = outcomes
        .iter()
        .filter(|claimed| **claimed == Claimed::Claimed);
    assert_eq!(wins.count(), 1, "{outcomes:?}");
}
