//! The secrets that the processes of one cluster share.

use std::fmt;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Doing as _, Error, Result, write};
use crate::sandbox::Sandbox;
use crate::secret::random_hex;

/// New in each cluster, unless it is given those of another instance.
pub struct Secrets {
    /// With a file for each, as a mounted Kubernetes Secret has.
    pub folder: PathBuf,
    /// The bearer token between our services.
    pub service_token: String,
    /// Signs the API's tokens.
    pub jwt: String,
}

impl Secrets {
    /// Makes them all; those that are in the folder `given` are taken from there.
    pub(crate) fn create(sandbox: &Sandbox, given: Option<&Path>) -> Result<Self> {
        let folder = sandbox.folder().join("secrets");
        fs::create_dir(&folder)
            .and_then(|()| fs::set_permissions(&folder, Permissions::from_mode(0o700)))
            .doing(|| format!("create {}", folder.display()))?;
        let make = |name: &str, before: &str| {
            let text = match given.map(|given| given.join(name)) {
                Some(file) if file.is_file() => {
                    fs::read_to_string(&file).doing(|| format!("read {}", file.display()))?
                }
                _ => format!("{before}{}", random_hex(32)?),
            };
            let text = text.trim().to_owned();
            write(&folder.join(name), text.clone())?;
            Ok::<_, Error>(text)
        };
        for name in ["api-key-mac", "link-mac"] {
            make(name, "1:")?;
        }
        for name in ["slug-key", "source-key", "visitor-key"] {
            make(name, "")?;
        }
        Ok(Self {
            service_token: make("service-token", "")?,
            jwt: make("jwt-hs256", "")?,
            folder,
        })
    }
}

/// Shows nothing secret.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.folder.display())
    }
}
