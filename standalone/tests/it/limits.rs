//! What one client may take, and what it is told beyond that.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpStream};

use reqwest::blocking::{Client, Response};
use reqwest::redirect::Policy;
use serde_json::{Value, json};

use crate::process::{User, Waypost, key, token, wait_until};
use crate::public_port::PATIENCE;

/// A client whose requests come from this address of the loopback.
fn from(address: [u8; 4]) -> Client {
    Client::builder()
        .redirect(Policy::none())
        .local_address(IpAddr::from(address))
        .build()
        .unwrap()
}

/// The limit that an answer names, which must also say when to come back.
#[track_caller]
fn limit_of(answer: Response) -> String {
    assert_eq!(answer.status(), 429);
    let seconds: u64 = answer.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    let problem: Value = answer.json().unwrap();
    assert_eq!(problem["code"], "rate_limited");
    let detail = problem["detail"].as_str().unwrap();
    detail.split('"').nth(1).unwrap().to_owned()
}

#[test]
fn anonymous_creates_are_limited_by_address_and_those_of_a_token_are_not() {
    let data = tempfile::tempdir().unwrap();
    let options = [("WAYPOST_LIMIT_ANONYMOUS_CREATES", "6:3")];
    let waypost = Waypost::start_with(data.path(), &options);
    let create = |client: &Client| {
        let url = format!("{}/shorten", waypost.url);
        let body = json!({ "url": "https://example.com/" });
        client.post(url).json(&body).send().unwrap()
    };
    let (here, there) = (from([127, 0, 0, 1]), from([127, 0, 0, 2]));
    for _ in 0..3 {
        assert_eq!(create(&here).status(), 201);
    }
    assert_eq!(limit_of(create(&here)), "anonymous_creates");
    assert_eq!(create(&there).status(), 201);
    let token = token(data.path());
    let link = json!({ "longUrl": "https://example.com/" });
    for _ in 0..10 {
        let created = waypost.send("POST", "/api/v1/links", &token, &link);
        assert_eq!(created.status(), 201);
    }
    let limited = "waypost_gateway_limited_total{limit=\"anonymous_creates\"}";
    assert!((waypost.metric(limited) - 1.0).abs() < 0.1);
}

#[test]
fn each_key_of_a_tenant_has_limits_of_its_own() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start_with(data.path(), &[("WAYPOST_LIMIT_CREATES", "6:3")]);
    let link = json!({ "longUrl": "https://example.com/" });
    let create = |token: &str| waypost.send("POST", "/api/v1/links", token, &link);
    // JWTs are of their subject, or of their tenant, however often they are issued.
    let jwt = || User::of(&waypost, data.path(), "shop").token().to_owned();
    let keys = [(); 2].map(|()| key(data.path(), &["--admin", "--tenant", "shop"]));
    for token in keys.iter().chain([&jwt()]) {
        for _ in 0..3 {
            assert_eq!(create(token).status(), 201);
        }
        assert_eq!(limit_of(create(token)), "creates");
    }
    assert_eq!(limit_of(create(&jwt())), "creates");
}

#[test]
fn each_link_of_a_batch_counts() {
    let data = tempfile::tempdir().unwrap();
    let options = [("WAYPOST_LIMIT_CREATES", "6:5")];
    let waypost = Waypost::start_with(data.path(), &options);
    let token = token(data.path());
    let link = json!({ "longUrl": "https://example.com/" });
    let batch = json!({ "links": vec![link.clone(); 7] });
    let answer = waypost.send("POST", "/api/v1/links/batch", &token, &batch);
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().unwrap();
    let results = answer["results"].as_array().unwrap();
    let statuses: Vec<_> = results.iter().map(|r| r["status"].as_u64()).collect();
    let expected = [201, 201, 201, 201, 201, 429, 429].map(Some);
    assert_eq!(statuses, expected);
    assert_eq!(results[6]["error"]["code"], "rate_limited");
    let single = waypost.send("POST", "/api/v1/links", &token, &link);
    assert_eq!(limit_of(single), "creates");
}

