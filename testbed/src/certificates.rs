//! Certificates as operators make them, with openssl, in a folder as Kubernetes mounts it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Doing as _, Error, Result, write};
use crate::mount;
use crate::program;

/// Whom certificates name: whoever listens on loopback.
const SUBJECT: &str = "/CN=waypost";
const NAMES: &str = "subjectAltName=IP:127.0.0.1,DNS:localhost";
const USAGE: &str = "extendedKeyUsage=serverAuth,clientAuth";

/// Signs certificates.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
}

/// When a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// From a minute ago, for a day.
    Day,
    /// For a day of 2020.
    Past,
}

impl Authority {
    /// Makes an authority in a folder that is made, too.
    ///
    /// # Errors
    /// If the folder is there, or openssl is not installed.
    pub fn create(folder: &Path) -> Result<Self> {
        let authority = Self {
            folder: folder.to_owned(),
        };
        fs::create_dir(folder).doing(|| format!("create {}", folder.display()))?;
        // The only way in which openssl 3.0 takes a certificate's begin and end.
        let place = folder.display();
        let config = format!(
            "[ca]\ndefault_ca = own\n[own]\ndatabase = {place}/issued\nnew_certs_dir = {place}\n\
             rand_serial = yes\nunique_subject = no\ndefault_md = sha256\npolicy = any\n\
             copy_extensions = copy\n[any]\ncommonName = supplied\n"
        );
        write(&authority.file("config"), config)?;
        write(&authority.file("issued"), "")?;
        // Of a name of its own, as authorities have.
        let name = folder.file_name().unwrap_or_default().display();
        let subject = format!("/CN=waypost authority {name}");
        authority.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            &subject,
            "-days",
            "2",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
        ])?;
        Ok(authority)
    }

    /// Its certificate, as text.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn certificate(&self) -> Result<String> {
        let file = self.file("ca.crt");
        fs::read_to_string(&file).doing(|| format!("read {}", file.display()))
    }

    /// Writes `tls.crt` and `tls.key` into a folder.
    fn issue(&self, folder: &Path, life: Life) -> Result<()> {
        let certificate = folder.join("tls.crt").display().to_string();
        let key = folder.join("tls.key").display().to_string();
        let request = folder.join("tls.csr").display().to_string();
        self.openssl(&[
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            SUBJECT,
            "-addext",
            NAMES,
            "-addext",
            USAGE,
            "-keyout",
            &key,
            "-out",
            &request,
        ])?;
        let dates: &[&str] = match life {
            Life::Day => &["-days", "1"],
            Life::Past => &[
                "-startdate",
                "20200101000000Z",
                "-enddate",
                "20200102000000Z",
            ],
        };
        let sign = [
            "ca",
            "-batch",
            "-notext",
            "-config",
            "config",
            "-cert",
            "ca.crt",
            "-keyfile",
            "ca.key",
            "-in",
            &request,
            "-out",
            &certificate,
        ];
        self.openssl(&[&sign, dates].concat())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn openssl(&self, arguments: &[&str]) -> Result<()> {
        let program = program::in_path("openssl").ok_or_else(|| Error::Missing {
            what: "openssl".to_owned(),
            remedy: "install the package openssl".to_owned(),
        })?;
        let output = Command::new(program)
            .args(arguments)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .output()
            .doing(|| "start openssl".to_owned())?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::Process {
            action: format!("run openssl {}", arguments[0]),
            reason: output.status.to_string(),
            log: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

/// A folder with `tls.crt`, `tls.key` and `ca.crt`, as Kubernetes mounts a Secret.
#[derive(Debug)]
pub struct Mount(mount::Mount);

impl Mount {
    /// Makes the folder, with a certificate of an authority and that authority's own.
    ///
    /// # Errors
    /// If the folder is there, or openssl fails.
    pub fn create(folder: &Path, authority: &Authority) -> Result<Self> {
        Self::with(folder, authority, Life::Day, &[authority])
    }

    /// The same with a certificate that holds at another time, and trust in others.
    ///
    /// # Errors
    /// If the folder is there, or openssl fails.
    pub fn with(
        folder: &Path,
        authority: &Authority,
        life: Life,
        trusted: &[&Authority],
    ) -> Result<Self> {
        let fill = |folder: &Path| fill(folder, authority, life, trusted);
        mount::Mount::create(folder, &["tls.crt", "tls.key", "ca.crt"], fill).map(Self)
    }

    /// Puts others in the place of all three files.
    ///
    /// # Errors
    /// If openssl fails.
    pub fn replace(&self, authority: &Authority, life: Life, trusted: &[&Authority]) -> Result<()> {
        self.0
            .replace(|folder| fill(folder, authority, life, trusted))
    }

    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.0.file("tls.crt")
    }

    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.0.file("tls.key")
    }

    /// The certificates of those who are trusted.
    #[must_use]
    pub fn authorities(&self) -> PathBuf {
        self.0.file("ca.crt")
    }
}

fn fill(folder: &Path, authority: &Authority, life: Life, trusted: &[&Authority]) -> Result<()> {
    authority.issue(folder, life)?;
    let trusted: Result<Vec<String>> = trusted.iter().map(|one| one.certificate()).collect();
    write(&folder.join("ca.crt"), trusted?.concat())
}
