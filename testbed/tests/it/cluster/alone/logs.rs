//! What a healthy cluster writes to its logs: little, all of it INFO, and of nobody.

use serde_json::{Value, json};
use waypost_testbed::Cluster;
use waypost_testbed::service::Kind;

use super::super::restarts::{DRAIN, LAME_DUCK_MS};
use super::super::{User, small};
use super::alone;
use crate::patience::wait_until;

/// In whatever a caller sends that is nobody's business: no line may hold it.
const PERSONAL: &str = "of-nobodys-business";

/// A visitor's, as a trusted proxy tells it.
const VISITOR: &str = "203.0.113.77";

/// Fails for any line of a process of ours that a healthy one would not write.
#[track_caller]
pub(in super::super) fn assert_quiet(cluster: &Cluster) {
    let lines = cluster.lines().unwrap();
    assert!(!lines.is_empty(), "no process has said a word");
    let complaints: Vec<_> = lines
        .iter()
        .filter_map(|line| Some((line.complaint()?, line)))
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    let personal = [PERSONAL, VISITOR];
    let telling: Vec<_> = lines
        .iter()
        .filter(|line| personal.iter().any(|what| line.text.contains(what)))
        .collect();
    assert!(telling.is_empty(), "{telling:#?}");
}

/// Sends what a user sends in an ordinary day, and a few things that are refused.
fn an_ordinary_day(user: &User, alias: &str) {
    let send = |method, path: &str, body: Option<&Value>, expected: u16| {
        let request = user
            .request(method, &format!("{path}?q={PERSONAL}"), body)
            .header("user-agent", PERSONAL)
            .header("referer", format!("https://{PERSONAL}.example/"))
            .header("x-forwarded-for", VISITOR);
        let answer = request.send().unwrap();
        assert_eq!(answer.status(), expected, "{method} {path}");
    };
    let link = format!("/api/v1/links/{alias}");
    let long_url = format!("https://example.com/{PERSONAL}?q={PERSONAL}");
    let new = json!({ "longUrl": long_url, "alias": alias, "title": PERSONAL,
                      "tags": [PERSONAL], "maxVisits": 100, "password": PERSONAL });
    send("POST", "/api/v1/links", Some(&new), 201);
    send("POST", "/api/v1/links", Some(&new), 409);
    let wrong = json!({ "longUrl": format!("gopher://{PERSONAL}") });
    send("POST", "/api/v1/links", Some(&wrong), 422);
    send("GET", &format!("/{alias}"), None, 401);
    send("PATCH", &link, Some(&json!({ "password": null })), 200);
    send("GET", &format!("/{alias}"), None, 302);
    send("GET", &format!("/{PERSONAL}"), None, 404);
    send("GET", "/api/v1/links", None, 200);
    send("DELETE", &link, None, 204);
    send("GET", &format!("/{alias}"), None, 410);
}

#[test]
fn a_healthy_cluster_logs_no_trouble_and_nothing_personal() {
    let _alone = alone();
    let cluster = small()
        .nodes_per_shard(2)
        .keygens(2)
        .set(Kind::Gateway, "WAYPOST_TRUSTED_HOPS", "1")
        .set(Kind::Gateway, "WAYPOST_LAME_DUCK_MS", LAME_DUCK_MS)
        .start()
        .unwrap();
    let users = [User::of(&cluster, 0), User::of(&cluster, 1)];
    an_ordinary_day(&users[0], "before");
    let slug = users[1].shorten("https://example.com/counted");
    for _ in 0..10 {
        assert_eq!(users[0].follow(&slug).0, 302);
    }
    wait_until("clicks are counted", || users[1].clicks(&slug) == Some(10));

    // A rolling restart is an ordinary day, too. Not of consumers: the broker is not
    // always quick to give their partitions to the next.
    let nodes = cluster.shards.iter().flat_map(|shard| &shard.nodes);
    for service in nodes.chain(&cluster.keygens).chain(&cluster.gateways) {
        let drained = service.terminate(DRAIN).unwrap();
        assert!(drained, "{} drains in time", service.name());
        service.restart().unwrap();
    }
    an_ordinary_day(&users[0], "after");
    assert_eq!(users[1].follow(&slug).0, 302);
    wait_until("clicks are counted", || users[0].clicks(&slug) == Some(11));
    for service in cluster.services() {
        let drained = service.terminate(DRAIN).unwrap();
        assert!(drained, "{} ends", service.name());
    }
    assert_quiet(&cluster);
}
