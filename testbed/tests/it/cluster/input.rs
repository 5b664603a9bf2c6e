//! Bad input gets a named error, and changes nothing.

use reqwest::blocking::Response;
use serde_json::json;
use waypost_testbed::cluster::Shard;
use waypost_testbed::token;

use super::{User, problem, shared};

fn post(user: &User, path: &str, kind: &str, body: String) -> Response {
    user.http
        .post(format!("{}{path}", user.url))
        .bearer_auth(user.token.as_ref().unwrap())
        .header("content-type", kind)
        .body(body)
        .send()
        .unwrap()
}

#[test]
fn bad_bodies_get_their_named_error_and_change_nothing() {
    // All rows of this tenant, whatever is in them, come from this test.
    let tenant = "sender-of-bad-bodies";
    let token = shared().token_for(tenant, token::ALL_SCOPES);
    let user = User::of(shared(), 0).with_token(Some(token));
    let mark = "https://example.com/must-not-be-stored";
    let long = format!("{mark}/{}", "a".repeat(9 * 1024));
    let wide = format!(
        "{{\"url\":\"{mark}\",\"pad\":\"{}\"}}",
        "a".repeat(17 * 1024)
    );
    let json = "application/json";
    let cases: [(&str, String, u16, &str); 12] = [
        (json, "{\"url\":".to_owned(), 400, "json_malformed"),
        (
            json,
            format!("{{\"url\":\"{mark}\"}} x"),
            400,
            "json_malformed",
        ),
        (json, "{\"url\":7}".to_owned(), 400, "body_invalid"),
        (json, "{}".to_owned(), 400, "body_invalid"),
        (
            json,
            format!("{{\"url\":\"{mark}\",\"x\":1}}"),
            400,
            "body_invalid",
        ),
        (
            json,
            format!("{{\"url\":\"{mark}\",\"url\":\"{mark}\"}}"),
            400,
            "body_invalid",
        ),
        (json, wide, 413, "body_too_large"),
        (
            json,
            json!({ "url": "javascript:alert(1)" }).to_string(),
            422,
            "url_scheme_refused",
        ),
        (
            json,
            json!({ "url": long }).to_string(),
            422,
            "url_too_long",
        ),
        (
            json,
            json!({ "url": "nowhere" }).to_string(),
            422,
            "url_malformed",
        ),
        (
            json,
            json!({ "url": "https://a:b@example.com/" }).to_string(),
            422,
            "url_with_credentials",
        ),
        (
            "text/plain",
            json!({ "url": mark }).to_string(),
            415,
            "not_json",
        ),
    ];
    for (kind, body, status, code) in cases {
        let shown: String = body.chars().take(60).collect();
        let answer = problem(post(&user, "/shorten", kind, body));
        assert_eq!(answer, (status, code.to_owned()), "{shown}");
    }
    assert_eq!(rows_of(tenant), 0);
    // That tenant's rows would have been seen.
    user.shorten("https://example.com/good");
    assert_eq!(rows_of(tenant), 1);
}

/// In all shards together.
fn rows_of(tenant: &str) -> u64 {
    let sql = format!("SELECT count(*) FROM links WHERE tenant = '{tenant}'");
    let shards = shared().shards.iter();
    let counts = shards.map(|shard| shard.postgres.query(Shard::DATABASE, &sql).unwrap());
    counts
        .map(|count| count.trim().parse::<u64>().unwrap())
        .sum()
}

#[test]
fn refused_fields_are_named() {
    let user = User::of(shared(), 0);
    let url = "https://example.com/";
    let cases = [
        (json!({ "longUrl": url, "alias": "a!" }), "alias_invalid"),
        (json!({ "longUrl": url, "alias": "api" }), "alias_reserved"),
        (
            json!({ "longUrl": url, "redirectStatus": 303 }),
            "redirect_status_invalid",
        ),
        (
            json!({ "longUrl": url, "validUntil": "yesterday" }),
            "time_invalid",
        ),
        (
            json!({ "longUrl": url, "validUntil": "2001-01-01T00:00:00Z" }),
            "validity_invalid",
        ),
        (json!({ "longUrl": url, "ttlSeconds": 0 }), "ttl_invalid"),
        (json!({ "longUrl": url, "tags": [""] }), "tags_invalid"),
    ];
    for (body, code) in cases {
        let answer = problem(user.send("POST", "/api/v1/links", Some(&body)));
        assert_eq!(answer, (422, code.to_owned()), "{body}");
    }
}

#[test]
fn each_link_of_a_batch_has_its_own_result() {
    let user = User::of(shared(), 0);
    let body = json!({ "links": [
        { "longUrl": "https://example.com/1" },
        { "longUrl": "javascript:alert(1)" },
        { "longUrl": "https://example.com/3", "unknown": true },
        { "longUrl": "https://example.com/4" },
    ]});
    let response = user.send("POST", "/api/v1/links/batch", Some(&body));
    assert_eq!(response.status(), 200);
    let answer: serde_json::Value = response.json().unwrap();
    let statuses: Vec<_> = (0..4)
        .map(|n| answer["results"][n]["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [201, 422, 400, 201]);
    assert_eq!(answer["results"][1]["error"]["code"], "url_scheme_refused");
    let slug = answer["results"][3]["slug"].as_str().unwrap();
    assert_eq!(user.follow(slug).1, "https://example.com/4");
}

#[test]
fn unknown_paths_and_methods_are_answered_as_problems() {
    let user = User::of(shared(), 0);
    assert_eq!(
        problem(user.get("/api/v2")),
        (404, "route_not_found".to_owned())
    );
    assert_eq!(
        problem(user.get("/-no-slug")),
        (404, "route_not_found".to_owned())
    );
    assert_eq!(
        problem(user.get("/nosuchslug")),
        (404, "link_not_found".to_owned())
    );
    let put = user.send("PUT", "/api/v1/links/abc", None);
    assert_eq!(problem(put), (405, "method_not_allowed".to_owned()));
}
