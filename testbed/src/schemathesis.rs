//! Schemathesis, which tries a live server against its own OpenAPI document.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cache;
use crate::error::{Doing as _, Result};
use crate::pip;

const REQUIREMENTS: &str = include_str!("schemathesis.txt");

/// Of the last line of the requirements; other versions generate other requests.
const VERSION: &str = "4.32.5";

/// There when everything is.
const SIGN: &str = "bin/schemathesis";

/// Whether [`command`] will ask pip for it.
///
/// # Errors
/// If there is no cache folder.
pub fn is_to_be_fetched() -> Result<bool> {
    Ok(!cache::folder()?.join(folder_name()?).join(SIGN).is_file())
}

/// The program, fetched with pip if it is not there.
///
/// # Errors
/// If it cannot be fetched.
pub fn command() -> Result<Command> {
    let folder = cache::filled(&folder_name()?, SIGN, fetch)?;
    let mut command = Command::new("python3");
    // Not the script itself, which names the folder that it was fetched to.
    command.args([
        "-c",
        "from schemathesis.cli import schemathesis; schemathesis()",
    ]);
    command.env("PYTHONPATH", folder);
    Ok(command)
}

/// What was built for one Python is of no use to another.
fn folder_name() -> Result<String> {
    let asked = "import sys; print('%d.%d' % sys.version_info[:2])";
    let output = Command::new("python3")
        .args(["-c", asked])
        .stdin(Stdio::null())
        .output()
        .doing(|| "start python3".to_owned())?;
    let python = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(format!("schemathesis-{VERSION}-python-{python}"))
}

fn fetch(draft: &Path) -> Result<()> {
    let requirements: PathBuf = draft.join("requirements.txt");
    std::fs::write(&requirements, REQUIREMENTS)
        .doing(|| format!("write {}", requirements.display()))?;
    let (from, to) = (requirements.display(), draft.display());
    let install = ["install", "--only-binary=:all:", "--no-deps"];
    let what = [format!("--requirement={from}"), format!("--target={to}")];
    pip::run("Schemathesis", &install, &[&what[0], &what[1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_that_is_required() {
        let last = REQUIREMENTS.lines().last();
        assert_eq!(last, Some(&*format!("schemathesis=={VERSION}")));
    }
}
