//! `waypost-shard-node`: see `--help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    waypost_runtime::main("waypost-shard-node", waypost_shard_node::serve)
}
