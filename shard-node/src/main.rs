//! `waypost-shard-node`: see `--help`.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;
use waypost_shard_node::mover;

/// What one thread allocates another frees here, which glibc's allocator takes many times
/// as long for.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments
        .next()
        .is_some_and(|first| first == mover::COMMAND)
    {
        return mover::main(arguments);
    }
    waypost_runtime::main("waypost-shard-node", waypost_shard_node::serve)
}
