//! Each way to go wrong is counted under its own name, and what is right is
//! not counted as wrong.

use std::time::Duration;

use crate::server::{Fault, Server};
use crate::{loadtest, report, total};

#[tokio::test]
async fn every_request_of_the_mix_is_sent_and_counted_once() {
    let server = Server::start(Fault::None).await;
    let report = report(&format!(
        "--target {} --links 1200 --rate 1000 --duration 2s --warmup 0s --token t \
         --mix redirect=60,miss=10,create=10,edit=10,stats=10",
        server.url
    ))
    .await;
    assert_eq!(total(&report, "/requests"), 2_000.0);
    assert_eq!(total(&report, "/errors"), 0.0, "{report:#}");
    for (kind, expected) in [
        ("redirect", 1_200),
        ("miss", 200),
        ("create", 200),
        ("edit", 200),
        ("stats", 200),
    ] {
        let sent = server.seen(kind);
        // More than four standard deviations of a count of 200 in 2,000.
        assert!(sent.abs_diff(expected) < 90, "{kind}: {sent}");
        assert_eq!(report["steps"][0]["kinds"][kind]["requests"], sent);
    }
    assert_eq!(server.seen("anonymous"), 0);
}

#[tokio::test]
async fn several_targets_and_threads_share_the_load_evenly() {
    let (one, two) = tokio::join!(Server::start(Fault::None), Server::start(Fault::None));
    let report = report(&format!(
        "--target {} --target {} --threads 2 --mix miss=1 --rate 400 --duration 1s --warmup 0s",
        one.url, two.url
    ))
    .await;
    assert_eq!(total(&report, "/errors"), 0.0);
    assert_eq!((one.seen("miss"), two.seen("miss")), (200, 200));
}

#[tokio::test]
async fn a_redirect_to_elsewhere_is_an_error() {
    let server = Server::start(Fault::WrongLocation).await;
    let report = report(&format!(
        "--target {} --links 10 --rate 100 --duration 500ms --warmup 0s",
        server.url
    ))
    .await;
    assert_eq!(total(&report, "/errorsByClass/location"), 50.0);
}

#[tokio::test]
async fn a_request_past_its_deadline_is_a_timeout() {
    let server = Server::start(Fault::Slow(Duration::from_secs(30))).await;
    let report = report(&format!(
        "--target {} --links 10 --rate 100 --duration 500ms --warmup 0s --deadline 200ms",
        server.url
    ))
    .await;
    assert_eq!(total(&report, "/errorsByClass/timeout"), 50.0);
    // Timeouts are as long as they were waited for.
    assert!(total(&report, "/latencyMs/p50") >= 200.0);
}

#[tokio::test]
async fn too_much_outstanding_overflows_instead_of_growing() {
    let server = Server::start(Fault::Slow(Duration::from_secs(30))).await;
    let report = report(&format!(
        "--target {} --links 10 --rate 100 --duration 500ms --warmup 0s --deadline 2s \
         --max-outstanding 20",
        server.url
    ))
    .await;
    assert_eq!(total(&report, "/errorsByClass/overflow"), 30.0);
    assert_eq!(total(&report, "/errorsByClass/timeout"), 20.0);
}

#[tokio::test]
async fn a_server_that_closes_each_connection_is_no_error() {
    let server = Server::start(Fault::CloseAlways).await;
    let report = report(&format!(
        "--target {} --links 10 --rate 100 --duration 500ms --warmup 0s --connections 2",
        server.url
    ))
    .await;
    assert_eq!(total(&report, "/errors"), 0.0, "{report:#}");
}

#[tokio::test]
async fn saved_links_serve_a_later_run() {
    let server = Server::start(Fault::None).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("slugs");
    let run = format!(
        "--target {} --rate 100 --duration 200ms --warmup 0s",
        server.url
    );
    loadtest(&format!(
        "{run} --links 700 --save-slugs {}",
        file.display()
    ))
    .await;
    let report = report(&format!("{run} --slugs {}", file.display())).await;
    assert_eq!(total(&report, "/errors"), 0.0);
    assert_eq!(server.seen("redirect"), 40);
}
