//! `cargo xtask broker`: builds the broker for tests and local clusters, once.

use std::fs;

use waypost_testbed::broker::{NISSHI_VERSION, nisshi_folder};
use waypost_testbed::cache;

use crate::Error;
use crate::steps::{Steps, cargo};

pub(crate) fn run() -> Result<(), Error> {
    let folder = nisshi_folder()?;
    if folder.join("bin/nisshi").is_file() {
        eprintln!("xtask: nisshi {NISSHI_VERSION} is in {}", folder.display());
        return Ok(());
    }
    // Apart from ours, and away afterwards: it is gigabytes, used once.
    let target = cache::folder()?.join("nisshi-target");
    let mut install = cargo();
    install
        .args(["install", "nisshi", "--version", NISSHI_VERSION])
        // It asks for a newer compiler than it needs.
        .args(["--locked", "--ignore-rust-version"])
        // Keeps the log in memory; the other engines are most of the build.
        .args(["--no-default-features", "--features", "dynostore"])
        .arg("--root")
        .arg(&folder)
        .env("CARGO_TARGET_DIR", &target);
    let built = Steps::default().run(&mut install);
    if built.is_ok()
        && let Err(error) = fs::remove_dir_all(&target)
    {
        eprintln!("xtask: could not remove {}: {error}", target.display());
    }
    built
}
