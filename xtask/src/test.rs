//! `cargo xtask test`: every test, on the real parts.

use crate::steps::Steps;
use crate::{Error, dashboards, docs, k8s, packages, slo};

/// The testbed's tests that no other test may run beside.
const ALONE: &str = "cluster::alone::";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Passed on to `cargo test`, for example `-p waypost-testbed -- redirect`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let mut steps = Steps::default();
    packages::install_missing(&mut steps, packages::Purpose::Test)?;
    // The tests of the cluster start these.
    steps.cargo(&["build", "--workspace", "--bins"])?;
    docs::check()?;
    slo::check()?;
    dashboards::check()?;
    k8s::check()?;
    if options.arguments.is_empty() {
        steps.cargo(&["test", "--workspace", "--", "--skip", ALONE])?;
        return steps.cargo(&["test", "--workspace", "--test", "it", "--", ALONE]);
    }
    let mut test = vec!["test"];
    if !options.arguments.iter().any(|word| word == "-p") {
        test.push("--workspace");
    }
    test.extend(options.arguments.iter().map(String::as_str));
    steps.cargo(&test)
}
