//! Schemathesis, which tries a live server against its own OpenAPI document.

use std::path::Path;
use std::process::Command;

use crate::cache;
use crate::error::Result;
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

fn folder_name() -> Result<String> {
    pip::folder_name("schemathesis", VERSION)
}

fn fetch(draft: &Path) -> Result<()> {
    pip::fetch("Schemathesis", REQUIREMENTS, draft)
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
