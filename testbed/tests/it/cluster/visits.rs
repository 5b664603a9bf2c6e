//! Links that may be followed only so often.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use waypost_testbed::Cluster;
use waypost_testbed::cluster::Link;
use waypost_testbed::proxy::Mode;

use super::outages::metric;
use super::{User, shared, small};
use crate::patience::wait_until;

/// The most that a gateway holds of one link.
const LEASE: u64 = 1_000;

/// A gateway that ends keeps idle connections for up to 10 s.
const DRAIN: Duration = Duration::from_secs(20);

#[track_caller]
fn create(user: &User, max: u64) -> String {
    let link = json!({ "longUrl": "https://example.com/limited", "maxVisits": max });
    let response = user.send("POST", "/api/v1/links", Some(&link));
    assert_eq!(response.status(), 201);
    let link: Value = response.json().unwrap();
    assert_eq!(link["maxVisits"], max);
    link["slug"].as_str().unwrap().to_owned()
}

#[track_caller]
fn limit(user: &User, slug: &str, max: &Value) {
    let edit = json!({ "maxVisits": max });
    let response = user.send("PATCH", &format!("/api/v1/links/{slug}"), Some(&edit));
    assert_eq!(response.status(), 200);
}

/// Follows a link until its visits are used up, and answers how often it led anywhere.
#[track_caller]
fn use_up(user: &User, slug: &str) -> u64 {
    let mut visits = 0;
    loop {
        match user.follow(slug).0 {
            302 => visits += 1,
            410 => return visits,
            status => panic!("{status} after {visits} visits"),
        }
    }
}

/// The same with several visitors at each of these gateways at once.
fn use_up_together(users: &[&User], slug: &str) -> u64 {
    std::thread::scope(|scope| {
        let visitors = users.iter().cycle().take(4 * users.len());
        let visitors: Vec<_> = visitors
            .map(|user| scope.spawn(|| use_up(user, slug)))
            .collect();
        let visits = visitors.into_iter().map(|visitor| visitor.join().unwrap());
        visits.sum()
    })
}

fn users(cluster: &Cluster) -> [User; 2] {
    [User::of(cluster, 0), User::of(cluster, 1)]
}

#[test]
fn a_link_is_followed_through_two_gateways_exactly_as_often_as_it_may_be() {
    let [here, there] = users(shared());
    let slug = create(&here, 1_500);
    assert_eq!(use_up_together(&[&here, &there], &slug), 1_500);
    // Each visit is a click, and there are no others.
    wait_until("all visits are counted", || {
        here.clicks(&slug) >= Some(1_500)
    });
    assert_eq!(here.clicks(&slug), Some(1_500));
    for user in [&here, &there] {
        // Who only looks is told what this gateway knows.
        assert_eq!(user.follow(&slug).0, 410);
        let head = user.send("HEAD", &format!("/{slug}"), None);
        assert_eq!(head.status(), 410);
        assert_eq!(user.get(&format!("/{slug}+")).status(), 410);
    }
}

#[test]
fn head_and_preview_take_no_visit() {
    let user = User::of(shared(), 0);
    let slug = create(&user, 1);
    for _ in 0..5 {
        let head = user.send("HEAD", &format!("/{slug}"), None);
        assert_eq!(head.status(), 302);
        assert_eq!(user.get(&format!("/{slug}+")).status(), 200);
    }
    assert_eq!(use_up(&user, &slug), 1);
}

#[test]
fn who_looks_at_a_link_leaves_its_last_visit_to_other_gateways() {
    let [here, there] = users(shared());
    let slug = create(&here, 1);
    for _ in 0..2 {
        let head = there.send("HEAD", &format!("/{slug}"), None);
        assert_eq!(head.status(), 302);
        assert_eq!(there.get(&format!("/{slug}+")).status(), 200);
    }
    assert_eq!(here.follow(&slug).0, 302);
    assert_eq!(there.follow(&slug).0, 410);
}

#[test]
fn a_limit_holds_over_edits_that_raise_lower_and_lift_it() {
    let [here, there] = users(shared());
    let slug = create(&here, 1_000);
    for _ in 0..70 {
        assert_eq!(here.follow(&slug).0, 302);
    }
    // The gateway holds some that go beyond the new limit.
    limit(&here, &slug, &json!(100));
    assert_eq!(use_up(&here, &slug), 30);
    limit(&here, &slug, &json!(300));
    assert_eq!(use_up(&here, &slug), 200);
    let path = format!("/api/v1/links/{slug}");
    for title in ["one", "two"] {
        let edit = json!({ "title": title });
        assert_eq!(here.send("PATCH", &path, Some(&edit)).status(), 200);
        assert_eq!(
            use_up(&here, &slug),
            0,
            "an edit of something else adds none"
        );
    }
    assert_eq!(use_up(&there, &slug), 0);
    limit(&here, &slug, &Value::Null);
    let lifted = Instant::now();
    assert_eq!(here.follow(&slug).0, 302);
    while there.follow(&slug).0 != 302 {
        assert!(
            lifted.elapsed() < Duration::from_secs(2),
            "limited elsewhere"
        );
    }
}

