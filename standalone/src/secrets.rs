//! The secrets of one instance: made at the first start, kept beside its data.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use waypost_runtime::config::Invalid;
use waypost_runtime::{Error, secrets};

use crate::keys::{self, Registry, Revocations};

/// The tenant of a key that names no other.
pub(crate) const TENANT: &str = "default";

/// The folder of the secrets. Losing `link-mac` makes every stored link invalid,
/// so that it belongs into every backup.
#[derive(Debug)]
pub(crate) struct Secrets {
    folder: PathBuf,
}

impl Secrets {
    /// Opens the folder within the data folder, and makes what is missing.
    ///
    /// # Errors
    /// If the data folder cannot be written.
    pub(crate) fn open(data: &Path) -> Result<Self, Error> {
        let folder = data.join("secrets");
        make(&folder).map_err(|error| Invalid {
            option: "--data-dir",
            problem: format!("cannot keep secrets in {}: {error}", folder.display()),
        })?;
        let list = folder.join(keys::REVOKED_LIST);
        Revocations::in_file(&list)
            .make_from(&Registry::in_folder(&folder))
            .map_err(|error| keys::unwritable(&list, &error))?;
        Ok(Self { folder })
    }

    /// Reads one secret.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn read(&self, name: &str) -> Result<String, Invalid> {
        secrets::read(&self.folder, name)
    }

    /// Where they are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    for (name, before) in [
        (keys::SECRET, "1:"),
        ("jwt-hs256", ""),
        ("link-mac", "1:"),
        ("slug-key", ""),
        ("source-key", ""),
        ("visitor-key", ""),
    ] {
        make_one(&folder.join(name), before)?;
    }
    Ok(())
}

/// Writes 32 random bytes as hex digits, unless the file is there. It appears
/// whole or not at all: a process that dies meanwhile leaves no half secret.
fn make_one(file: &Path, before: &str) -> io::Result<()> {
    if file.exists() {
        return Ok(());
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let draft = file.with_extension(format!("{}.new", std::process::id()));
    let mut writer = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    writeln!(writer, "{before}{hex}")?;
    writer.sync_all()?;
    // A link that exists is another process's secret, and wins.
    let linked = std::fs::hard_link(&draft, file);
    std::fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}
