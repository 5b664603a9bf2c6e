//! `cargo xtask check`: what takes seconds and needs no server.

use crate::Error;
use crate::packages::{self, Purpose};
use crate::steps::Steps;

pub(crate) fn run() -> Result<(), Error> {
    let mut steps = Steps::default();
    // Clippy, too, runs the build script of rdkafka.
    packages::install_missing(&mut steps, Purpose::Build)?;
    steps.cargo(&["fmt", "--all", "--check"])?;
    steps.cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ])?;
    steps.cargo(&["test", "--workspace", "--lib"])
}
