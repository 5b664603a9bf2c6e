//! The links that load asks for: made over HTTP, in batches, by `waypost-loadtest`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use waypost_testbed::Cluster;

use crate::Error;
use crate::programs::LOADTEST;

/// Any seed will do: that of the order in which links become popular.
const SEED: u64 = 1;

/// Links of a cluster, and the files that generators of load read them from.
#[derive(Debug)]
pub(crate) struct Links {
    count: usize,
    /// A line each: slug, tab, destination.
    lines: PathBuf,
    /// The slugs alone, one after the other.
    slugs: PathBuf,
}

impl Links {
    /// That of every generated slug, so that the file needs no ends of lines.
    pub(crate) const SLUG_LENGTH: usize = 8;

    /// Creates so many.
    pub(crate) fn create(programs: &Path, cluster: &Cluster, count: usize) -> Result<Self, Error> {
        // No benchmark creates the same number twice in one cluster.
        let file = |what: &str| cluster.sandbox().folder().join(format!("{what}-{count}"));
        let links = Self {
            count,
            lines: file("links"),
            slugs: file("slugs"),
        };
        eprintln!("xtask: creates {count} links");
        let started = Instant::now();
        let status = Command::new(programs.join(LOADTEST))
            .args(["--target", &cluster.url(0)])
            .args(["--links", &count.to_string(), "--save-slugs"])
            .arg(&links.lines)
            // It has to send some load, too.
            .args(["--rate", "10", "--duration", "100ms", "--warmup", "0s"])
            .env("WAYPOST_TOKEN", cluster.token())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        match status {
            Ok(status) if status.success() => {}
            Ok(status) => return Err(failed(&status.to_string())),
            Err(error) => return Err(failed(&error.to_string())),
        }
        let seconds = started.elapsed().as_secs_f64();
        eprintln!("xtask: {count} links after {seconds:.1} s");
        links.write_slugs()?;
        Ok(links)
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// A line each: slug, tab, destination.
    pub(crate) fn lines(&self) -> &Path {
        &self.lines
    }

    /// All slugs in a random order, one after the other.
    pub(crate) fn slugs(&self) -> &Path {
        &self.slugs
    }

    /// Each slug and its destination.
    pub(crate) fn read(&self) -> Result<Vec<(String, String)>, Error> {
        let text = fs::read_to_string(&self.lines).map_err(|error| failed(&error.to_string()))?;
        let pair = |line: &str| {
            let (slug, long_url) = line.split_once('\t')?;
            let fits = slug.len() == Self::SLUG_LENGTH;
            fits.then(|| (slug.to_owned(), long_url.to_owned()))
        };
        let pairs: Option<Vec<_>> = text.lines().map(pair).collect();
        let pairs = pairs.filter(|pairs| pairs.len() == self.count);
        pairs.ok_or_else(|| failed("the file of links is not as expected"))
    }

    /// In a random order: links that were created together lie in one place of the
    /// table, and are not popular together.
    fn write_slugs(&self) -> Result<(), Error> {
        let mut slugs: Vec<String> = self.read()?.into_iter().map(|(slug, _)| slug).collect();
        fastrand::Rng::with_seed(SEED).shuffle(&mut slugs);
        fs::write(&self.slugs, slugs.concat()).map_err(|error| failed(&error.to_string()))
    }
}

fn failed(reason: &str) -> Error {
    Error::Step(format!("the links could not be made: {reason}"))
}
