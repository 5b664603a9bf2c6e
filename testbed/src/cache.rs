//! The folder, outside of any clone, for programs that are costly to come by.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Doing as _, Error, Result};
use crate::secret::random_hex;

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

/// The folder of this name in the cache. `fill` makes it if it lacks `sign`, the file that
/// it is wanted for.
pub(crate) fn filled(
    name: &str,
    sign: &str,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let folder = folder()?.join(name);
    if !folder.join(sign).is_file() {
        // Others may be at it, too: each in a folder of its own, and the first one's is
        // kept.
        let draft = folder.with_file_name(format!("{name}-{}", random_hex(6)?));
        let filled = fs::create_dir_all(&draft)
            .doing(|| format!("create {}", draft.display()))
            .and_then(|()| fill(&draft))
            .and_then(|()| match fs::rename(&draft, &folder) {
                Err(_) if folder.join(sign).is_file() => Ok(()),
                renamed => renamed.doing(|| format!("move to {}", folder.display())),
            });
        // Gone already if it was moved.
        let _ = fs::remove_dir_all(&draft);
        filled?;
    }
    Ok(folder)
}
