//! Links from create to delete, through two gateways.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use waypost_testbed::cluster::Shard;

use super::{User, problem, shared};
use crate::patience::wait_until;

#[test]
fn a_link_that_one_gateway_creates_is_followed_through_another() {
    let (here, there) = (User::of(shared(), 0), User::of(shared(), 1));
    let slug = here.shorten("https://example.com/through-two-gateways");
    let expected = (302, "https://example.com/through-two-gateways".to_owned());
    assert_eq!(here.follow(&slug), expected);
    wait_until("the other gateway knows the link", || {
        there.follow(&slug) == expected
    });
}

#[test]
fn there_is_no_404_after_201_here_and_none_after_two_seconds_elsewhere() {
    let (here, there) = (User::of(shared(), 0), User::of(shared(), 1));
    for round in 0..20 {
        let slug = format!("fresh-{round}-{}", std::process::id());
        // The other gateway has just been told that there is no such link.
        assert_eq!(there.follow(&slug).0, 404);
        let body = json!({ "longUrl": "https://example.com/fresh", "alias": slug });
        assert_eq!(
            here.send("POST", "/api/v1/links", Some(&body)).status(),
            201
        );
        let created = Instant::now();
        assert_eq!(here.follow(&slug).0, 302, "after 201 at the same gateway");
        while there.follow(&slug).0 != 302 {
            assert!(
                created.elapsed() < Duration::from_secs(2),
                "404 at the other gateway"
            );
        }
    }
}

#[test]
fn minted_links_land_in_every_shard() {
    let cluster = shared();
    let user = User::of(cluster, 0);
    let links: Vec<Value> = (0..200)
        .map(|n| json!({ "longUrl": format!("https://example.com/spread/{n}") }))
        .collect();
    let response = user.send(
        "POST",
        "/api/v1/links/batch",
        Some(&json!({ "links": links })),
    );
    assert_eq!(response.status(), 200);
    let answer: Value = response.json().unwrap();
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), 200);
    assert!(
        results.iter().all(|result| result["status"] == 201),
        "{answer}"
    );
    let counts = rows_by_shard(
        "SELECT count(*) FROM links WHERE long_url LIKE 'https://example.com/spread/%'",
    );
    assert_eq!(counts.values().sum::<u64>(), 200);
    assert!(counts.values().all(|count| *count >= 50), "{counts:?}");
}

fn rows_by_shard(sql: &str) -> HashMap<String, u64> {
    shared()
        .shards
        .iter()
        .map(|shard| {
            let count = shard.postgres.query(Shard::DATABASE, sql).unwrap();
            (shard.id.to_string(), count.trim().parse().unwrap())
        })
        .collect()
}

#[test]
fn a_deleted_link_is_gone_everywhere_within_two_seconds() {
    let (here, there) = (User::of(shared(), 0), User::of(shared(), 1));
    let slug = here.shorten("https://example.com/to-be-deleted");
    wait_until("the other gateway has it in memory", || {
        there.follow(&slug).0 == 302
    });
    let path = format!("/api/v1/links/{slug}");
    assert_eq!(here.send("DELETE", &path, None).status(), 204);
    let deleted = Instant::now();
    assert_eq!(here.follow(&slug).0, 410, "at the gateway that deleted it");
    while there.follow(&slug).0 != 410 {
        assert!(
            deleted.elapsed() < Duration::from_secs(2),
            "still followed elsewhere"
        );
    }
    assert_eq!(problem(here.get(&path)), (410, "link_gone".to_owned()));
    let again = here.send("DELETE", &path, None);
    assert_eq!(problem(again), (410, "link_gone".to_owned()));
}

#[test]
fn an_edit_is_followed_everywhere_within_two_seconds() {
    let (here, there) = (User::of(shared(), 0), User::of(shared(), 1));
    let slug = here.shorten("https://example.com/before");
    wait_until("the other gateway has it in memory", || {
        there.follow(&slug).0 == 302
    });
    let edit = json!({ "longUrl": "https://example.com/after", "redirectStatus": 307 });
    let response = here.send("PATCH", &format!("/api/v1/links/{slug}"), Some(&edit));
    assert_eq!(response.status(), 200);
    let edited = Instant::now();
    let expected = (307, "https://example.com/after".to_owned());
    assert_eq!(here.follow(&slug), expected);
    while there.follow(&slug) != expected {
        assert!(
            edited.elapsed() < Duration::from_secs(2),
            "the old destination elsewhere"
        );
    }
}

