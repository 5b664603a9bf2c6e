//! A slow server cannot slow down the asking, nor hide behind it.

use std::time::Duration;

use crate::server::{Fault, Server};
use crate::{loadtest, report, total};

#[tokio::test]
async fn a_stall_shows_in_latency_and_hardly_in_service_time() {
    // 300 ms of 2 s: 15 % of the requests are due while the only connection is
    // stuck, but only one of 400 is sent into the stall.
    let server = Server::start(Fault::StallOnce(150, Duration::from_millis(300))).await;
    let report = report(&format!(
        "--target {} --links 10 --rate 200 --duration 2s --warmup 0s --connections 1",
        server.url
    ))
    .await;
    assert_eq!(total(&report, "/requests"), 400.0);
    assert_eq!(total(&report, "/errors"), 0.0);
    let (latency, service) = (
        total(&report, "/latencyMs/p99"),
        total(&report, "/serviceMs/p99"),
    );
    assert!(latency > 200.0, "{latency}");
    assert!(service < 100.0, "{service}");
    assert!(total(&report, "/serviceMs/max") >= 300.0);
}

#[tokio::test]
async fn warm_up_is_sent_but_not_recorded() {
    let server = Server::start(Fault::None).await;
    let report = report(&format!(
        "--target {} --mix miss=1 --rate 200 --duration 500ms --warmup 1s",
        server.url
    ))
    .await;
    assert_eq!(total(&report, "/requests"), 100.0);
    assert_eq!(server.seen("miss"), 300);
}

#[tokio::test]
async fn a_ramp_ends_at_saturation_and_names_the_last_sustained_rate() {
    // One connection at 10 ms a request: at most 100 a second. In 4 s two requests of
    // the first step may be late because other tests run as well.
    let server = Server::start(Fault::Slow(Duration::from_millis(10))).await;
    let report = report(&format!(
        "--target {} --links 10 --ramp 10:4:2560 --duration 4s --warmup 0s --connections 1 \
         --slo p99=4s",
        server.url
    ))
    .await;
    let steps = report["steps"].as_array().unwrap();
    assert_eq!(steps.last().unwrap()["sustained"], false);
    assert!(steps.len() <= 3, "{}", steps.len());
    let sustainable = report["sustainableRate"].as_f64().unwrap();
    assert!(sustainable <= 40.0, "{sustainable}");
    assert_eq!(report["verdict"]["met"], true);
}

#[tokio::test]
async fn the_page_stands_alone_and_draws_both_curves() {
    let server = Server::start(Fault::None).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.html");
    let output = loadtest(&format!(
        "--target {} --links 10 --rate 200 --arrivals poisson --duration 500ms --warmup 0s --html {}",
        server.url,
        file.display()
    ))
    .await;
    assert!(output.status.success(), "{output:?}");
    let page = std::fs::read_to_string(&file).unwrap();
    for needed in [
        "<svg",
        "latency from the intended start",
        "service time",
        "99%",
    ] {
        assert!(page.contains(needed), "{needed}");
    }
    for foreign in ["<script", "<link", "src=", "@import"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}
