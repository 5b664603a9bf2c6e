//! What a person gets to read who has set something wrong.

use crate::process::{Waypost, command};

/// The exit code and the one line on standard error.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let data = tempfile::tempdir().unwrap();
    let output = command()
        .args(arguments)
        .env("WAYPOST_DATA_DIR", data.path())
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = errors
        .lines()
        .filter(|line| !line.starts_with('{'))
        .collect();
    assert_eq!(lines.len(), 1, "{errors}");
    (output.status.code(), lines[0].to_owned())
}

#[test]
fn a_bad_option_is_named_in_one_line_with_exit_code_64() {
    let cases = [
        (vec!["--listen", "nowhere"], "--listen"),
        (vec!["--no-such-option"], "--no-such-option"),
        (vec!["--base-url", "ftp://example.com"], "--base-url"),
        (vec!["--home-redirect", "/home"], "--home-redirect"),
        (
            vec!["--unknown-slug-redirect", "javascript:alert(1)"],
            "--unknown-slug-redirect",
        ),
        (vec!["--l1-mib", "-1"], "--l1-mib"),
        (vec!["--shutdown-grace-ms", "soon"], "--shutdown-grace-ms"),
        (vec!["--log", "a=b=c"], "--log"),
        (vec!["--config", "/no/such/file.toml"], "/no/such/file.toml"),
        (
            vec![
                "--listen",
                "203.0.113.1:80",
                "--admin-listen",
                "127.0.0.1:0",
            ],
            "--listen",
        ),
    ];
    for (arguments, named) in cases {
        let (code, line) = refused(&arguments);
        assert_eq!(code, Some(64), "{line}");
        assert!(line.contains(named), "{line}");
    }
}

#[test]
fn help_shows_default_unit_and_meaning() {
    let output = command().arg("--help").output().unwrap();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    for expected in [
        "--listen",
        "127.0.0.1:8080",
        "WAYPOST_LISTEN",
        "./data",
        "MiB",
        "milliseconds",
    ] {
        assert!(help.contains(expected), "{expected}");
    }
}

#[test]
fn two_processes_never_share_a_data_folder() {
    let data = tempfile::tempdir().unwrap();
    let first = Waypost::start(data.path());
    let output = command()
        .env("WAYPOST_DATA_DIR", data.path())
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("another process uses")
    );
    assert_eq!(first.get("/").status(), 200);
}

#[test]
fn without_anonymous_creates_a_token_is_asked_for() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start_with(data.path(), &[("WAYPOST_ANONYMOUS", "false")]);
    let body = serde_json::json!({ "url": "https://example.com/" });
    assert_eq!(waypost.send("POST", "/shorten", "", &body).status(), 401);
}
