//! Secrets: one file each in a folder, as Kubernetes mounts them. Never on the
//! command line, where every user of the machine could read them.

use std::path::Path;

use crate::config::Invalid;

/// Reads a secret and cuts the white space around it.
///
/// # Errors
/// Says which file is missing, empty or unreadable; never what it holds.
pub fn read(folder: &Path, name: &str) -> Result<String, Invalid> {
    let file = folder.join(name);
    let problem = match std::fs::read_to_string(&file) {
        Ok(text) if text.trim().is_empty() => format!("the file {} is empty", file.display()),
        Ok(text) => return Ok(text.trim().to_owned()),
        Err(error) => format!("cannot read {}: {error}", file.display()),
    };
    Err(Invalid {
        option: "--secrets-dir",
        problem,
    })
}

/// Reads a secret that there need not be.
///
/// # Errors
/// As [`read`], if there is a file.
pub fn read_if_there(folder: &Path, name: &str) -> Result<Option<String>, Invalid> {
    match folder.join(name).try_exists() {
        Ok(false) => Ok(None),
        _ => read(folder, name).map(Some),
    }
}

/// Reads a secret of a certain shape.
///
/// # Errors
/// As [`read`], and says what was expected if the secret is not of that shape.
pub fn parse<T>(
    folder: &Path,
    name: &str,
    expected: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, Invalid> {
    parse(&read(folder, name)?).ok_or_else(|| malformed(name, &format!("expected {expected}")))
}

/// The error for a secret that was read and does not have the right shape.
#[must_use]
pub fn malformed(name: &str, problem: &str) -> Invalid {
    Invalid {
        option: "--secrets-dir",
        problem: format!("the secret \"{name}\" is malformed: {problem}"),
    }
}
