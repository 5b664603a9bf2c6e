//! What pages of other origins may do in a browser.

use reqwest::blocking::Response;
use reqwest::header::HeaderMap;
use serde_json::json;

use crate::process::Waypost;

const FRIEND: &str = "https://app.example";

fn ask(waypost: &Waypost, method: &str, path: &str, origin: &str) -> Response {
    let client = reqwest::blocking::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    client
        .request(method.parse().unwrap(), format!("{}{path}", waypost.url))
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization")
        .send()
        .unwrap()
}

fn allows_nothing(headers: &HeaderMap) -> bool {
    !headers
        .keys()
        .any(|name| name.as_str().starts_with("access-control-"))
}

/// A path of each sort.
fn paths(waypost: &Waypost) -> Vec<String> {
    let slug = waypost.shorten("https://example.com/");
    let mut paths = vec![
        format!("/{slug}"),
        format!("/{slug}?callback=steal"),
        format!("/api/v1/links/{slug}"),
        format!("/api/v1/links/{slug}/stats?callback=steal&jsonp=steal"),
    ];
    paths.extend(["/", "/shorten", "/nosuchslug", "/api/v1/links"].map(str::to_owned));
    paths
}

#[test]
fn no_other_origin_may_read_anything_and_nothing_is_ever_kept_in_a_cookie() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start(data.path());
    for path in paths(&waypost) {
        for method in ["GET", "POST", "OPTIONS"] {
            let answer = ask(&waypost, method, &path, FRIEND);
            let status = answer.status();
            assert!(allows_nothing(answer.headers()), "{method} {path}");
            assert!(!answer.headers().contains_key("set-cookie"), "{path}");
            if method == "OPTIONS" {
                assert_eq!(status, 405, "{path}");
            }
            let body = answer.text().unwrap();
            assert!(!body.contains("steal("), "{method} {path}: {body}");
        }
    }
}

#[test]
fn an_origin_that_is_named_may_use_the_api_and_no_other_may() {
    let data = tempfile::tempdir().unwrap();
    let origins = format!("https://other.example,{FRIEND}");
    let options = [("WAYPOST_CORS_ORIGINS", origins.as_str())];
    let waypost = Waypost::start_with(data.path(), &options);
    for path in paths(&waypost) {
        let is_api = path == "/shorten" || path.starts_with("/api/");
        for method in ["OPTIONS", "GET"] {
            let answer = ask(&waypost, method, &path, FRIEND);
            let headers = answer.headers();
            assert!(!headers.contains_key("access-control-allow-credentials"));
            if !is_api {
                assert!(allows_nothing(headers), "{method} {path}");
                continue;
            }
            // Errors, too: a page is to read why it was refused.
            assert_eq!(headers["access-control-allow-origin"], FRIEND, "{path}");
            assert!(headers.get_all("vary").iter().any(|by| by == "origin"));
            if method == "OPTIONS" {
                assert_eq!(answer.status(), 204, "{path}");
                let allowed = answer.headers()["access-control-allow-headers"].to_str();
                assert!(allowed.unwrap().contains("authorization"));
            }
        }
        for stranger in ["https://app.example.evil", "http://app.example", "null", ""] {
            let answer = ask(&waypost, "OPTIONS", &path, stranger);
            assert_eq!(answer.status(), 405, "{path}");
            assert!(allows_nothing(answer.headers()), "{path}, {stranger}");
        }
    }
    let body = json!({ "url": "https://example.com/" });
    let created = waypost.send("POST", "/shorten", "", &body);
    assert!(allows_nothing(created.headers()), "no origin, no leave");
}
