//! `waypost-shard-node`: see `--help`.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// What one thread allocates another frees here, which glibc's allocator takes many times
/// as long for.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    waypost_runtime::main("waypost-shard-node", waypost_shard_node::serve)
}
