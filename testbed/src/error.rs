//! Why a part of the cluster could not be started or broken.

use std::fmt;
use std::io;
use std::path::Path;

pub type Result<T> = std::result::Result<T, Error>;

/// One variant per thing the reader of the message can do about it.
#[derive(thiserror::Error)]
pub enum Error {
    /// Install or build it.
    #[error("find {what}: {remedy}")]
    Missing { what: String, remedy: String },
    /// Look at the machine: space, rights, limits.
    #[error("{action}")]
    Io {
        action: String,
        #[source]
        source: io::Error,
    },
    /// Read the log.
    #[error("{action}: {reason}\n{log}")]
    Process {
        action: String,
        reason: String,
        /// The end of what the process wrote.
        log: String,
    },
    /// Ask for something else.
    #[error("do what is asked: {0}")]
    Refused(String),
}

/// Shows the message as `Display` does, and the sources: what a test that
/// unwraps prints.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to {self}")?;
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// Says what was being done when the system refused.
pub(crate) trait Doing<T> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io {
            action: action(),
            source,
        })
    }
}

/// Writes a file, and names it if that fails.
pub(crate) fn write(path: &Path, text: impl AsRef<[u8]>) -> Result<()> {
    std::fs::write(path, text).doing(|| format!("write {}", path.display()))
}
