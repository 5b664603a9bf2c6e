//! What holds for every answer of the public port, whoever gives it: slugs out of memory
//! and slugs that must be looked up have a service of their own, everything else has a
//! router. A client need not know.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::process::{Waypost, key};

/// Far above what an answer takes; a connection that stays open must not hang a test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// An answer as it came over the socket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The first answer in `bytes`, and what follows it.
    pub(crate) fn split(bytes: &[u8], has_body: bool) -> Option<(Self, &[u8])> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
        let headers: BTreeMap<_, _> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length = headers.get("content-length").filter(|_| has_body);
        let length = length.map_or(0, |length| length.parse().unwrap());
        let (body, rest) = bytes[end + 4..].split_at_checked(length)?;
        let body = body.to_vec();
        Some((
            Self {
                status,
                headers,
                body,
            },
            rest,
        ))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Sends bytes and reads until the server closes the connection.
fn talk(waypost: &Waypost, request: &str) -> Vec<u8> {
    let address = waypost.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // Reset by a server that was sent more than it wanted to read: what it said counts.
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    answer
}

fn ask(waypost: &Waypost, method: &str, path: &str, headers: &str) -> Answer {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"
    );
    let bytes = talk(waypost, &request);
    let (answer, rest) = Answer::split(&bytes, method != "HEAD").unwrap();
    assert_eq!(rest, b"", "{method} {path}: more than the head promised");
    answer
}

/// A server, and a path of each sort with the status that it answers.
struct Port {
    waypost: Waypost,
    paths: Vec<(String, u16)>,
    _data: tempfile::TempDir,
}

impl Port {
    fn open() -> Self {
        let data = tempfile::tempdir().unwrap();
        let waypost = Waypost::start(data.path());
        let token = key(
            data.path(),
            &["--tenant", "anonymous", "--scopes", "links:write"],
        );
        let held = waypost.shorten("https://example.com/held");
        let gone = waypost.shorten("https://example.com/gone");
        let link = format!("/api/v1/links/{gone}");
        let deleted = waypost.send("DELETE", &link, &token, &Value::Null);
        assert_eq!(deleted.status(), 204);
        let new = json!({ "longUrl": "https://example.com/later", "alias": "not-yet-valid",
                          "validSince": "2999-01-01T00:00:00Z" });
        let later = waypost.send("POST", "/api/v1/links", &token, &new);
        assert_eq!(later.status(), 201);
        let new = json!({ "longUrl": "https://example.com/", "alias": "locked", "password": "x" });
        let locked = waypost.send("POST", "/api/v1/links", &token, &new);
        assert_eq!(locked.status(), 201);
        let paths = [
            // Before any visit, so that nothing is counted between two of these.
            (format!("/api/v1/links/{held}/stats"), 200),
            (format!("/{held}"), 302),
            (format!("/{held}?with=a&query"), 302),
            (format!("/{gone}"), 410),
            ("/not-yet-valid".to_owned(), 404),
            ("/nosuchslug".to_owned(), 404),
            ("/locked".to_owned(), 401),
            ("/locked+".to_owned(), 200),
            (format!("/{held}+"), 200),
            ("/nosuchslug+".to_owned(), 404),
            ("/-no-slug".to_owned(), 404),
            (format!("/api/v1/links/{held}"), 401),
            ("/api/v1/nothing".to_owned(), 404),
            ("/robots.txt".to_owned(), 200),
            ("/".to_owned(), 200),
        ];
        Self {
            waypost,
            paths: paths.into(),
            _data: data,
        }
    }
}

#[test]
fn head_answers_like_get_without_the_body() {
    let port = Port::open();
    for (path, status) in &port.paths {
        let [get, mut head] = ["GET", "HEAD"].map(|method| {
            let mut answer = ask(&port.waypost, method, path, "");
            assert!(answer.headers.remove("date").is_some(), "{path}: no date");
            answer
        });
        assert_eq!(get.status, *status, "{path}");
        assert_eq!(get.header("content-length"), get.body.len().to_string());
        head.body.clone_from(&get.body);
        // It may leave out how long the body would be (RFC 9110, 9.3.2).
        let length = get.header("content-length").to_owned();
        head.headers
            .entry("content-length".to_owned())
            .or_insert(length);
        assert_eq!(head, get, "{path}");
    }
}

#[test]
fn nothing_is_kept_by_caches_or_taken_for_another_type() {
    let port = Port::open();
    for (path, status) in &port.paths {
        let answer = ask(&port.waypost, "GET", path, "");
        assert!(
            answer.header("cache-control").contains("no-store"),
            "{path}"
        );
        if *status != 302 {
            assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        }
    }
}

