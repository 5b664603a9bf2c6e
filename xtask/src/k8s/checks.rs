//! What must hold of the manifests of a region, without a cluster to try them on.

mod dashboards;
mod encryption;
mod fields;
mod kinds;
mod network;
mod options;
mod pods;
mod references;
pub(super) mod secrets;
mod shards;

use std::fmt;

use super::objects::Objects;
use super::topology::{Deployment, Region, Size, Topology};

pub(super) use kinds::CORE;
pub(super) use options::Options;

/// What is looked at, and what it is to be.
pub(super) struct Place<'a> {
    pub(super) topology: &'a Topology,
    pub(super) deployment: &'a Deployment,
    pub(super) region: &'a Region,
    /// Whether it is to survive the loss of a zone.
    pub(super) is_full: bool,
    pub(super) objects: &'a Objects,
    pub(super) options: &'a Options,
}

/// Something that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Broken {
    pub(super) rule: &'static str,
    /// As in `Deployment/gateway`.
    object: String,
    problem: String,
}

impl Broken {
    pub(super) fn new(rule: &'static str, object: &str, problem: impl Into<String>) -> Self {
        Self {
            rule,
            object: object.to_owned(),
            problem: problem.into(),
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.object, self.problem, self.rule)
    }
}

impl<'a> Place<'a> {
    pub(super) fn new(
        topology: &'a Topology,
        (deployment, region): (&'a Deployment, &'a Region),
        objects: &'a Objects,
        options: &'a Options,
    ) -> Self {
        Self {
            topology,
            deployment,
            region,
            is_full: deployment.size == Size::Full,
            objects,
            options,
        }
    }

    /// All that does not hold, each once.
    pub(super) fn broken(&self) -> Vec<Broken> {
        let checks = [
            kinds::check,
            fields::check,
            references::check,
            pods::check,
            network::check,
            options::check,
            encryption::check,
            shards::check,
            dashboards::check,
        ];
        let mut found = Vec::new();
        for check in checks {
            check(self, &mut found);
        }
        found.sort();
        found.dedup();
        found
    }
}
