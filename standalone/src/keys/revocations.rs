//! The list of what is revoked, as the gateway watches it: an id a line.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use waypost_domain::Timestamp;

use super::{Registry, write_whole};

/// The file.
#[derive(Debug)]
pub(crate) struct Revocations {
    file: PathBuf,
}

impl Revocations {
    pub(crate) fn in_file(file: &Path) -> Self {
        Self {
            file: file.to_owned(),
        }
    }

    /// Makes the file if there is none, of what the registry knows to be revoked: a
    /// list that was lost must not bring keys back to life.
    ///
    /// # Errors
    /// If it cannot be written, or the registry not be read.
    pub(crate) fn make_from(&self, registry: &Registry) -> io::Result<()> {
        if self.file.try_exists()? {
            return Ok(());
        }
        let records = registry.records()?;
        let revoked = records.iter().filter(|record| record.revoked.is_some());
        let ids: String = revoked.map(|record| format!("{}\n", record.id)).collect();
        write_whole(&self.file, &ids)
    }

    /// Puts an id onto the list, which may hold it already.
    ///
    /// # Errors
    /// If the list cannot be read or written.
    pub(crate) fn add(&self, id: &str, now: Timestamp) -> io::Result<()> {
        let lock = File::create(self.file.with_extension("lock"))?;
        lock.lock()?;
        let mut text = match std::fs::read_to_string(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        if text.lines().any(|line| line.trim() == id) {
            return Ok(());
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text += &format!("# {now}\n{id}\n");
        write_whole(&self.file, &text)
    }
}
