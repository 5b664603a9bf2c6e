//! A blocklist in a cluster: every gateway has its copy, and judges what it holds in
//! memory as well as what it reads in Redis and at the shards.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use waypost_testbed::service::Kind;

use super::outages::metric;
use super::{User, problem, small};
use crate::patience::wait_until;

/// How long after a gateway has the list a listed link may still be followed there.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(2);

const EVIL: &str = "https://www.evil.example/page";
const GOOD: &str = "https://good.example/page";

/// Swaps the file as a mounted ConfigMap is: never half of it is there.
fn swap(list: &Path, text: &str) {
    let new = list.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, list).unwrap();
}

#[test]
fn a_host_that_mixes_scripts_is_shown_first_by_every_gateway_whatever_it_was_read_from() {
    let builder = small().set(Kind::Gateway, "WAYPOST_MIXED_SCRIPT_HOSTS", "preview");
    let cluster = builder.start().unwrap();
    let users = [User::of(&cluster, 0), User::of(&cluster, 1)];
    let slug = users[0].shorten("https://p\u{430}ypal.example/");
    // From the memory of the first, from Redis, and from the memory of the second.
    for user in [&users[0], &users[1], &users[1]] {
        let answer = user.get(&format!("/{slug}"));
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["cache-control"], "private, no-store");
        let page = answer.text().unwrap();
        let go_on = "href=\"https://xn--pypal-4ve.example/\" rel=\"noreferrer nofollow\">Go on";
        assert!(page.contains(go_on), "{page}");
    }
    wait_until("each is counted", || users[0].clicks(&slug) == Some(3));
}

#[test]
fn a_listed_link_answers_451_at_both_gateways_and_comes_back_when_it_is_listed_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("blocklist");
    swap(&list, "nobody.example\n");
    let builder = small().set(Kind::Gateway, "WAYPOST_BLOCKLIST", list.to_str().unwrap());
    let cluster = builder.start().unwrap();
    let users = [User::of(&cluster, 0), User::of(&cluster, 1)];
    // In the memory of both gateways, of the first alone (and in Redis), and in neither.
    let (held, good) = (users[0].shorten(EVIL), users[0].shorten(GOOD));
    let read_later = users[0].shorten(EVIL);
    for user in &users {
        assert_eq!(user.follow(&held), (302, EVIL.to_owned()));
        assert_eq!(user.follow(&good), (302, GOOD.to_owned()));
    }
    let entries = |gateway, expected: f64| {
        wait_until("the gateway has the list", || {
            (metric(&cluster, gateway, "waypost_blocklist_entries") - expected).abs() < 0.5
        });
        Instant::now()
    };
    swap(&list, "evil.example\nexample.net/evil\n");
    for (gateway, user) in users.iter().enumerate() {
        let since = entries(gateway, 2.0);
        while user.follow(&held).0 != 451 {
            assert!(since.elapsed() < IN_FORCE_WITHIN, "{}", user.url);
        }
        assert_eq!(user.follow(&read_later).0, 451);
        assert_eq!(user.follow(&good), (302, GOOD.to_owned()));
        let create = json!({ "longUrl": EVIL });
        let refused = problem(user.send("POST", "/api/v1/links", Some(&create)));
        assert_eq!(refused, (422, "url_blocked".to_owned()));
        let link = user.get(&format!("/api/v1/links/{held}"));
        assert_eq!(
            link.json::<serde_json::Value>().unwrap()["blockedBy"],
            "blocklist"
        );
    }
    // An edit of something else leaves the link where it leads, and blocked.
    let edit = json!({ "title": "still there" });
    let edited = users[1].send("PATCH", &format!("/api/v1/links/{held}"), Some(&edit));
    assert_eq!(edited.status(), 200);
    assert_eq!(
        users.each_ref().map(|user| user.follow(&held).0),
        [451, 451]
    );

    // A list with this service on it, and one of all of the web.
    let failed = "waypost_watched_file_readings_total{file=\"blocklist\",result=\"failed\"}";
    for (count, bad) in ["127.0.0.1\n", "good.example\ncom\n"].iter().enumerate() {
        swap(&list, bad);
        for (gateway, user) in users.iter().enumerate() {
            wait_until("the list is refused", || {
                metric(&cluster, gateway, failed) > count as f64 + 0.5
            });
            assert_eq!((user.follow(&held).0, user.follow(&good).0), (451, 302));
        }
    }
    swap(&list, "good.example\n");
    for (gateway, user) in users.iter().enumerate() {
        let since = entries(gateway, 1.0);
        while (user.follow(&held).0, user.follow(&good).0) != (302, 451) {
            assert!(since.elapsed() < IN_FORCE_WITHIN, "{}", user.url);
        }
        assert_eq!(user.follow(&read_later), (302, EVIL.to_owned()));
    }
}
