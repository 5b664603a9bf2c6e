//! What an owner and the operator do with a link.

use reqwest::blocking::Response;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{User, Waypost, answer, wait_until};

const LINKS: &str = "/api/v1/links";

fn start() -> (TempDir, Waypost) {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start(data.path());
    (data, waypost)
}

#[track_caller]
fn create(user: &User<'_>, body: &Value) -> (String, Value) {
    let (status, link) = user.send("POST", LINKS, body);
    assert_eq!(status, 201, "{link}");
    let path = format!("{LINKS}/{}", link["slug"].as_str().unwrap());
    (path, link)
}

fn slug(path: &str) -> &str {
    path.rsplit_once('/').unwrap().1
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers()[name].to_str().unwrap()
}

#[test]
fn a_link_is_switched_off_and_on_and_a_wrong_version_switches_nothing() {
    let (data, waypost) = start();
    let user = User::of(&waypost, data.path(), "default");
    let (path, link) = create(&user, &json!({ "longUrl": "https://example.com/switched" }));
    let switch = |to: &str, version: Option<&str>| {
        let mut request = user.request("POST", &format!("{path}/{to}"));
        if let Some(version) = version {
            request = request.header("if-match", version);
        }
        answer(request.send().unwrap())
    };
    for _ in 0..2 {
        let (status, off) = switch("disable", None);
        assert_eq!((status, &off["state"]), (200, &json!("disabled")));
        assert_eq!(waypost.follow(slug(&path)).0, 404);
    }
    let old = format!("\"{}\"", link["version"]);
    // No link has version 0, though a shard takes it for no condition.
    for wrong in [&*old, "\"0\""] {
        assert_eq!(switch("disable", Some(wrong)).0, 412);
        assert_eq!(switch("enable", Some(wrong)).0, 412);
    }
    let (status, problem) = switch("enable", Some(&old));
    assert_eq!(
        (status, &problem["code"]),
        (412, &json!("version_mismatch"))
    );
    assert_eq!(waypost.follow(slug(&path)).0, 404);
    let current = user.request("GET", &path).send().unwrap();
    let current = header(&current, "etag").to_owned();
    for version in [Some(&*current), None] {
        let (status, on) = switch("enable", version);
        assert_eq!((status, &on["state"]), (200, &json!("active")));
        assert_eq!(waypost.follow(slug(&path)).0, 302);
    }
    let stranger = User::of(&waypost, data.path(), "stranger");
    let (status, _) = stranger.send("POST", &format!("{path}/disable"), &Value::Null);
    assert_eq!(status, 404);
    assert_eq!(user.request("DELETE", &path).send().unwrap().status(), 204);
    assert_eq!(switch("enable", None).0, 410);
}

#[test]
fn a_link_that_is_taken_down_is_its_owners_to_see_and_nobodys_to_change() {
    let (data, waypost) = start();
    let owner = User::of(&waypost, data.path(), "owner");
    let operator = User::with_scopes(&waypost, data.path(), "operator", "links:takedown");
    let body = json!({ "longUrl": "https://example.com/bad", "findIfExists": true });
    let (path, _) = create(&owner, &body);
    let takedown = format!("{path}/takedown");
    let no_scope = User::with_scopes(&waypost, data.path(), "owner", "links:write links:read");
    assert_eq!(no_scope.send("POST", &takedown, &Value::Null).0, 403);

    let (status, taken) = operator.send("POST", &takedown, &Value::Null);
    assert_eq!(
        (status, &taken["state"]),
        (200, &json!("blocked")),
        "{taken}"
    );
    assert_eq!(waypost.follow(slug(&path)).0, 451);
    let (status, shown) = owner.get(&path);
    assert_eq!((status, &shown["state"]), (200, &json!("blocked")));
    let blocked = |(status, problem): (u16, Value)| {
        assert_eq!((status, &problem["code"]), (451, &json!("link_blocked")));
    };
    blocked(owner.send("PATCH", &path, &json!({ "title": "let me" })));
    blocked(owner.send("POST", &format!("{path}/enable"), &Value::Null));
    blocked(owner.send("POST", &format!("{path}/disable"), &Value::Null));
    blocked(answer(owner.request("DELETE", &path).send().unwrap()));
    blocked(owner.send("POST", LINKS, &body));

    for _ in 0..2 {
        let (status, lifted) = operator.send("DELETE", &takedown, &Value::Null);
        assert_eq!((status, &lifted["state"]), (200, &json!("active")));
    }
    assert_eq!(waypost.follow(slug(&path)).0, 302);
    assert_eq!(
        owner
            .send("POST", &format!("{path}/disable"), &Value::Null)
            .0,
        200
    );
    let (status, lifted) = operator.send("DELETE", &takedown, &Value::Null);
    assert_eq!(
        (status, &lifted["state"]),
        (200, &json!("disabled")),
        "nothing to lift"
    );
    assert_eq!(operator.send("POST", &takedown, &Value::Null).0, 200);
    let (status, lifted) = operator.send("DELETE", &takedown, &Value::Null);
    assert_eq!((status, &lifted["state"]), (200, &json!("disabled")));
    assert_eq!(
        operator
            .send("POST", "/api/v1/links/nosuchslug/takedown", &Value::Null)
            .0,
        404
    );
    assert_eq!(owner.request("DELETE", &path).send().unwrap().status(), 204);
    // Deleted before, it would be made again.
    let (status, taken) = operator.send("POST", &takedown, &Value::Null);
    assert_eq!((status, &taken["state"]), (200, &json!("blocked")));
    assert_eq!(waypost.follow(slug(&path)).0, 451);
    blocked(owner.send("POST", LINKS, &body));
    for _ in 0..2 {
        let lift = operator.send("DELETE", &takedown, &Value::Null);
        assert_eq!((lift.0, &lift.1["code"]), (410, &json!("link_gone")));
        assert_eq!(waypost.follow(slug(&path)).0, 410);
    }
    assert_eq!(owner.send("POST", LINKS, &body).0, 201);
}

