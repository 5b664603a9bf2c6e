//! `cargo xtask dashboards`: Grafana's dashboards, out of the code below.

mod cache;
mod capacity;
mod clicks;
mod dashboard;
mod gateway;
mod objectives;
mod shards;

use std::fs;
use std::path::PathBuf;

use crate::{Error, steps};
use dashboard::Dashboard;

/// Where they are kept, from the root of the clone.
const FOLDER: &str = "deploy/grafana/dashboards";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Write nothing; fail if a dashboard is not up to date
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(options: &Options) -> Result<(), Error> {
    if options.check {
        return check();
    }
    for (path, text) in files() {
        let failed = |error| Error::Step(format!("cannot write {}: {error}", path.display()));
        fs::write(&path, text).map_err(failed)?;
    }
    Ok(())
}

/// Fails if a dashboard is not what the code says.
pub(crate) fn check() -> Result<(), Error> {
    for (path, text) in files() {
        if fs::read_to_string(&path).is_ok_and(|there| there == text) {
            continue;
        }
        let name = path.display();
        return Err(Error::Step(format!(
            "{name} is not up to date: run `cargo xtask dashboards`"
        )));
    }
    Ok(())
}

fn all() -> [Dashboard; 6] {
    [
        objectives::dashboard(),
        gateway::dashboard(),
        cache::dashboard(),
        shards::dashboard(),
        clicks::dashboard(),
        capacity::dashboard(),
    ]
}

fn files() -> Vec<(PathBuf, String)> {
    let folder = steps::root().join(FOLDER);
    let file = |dashboard: Dashboard| {
        let path = folder.join(format!("{}.json", dashboard.uid));
        (path, format!("{:#}\n", dashboard.json()))
    };
    all().map(file).into()
}
