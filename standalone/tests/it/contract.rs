//! The server keeps to its own OpenAPI document, whatever it is sent.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use waypost_testbed::schemathesis;

use crate::process::{Waypost, token};

/// Requests are generated from it: the same ones each time, so that a failure is one of
/// the change that is tested.
const SEED: &str = "20261125";

/// Requests of each kind for each operation: what fits into a minute on a busy machine.
const EXAMPLES: &str = "40";

/// Far above what it takes.
const PATIENCE: Duration = Duration::from_secs(90);

/// What is well-formed may be refused nevertheless, by a rule that no schema can say: a
/// link is gone, its version is another, its URL is the server's own, its bytes are more
/// than its characters. What breaks the
/// schema may be refused for another reason first. In a batch each link is refused by
/// itself.
const CONFIGURATION: &str = r#"
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 410, 412, 413, 422, 429, 451]

[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 409, 410, 412, 413, 415, 422, 429, 451]

[[operations]]
include-operation-id = "createLinks"
checks.negative_data_rejection.enabled = false
"#;

#[test]
fn whatever_is_sent_the_answer_is_one_of_those_in_the_document() {
    let data = tempfile::tempdir().unwrap();
    // Thousands of creates from one address are what is wanted here.
    let waypost = Waypost::start_with(data.path(), &[("WAYPOST_LIMITS", "false")]);
    let token = token(data.path());
    let folder = tempfile::tempdir().unwrap();
    let configuration = folder.path().join("schemathesis.toml");
    fs::write(&configuration, CONFIGURATION).unwrap();
    let report = folder.path().join("report.txt");
    let mut run = schemathesis::command()
        .unwrap()
        .arg("--config-file")
        .arg(&configuration)
        .args(["run", &format!("{}/openapi.json", waypost.url)])
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .args(["--seed", SEED, "--max-examples", EXAMPLES])
        // Short links lead anywhere; only where they lead is of interest.
        .args([
            "--max-redirects",
            "0",
            "--no-color",
            "--continue-on-failure",
        ])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(fs::File::create(&report).unwrap())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let status = loop {
        match run.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if started.elapsed() > PATIENCE => {
                run.kill().unwrap();
                run.wait().unwrap();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let report = fs::read_to_string(&report).unwrap();
    assert!(status.is_some_and(|status| status.success()), "{report}");
    // Nothing was left out without a word.
    let document: Value = waypost.get("/openapi.json").json().unwrap();
    let paths = document["paths"].as_object().unwrap().values();
    let count: usize = paths.map(|item| item.as_object().unwrap().len()).sum();
    // It does not try the route that it has the document from.
    let tested = format!("Tested: {}\n", count - 1);
    assert!(report.contains(&tested), "{report}");
}

#[test]
fn no_answer_may_be_kept_framed_or_taken_for_another_type_wherever_it_comes_from() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start(data.path());
    let slug = waypost.shorten("https://example.com/");
    let document: Value = waypost.get("/openapi.json").json().unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        let filled = path.replace("{slug}", &slug).replace("{file}", "start.js");
        for method in item.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            let answer = waypost.send(&method, &filled, "no.good.token", &Value::Null);
            let (status, headers) = (answer.status(), answer.headers());
            let name = format!("{method} {path}, {status}");
            let header = |name: &str| headers.get(name).map_or("", |v| v.to_str().unwrap());
            let kept = header("cache-control");
            let is_asked_after = kept.contains("no-store") || kept == "no-cache";
            assert!(is_asked_after, "{name}: {kept}");
            for never in ["set-cookie", "access-control-allow-origin"] {
                assert_eq!(header(never), "", "{name}");
            }
            // A redirect has no body to look at.
            if status.is_redirection() {
                continue;
            }
            assert_eq!(header("x-content-type-options"), "nosniff", "{name}");
            assert_eq!(header("referrer-policy"), "no-referrer", "{name}");
            let policy = header("content-security-policy");
            assert!(policy.starts_with("default-src 'none'"), "{name}: {policy}");
            assert!(
                policy.contains("frame-ancestors 'none'"),
                "{name}: {policy}"
            );
        }
    }
}
