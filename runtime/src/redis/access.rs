//! What a Redis Cluster lets us in with: a password, certificates.

use std::path::{Path, PathBuf};

use redis::cluster::ClusterClientBuilder;
use redis::{ClientTlsConfig, TlsCertificates};

use crate::config::Invalid;
use crate::secrets;
use crate::tls::certificates::{self, MAX_BYTES};
use crate::watched::{Content, Source, Watched, Watcher};

/// How one comes into a Redis Cluster, beside where it is.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RedisOptions {
    /// The authorities whose certificates Redis's nodes may show, a PEM file; may be the
    /// system's bundle. Redis is then spoken to over TLS alone; none: in the clear
    #[arg(long, env = "WAYPOST_REDIS_TLS_CA", value_name = "FILE")]
    pub redis_tls_ca: Option<PathBuf>,

    /// The certificate that Redis's nodes are shown, a PEM file; with --redis-tls-key.
    /// Like it and --redis-tls-ca it is read again when it changes
    #[arg(long, env = "WAYPOST_REDIS_TLS_CERT", value_name = "FILE")]
    pub redis_tls_cert: Option<PathBuf>,

    /// The private key of --redis-tls-cert, a PEM file
    #[arg(long, env = "WAYPOST_REDIS_TLS_KEY", value_name = "FILE")]
    pub redis_tls_key: Option<PathBuf>,

    /// The user of Redis whose password the secret redis-password is; none: the default
    /// user. Without that secret Redis is told no password
    #[arg(long, env = "WAYPOST_REDIS_USER", value_name = "NAME")]
    pub redis_user: Option<String>,
}

/// What Redis is told and shown. Cheap to clone; by default nothing.
#[derive(Clone, Default)]
pub struct Access {
    user: Option<String>,
    password: Option<String>,
    pub(super) certificates: Option<Watched<TlsCertificates>>,
}

impl RedisOptions {
    /// Reads the files, and certificates again when they change.
    ///
    /// # Errors
    /// If a file cannot be used, or one is missing that another needs.
    pub fn open(&self, secrets_dir: &Path, watcher: &Watcher) -> Result<Access, Invalid> {
        let password = secrets::read_if_there(secrets_dir, "redis-password")?;
        if password.is_none() && self.redis_user.is_some() {
            return Err(Invalid {
                option: "--redis-user",
                problem: "there is no secret redis-password".to_owned(),
            });
        }
        Ok(Access {
            user: self.redis_user.clone(),
            password,
            certificates: self.certificates(watcher)?,
        })
    }

    fn certificates(&self, watcher: &Watcher) -> Result<Option<Watched<TlsCertificates>>, Invalid> {
        let missing = |option: &'static str, other: &str| Invalid {
            option,
            problem: format!("missing, and {other} is set"),
        };
        let files = match (
            &self.redis_tls_ca,
            &self.redis_tls_cert,
            &self.redis_tls_key,
        ) {
            (None, None, None) => return Ok(None),
            (None, ..) => return Err(missing("--redis-tls-ca", "--redis-tls-cert or -key")),
            (_, Some(_), None) => return Err(missing("--redis-tls-key", "--redis-tls-cert")),
            (_, None, Some(_)) => return Err(missing("--redis-tls-cert", "--redis-tls-key")),
            (Some(roots), None, None) => vec![roots.clone()],
            (Some(roots), Some(chain), Some(key)) => {
                vec![roots.clone(), chain.clone(), key.clone()]
            }
        };
        let source = Source {
            option: "--redis-tls-ca",
            name: "redis-tls",
            files,
            max_bytes: MAX_BYTES,
        };
        let shown = watcher.clone();
        let watched = watcher.watch(source, move |contents| {
            let (roots, own) = contents.split_first().ok_or("no file")?;
            certificates::roots(roots)?;
            Ok(TlsCertificates {
                client_tls: client(own, &shown)?,
                root_cert: Some(roots.bytes.clone()),
            })
        })?;
        Ok(Some(watched))
    }
}

/// The certificate and the key, where there are such.
fn client(own: &[Content], shown: &Watcher) -> Result<Option<ClientTlsConfig>, String> {
    let [chain, key] = own else {
        return Ok(None);
    };
    shown.show_validity("redis-tls", certificates::usable(chain, key)?);
    Ok(Some(ClientTlsConfig {
        client_cert: chain.bytes.clone(),
        client_key: key.bytes.clone(),
    }))
}

impl Access {
    /// What the URLs of nodes begin with.
    pub(super) fn scheme(&self) -> &'static str {
        match self.certificates {
            None => "redis",
            Some(_) => "rediss",
        }
    }

    /// Adds what is to be told and shown now.
    pub(super) fn give(&self, mut client: ClusterClientBuilder) -> ClusterClientBuilder {
        if let Some(user) = &self.user {
            client = client.username(user);
        }
        if let Some(password) = &self.password {
            client = client.password(password);
        }
        match &self.certificates {
            None => client,
            Some(certificates) => client.certs((*certificates.get()).clone()),
        }
    }
}

/// Shows nothing secret.
impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
