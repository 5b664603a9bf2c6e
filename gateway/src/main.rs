//! The gateway of a Waypost cluster.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// What one thread allocates another frees here, which glibc's allocator takes many times
/// as long for.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    waypost_runtime::main("waypost-gateway", waypost_gateway::serve)
}
