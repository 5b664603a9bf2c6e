//! Calls that are repeated or sent elsewhere.

use serde_json::json;
use waypost_testbed::Cluster;
use waypost_testbed::cluster::{Link, Shard};
use waypost_testbed::proxy::Mode;
use waypost_testbed::service::Kind;

use super::outages::metric;
use super::{User, small};
use crate::patience::wait_until;

#[test]
fn the_retry_of_a_create_whose_answer_was_lost_makes_no_second_link() {
    let cluster = small()
        .nodes_per_shard(2)
        .gateways(1)
        .proxied(Link::ShardNodes)
        .start()
        .unwrap();
    let user = User::of(&cluster, 0);
    // One link, so that the connections are there.
    user.shorten("https://example.com/first");
    let shard = &cluster.shards[0];
    shard.nodes[0].proxy().unwrap().set(Mode::DropReplies);
    // The exposition sorts labels by their names.
    let name = "waypost_shard_call_duration_seconds_count{result=\"timeout\",rpc=\"create\"";
    let retried = || metric(&cluster, 0, name);
    let mut created = 0;
    while retried() < 1.0 {
        let body = json!({ "longUrl": "https://example.com/lost-answer",
                           "alias": format!("lost-answer-{created}") });
        let response = user.send("POST", "/api/v1/links", Some(&body));
        assert_eq!(response.status(), 201, "{}", response.text().unwrap());
        created += 1;
        assert!(
            created < 50,
            "no call went through the node whose answers are lost"
        );
    }
    user.shorten("https://example.com/lost-answer");
    let sql = "SELECT count(*) FROM links WHERE long_url = 'https://example.com/lost-answer'";
    let rows = shard.postgres.query(Shard::DATABASE, sql).unwrap();
    assert_eq!(rows.trim().parse(), Ok(created + 1));
}

#[test]
fn the_retry_of_a_change_whose_answer_was_lost_changes_nothing_twice() {
    let cluster = small()
        .nodes_per_shard(2)
        .gateways(1)
        .proxied(Link::ShardNodes)
        .start()
        .unwrap();
    let user = User::of(&cluster, 0);
    let path = format!(
        "/api/v1/links/{}",
        user.shorten("https://example.com/first")
    );
    let shard = &cluster.shards[0];
    let lost = |rpc: &str| {
        let name = "waypost_shard_call_duration_seconds_count{result=\"timeout\",rpc=";
        metric(&cluster, 0, &format!("{name}\"{rpc}\""))
    };
    shard.nodes[0].proxy().unwrap().set(Mode::DropReplies);
    let mut edits = 0;
    while lost("update") < 1.0 {
        edits += 1;
        let edit = json!({ "longUrl": format!("https://example.com/edited/{edits}") });
        let response = user.send("PATCH", &path, Some(&edit));
        assert_eq!(response.status(), 200, "{}", response.text().unwrap());
        assert!(
            edits < 50,
            "no edit went through the node that says nothing"
        );
    }
    let told = shard
        .postgres
        .query(Shard::DATABASE, "SELECT count(*) FROM audit");
    assert_eq!(
        told.unwrap().trim().parse(),
        Ok(edits),
        "destinations changed"
    );

    let mut deletions = 0;
    while lost("delete") < 1.0 {
        deletions += 1;
        let slug = user.shorten("https://example.com/short-lived");
        let response = user.send("DELETE", &format!("/api/v1/links/{slug}"), None);
        assert_eq!(response.status(), 204, "{}", response.text().unwrap());
        assert!(deletions < 50, "no deletion went through that node");
    }
}

#[test]
fn a_write_and_a_read_with_an_old_map_are_answered_moved_and_retried_at_the_right_shard() {
    let cluster = Cluster::builder()
        .nodes_per_shard(1)
        .keygens(1)
        // The read is to reach the shard.
        .set(Kind::Gateway, "WAYPOST_REDIS", "")
        .start()
        .unwrap();
    let (here, there) = (User::of(&cluster, 0), User::of(&cluster, 1));
    let query = |shard: &Shard, sql: &str| {
        let text = shard.postgres.query(Shard::DATABASE, sql).unwrap();
        text.trim().to_owned()
    };
    let [old, new] = &cluster.shards[..] else {
        unreachable!()
    };
    let prefix = query(
        old,
        "SELECT prefix FROM prefix_owner WHERE state = 'owned' ORDER BY prefix LIMIT 1",
    );
    let slug = format!("{prefix}-moved");
    // Both gateways know the old owner when the prefix moves behind their back.
    for user in [&here, &there] {
        assert_eq!(user.follow(&slug).0, 404);
    }
    let moves = |shard: &Shard, set: &str| {
        let sql =
            format!("UPDATE prefix_owner SET epoch = epoch + 1, {set} WHERE prefix = '{prefix}'");
        query(shard, &sql);
    };
    moves(new, "state = 'owned', moved_to = NULL");
    moves(old, &format!("state = 'moved', moved_to = '{}'", new.id));

    let body = json!({ "longUrl": "https://example.com/moved", "alias": slug });
    assert_eq!(
        here.send("POST", "/api/v1/links", Some(&body)).status(),
        201
    );
    assert_eq!(there.follow(&slug).1, "https://example.com/moved");
    let rows = |shard: &Shard| {
        query(
            shard,
            &format!("SELECT count(*) FROM links WHERE slug = '{slug}'"),
        )
    };
    assert_eq!((rows(old).as_str(), rows(new).as_str()), ("0", "1"));
    for gateway in 0..2 {
        assert!(
            metric(&cluster, gateway, "waypost_moved_answers_total") >= 1.0,
            "gateway {gateway}"
        );
    }
    // Once learnt, the way is straight.
    let before = metric(&cluster, 0, "waypost_moved_answers_total");
    let unknown = format!("{prefix}-unknown");
    assert_eq!(here.follow(&unknown).0, 404);
    assert!((metric(&cluster, 0, "waypost_moved_answers_total") - before).abs() < 0.5);
    wait_until("the new owner answers", || here.follow(&slug).0 == 302);
}
