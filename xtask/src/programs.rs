//! Our programs, built for what somebody is about to do.

use std::path::PathBuf;

use waypost_testbed::service::Kind;

use crate::Error;
use crate::packages::{self, Purpose};
use crate::steps::{self, Steps};

/// Sends what clients of a cluster would.
pub(crate) const LOADTEST: &str = "waypost-loadtest";

/// All in one process.
pub(crate) const WAYPOST: &str = "waypost";

/// Puts clicks into the log: a package and its example.
pub(crate) const CLICK_FILL: (&str, &str) = ("waypost-analytics-consumer", "click_fill");

/// Says what a click costs its redirect: a package and its example.
pub(crate) const CLICK_COST: (&str, &str) = ("waypost-gateway", "click_cost");

/// Says what a redirect that is not traced pays for traces.
pub(crate) const TRACE_COST: (&str, &str) = ("waypost-gateway", "trace_cost");

/// Builds that by itself, as one person does: without what only a cluster needs.
pub(crate) fn build_waypost(profile: &str) -> Result<(), Error> {
    let package = "waypost-standalone";
    let arguments = [
        "build",
        "--profile",
        profile,
        "-p",
        package,
        "--bin",
        WAYPOST,
    ];
    Steps::default().cargo(&arguments)
}

/// Builds them on what the machine must have; answers their folder.
pub(crate) fn build(profile: &str, purpose: Purpose) -> Result<PathBuf, Error> {
    let mut steps = Steps::default();
    packages::install_missing(&mut steps, purpose)?;
    let mut programs: Vec<&str> = Kind::ALL.into_iter().map(Kind::program).collect();
    if purpose == Purpose::Bench {
        programs.push(LOADTEST);
    }
    let mut arguments = vec!["build", "--profile", profile];
    for program in programs {
        arguments.extend(["-p", program, "--bin", program]);
    }
    steps.cargo(&arguments)?;
    if purpose == Purpose::Bench {
        for (package, example) in [CLICK_FILL, CLICK_COST, TRACE_COST] {
            steps.cargo(&[
                "build",
                "--profile",
                profile,
                "-p",
                package,
                "--example",
                example,
            ])?;
        }
    }
    // The profile dev is the one whose folder is not called after it.
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(steps::target_folder()?.join(folder))
}
