//! API keys from their making to their revocation.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process::{Waypost, command, key, wait_until};

/// What the command prints; it must succeed.
fn keys(data: &Path, arguments: &[&str]) -> String {
    let output = command()
        .arg("keys")
        .args(arguments)
        .env("WAYPOST_DATA_DIR", data)
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn listed(data: &Path) -> Vec<Value> {
    let lines = keys(data, &["list", "--json"]);
    let parsed = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    parsed.collect()
}

/// The status and the code of a request that needs the scope links:write.
fn asked(waypost: &Waypost, key: &str) -> (u16, String) {
    let answer = waypost.send("DELETE", "/api/v1/links/nosuchslug", key, &Value::Null);
    let status = answer.status().as_u16();
    let code = answer.json::<Value>().unwrap()["code"].clone();
    (status, code.as_str().unwrap().to_owned())
}

fn found_nothing() -> (u16, String) {
    (404, "link_not_found".to_owned())
}

#[test]
fn the_list_says_everything_of_a_key_but_the_key() {
    let data = tempfile::tempdir().unwrap();
    let arguments = [
        "--tenant",
        "Ärzte & Söhne",
        "--scopes",
        "links:write,stats:read",
        "--expires",
        "90d",
        "--name",
        "for the \"website\"",
    ];
    let token = key(data.path(), &arguments);
    assert!(token.starts_with("wp_AQ"), "{token}");
    let records = listed(data.path());
    assert_eq!(records.len(), 1);
    let record = &records[0];
    assert_eq!(record["tenant"], "Ärzte & Söhne");
    assert_eq!(record["scopes"], json!(["links:write", "stats:read"]));
    assert_eq!(record["name"], "for the \"website\"");
    assert_eq!(record["revoked"], Value::Null);
    let table = keys(data.path(), &["list"]);
    assert!(table.contains(record["id"].as_str().unwrap()) && table.contains("valid"));
    for file in fs::read_dir(data.path().join("secrets")).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(!text.contains(&token[8..]), "the key is in a file");
    }
}

#[test]
fn a_key_that_nobody_could_mean_is_not_made() {
    let data = tempfile::tempdir().unwrap();
    for arguments in [
        vec!["create"],
        vec!["create", "--scopes", "links:everything"],
        vec!["create", "--scopes", ""],
        vec!["create", "--admin", "--scopes", "links:read"],
        vec!["create", "--admin", "--tenant", "a\nb"],
        vec!["create", "--admin", "--expires", "11y"],
        vec!["create", "--admin", "--name", "a\u{1b}[2J"],
        vec!["revoke", "0123456789abcdef"],
        vec!["list", "--secrets-dir", "/no/such/folder/x"],
        vec!["create", "--admin", "--secrets-dir", "/no/such/folder"],
    ] {
        let output = command()
            .arg("keys")
            .args(&arguments)
            .env("WAYPOST_DATA_DIR", data.path())
            .output()
            .unwrap();
        let is_list = arguments[0] == "list";
        assert_eq!(output.status.success(), is_list, "{arguments:?}");
        assert!(is_list || output.stdout.is_empty(), "{arguments:?}");
    }
    assert_eq!(listed(data.path()).len(), 0);
}

#[test]
fn a_revoked_key_is_refused_within_five_seconds_and_ever_after() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start(data.path());
    let (kept, lost) = (
        key(data.path(), &["--admin"]),
        key(data.path(), &["--admin"]),
    );
    assert_eq!(asked(&waypost, &lost), found_nothing());
    let id = listed(data.path())[1]["id"].as_str().unwrap().to_owned();
    keys(data.path(), &["revoke", &id]);
    let revoked = Instant::now();
    let refused = (401, "token_revoked".to_owned());
    wait_until("the key is refused", || asked(&waypost, &lost) == refused);
    assert!(revoked.elapsed() < Duration::from_secs(5), "refused late");
    assert_eq!(asked(&waypost, &kept), found_nothing());
    keys(data.path(), &["revoke", &id]);
    assert_ne!(listed(data.path())[1]["revoked"], Value::Null);
    assert_eq!(listed(data.path())[0]["revoked"], Value::Null);

    // Not even without the list: it is made again of what else is known.
    waypost.kill();
    fs::remove_file(data.path().join("secrets/revoked-keys")).unwrap();
    let waypost = Waypost::start(data.path());
    assert_eq!(asked(&waypost, &lost), refused);
    assert_eq!(asked(&waypost, &kept), found_nothing());
}

#[test]
fn a_list_that_is_broken_or_gone_keeps_revoking_and_says_so_in_the_metrics() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start(data.path());
    let lost = key(data.path(), &["--admin"]);
    let id = listed(data.path())[0]["id"].as_str().unwrap().to_owned();
    keys(data.path(), &["revoke", &id]);
    let refused = (401, "token_revoked".to_owned());
    wait_until("the key is refused", || asked(&waypost, &lost) == refused);
    let list = data.path().join("secrets/revoked-keys");
    let is_current = |yes: u8| {
        let line = format!("waypost_watched_file_current{{file=\"revoked-keys\"}} {yes}");
        waypost.metrics().contains(&line)
    };
    fs::write(&list, "no list at all").unwrap();
    wait_until("it is known to be broken", || is_current(0));
    assert_eq!(asked(&waypost, &lost), refused);
    fs::remove_file(&list).unwrap();
    wait_until("a second failure", || {
        let line = "waypost_watched_file_readings_total{file=\"revoked-keys\",result=\"failed\"} 2";
        waypost.metrics().contains(line)
    });
    assert_eq!(asked(&waypost, &lost), refused);
    fs::write(&list, "").unwrap();
    wait_until("the list is in force", || is_current(1));
    assert_eq!(asked(&waypost, &lost), found_nothing());
}

#[test]
fn a_list_that_cannot_be_read_ends_the_start() {
    let data = tempfile::tempdir().unwrap();
    let list = data.path().join("list");
    for text in [None, Some("two ids")] {
        if let Some(text) = text {
            fs::write(&list, text).unwrap();
        }
        let output = command()
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .env("WAYPOST_DATA_DIR", data.path())
            .env("WAYPOST_REVOKED_KEYS", &list)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(64));
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains("--revoked-keys"), "{errors}");
    }
}

#[test]
fn what_is_no_id_does_not_come_onto_the_list() {
    let data = tempfile::tempdir().unwrap();
    key(data.path(), &["--admin"]);
    for id in ["a b", "#7", "", "\u{fc}"] {
        let output = command()
            .args(["keys", "revoke", "--jti", id])
            .env("WAYPOST_DATA_DIR", data.path())
            .output()
            .unwrap();
        assert!(!output.status.success(), "{id:?}");
    }
    keys(data.path(), &["revoke", "--jti", "jti:7"]);
}
