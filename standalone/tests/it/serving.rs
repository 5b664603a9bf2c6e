//! Links and counts, also over the end of the process.

use serde_json::{Value, json};

use crate::process::{Waypost, key, wait_until};

#[test]
fn a_link_is_created_followed_and_counted() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start(data.path());
    let slug = waypost.shorten("https://example.com/a/long/path");
    let expected = (302, "https://example.com/a/long/path".to_owned());
    for _ in 0..3 {
        assert_eq!(waypost.follow(&slug), expected);
    }
    wait_until("the clicks are counted", || waypost.clicks(&slug) >= 3);
    assert_eq!(waypost.clicks(&slug), 3);
    assert_eq!(waypost.follow("nosuchslug").0, 404);
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let data = tempfile::tempdir().unwrap();
    let mut slugs = Vec::new();
    for life in 0..3 {
        let waypost = Waypost::start(data.path());
        for n in 0..50 {
            slugs.push(waypost.shorten(&format!("https://example.com/{life}/{n}")));
        }
        // Killed right behind the last answer.
        waypost.kill();
    }
    let waypost = Waypost::start(data.path());
    for (index, slug) in slugs.iter().enumerate() {
        let expected = format!("https://example.com/{}/{}", index / 50, index % 50);
        assert_eq!(waypost.follow(slug), (302, expected));
    }
    let distinct: std::collections::HashSet<_> = slugs.iter().collect();
    assert_eq!(distinct.len(), slugs.len(), "a slug was issued twice");
}

#[test]
fn clicks_are_counted_once_over_a_kill_and_a_clean_end() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start(data.path());
    let slug = waypost.shorten("https://example.com/counted");
    for _ in 0..7 {
        waypost.follow(&slug);
    }
    // A clean end loses no click, however recent.
    assert!(waypost.terminate().success());
    let waypost = Waypost::start(data.path());
    assert_eq!(waypost.clicks(&slug), 7);
    waypost.follow(&slug);
    wait_until("the click is counted", || waypost.clicks(&slug) == 8);
    waypost.kill();
    let waypost = Waypost::start(data.path());
    assert_eq!(waypost.clicks(&slug), 8, "counted twice after a kill");
}

#[test]
fn the_owners_key_edits_and_deletes() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start(data.path());
    let token = key(
        data.path(),
        &["--tenant", "anonymous", "--scopes", "links:write"],
    );
    let slug = waypost.shorten("https://example.com/before");
    let path = format!("/api/v1/links/{slug}");
    assert_eq!(waypost.get(&path).status(), 401);
    let edit = json!({ "longUrl": "https://example.com/after" });
    assert_eq!(waypost.send("PATCH", &path, "wrong", &edit).status(), 401);
    let edited: Value = waypost.send("PATCH", &path, &token, &edit).json().unwrap();
    assert_eq!(edited["longUrl"], "https://example.com/after");
    assert_eq!(waypost.follow(&slug).1, "https://example.com/after");
    let delete = waypost.send("DELETE", &path, &token, &Value::Null);
    assert_eq!(delete.status(), 204);
    assert_eq!(waypost.follow(&slug).0, 410);
}
