//! `cargo xtask dashboards`: Grafana's dashboards, out of the code below.

mod cache;
mod capacity;
mod clicks;
mod dashboard;
mod gateway;
mod objectives;
mod shards;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use crate::{Error, steps};
use dashboard::Dashboard;

/// Where they are kept, from the root of the clone.
const FOLDER: &str = "deploy/grafana/dashboards";

/// Beside their folder: what makes ConfigMaps of them, for Kubernetes.
const CONFIG_MAPS: &str = "deploy/grafana/kustomization.yaml";

/// Never by their hash: Grafana's sidecar would show the ones of before as well.
const CONFIG_MAPS_HEAD: &str = "\
# Made by `cargo xtask dashboards`. A ConfigMap for each dashboard: the sidecar of Grafana's
# chart finds them by the label, and puts them into the folder.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
generatorOptions:
  disableNameSuffixHash: true
  labels: {grafana_dashboard: \"1\"}
  annotations: {grafana_folder: Waypost}
configMapGenerator:
";

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
    let mut config_maps = CONFIG_MAPS_HEAD.to_owned();
    let file = |dashboard: Dashboard| {
        let uid = &dashboard.uid;
        let _ = writeln!(
            config_maps,
            "  - {{name: dashboard-{uid}, files: [dashboards/{uid}.json]}}"
        );
        let path = folder.join(format!("{uid}.json"));
        (path, format!("{:#}\n", dashboard.json()))
    };
    let mut files: Vec<_> = all().map(file).into();
    files.push((steps::root().join(CONFIG_MAPS), config_maps));
    files
}
