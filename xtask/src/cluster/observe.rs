//! `cluster up --observe`: Prometheus beside the cluster, with our rules.

use std::time::Duration;

use waypost_testbed::Cluster;
use waypost_testbed::prometheus::{Observation, Prometheus};

use crate::steps;

/// As often as a person looks.
const EVERY: Duration = Duration::from_secs(5);

pub(super) fn start(cluster: &Cluster) -> waypost_testbed::Result<Prometheus> {
    let folder = steps::root().join("deploy/prometheus");
    cluster.observe(&Observation {
        rules: folder.join("rules"),
        consoles: folder.join("consoles"),
        every: EVERY,
    })
}
