//! The keygen of a cluster, on Postgres.

use std::process::ExitCode;

fn main() -> ExitCode {
    waypost_runtime::main("waypost-keygen", waypost_keygen::serve)
}