/// What a page or a document may do in a browser: nothing that it was not made for.
#[test]
fn every_page_and_every_answer_says_that_it_loads_runs_and_tells_nothing() {
    let port = Port::open();
    let html = "Accept: text/html\r\n";
    let form = |body: &str| {
        let length = body.len();
        format!(
            "{html}Content-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
    };
    let length = |length| format!("{html}Content-Length: {length}\r\n");
    let mut asked: Vec<(&str, &str, String, u16)> = vec![
        ("POST", "/locked", form("password=y"), 403),
        ("POST", "/locked", form("y"), 400),
        ("POST", "/locked", form(&"y".repeat(1_025)), 413),
        ("POST", "/locked", length(0), 415),
        ("POST", "/shorten", length(0), 415),
        ("PUT", "/locked", length(0), 405),
        ("GET", "/locked", html.to_owned(), 200),
        ("GET", "/docs", html.to_owned(), 200),
        ("GET", "/docs/errors", html.to_owned(), 200),
        ("GET", "/openapi.json", html.to_owned(), 200),
        ("GET", "/favicon.ico", html.to_owned(), 204),
    ];
    for (path, status) in &port.paths {
        asked.push(("GET", path, String::new(), *status));
        if path != "/locked" {
            asked.push(("GET", path, html.to_owned(), *status));
        }
    }
    for (method, path, rest, status) in asked {
        let answer = ask(&port.waypost, method, path, &rest);
        let what = format!("{method} {path}, {rest:.20}: {:?}", answer.headers);
        assert_eq!(answer.status, status, "{what}");
        assert_eq!(answer.header("set-cookie"), "", "{what}");
        if status == 302 {
            continue;
        }
        let policy = answer.header("content-security-policy");
        for part in [
            "default-src 'none'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{part}: {what}");
        }
        if !path.starts_with("/docs") {
            assert!(!policy.contains("unsafe"), "{what}");
        }
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{what}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{what}");
        let is_page = answer.header("content-type").starts_with("text/html");
        if is_page {
            assert!(policy.contains("form-action"), "{what}");
        }
    }
}

#[test]
fn programs_are_told_what_is_wrong_as_a_problem_document() {
    let port = Port::open();
    for (path, status) in port.paths.iter().filter(|(_, status)| *status >= 400) {
        let answer = ask(&port.waypost, "GET", path, "Accept: */*\r\n");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        let problem: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(problem["status"], *status, "{path}");
        for member in ["type", "title", "code", "detail"] {
            assert!(problem[member].is_string(), "{path}: {member}");
        }
    }
}

#[test]
fn requests_that_come_at_once_are_answered_in_their_order() {
    let port = Port::open();
    let mut requests = String::new();
    for (path, _) in &port.paths {
        requests += &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    requests += "GET /favicon.ico HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let bytes = talk(&port.waypost, &requests);
    let mut rest = &bytes[..];
    for (path, status) in &port.paths {
        let (answer, more) = Answer::split(rest, true).expect(path);
        assert_eq!(answer.status, *status, "{path}");
        rest = more;
    }
    let (last, rest) = Answer::split(rest, true).unwrap();
    assert_eq!((last.status, rest), (204, &b""[..]));
}

#[test]
fn a_client_of_http_1_0_is_answered_and_let_go() {
    let port = Port::open();
    for (path, status) in &port.paths {
        let bytes = talk(&port.waypost, &format!("GET {path} HTTP/1.0\r\n\r\n"));
        let (answer, _) = Answer::split(&bytes, true).unwrap();
        assert_eq!(answer.status, *status, "{path}");
    }
}

#[test]
fn a_head_that_is_too_large_or_malformed_is_refused_wherever_it_leads() {
    let port = Port::open();
    let long = format!("X-Long: {}\r\n", "a".repeat(20 * 1_024));
    let many: String = (0..70).map(|n| format!("X-{n}: 1\r\n")).collect();
    for (path, _) in &port.paths {
        for (headers, status) in [
            (&long[..], 431),
            (&many, 431),
            ("No colon\r\n", 400),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", 400),
            ("Content-Length: -1\r\n", 400),
            ("Transfer-Encoding: chunked, identity\r\n", 400),
        ] {
            let answer = ask(&port.waypost, "GET", path, headers);
            assert_eq!(answer.status, status, "{path}, {headers:.40}");
            assert_eq!(answer.header("connection"), "close");
        }
    }
}

/// A length and chunks together are how one request is made to look like two.
#[test]
fn a_body_of_two_lengths_is_never_read_as_another_request() {
    let port = Port::open();
    for (path, status) in &port.paths {
        let hidden = "GET /favicon.ico HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\
             Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}",
            hidden.len() + 5
        );
        let bytes = talk(&port.waypost, &request);
        let (answer, rest) = Answer::split(&bytes, true).unwrap();
        assert!([400, *status].contains(&answer.status), "{path}");
        assert_eq!(rest, b"", "{path}: the hidden request was answered");
    }
}

#[test]
fn a_method_that_a_path_does_not_take_is_named_so_with_those_it_takes() {
    let port = Port::open();
    for (path, _) in &port.paths {
        if path == "/api/v1/nothing" {
            continue;
        }
        let answer = ask(&port.waypost, "PUT", path, "Content-Length: 0\r\n");
        assert_eq!(answer.status, 405, "{path}");
        assert!(answer.header("allow").contains("GET"), "{path}");
        let problem: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(problem["code"], "method_not_allowed");
    }
}
