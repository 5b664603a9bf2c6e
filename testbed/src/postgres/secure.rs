//! A server that takes clients over TLS alone, and knows them by their certificates.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{Postgres, Seat, give, unprivileged_user};
use crate::certificates::Mount;
use crate::error::{Doing as _, Result};

pub(super) const SETTINGS: &str = "
ssl = on
ssl_min_protocol_version = 'TLSv1.3'
ssl_cert_file = 'tls.crt'
ssl_key_file = 'tls.key'
ssl_ca_file = 'ca.crt'
";

/// Over the socket as ever: the folder is nobody else's.
const ACCESS: &str = "
local all all trust
local replication all trust
hostssl all all 127.0.0.1/32 cert map=services
";

/// Whom certificates name, and who they are in the database.
const USERS: &str = "services waypost postgres\n";

impl Seat<'_> {
    /// Gives the server the certificates of a mount as they are now.
    pub(super) fn secure(&mut self, mount: &Mount) -> Result<()> {
        install(mount, &self.data(), self.user)?;
        for (name, text) in [("pg_hba.conf", ACCESS), ("pg_ident.conf", USERS)] {
            self.write(&self.data().join(name), text)?;
        }
        let parameter = |name: &str, file: &Path| format!("&{name}={}", file.display());
        self.tls = Some(format!(
            "sslmode=verify-full{}{}{}",
            parameter("sslrootcert", &mount.authorities()),
            parameter("sslcert", &mount.certificate()),
            parameter("sslkey", &mount.key()),
        ));
        Ok(())
    }
}

impl Postgres {
    /// Gives it what a mount holds now; connections that stand go on.
    ///
    /// # Errors
    /// If a file cannot be copied, or the server does not answer.
    pub fn renew(&self, mount: &Mount) -> Result<()> {
        install(mount, &self.folder.join("data"), unprivileged_user()?)?;
        self.query("postgres", "SELECT pg_reload_conf()").map(drop)
    }
}

fn install(mount: &Mount, data: &Path, user: Option<(u32, u32)>) -> Result<()> {
    let files = [
        (mount.certificate(), "tls.crt"),
        (mount.key(), "tls.key"),
        (mount.authorities(), "ca.crt"),
    ];
    for (file, name) in &files {
        let path = data.join(name);
        // Postgres refuses a key that others may read.
        fs::copy(file, &path)
            .and_then(|_| fs::set_permissions(&path, Permissions::from_mode(0o600)))
            .and_then(|()| give(&path, user))
            .doing(|| format!("copy {} to {}", file.display(), path.display()))?;
    }
    Ok(())
}
