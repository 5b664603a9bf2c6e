//! The gateway of a Waypost cluster.

use std::process::ExitCode;

fn main() -> ExitCode {
    waypost_runtime::main("waypost-gateway", waypost_gateway::serve)
}
