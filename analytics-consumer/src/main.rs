//! The analytics of a cluster: Kafka in, Postgres out.

use std::process::ExitCode;

fn main() -> ExitCode {
    waypost_runtime::main(
        "waypost-analytics-consumer",
        waypost_analytics_consumer::serve,
    )
}
