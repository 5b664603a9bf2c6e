//! The program as its callers see it: options in, exit code and report out,
//! against a small server that can misbehave.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics fails, as it should; clippy sees only test functions as tests"
)]

mod exit_codes;
mod failures;
mod open_loop;
mod server;

use std::process::Output;

use serde_json::Value;
use tokio::process::Command;

/// Runs the program with options split at blanks.
async fn loadtest(options: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_waypost-loadtest"))
        .args(options.split_whitespace())
        .env_remove("WAYPOST_TOKEN")
        .kill_on_drop(true)
        .output()
        .await
        .unwrap()
}

/// Runs the program and reads its JSON report.
async fn report(options: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.json");
    let output = loadtest(&format!("{options} --json {}", file.display())).await;
    let json = std::fs::read(&file);
    serde_json::from_slice(&json.unwrap_or_else(|_| panic!("{output:?}"))).unwrap()
}

/// A number in the only step's total.
fn total(report: &Value, pointer: &str) -> f64 {
    let total = &report["steps"][0]["total"];
    total.pointer(pointer).unwrap().as_f64().unwrap()
}
