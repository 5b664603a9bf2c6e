//! Who may do what, on every route that the API's own document names.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::process::{Waypost, command, key, wait_until};

/// Answered in a problem document, with what `WWW-Authenticate` says.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    code: String,
    challenge: String,
}

/// An operation of the document that takes a token.
#[derive(Debug)]
struct Operation {
    method: String,
    path: String,
    is_open_to_all: bool,
}

fn operations(waypost: &Waypost) -> Vec<Operation> {
    let document: Value = waypost.get("/openapi.json").json().unwrap();
    let paths = document["paths"].as_object().unwrap();
    let mut operations = Vec::new();
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            let Some(security) = operation["security"].as_array() else {
                continue;
            };
            operations.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                is_open_to_all: security.contains(&json!({})),
            });
        }
    }
    assert!(operations.len() >= 7, "{operations:?}");
    operations
}

/// Without a token if it is empty.
fn ask(waypost: &Waypost, operation: &Operation, slug: &str, token: &str) -> Answer {
    let path = operation.path.replace("{slug}", slug);
    let method = operation.method.parse().unwrap();
    let mut request = waypost
        .http
        .request(method, format!("{}{path}", waypost.url));
    if !token.is_empty() {
        request = request.bearer_auth(token);
    }
    if operation.method != "GET" {
        request = request.json(&json!({}));
    }
    let response = request.send().unwrap();
    let status = response.status().as_u16();
    let challenge = response.headers().get("www-authenticate");
    let challenge = challenge.map_or("", |value| value.to_str().unwrap());
    let challenge = challenge.to_owned();
    let body = response.json::<Value>().unwrap_or_default();
    Answer {
        status,
        code: body["code"].as_str().unwrap_or_default().to_owned(),
        challenge,
    }
}

/// A link of the tenant that the key is for.
fn create(waypost: &Waypost, key: &str) -> String {
    let new = json!({ "longUrl": "https://example.com/owned" });
    let created = waypost.send("POST", "/api/v1/links", key, &new);
    assert_eq!(created.status(), 201);
    let created: Value = created.json().unwrap();
    created["slug"].as_str().unwrap().to_owned()
}

const ALL: &str = "links:write,links:read,stats:read";

#[test]
fn every_route_asks_for_a_token_that_is_good_and_allows_it_and_shows_only_own_links() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start_with(data.path(), &[("WAYPOST_ANONYMOUS", "false")]);
    let owner = key(data.path(), &["--admin"]);
    let slug = create(&waypost, &owner);
    let short = key(data.path(), &["--admin", "--expires", "1s"]);
    // Of the least that there is, so that all but one route want another.
    let reader = key(data.path(), &["--scopes", "links:read"]);
    let writer = key(data.path(), &["--scopes", "links:write"]);
    let other = key(data.path(), &["--tenant", "other", "--scopes", ALL]);
    let operations = operations(&waypost);
    wait_until("the short one has expired", || {
        ask(&waypost, &operations[0], &slug, &short).code == "token_expired"
    });
    let challenge = |detail: &str| {
        format!("Bearer realm=\"waypost\", error=\"invalid_token\", error_description=\"{detail}\"")
    };
    for operation in &operations {
        let answer = |token: &str| ask(&waypost, operation, &slug, token);
        let refused = |code: &str, challenge: String| Answer {
            status: 401,
            code: code.to_owned(),
            challenge,
        };
        let missing = refused("token_missing", "Bearer realm=\"waypost\"".to_owned());
        assert_eq!(answer(""), missing, "{operation:?}");
        let invalid = refused("token_invalid", challenge("The token is not valid here."));
        let long = "x".repeat(5_000);
        for bad in ["garbage", "wp_AQEA", "a.b.c", &long, &format!("{owner}x")] {
            assert_eq!(answer(bad), invalid, "{operation:?} {bad}");
        }
        let expired = refused("token_expired", challenge("The token has expired."));
        assert_eq!(answer(&short), expired, "{operation:?}");
        // Where the one scope would do, the other does not.
        let lacking = match answer(&reader) {
            refused if refused.status == 403 => refused,
            _ => answer(&writer),
        };
        assert_eq!(lacking.status, 403, "no scope is asked for: {operation:?}");
        assert_eq!(lacking.code, "scope_missing");
        assert!(
            lacking
                .challenge
                .contains("error=\"insufficient_scope\", scope=\""),
            "{lacking:?}"
        );
        if operation.path.contains("{slug}") {
            let answer = answer(&other);
            // To take links down, the operator's scope alone counts.
            let expected = match operation.path.ends_with("/takedown") {
                true => (403, "scope_missing"),
                false => (404, "link_not_found"),
            };
            assert_eq!(
                (answer.status, answer.code.as_str()),
                expected,
                "{operation:?}"
            );
        }
    }
    assert_eq!(waypost.follow(&slug).1, "https://example.com/owned");
}

