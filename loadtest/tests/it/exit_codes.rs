//! What a script that calls the program learns.

use crate::loadtest;
use crate::server::{Fault, Server};

#[tokio::test]
async fn met_objectives_exit_with_0() {
    let server = Server::start(Fault::None).await;
    let output = loadtest(&format!(
        "--target {} --links 10 --rate 100 --duration 1s --warmup 200ms --slo p99=4s,errors=0%",
        server.url
    ))
    .await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("objectives: met"), "{text}");
    let progress = String::from_utf8(output.stderr).unwrap();
    assert!(progress.contains("p99"), "{progress}");
}

#[tokio::test]
async fn missed_objectives_exit_with_1() {
    let server = Server::start(Fault::Unavailable).await;
    let output = loadtest(&format!(
        "--target {} --links 10 --rate 100 --duration 500ms --warmup 0s --slo errors=0.01%",
        server.url
    ))
    .await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("redirect, status 503: 50"), "{text}");
    // No latency was seen, so none is claimed.
    assert!(!text.contains("0us"), "{text}");
}

#[tokio::test]
async fn an_objective_with_nothing_seen_is_not_met() {
    let server = Server::start(Fault::Unavailable).await;
    let output = loadtest(&format!(
        "--target {} --links 10 --rate 100 --duration 500ms --warmup 0s --slo p99=10s",
        server.url
    ))
    .await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[tokio::test]
async fn an_absent_target_exits_with_2() {
    // Bound but not listening for HTTP any more once it is dropped.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = port.local_addr().unwrap();
    drop(port);
    let output = loadtest(&format!("--target http://{addr} --rate 1 --mix miss=1")).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("failed to connect to"), "{error}");
}

#[tokio::test]
async fn a_missing_file_of_links_exits_with_2() {
    let server = Server::start(Fault::None).await;
    let output = loadtest(&format!(
        "--target {} --rate 1 --slugs /nonexistent/slugs",
        server.url
    ))
    .await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[tokio::test]
async fn bad_options_exit_with_64_and_name_the_option() {
    for (options, named) in [
        ("--rate 1 --mix miss=1", "--target"),
        ("--target http://127.0.0.1:1 --mix miss=1", "--rate"),
        (
            "--target http://127.0.0.1:1 --rate x --mix miss=1",
            "--rate",
        ),
        (
            "--target http://127.0.0.1:1 --rate 1 --mix miss=1 --threads 0",
            "--threads",
        ),
        (
            "--target http://192.0.2.1 --rate 1 --mix miss=1",
            "--allow-remote",
        ),
        (
            "--target http://192.0.2.1 --rate 1 --mix miss=1 --allow-remote",
            "--yes-i-own-the-target",
        ),
    ] {
        let output = loadtest(options).await;
        assert_eq!(output.status.code(), Some(64), "{options}: {output:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(named), "{options}: {error}");
    }
}

#[tokio::test]
async fn help_exits_with_0() {
    let output = loadtest("--help").await;
    assert_eq!(output.status.code(), Some(0));
}
