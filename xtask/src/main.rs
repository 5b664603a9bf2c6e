//! The one developer entry: `cargo xtask ..`.

mod bench;
mod broker;
mod check;
mod cluster;
mod dashboards;
mod docs;
mod k8s;
mod packages;
mod programs;
mod slo;
mod steps;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::packages::Purpose;
use crate::steps::Steps;

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing, build every program and run every test
    Test(test::Options),
    /// Install what is missing to build, to run a cluster and to test
    Packages,
    /// Install what is missing to build; then format, lints and unit tests: the fast loop
    Check,
    /// Write the tables of options into the documentation
    Docs(docs::Options),
    /// Write the Prometheus rules that follow from the objectives
    Slo(slo::Options),
    /// Write Grafana's dashboards
    Dashboards(dashboards::Options),
    /// Write the manifests of Kubernetes that follow from deploy/topology.yaml
    K8s(k8s::Options),
    /// Build the Kafka-compatible broker into the cache folder, once
    Broker,
    /// Run the whole system on this machine
    #[command(subcommand)]
    Cluster(cluster::Task),
    /// Measure, as ratios to a yardstick that is measured in the same run
    Bench(bench::Options),
}

/// Why a task ended early. Nobody acts on the difference but the reader.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Step(String),
    #[error("{0:?}")]
    Testbed(#[from] waypost_testbed::Error),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Test(options) => test::run(&options),
        Task::Packages => packages::install_missing(&mut Steps::default(), Purpose::Test),
        Task::Check => check::run(),
        Task::Docs(options) => docs::run(&options),
        Task::Slo(options) => slo::run(&options),
        Task::Dashboards(options) => dashboards::run(&options),
        Task::K8s(options) => k8s::run(&options),
        Task::Broker => broker::run(),
        Task::Cluster(cluster::Task::Up(options)) => cluster::up(&options),
        Task::Bench(options) => bench::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