#[test]
fn an_edit_of_one_end_is_checked_against_the_other() {
    let (data, waypost) = start();
    let user = User::of(&waypost, data.path(), "default");
    let link = json!({ "longUrl": "https://example.com/", "validUntil": "2999-01-01T00:00:00Z" });
    let (path, _) = create(&user, &link);
    let begin = |at: &str| user.send("PATCH", &path, &json!({ "validSince": at }));
    let (status, problem) = begin("2999-01-01T00:00:00Z");
    assert_eq!(
        (status, &problem["code"]),
        (422, &json!("validity_invalid"))
    );
    assert_eq!(waypost.follow(slug(&path)).0, 302);
    assert_eq!(begin("2998-12-31T00:00:00Z").0, 200);
}

#[test]
fn what_a_client_has_is_not_sent_again_and_of_two_edits_of_one_version_one_is_made() {
    let (data, waypost) = start();
    let user = User::of(&waypost, data.path(), "default");
    let (path, _) = create(&user, &json!({ "longUrl": "https://example.com/versions" }));
    for round in 0..10 {
        let got = user.request("GET", &path).send().unwrap();
        let etag = header(&got, "etag").to_owned();
        for known in [&*etag, "*", &format!("\"1\", W/{etag}")] {
            let again = user.request("GET", &path).header("if-none-match", known);
            let again = again.send().unwrap();
            assert_eq!(again.status(), 304, "{known}");
            assert_eq!(header(&again, "etag"), etag);
            assert_eq!(again.bytes().unwrap().len(), 0);
        }
        let edit = |title: String| {
            let request = user.request("PATCH", &path).header("if-match", &etag);
            request
                .json(&json!({ "title": title }))
                .send()
                .unwrap()
                .status()
                .as_u16()
        };
        let mut statuses: Vec<u16> = std::thread::scope(|scope| {
            let edits = (0..4).map(|n| scope.spawn(move || edit(format!("{round}-{n}"))));
            let edits: Vec<_> = edits.collect();
            edits.into_iter().map(|edit| edit.join().unwrap()).collect()
        });
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412, 412, 412]);
        let old = user.request("GET", &path).header("if-none-match", &etag);
        assert_eq!(old.send().unwrap().status(), 200);
    }
}

#[test]
fn the_short_url_is_drawn_as_a_qr_code_that_may_be_kept() {
    let (data, waypost) = start();
    let user = User::of(&waypost, data.path(), "default");
    let (path, _) = create(&user, &json!({ "longUrl": "https://example.com/qr" }));
    let get = |query: &str, known: &str| {
        let request = user.request("GET", &format!("{path}/qr{query}"));
        request.header("if-none-match", known).send().unwrap()
    };
    let plain = get("", "");
    assert_eq!(plain.status(), 200);
    assert_eq!(header(&plain, "content-type"), "image/svg+xml");
    assert!(header(&plain, "content-security-policy").starts_with("default-src 'none'"));
    assert_eq!(header(&plain, "x-content-type-options"), "nosniff");
    assert_eq!(header(&plain, "cache-control"), "private, max-age=86400");
    let etag = header(&plain, "etag").to_owned();
    assert_eq!(get("", &etag).status(), 304);
    assert_eq!(get("?size=300", &etag).status(), 200);
    let svg = get("?size=300&margin=0", "").text().unwrap();
    assert!(svg.contains("width=\"300\" height=\"300\""), "{svg}");
    for bad in ["?size=63", "?size=2049", "?margin=x", "?color=red"] {
        let (status, problem) = answer(get(bad, ""));
        assert_eq!(
            (status, &problem["code"]),
            (422, &json!("query_invalid")),
            "{bad}"
        );
    }
    let stranger = User::of(&waypost, data.path(), "stranger");
    assert_eq!(stranger.get(&format!("{path}/qr")).0, 404);
}

#[test]
fn links_without_a_word_about_their_end_have_the_operators() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start_with(data.path(), &[("WAYPOST_DEFAULT_TTL_S", "1")]);
    let user = User::of(&waypost, data.path(), "default");
    let url = "https://example.com/brief";
    let (brief, link) = create(&user, &json!({ "longUrl": url }));
    assert!(link["validUntil"].is_string(), "{link}");
    let shortened = waypost.shorten(url);
    let (never, link) = create(&user, &json!({ "longUrl": url, "validUntil": null }));
    assert_eq!(link["validUntil"], Value::Null);
    let (longer, _) = create(&user, &json!({ "longUrl": url, "ttlSeconds": 600 }));
    wait_until("the links end", || {
        waypost.follow(slug(&brief)).0 == 410 && waypost.follow(&shortened).0 == 410
    });
    for path in [never, longer] {
        assert_eq!(waypost.follow(slug(&path)).0, 302);
    }
    let both = json!({ "longUrl": url, "validUntil": null, "ttlSeconds": 5 });
    let (status, problem) = user.send("POST", LINKS, &both);
    assert_eq!(
        (status, &problem["code"]),
        (422, &json!("validity_ambiguous"))
    );
}