#[test]
fn without_a_token_links_are_of_a_tenant_of_their_own() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start(data.path());
    let owner = key(data.path(), &["--admin"]);
    let (owned, anonymous) = (
        create(&waypost, &owner),
        waypost.shorten("https://example.com/anonymous"),
    );
    for operation in &operations(&waypost) {
        let answer = ask(&waypost, operation, &owned, "");
        let is_of_a_link = operation.path.contains("{slug}");
        match (operation.is_open_to_all, is_of_a_link) {
            (false, _) => assert_eq!(answer.status, 401, "{operation:?}"),
            (true, true) => assert_eq!(answer.status, 404, "{operation:?}"),
            (true, false) => assert_eq!(answer.challenge, "", "{operation:?}"),
        }
    }
    let stats = format!("/api/v1/links/{anonymous}/stats");
    assert_eq!(waypost.get(&stats).status(), 200);
    let path = format!("/api/v1/links/{anonymous}");
    let delete = |key: &str| waypost.send("DELETE", &path, key, &Value::Null).status();
    assert_eq!(delete(&owner), 404);
    let operator = key(data.path(), &["--tenant", "anonymous", "--scopes", ALL]);
    assert_eq!(delete(&operator), 204);
}

#[test]
fn a_token_in_the_query_is_refused_whatever_it_is_called_and_never_logged() {
    let data = tempfile::tempdir().unwrap();
    let log = data.path().join("log");
    let waypost = Waypost::start_logging(data.path(), &log, &[("WAYPOST_LOG", "trace")]);
    let owner = key(data.path(), &["--admin"]);
    let slug = create(&waypost, &owner);
    for name in [
        "access_token",
        "Access_Token",
        "token",
        "TOKEN",
        "api_key",
        "apiKey",
        "api-key",
        "key",
        "%6Bey",
    ] {
        for path in [
            format!("/api/v1/links/{slug}"),
            "/api/v1/nothing".to_owned(),
        ] {
            let answer = waypost.get(&format!("{path}?a=b&{name}={owner}"));
            assert_eq!(answer.status(), 400, "{name}");
            let problem: Value = answer.json().unwrap();
            assert_eq!(problem["code"], "token_in_query");
            assert!(!problem.to_string().contains(&owner));
        }
    }
    let body = json!({ "url": "https://example.com/" });
    let create = waypost.send("POST", &format!("/shorten?token={owner}"), &owner, &body);
    assert_eq!(create.status(), 400);
    // Not ours: a link may be followed with any query.
    assert_eq!(waypost.follow(&format!("{slug}?token=x")).0, 302);
    let rest = &owner[owner.len() - 12..];
    assert!(waypost.terminate().success());
    let log = std::fs::read_to_string(log).unwrap();
    assert!(!log.is_empty() && !log.contains(rest), "a key was logged");
}

#[test]
fn two_tokens_are_no_token() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start(data.path());
    let owner = key(data.path(), &["--admin"]);
    let slug = create(&waypost, &owner);
    let request = waypost
        .http
        .get(format!("{}/api/v1/links/{slug}", waypost.url))
        .bearer_auth(&owner)
        .bearer_auth("other");
    let answer = request.send().unwrap();
    assert_eq!(answer.status(), 400);
    let problem: Value = answer.json().unwrap();
    assert_eq!(problem["code"], "token_repeated");
    // What is no bearer token is not nothing either.
    let request = waypost.http.post(format!("{}/shorten", waypost.url));
    let request = request.basic_auth("user", Some("password"));
    let answer = request.json(&json!({ "url": "https://example.com/" }));
    assert_eq!(answer.send().unwrap().status(), 401);
}

#[test]
fn the_first_start_tells_how_to_get_a_key_and_that_key_does_everything() {
    let data = tempfile::tempdir().unwrap();
    let first = printed_at_start(data.path());
    let line = first.lines().find(|line| line.starts_with("First key"));
    let line = line.unwrap_or_else(|| panic!("{first}"));
    let told: Vec<&str> = line["First key".len()..].split_whitespace().collect();
    assert_eq!(told[1..4], ["keys", "create", "--admin"]);
    let output = std::process::Command::new(told[0])
        .args(&told[1..])
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success());
    let owner = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let waypost = Waypost::start(data.path());
    let path = format!("/api/v1/links/{}", create(&waypost, &owner));
    let deleted = waypost.send("DELETE", &path, &owner, &Value::Null);
    assert_eq!(deleted.status(), 204);
    waypost.kill();
    assert!(!printed_at_start(data.path()).contains("First key"));
}

/// What a person reads who starts it.
fn printed_at_start(data: &Path) -> String {
    let mut child = command()
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .env("WAYPOST_DATA_DIR", data)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let lines = lines.map(Result::unwrap).skip(1);
    let mut text = String::new();
    let mut blank = 0;
    for line in lines {
        blank += usize::from(line.is_empty());
        text += &(line + "\n");
        if blank == 2 {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    text
}
