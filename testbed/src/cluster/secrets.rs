//! The secrets that the processes of one cluster share.

use std::fmt;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use crate::error::{Doing as _, Result, write};
use crate::sandbox::Sandbox;
use crate::secret::random_hex;

/// New in each cluster.
pub struct Secrets {
    /// With a file for each, as a mounted Kubernetes Secret has.
    pub folder: PathBuf,
    /// The bearer token between our services.
    pub service_token: String,
    /// Signs the API's tokens.
    pub jwt: String,
}

impl Secrets {
    pub(crate) fn create(sandbox: &Sandbox) -> Result<Self> {
        let folder = sandbox.folder().join("secrets");
        fs::create_dir(&folder)
            .and_then(|()| fs::set_permissions(&folder, Permissions::from_mode(0o700)))
            .doing(|| format!("create {}", folder.display()))?;
        let secrets = Self {
            service_token: random_hex(32)?,
            jwt: random_hex(32)?,
            folder,
        };
        let files = [
            ("service-token", secrets.service_token.clone()),
            ("jwt-hs256", secrets.jwt.clone()),
            ("api-key-mac", format!("1:{}", random_hex(32)?)),
            ("link-mac", format!("1:{}", random_hex(32)?)),
            ("slug-key", random_hex(32)?),
            ("source-key", random_hex(32)?),
            ("visitor-key", random_hex(32)?),
        ];
        for (name, text) in files {
            write(&secrets.folder.join(name), text)?;
        }
        Ok(secrets)
    }
}

/// Shows nothing secret.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.folder.display())
    }
}
