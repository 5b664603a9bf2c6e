//! A folder as Kubernetes mounts a ConfigMap or a Secret.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::error::{Doing as _, Result};
use crate::secret::random_hex;

/// A folder whose files are replaced all at once: each is a link into `..data`, and
/// `..data` one to a folder of a version.
#[derive(Debug)]
pub struct Mount {
    folder: PathBuf,
}

impl Mount {
    /// Makes the folder, and files of these names that `fill` writes.
    ///
    /// # Errors
    /// If the folder is there, or they cannot be written.
    pub fn create(
        folder: &Path,
        names: &[&str],
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let mount = Self {
            folder: folder.to_owned(),
        };
        fs::create_dir(folder).doing(|| format!("create {}", folder.display()))?;
        mount.replace(fill)?;
        for name in names {
            mount.link(&format!("..data/{name}"), name)?;
        }
        Ok(mount)
    }

    /// Puts what `fill` writes into an empty folder in the place of all files.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn replace(&self, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let version = format!("..{}", random_hex(8)?);
        let folder = self.folder.join(&version);
        fs::create_dir(&folder).doing(|| format!("create {}", folder.display()))?;
        fill(&folder)?;
        self.link(&version, "..data_tmp")?;
        let (draft, data) = (self.folder.join("..data_tmp"), self.folder.join("..data"));
        fs::rename(&draft, &data).doing(|| format!("replace {}", data.display()))
    }

    /// Where a file is found, whichever version of it there is.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn link(&self, to: &str, name: &str) -> Result<()> {
        let path = self.folder.join(name);
        symlink(to, &path).doing(|| format!("link {}", path.display()))
    }
}
