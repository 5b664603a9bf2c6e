//! All of Waypost in one process: the gateway, one shard, keygen and analytics of
//! the cluster, on SQLite and without Redis and Kafka.

mod backup;
mod config;
mod keys;
mod secrets;
mod serve;
mod transfer;

use std::process::ExitCode;

fn main() -> ExitCode {
    waypost_runtime::main("waypost", serve::serve)
}