#[test]
fn a_takedown_and_its_end_are_seen_everywhere_within_two_seconds() {
    let (here, there) = (User::of(shared(), 0), User::of(shared(), 1));
    let token = shared().token_for("operator", "links:takedown");
    let operator = User::of(shared(), 0).with_token(Some(token));
    let slug = here.shorten("https://example.com/to-be-taken-down");
    let path = format!("/api/v1/links/{slug}/takedown");
    for (method, expected) in [("POST", 451), ("DELETE", 302)] {
        // The other gateway has the link in memory.
        there.follow(&slug);
        assert_eq!(operator.send(method, &path, None).status(), 200);
        let changed = Instant::now();
        assert_eq!(here.follow(&slug).0, expected, "where it was changed");
        while there.follow(&slug).0 != expected {
            assert!(
                changed.elapsed() < Duration::from_secs(2),
                "not {expected} elsewhere"
            );
        }
    }
}

#[test]
fn an_edit_of_another_version_loses_nothing() {
    let user = User::of(shared(), 0);
    let slug = user.shorten("https://example.com/versions");
    let path = format!("/api/v1/links/{slug}");
    let etag = user.get(&path).headers()["etag"]
        .to_str()
        .unwrap()
        .to_owned();
    let edit = |title: &str| {
        user.http
            .patch(format!("{}{path}", user.url))
            .bearer_auth(user.token.as_ref().unwrap())
            .header("if-match", &etag)
            .json(&json!({ "title": title }))
            .send()
            .unwrap()
    };
    assert_eq!(edit("first").status(), 200);
    let second = edit("second");
    assert_eq!(problem(second), (412, "version_mismatch".to_owned()));
    let shown: Value = user.get(&path).json().unwrap();
    assert_eq!(shown["title"], "first");
    let cleared = user.send("PATCH", &path, Some(&json!({ "title": null })));
    assert_eq!(cleared.json::<Value>().unwrap()["title"], Value::Null);
}

#[test]
fn a_link_shows_what_it_was_created_with() {
    let user = User::of(shared(), 0);
    let alias = format!("full-{}", std::process::id());
    let body = json!({
        "longUrl": "https://example.com/full?a=1", "alias": alias, "redirectStatus": 301,
        "title": "Full", "tags": ["x", "y"], "forwardQuery": true, "ttlSeconds": 3600,
    });
    let response = user.send("POST", "/api/v1/links", Some(&body));
    assert_eq!(response.status(), 201);
    assert_eq!(
        response.headers()["location"],
        format!("/api/v1/links/{alias}").as_str()
    );
    let shown: Value = user.get(&format!("/api/v1/links/{alias}")).json().unwrap();
    assert_eq!(shown["longUrl"], "https://example.com/full?a=1");
    assert_eq!(shown["tags"], json!(["x", "y"]));
    assert_eq!(shown["shortUrl"], format!("{}/{alias}", user.url).as_str());
    assert!(shown["validUntil"].is_string());
    let (status, location) = user.follow(&format!("{alias}?a=2&b=3"));
    assert_eq!(
        (status, location.as_str()),
        (301, "https://example.com/full?a=1&b=3")
    );
    let taken = user.send("POST", "/api/v1/links", Some(&body));
    assert_eq!(problem(taken), (409, "alias_taken".to_owned()));
}

#[test]
fn links_are_followed_only_within_their_time() {
    let user = User::of(shared(), 0);
    let create = |extra: Value| {
        let mut body = json!({ "longUrl": "https://example.com/timed" });
        body.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        let answer: Value = user
            .send("POST", "/api/v1/links", Some(&body))
            .json()
            .unwrap();
        answer["slug"].as_str().unwrap().to_owned()
    };
    let later = create(json!({ "validSince": "2999-01-01T00:00:00Z" }));
    assert_eq!(user.follow(&later).0, 404);
    let short = create(json!({ "ttlSeconds": 1 }));
    wait_until("the link expires", || user.follow(&short).0 == 410);
}