#[test]
fn statistics_are_limited() {
    let data = tempfile::tempdir().unwrap();
    let options = [("WAYPOST_LIMIT_READS", "6:2")];
    let waypost = Waypost::start_with(data.path(), &options);
    let slug = waypost.shorten("https://example.com/");
    let path = format!("/api/v1/links/{slug}/stats");
    for _ in 0..2 {
        assert_eq!(waypost.get(&path).status(), 200);
    }
    assert_eq!(limit_of(waypost.get(&path)), "reads");
}

#[test]
fn previews_are_limited_by_address() {
    let data = tempfile::tempdir().unwrap();
    let options = [("WAYPOST_LIMIT_READS", "6:2")];
    let waypost = Waypost::start_with(data.path(), &options);
    let slug = waypost.shorten("https://example.com/");
    let preview = |client: &Client| {
        let url = format!("{}/{slug}+", waypost.url);
        client.get(url).send().unwrap()
    };
    let (here, there) = (from([127, 0, 0, 1]), from([127, 0, 0, 2]));
    for _ in 0..2 {
        assert_eq!(preview(&here).status(), 200);
    }
    assert_eq!(limit_of(preview(&here)), "reads");
    assert_eq!(preview(&there).status(), 200);
    assert_eq!(waypost.follow(&slug).0, 302);
}

#[test]
fn edits_of_each_kind_are_limited_by_tenant_and_creates_are_not_by_them() {
    let data = tempfile::tempdir().unwrap();
    let options = [("WAYPOST_LIMIT_CREATES", "6:5")];
    let waypost = Waypost::start_with(data.path(), &options);
    let token = token(data.path());
    let link = json!({ "longUrl": "https://example.com/" });
    let create = || waypost.send("POST", "/api/v1/links", &token, &link);
    let created: Value = create().json().unwrap();
    let path = format!("/api/v1/links/{}", created["slug"].as_str().unwrap());
    let secret = json!({ "password": "x" });
    let edits = [
        ("PATCH", "", &secret),
        ("POST", "/disable", &Value::Null),
        ("POST", "/enable", &Value::Null),
        ("PATCH", "", &json!({ "title": "one" })),
        // What comes to nothing costs as much.
        ("PATCH", "", &json!({ "nonsense": 1 })),
    ];
    for (method, action, body) in edits {
        let answer = waypost.send(method, &format!("{path}{action}"), &token, body);
        assert!([200, 400].contains(&answer.status().as_u16()));
    }
    for (method, action) in [("PATCH", ""), ("POST", "/disable"), ("DELETE", "")] {
        let refused = waypost.send(method, &format!("{path}{action}"), &token, &secret);
        assert_eq!(limit_of(refused), "edits");
    }
    assert_eq!(create().status(), 201);
    let other = key(
        data.path(),
        &["--tenant", "other", "--scopes", "links:write"],
    );
    assert_eq!(waypost.send("PATCH", &path, &other, &secret).status(), 404);
}

#[test]
fn who_guesses_slugs_gets_only_what_is_in_memory_and_nobody_else_notices() {
    let data = tempfile::tempdir().unwrap();
    let options = [("WAYPOST_LIMIT_MISSES", "60:5")];
    let waypost = Waypost::start_with(data.path(), &options);
    let slug = waypost.shorten("https://example.com/");
    let (here, there) = (from([127, 0, 0, 1]), from([127, 0, 0, 2]));
    let ask = |client: &Client, method: &str, slug: &str| {
        let url = format!("{}/{slug}", waypost.url);
        client.request(method.parse().unwrap(), url).send().unwrap()
    };
    wait_until("the guesses are refused", || {
        let status = ask(&here, "HEAD", "nosuchslug").status();
        assert!([404, 429].contains(&status.as_u16()), "{status}");
        status == 429
    });
    assert_eq!(limit_of(ask(&here, "GET", "another-guess")), "misses");
    assert_eq!(limit_of(ask(&here, "GET", "another-guess+")), "misses");
    assert_eq!(ask(&here, "GET", &slug).status(), 302);
    assert_eq!(ask(&here, "GET", &format!("{slug}+")).status(), 200);
    assert_eq!(ask(&there, "GET", "nosuchslug").status(), 404);
    let url = format!("{}/nosuchslug", waypost.url);
    let page = here.get(url).header("accept", "text/html").send().unwrap();
    assert_eq!(page.status(), 429);
    assert!(page.text().unwrap().contains("<!doctype html>"));
}

