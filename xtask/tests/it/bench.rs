//! `cargo xtask bench`: that it measures, and what it writes.

use std::fs;
use std::process::Command;

use serde_json::Value;

#[track_caller]
fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

/// A spread whose median is where it belongs.
#[track_caller]
fn median(spread: &Value) -> f64 {
    let median = number(&spread["median"]);
    assert!(number(&spread["min"]) <= median, "{spread}");
    assert!(number(&spread["max"]) >= median, "{spread}");
    median
}

#[track_caller]
fn figure<'a>(report: &'a Value, what: &str) -> &'a Value {
    let figures = report["figures"].as_array().unwrap();
    let found = figures.iter().find(|figure| figure["what"] == what);
    found.unwrap_or_else(|| panic!("no figure is called {what}"))
}

#[test]
fn a_benchmark_compares_both_sides_and_writes_what_it_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("figures/hot.json");
    let status = Command::new(env!("CARGO_BIN_EXE_waypost-xtask"))
        .args(["bench", "redirect-hot", "--quick", "--profile", "dev"])
        .arg("--json")
        .arg(&file)
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    let report: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();

    assert_eq!(report["format"], 1);
    assert_eq!(report["name"], "redirect-hot");
    assert_eq!(report["options"]["quick"], true);
    assert_eq!(report["options"]["profile"], "dev");
    assert!(report["machine"]["cores"].as_u64().unwrap() > 0);

    let [goal] = report["goals"].as_array().unwrap().as_slice() else {
        panic!("it has one goal");
    };
    assert_eq!(
        (&goal["unit"], number(&goal["atMost"])),
        (&Value::from("x"), 1.0)
    );
    let ratio = median(&goal["seen"]);
    assert_eq!(goal["met"], ratio <= 1.0);

    // One turn of each side: the ratio is that of what it is made of.
    let cpu = figure(&report, "CPU per request");
    let (ours, yardstick) = (median(&cpu["ours"]), median(&cpu["yardstick"]));
    assert!(ours > 0.0 && yardstick > 0.0, "{cpu}");
    assert!((ours / yardstick - ratio).abs() < 1e-9, "{ratio}: {cpu}");
    let gateways = figure(&report, "CPU per request, gateways");
    assert_eq!(median(&gateways["ours"]), ours);
    let rate = figure(&report, "redirects");
    assert!(median(&rate["ours"]) > 0.0 && median(&rate["yardstick"]) > 0.0);

    // It measured what it says: memory answered, and each click went the whole way.
    let hits = median(&figure(&report, "share of L1 hits")["ours"]);
    assert!(hits > 0.99, "{hits}");
    let acked = figure(&report, "share of clicks that the broker has");
    assert_eq!(median(&acked["ours"]), 1.0);
}
