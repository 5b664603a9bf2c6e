//! What `waypost` takes of one person's machine at a million links: set up as
//! `deploy/one-person` sets it up, filled over HTTP, and then followed all over.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use waypost_testbed::{Port, http};

use super::Bench;
use super::memory::status_bytes;
use super::report::{Bound, Goal, Report};
use super::turns::Spread;
use crate::programs::{LOADTEST, WAYPOST};
use crate::{Error, steps};

const LINKS: usize = 1_000_000;

/// What people do with them: any link as likely as any other, so that all memory for
/// links fills.
const FOLLOW: [&str; 8] = [
    "--zipf",
    "0",
    "--mix",
    "redirect=970,miss=10,create=10,stats=10",
    "--rate",
    "3000",
    "--duration",
    "100s",
];
const FOLLOW_QUICK: [&str; 4] = ["--rate", "100", "--duration", "1s"];

/// What docs/one-person.md promises.
const CEILING_MIB: f64 = 256.0;

const READY: Duration = Duration::from_secs(30);
const MIB: f64 = 1_048_576.0;

pub(super) fn run(bench: &Bench) -> Result<Report, Error> {
    let folder = bench.sandbox.folder();
    let waypost = Waypost::start(&bench.programs, &folder.join("data"))?;
    let at_start = waypost.bytes("VmRSS:")?;
    let count = if bench.is_quick {
        super::QUICK_LINKS
    } else {
        LINKS
    };
    let links = folder.join("links");
    let creates = ["--rate", "10", "--duration", "100ms", "--warmup", "0s"];
    let began = Instant::now();
    waypost.load(
        &bench.programs,
        &[
            "--links",
            &count.to_string(),
            "--save-slugs",
            &links.display().to_string(),
        ],
        &creates,
    )?;
    let rate = count as f64 / began.elapsed().as_secs_f64();
    let created = waypost.bytes("VmRSS:")?;
    let follow = if bench.is_quick {
        &FOLLOW_QUICK[..]
    } else {
        &FOLLOW[..]
    };
    waypost.load(
        &bench.programs,
        &["--slugs", &links.display().to_string()],
        follow,
    )?;
    let mib = |bytes: f64| Spread::once(bytes / MIB);
    let mut report = Report::new("one-person");
    report.goal(Goal {
        what: "peak memory of the process",
        unit: "MiB",
        bound: Bound::AtMost(CEILING_MIB),
        seen: mib(waypost.bytes("VmHWM:")?),
    });
    report.figure("memory at the start", "MiB", mib(at_start));
    report.figure("memory after the creates", "MiB", mib(created));
    report.figure("memory at the end", "MiB", mib(waypost.bytes("VmRSS:")?));
    report.figure("creates by batches of 1,000", "1/s", Spread::once(rate));
    let stored = folder_bytes(&folder.join("data"))? / count as f64;
    report.figure("files, per link", "B", Spread::once(stored));
    report.note(format!("of {count} links"));
    Ok(report)
}

/// The process; it ends with this.
struct Waypost {
    child: Child,
    ports: [Port; 2],
}

impl Waypost {
    fn start(programs: &Path, data: &Path) -> Result<Self, Error> {
        let reserve = || Port::reserve().map_err(|error| failed("start", &error.to_string()));
        let ports = [reserve()?, reserve()?];
        let child = Command::new(programs.join(WAYPOST))
            .envs(unit_environment()?)
            .env("WAYPOST_DATA_DIR", data)
            .env("WAYPOST_LISTEN", ports[0].address())
            .env("WAYPOST_ADMIN_LISTEN", ports[1].address())
            // Whoever loads it is one client.
            .env("WAYPOST_ANONYMOUS", "true")
            .env("WAYPOST_LIMITS", "false")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| failed("start", &error.to_string()))?;
        let waypost = Self { child, ports };
        let (began, admin) = (Instant::now(), waypost.ports[1].address());
        let is_ready = || http::get(&admin, "/ready", READY).is_ok_and(|is| is.status == 200);
        while !is_ready() {
            if began.elapsed() > READY {
                return Err(failed("start", "it is not ready in time"));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(waypost)
    }

    fn bytes(&self, line: &str) -> Result<f64, Error> {
        status_bytes(self.child.id(), line)
    }

    fn load(&self, programs: &Path, links: &[&str], arguments: &[&str]) -> Result<(), Error> {
        let status = Command::new(programs.join(LOADTEST))
            .args(["--target", &format!("http://{}", self.ports[0].address())])
            .args(links)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .map_err(|error| failed("load", &error.to_string()))?;
        // 1: slower than the objectives, of which this says nothing.
        match status.code() {
            Some(0 | 1) => Ok(()),
            _ => Err(failed("load", &status.to_string())),
        }
    }
}

impl Drop for Waypost {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the unit sets, but for its folder.
fn unit_environment() -> Result<Vec<(String, String)>, Error> {
    let path: PathBuf = steps::root().join("deploy/one-person/waypost.service");
    let text = fs::read_to_string(&path).map_err(|error| failed("read", &error.to_string()))?;
    let settings = text
        .lines()
        .filter_map(|line| line.strip_prefix("Environment="));
    let pairs = settings.filter_map(|setting| setting.split_once('='));
    Ok(pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

fn folder_bytes(folder: &Path) -> Result<f64, Error> {
    let files = fs::read_dir(folder).map_err(|error| failed("read", &error.to_string()))?;
    let sizes = files.filter_map(|file| file.ok()?.metadata().ok());
    Ok(sizes.map(|file| file.len() as f64).sum())
}

fn failed(doing: &str, reason: &str) -> Error {
    Error::Step(format!("{doing} waypost: {reason}"))
}
