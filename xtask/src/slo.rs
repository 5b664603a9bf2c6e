//! `cargo xtask slo`: the objectives of the service, and the Prometheus rules that
//! follow from them.

mod objectives;
mod rules;

use std::fs;
use std::path::PathBuf;

pub(crate) use objectives::{Events, OBJECTIVES, Objective, WINDOW_DAYS};

use crate::{Error, steps};

/// Where the rules are kept, from the root of the clone.
const PATH: &str = "deploy/prometheus/rules/slo.yaml";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Write nothing; fail if the rules are not up to date
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(options: &Options) -> Result<(), Error> {
    if options.check {
        return check();
    }
    let path = path();
    fs::write(&path, rules::of(&OBJECTIVES))
        .map_err(|error| Error::Step(format!("cannot write {}: {error}", path.display())))
}

/// Fails if the rules do not say what the objectives say.
pub(crate) fn check() -> Result<(), Error> {
    let path = path();
    let text = fs::read_to_string(&path)
        .map_err(|error| Error::Step(format!("cannot read {}: {error}", path.display())))?;
    if text == rules::of(&OBJECTIVES) {
        return Ok(());
    }
    let name = path.display();
    Err(Error::Step(format!(
        "{name} is not up to date: run `cargo xtask slo`"
    )))
}

fn path() -> PathBuf {
    steps::root().join(PATH)
}
