//! What happens to links over the network: takedowns, visits, keys, ends and moves.

use waypost_domain::{Link, Timestamp};
use waypost_proto::link::{
    self as message, claim_response, create_outcome, import_outcome, lease_visits_response,
    write_response,
};

use crate::conformance::{derived, keyed};
use crate::fixture::*;
use crate::node::Node;
use crate::postgres::open;

fn created(outcome: &message::CreateOutcome) -> message::Link {
    match &outcome.outcome {
        Some(create_outcome::Outcome::Created(link)) => link.clone(),
        other => panic!("not created: {other:?}"),
    }
}

#[tokio::test]
async fn a_repeated_create_says_which_link_it_found() {
    let database = open().await;
    let node = Node::ready(&database.url, &[]).await;
    let batch = [derived("so000001", 1), keyed(alias("so-alias"), 2, 1)];
    let first = node.create(&batch).await.unwrap();
    let again = [
        derived("so000001", 1),
        keyed(alias("so-alias"), 2, 1),
        keyed(alias("so-alias"), 2, 2),
    ];
    let again = node.create(&again).await.unwrap();
    for at in [0, 1] {
        let existing = create_outcome::Outcome::Existing(created(&first[at]));
        assert_eq!(again[at].outcome, Some(existing));
    }
    let reused = create_outcome::Outcome::Reused(message::Reused {});
    assert_eq!(again[2].outcome, Some(reused));
    node.stop().await;
}

#[tokio::test]
async fn a_takedown_needs_the_operators_word() {
    let database = open().await;
    let node = Node::ready(&database.url, &[]).await;
    node.create(&[alias("td-link")]).await.unwrap();
    let update = |by_operator, tenant: &str, patch| message::UpdateRequest {
        key: Some((&key("td-link")).into()),
        tenant: tenant.to_owned(),
        if_version: None,
        patch: Some(patch),
        change_id: Vec::new(),
        by_operator,
    };
    let state = |state: message::State| message::Patch {
        state: Some(state.into()),
        ..message::Patch::default()
    };
    let mut client = node.client.clone();
    let mut astray = state(message::State::Blocked);
    astray.title = Some("by the operator".to_owned());
    for refused in [
        update(false, "acme", state(message::State::Blocked)),
        update(true, "acme", state(message::State::Blocked)),
        update(true, "", state(message::State::Disabled)),
        update(true, "", message::Patch::default()),
        update(true, "", astray),
    ] {
        let status = client.update(refused).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
    }
    let takedown = update(true, "", state(message::State::Blocked));
    let written = client.update(takedown).await.unwrap().into_inner();
    let Some(write_response::Outcome::Written(blocked)) = written.outcome else {
        panic!("not taken down: {written:?}");
    };
    let refused = node.edit("td-link", "https://example.org/").await.unwrap();
    let blocked = Some(write_response::Outcome::Blocked(blocked));
    assert_eq!(refused.outcome, blocked);
    let deletion = message::DeleteRequest {
        key: Some((&key("td-link")).into()),
        tenant: "acme".to_owned(),
        if_version: None,
        change_id: Vec::new(),
    };
    let refused = client.delete(deletion).await.unwrap().into_inner();
    assert_eq!(refused.outcome, blocked);
    node.stop().await;
}

#[tokio::test]
async fn visits_are_leased_until_they_are_used_up() {
    let database = open().await;
    let node = Node::ready(&database.url, &[]).await;
    let mut new = alias("vi-link");
    new.max_visits = Some(150);
    let link = created(&node.create(&[new]).await.unwrap()[0]);
    let mut client = node.client.clone();
    let mut request = message::LeaseVisitsRequest {
        key: Some((&key("vi-link")).into()),
        link_id: link.link_id.to_vec(),
        wanted: 60,
        lease_id: uuid::Uuid::new_v4().as_bytes().to_vec(),
        returned: 0,
    };
    let mut granted = 0;
    let last = loop {
        let response = client.lease_visits(request.clone()).await.unwrap();
        match response.into_inner().outcome.unwrap() {
            lease_visits_response::Outcome::Granted(visits) => granted += visits,
            other => break other,
        }
        request.lease_id = uuid::Uuid::new_v4().as_bytes().to_vec();
    };
    assert_eq!(last, lease_visits_response::Outcome::UsedUp(link));
    assert_eq!(granted, 150);
    assert_eq!(node.metric("waypost_shard_visits_leased_total"), 150.0);
    request.lease_id = vec![0; 16];
    let status = client.lease_visits(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);

    let claim = |digest: u8| message::ClaimRequest {
        key: Some((&key("cl000001")).into()),
        source: [[1_u8; 16], [digest; 16]].concat(),
    };
    let claimed = client.claim(claim(1)).await.unwrap().into_inner();
    let expected = claim_response::Outcome::Claimed(message::Claimed {});
    assert_eq!(claimed.outcome, Some(expected));
    let claimed = client.claim(claim(2)).await.unwrap().into_inner();
    let expected = claim_response::Outcome::Reused(message::Reused {});
    assert_eq!(claimed.outcome, Some(expected));
    node.stop().await;
}