#[test]
fn behind_a_trusted_proxy_the_client_is_who_the_proxy_says_and_not_who_the_client_says() {
    let data = tempfile::tempdir().unwrap();
    let options = [
        ("WAYPOST_LIMIT_MISSES", "60:5"),
        ("WAYPOST_TRUSTED_HOPS", "1"),
    ];
    let waypost = Waypost::start_with(data.path(), &options);
    let proxy = from([127, 0, 0, 1]);
    let ask = |forwarded: &str| {
        let url = format!("{}/nosuchslug", waypost.url);
        let request = proxy.get(url).header("x-forwarded-for", forwarded);
        request.send().unwrap().status()
    };
    let mut invented = 0;
    wait_until("one client is refused", || {
        invented += 1;
        ask(&format!("198.51.100.{}, 203.0.113.1", invented % 250)) == 429
    });
    assert_eq!(ask("203.0.113.1"), 429);
    assert_eq!(ask("203.0.113.1, 203.0.113.2"), 404);
}

/// Whether a new connection is served.
fn is_served(waypost: &Waypost, client: &Client) -> bool {
    client
        .get(format!("{}/robots.txt", waypost.url))
        .header("connection", "close")
        .send()
        .is_ok_and(|answer| answer.status() == 200)
}

#[test]
fn one_address_cannot_take_all_connections() {
    let data = tempfile::tempdir().unwrap();
    let options = [("WAYPOST_MAX_CONNECTIONS_PER_ADDRESS", "3")];
    let waypost = Waypost::start_with(data.path(), &options);
    let address = waypost.url.strip_prefix("http://").unwrap();
    let (here, there) = (from([127, 0, 0, 1]), from([127, 0, 0, 2]));
    // The test's own connection, that asked whether it is ready, went to another port.
    let held: Vec<TcpStream> = (0..3)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    wait_until("the places are taken", || !is_served(&waypost, &here));
    assert!(is_served(&waypost, &there));
    drop(held);
    wait_until("the places are given back", || is_served(&waypost, &here));
    let limited = "waypost_gateway_limited_total{limit=\"connections_per_address\"}";
    assert!(waypost.metric(limited) >= 1.0);
}

#[test]
fn a_connection_is_closed_after_the_last_request_it_may_make() {
    let data = tempfile::tempdir().unwrap();
    let options = [("WAYPOST_MAX_REQUESTS_PER_CONNECTION", "3")];
    let waypost = Waypost::start_with(data.path(), &options);
    let slug = waypost.shorten("https://example.com/");
    let address = waypost.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET /{slug} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.repeat(5).as_bytes()).unwrap();
    let mut answers = Vec::new();
    let _ = stream.read_to_end(&mut answers);
    let answers = String::from_utf8(answers).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 302").count(), 3, "{answers}");
    assert_eq!(answers.matches("connection: close").count(), 1, "{answers}");
}

#[test]
fn a_target_that_is_too_long_is_refused_whether_its_link_is_in_memory_or_not() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start(data.path());
    let slug = waypost.shorten("https://example.com/");
    for path in [&slug, "nosuchslug", "api/v1/nothing", ""] {
        let answer = waypost.get(&format!("/{path}?{}", "a".repeat(9_000)));
        assert_eq!(answer.status(), 414, "{path}");
        let problem: Value = answer.json().unwrap();
        assert_eq!(problem["code"], "target_too_long");
    }
    let fits = waypost.get(&format!("/{slug}?{}", "a".repeat(8_000)));
    assert_eq!(fits.status(), 302);
}
