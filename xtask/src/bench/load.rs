//! Load as fast as it is answered (closed loop): `wrk`, the same for both sides.
//!
//! Its scripts make requests out of strings that are ready, so that one thread asks
//! faster than either side answers.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use waypost_testbed::Sandbox;

use super::links::Links;
use crate::Error;

/// As a load balancer in front would keep open.
pub(crate) const CONNECTIONS: usize = 64;

const TOLD: &str = include_str!("wrk/told.lua");

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Load<'a> {
    Redirects(&'a Links, Order),
    /// With a token, one link a call.
    Creates(&'a str),
    /// With a token, so many links a call.
    Batches(&'a str, usize),
    /// With a token, the paths of a file, a line each.
    Reads(&'a str, &'a Path),
}

/// Which link comes next.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Order {
    /// Each in its turn.
    Walk,
    /// Each of so many in its turn, the most popular first.
    WalkPopular(usize),
    Uniform,
    /// With exponent 1.
    Zipf,
}

/// What a run of load found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Answered {
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
    /// Answers of 400 or more, and what the sockets said.
    pub(crate) failed: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Answered {
    pub(crate) fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    /// Several generators at the same time, taken as one: the worst latency counts.
    fn and(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            seconds: self.seconds.max(other.seconds),
            failed: self.failed + other.failed,
            p50_ms: self.p50_ms.max(other.p50_ms),
            p99_ms: self.p99_ms.max(other.p99_ms),
        }
    }

    /// Reads the line that our scripts write at the end.
    fn parse(output: &str) -> Option<Self> {
        let line = output.lines().find_map(|line| line.strip_prefix("told "))?;
        let fields: Option<Vec<u64>> = line.split(' ').map(|word| word.parse().ok()).collect();
        let fields = fields?;
        let [requests, micros, failed, p50, p99] = fields[..] else {
            return None;
        };
        Some(Self {
            requests,
            seconds: micros as f64 / 1e6,
            failed,
            p50_ms: p50 as f64 / 1e3,
            p99_ms: p99 as f64 / 1e3,
        })
    }
}

/// Asks `urls` for so many seconds over so many keep-alive connections in all.
pub(crate) fn run(
    sandbox: &Sandbox,
    urls: &[String],
    load: Load<'_>,
    connections: usize,
    seconds: u64,
) -> Result<Answered, Error> {
    let script = load.script(sandbox.folder())?;
    let each = connections.div_ceil(urls.len());
    let start = |url: &String| {
        let mut wrk = Command::new("wrk");
        wrk.args(["--threads", "1", "--latency", "--timeout", "10s"])
            .args(["--connections", &each.to_string()])
            .args(["--duration", &format!("{seconds}s")])
            .args(["--script", &script, url, "--"])
            .args(load.arguments())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        wrk.spawn().map_err(|error| failed(&error.to_string()))
    };
    // Together and not one after the other.
    let generators = urls.iter().map(start).collect::<Result<Vec<_>, _>>()?;
    let told = generators.into_iter().map(told);
    let told = told.collect::<Result<Vec<_>, _>>()?;
    let all = told.into_iter().reduce(Answered::and);
    all.ok_or_else(|| failed("there is nobody to ask"))
}

impl Load<'_> {
    /// Writes the script where wrk finds it; answers its path.
    fn script(self, folder: &Path) -> Result<String, Error> {
        let (name, text) = match self {
            Self::Redirects(..) => ("redirects.lua", include_str!("wrk/redirects.lua")),
            Self::Creates(_) | Self::Batches(..) => {
                ("creates.lua", include_str!("wrk/creates.lua"))
            }
            Self::Reads(..) => ("reads.lua", include_str!("wrk/reads.lua")),
        };
        let path = folder.join(name);
        fs::write(&path, format!("{text}\n{TOLD}")).map_err(|error| failed(&error.to_string()))?;
        Ok(path.display().to_string())
    }

    fn arguments(self) -> Vec<String> {
        match self {
            Self::Redirects(links, order) => vec![
                links.slugs().display().to_string(),
                Links::SLUG_LENGTH.to_string(),
                order.name().to_owned(),
                order.count(links).to_string(),
            ],
            Self::Creates(token) => vec![token.to_owned(), "0".to_owned()],
            Self::Batches(token, size) => vec![token.to_owned(), size.to_string()],
            Self::Reads(token, paths) => vec![token.to_owned(), paths.display().to_string()],
        }
    }
}

impl Order {
    fn name(self) -> &'static str {
        match self {
            Self::Walk | Self::WalkPopular(_) => "walk",
            Self::Uniform => "uniform",
            Self::Zipf => "zipf",
        }
    }

    /// How many links are asked for.
    fn count(self, links: &Links) -> usize {
        match self {
            Self::WalkPopular(count) => count.min(links.count()),
            Self::Walk | Self::Uniform | Self::Zipf => links.count(),
        }
    }
}

fn told(generator: Child) -> Result<Answered, Error> {
    let output = generator.wait_with_output();
    let Output { stdout, stderr, .. } = output.map_err(|error| failed(&error.to_string()))?;
    let text = String::from_utf8_lossy(&stdout);
    let answered = Answered::parse(&text);
    answered.ok_or_else(|| failed(&format!("{text}{}", String::from_utf8_lossy(&stderr))))
}

fn failed(reason: &str) -> Error {
    Error::Step(format!("wrk failed: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_script_tells_is_read_from_among_the_rest() {
        let output = "Running 1s test\n  1 threads\ntold 2000 500000 3 250 1500\n";
        let answered = Answered::parse(output).unwrap();
        assert_eq!((answered.requests, answered.failed), (2_000, 3));
        assert_eq!(answered.rate(), 4_000.0);
        assert_eq!((answered.p50_ms, answered.p99_ms), (0.25, 1.5));
        assert_eq!(Answered::parse("told 1 2 3\n"), None);
        assert_eq!(Answered::parse(""), None);
    }
}
