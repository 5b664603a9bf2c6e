//! The folder, outside of any clone, for programs that are costly to come by.

use std::path::PathBuf;

use crate::error::{Error, Result};

/// `$WAYPOST_CACHE`, else `$HOME/.cache/waypost`.
///
/// # Errors
/// If neither variable is set.
pub fn folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("WAYPOST_CACHE").filter(|folder| !folder.is_empty()) {
        return Ok(folder.into());
    }
    match std::env::var_os("HOME") {
        Some(home) => Ok(PathBuf::from(home).join(".cache/waypost")),
        None => Err(Error::Missing {
            what: "a folder to cache programs in".to_owned(),
            remedy: "set WAYPOST_CACHE".to_owned(),
        }),
    }
}