#[test]
fn a_killed_gateway_takes_at_most_its_lease_along() {
    let cluster = small().start().unwrap();
    let users = users(&cluster);
    let max = 6_000;
    let slug = create(&users[0], max);
    let (visits, is_killed) = (AtomicU64::new(0), AtomicBool::new(false));
    let follow = |user: &User| loop {
        let answer = user.request("GET", &format!("/{slug}"), None).send();
        match answer.map(|answer| answer.status().as_u16()) {
            Ok(302) => visits.fetch_add(1, Ordering::Relaxed),
            Ok(410) => return,
            // Refused, or cut off in the middle.
            Err(_) if is_killed.load(Ordering::Relaxed) => return,
            other => panic!("{other:?}"),
        };
    };
    std::thread::scope(|scope| {
        let (users, follow) = (&users, &follow);
        for visitor in 0..8 {
            scope.spawn(move || follow(&users[visitor % 2]));
        }
        wait_until("both have been visited", || {
            visits.load(Ordering::Relaxed) > max / 3
        });
        is_killed.store(true, Ordering::Relaxed);
        cluster.gateways[1].kill().unwrap();
    });
    let visits = visits.load(Ordering::Relaxed);
    // Those whose answer was cut off had their visit.
    let cut_off = 4;
    assert!((max - LEASE - cut_off..=max).contains(&visits), "{visits}");
}

#[test]
fn a_gateway_that_ends_in_peace_gives_back_what_it_holds() {
    let cluster = small().start().unwrap();
    let [here, there] = users(&cluster);
    let slug = create(&here, 1_000);
    let mut visits = 0;
    while visits < 300 {
        assert_eq!(there.follow(&slug).0, 302);
        visits += 1;
    }
    assert!(
        cluster.gateways[1].terminate(DRAIN).unwrap(),
        "drains in time"
    );
    assert_eq!(visits + use_up(&here, &slug), 1_000);
}

#[test]
fn visits_that_nobody_makes_are_soon_another_gateways() {
    let [here, there] = users(shared());
    let slug = create(&here, 400);
    let mut visits = 0;
    while visits < 130 {
        assert_eq!(there.follow(&slug).0, 302);
        visits += 1;
    }
    let returned = || metric(shared(), 1, "waypost_visits_returned_total");
    let before = returned();
    wait_until("they have been given back", || {
        let more = use_up(&here, &slug);
        visits += more;
        // Looking at the link there does not keep them.
        there.send("HEAD", &format!("/{slug}"), None);
        visits >= 400
    });
    assert_eq!(visits, 400);
    assert!(returned() > before, "there was none to give back");
}

#[test]
fn a_lease_whose_answer_was_lost_is_granted_once() {
    let cluster = small()
        .nodes_per_shard(2)
        .gateways(1)
        .proxied(Link::ShardNodes)
        .start()
        .unwrap();
    let user = User::of(&cluster, 0);
    let slug = create(&user, 300);
    assert_eq!(user.follow(&slug).0, 302);
    let node = &cluster.shards[0].nodes[0];
    node.proxy().unwrap().set(Mode::DropReplies);
    assert_eq!(use_up(&user, &slug), 299);
    // The exposition sorts labels by their names.
    let name = "waypost_shard_call_duration_seconds_count{result=\"timeout\",rpc=\"lease_visits\"";
    assert!(metric(&cluster, 0, name) >= 1.0, "no answer was lost");
}

#[test]
fn a_visit_that_cannot_be_granted_is_no_redirect() {
    let cluster = small().gateways(1).start().unwrap();
    let user = User::of(&cluster, 0);
    let slug = create(&user, 50);
    let free = user.shorten("https://example.com/free");
    assert_eq!(user.follow(&slug).0, 302);
    let node = &cluster.shards[0].nodes[0];
    node.kill().unwrap();
    // Visits of small limits come one by one, so that none is in stock.
    let refused = user.get(&format!("/{slug}"));
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(
        user.follow(&free).0,
        302,
        "a link without a limit needs no grant"
    );
    node.restart().unwrap();
    let mut visits = 1;
    wait_until("visits are granted again", || {
        visits += u64::from(user.follow(&slug).0 == 302);
        visits > 1
    });
    assert_eq!(visits + use_up(&user, &slug), 50);
}