#[tokio::test]
async fn the_leader_makes_tombstones_of_what_expired_and_tells_them() {
    let database = open().await;
    let mut session = database.session().await;
    let mut new = alias("ex-link");
    new.valid_until = Timestamp::from_millis(1);
    create(&mut session, &new).await;
    create(&mut session, &alias("ex-evil")).await;
    database
        .execute("UPDATE links SET long_url = 'https://evil.example/', valid_until = '1970-01-02' WHERE slug = 'ex-evil'")
        .await;
    let node = Node::ready(&database.url, &[]).await;
    eventually("the tombstone is there and told", async || {
        let stones = "SELECT count(*) FROM links WHERE state = 4 AND slug = 'ex-link'";
        database.count(stones).await == 1
            && node.metric("waypost_shard_links_purged_total") == 1.0
            && node.metric("waypost_shard_rows_damaged_total") == 1.0
            && node.metric("waypost_shard_changes_told_total") == 1.0
    })
    .await;
    node.stop().await;
}

#[tokio::test]
async fn the_relay_steps_over_a_damaged_row() {
    let database = open().await;
    let mut session = database.session().await;
    for slug in ["re-evil", "re-good"] {
        create(&mut session, &alias(slug)).await;
    }
    let node = Node::ready(&database.url, &[]).await;
    let mut watch = None;
    eventually("the node relays", async || {
        watch = node.watch().await;
        watch.is_some()
    })
    .await;
    let mut watch = watch.unwrap();
    database
        .execute(
            "WITH evil AS (UPDATE links SET long_url = 'evil' WHERE slug = 're-evil')
             INSERT INTO outbox (domain, slug) VALUES (0, 're-evil'), (0, 're-good')",
        )
        .await;
    assert_eq!(watch.change().await.slug, "re-good");
    eventually("nothing is due any more", async || {
        watch.heartbeat().await.oldest_unapplied_ms == 0
    })
    .await;
    assert_eq!(node.metric("waypost_shard_rows_damaged_total"), 1.0);
    // Its neighbour in a look-up is found, too.
    let outcomes = node.resolve(&["re-evil", "re-good"]).await.unwrap();
    assert_eq!(outcomes[0].outcome, None);
    assert!(crate::cluster::is_found(&outcomes[1]));
    node.stop().await;
}

#[tokio::test]
async fn rows_go_from_one_shard_to_another_over_the_network() {
    let (from, to) = (open().await, open().await);
    let nodes = [
        Node::ready(&from.url, &[]).await,
        Node::ready(&to.url, &[]).await,
    ];
    let links: Vec<_> = (0..5).map(|at| minted(&format!("tr00000{at}"))).collect();
    nodes[0].create(&links).await.unwrap();
    nodes[0]
        .edit("tr000003", "https://example.org/")
        .await
        .unwrap();
    let mut source = nodes[0].client.clone();
    let mut target = nodes[1].client.clone();
    let (mut after, mut carried) = (None, 0);
    loop {
        let request = message::ExportRequest { after, limit: 2 };
        let links = source.export(request).await.unwrap().into_inner().links;
        let is_last = links.len() < 2;
        carried += links.len();
        let last = links.last().and_then(|row| row.link.clone());
        after = last.map(|link| (&Link::try_from(link).unwrap().key).into());
        let request = message::ImportRequest { links };
        let outcomes = target.import(request).await.unwrap().into_inner().outcomes;
        let is_written = |outcome: &message::ImportOutcome| {
            matches!(outcome.outcome, Some(import_outcome::Outcome::Written(_)))
        };
        assert!(outcomes.iter().all(is_written));
        if is_last {
            break;
        }
    }
    assert_eq!(carried, 5);
    for slug in ["tr000000", "tr000003", "tr000004"] {
        let (a, b) = (
            nodes[0].resolve(&[slug]).await,
            nodes[1].resolve(&[slug]).await,
        );
        assert_eq!(a.unwrap(), b.unwrap());
    }
    let [a, b] = nodes;
    a.stop().await;
    b.stop().await;
}
