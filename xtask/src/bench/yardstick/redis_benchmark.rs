//! `redis-benchmark`: bare reads of small values at one master of the cluster.

use std::process::Command;

use waypost_testbed::{RedisCluster, RedisNode};

use crate::Error;

/// As the goal has it.
const CLIENTS: &str = "50";
const VALUE_BYTES: usize = 100;

/// In braces, so that all keys are of one node.
const KEY: &str = "{yardstick}:__rand_int__";

/// Of so many keys; as many as there are links.
const KEYS: &str = "10000";

/// Enough to know how many a turn takes.
const FIRST_REQUESTS: u64 = 50_000;

/// The program counts requests instead of time; no machine has answered so many in
/// a turn.
const MAX_REQUESTS: f64 = 50_000_000.0;

#[derive(Debug)]
pub(crate) struct RedisBenchmark<'a> {
    node: &'a RedisNode,
    /// Seen at the start.
    rate: f64,
}

impl<'a> RedisBenchmark<'a> {
    /// Fills the keys and finds out about how fast they are read.
    pub(crate) fn prepare(redis: &'a RedisCluster) -> Result<Self, Error> {
        let value = "x".repeat(VALUE_BYTES);
        // A node of another slot or a replica answers with an error.
        let takes = |node: &&RedisNode| node.query("SET {yardstick}:0 0").is_ok();
        let node = redis.nodes().iter().find(takes);
        let node = node.ok_or_else(|| Error::Step("no Redis node takes a value".to_owned()))?;
        let mut benchmark = Self { node, rate: 0.0 };
        benchmark.run(FIRST_REQUESTS, &["SET", KEY, &value])?;
        benchmark.rate = benchmark.run(FIRST_REQUESTS, &["GET", KEY])?;
        Ok(benchmark)
    }

    /// Reads a second, over about so many seconds.
    pub(crate) fn turn(&self, seconds: u64) -> Result<f64, Error> {
        let requests = (self.rate * seconds as f64).clamp(1.0, MAX_REQUESTS);
        self.run(requests as u64, &["GET", KEY])
    }

    fn run(&self, requests: u64, command: &[&str]) -> Result<f64, Error> {
        let address = self.node.address();
        let (host, port) = address.split_once(':').unwrap_or((&address, ""));
        let output = super::output(
            Command::new("redis-benchmark")
                .args(["-h", host, "-p", port, "-c", CLIENTS, "-P", "1"])
                .args(["-r", KEYS, "-n", &requests.to_string(), "--csv"])
                .args(command),
        )?;
        rate(&output).ok_or_else(|| Error::Step(format!("redis-benchmark printed {output}")))
    }
}

/// The second field of the last line: the first may hold anything but quotes.
fn rate(output: &str) -> Option<f64> {
    let line = output.lines().last()?;
    line.split("\",\"").nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_from_the_table() {
        let output = "\"test\",\"rps\",\"avg_latency_ms\"\n\"GET a,b\",\"71428.57\",\"0.5\"\n";
        assert_eq!(rate(output), Some(71_428.57));
        assert_eq!(rate("Could not connect to Redis\n"), None);
    }
}
