//! `waypost backup` and `waypost restore`: an instance in one encrypted file, and back.

mod age;
mod archive;
mod passphrase;
mod restore;
mod snapshot;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use waypost_domain::Timestamp;
use waypost_domain::signature::KeyRing;
use waypost_runtime::{Error, secrets};
use waypost_shard_node::store::sqlite::{self, Checked};

use self::archive::Manifest;
use self::passphrase::Passphrase;
pub(crate) use self::restore::{Restore, UNFINISHED, adopt};
use self::snapshot::Snapshot;
use crate::transfer::wait_for;

/// The file that is standard input or output.
const STANDARD: &str = "-";

const LINKS: &str = "links.db";
const KEYS: &str = "keys.db";
const CLICKS: &str = "clicks.db";

/// The databases of an instance. The one that is written most is locked first.
const DATABASES: [&str; 3] = [CLICKS, LINKS, KEYS];
const SECRETS: &str = "secrets";
const SPOOL: &str = "spool";

/// Where copies are while a backup is made.
const COPIES: &str = "backup.tmp";

/// The options of `waypost backup`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Backup {
    /// Where the backup goes; -: standard output
    file: PathBuf,

    #[command(flatten)]
    passphrase: Passphrase,

    /// Folder with room for a copy of the databases; by default the data folder
    #[arg(long, env = "WAYPOST_BACKUP_SCRATCH", value_name = "FOLDER")]
    scratch: Option<PathBuf>,
}

/// Why there is no backup, or nothing restored.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("there is no {}: no instance has its data there (--data-dir)", .0.display())]
    NoInstance(PathBuf),
    #[error("the databases were in use by others for too long: {0}")]
    Busy(String),
    #[error("a backup is being made there already: {} is locked", .0.display())]
    Another(PathBuf),
    #[error(
        "{} has {} MiB free, and {} MiB are needed: make room, or name another folder (--scratch)",
        folder.display(), free >> 20, needed >> 20
    )]
    NoRoom {
        folder: PathBuf,
        free: u64,
        needed: u64,
    },
    #[error("{what} is damaged: {how}")]
    Damaged { what: String, how: String },
    #[error(
        "none of the {0} links is signed with a key of secrets/link-mac: these secrets and these \
         links do not belong together"
    )]
    OtherSecrets(u64),
    #[error("{0}")]
    Database(rusqlite::Error),
    #[error("{0}")]
    Service(String),
    #[error("{0}")]
    Sealed(#[from] age::Error),
    #[error("it is none of `waypost backup`")]
    NoBackup,
    #[error("release {release} made it, in a format that this release does not know")]
    OtherFormat { release: String },
    #[error("{} is not empty: name a folder that is, or that is not there", .0.display())]
    NotEmpty(PathBuf),
    #[error("this machine's clock says {now}, and the backup is of {at}: set the clock")]
    Clock { now: Timestamp, at: Timestamp },
    #[error("its key counters are used up")]
    UsedUp,
    #[error("{0}")]
    Reading(io::Error),
    #[error("cannot write: {0}")]
    Writing(io::Error),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl Problem {
    fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    /// Names the database, where SQLite did not.
    fn about(self, database: &Path) -> Self {
        match self {
            Self::Damaged { how, .. } => Self::Damaged {
                what: database.display().to_string(),
                how,
            },
            Self::Database(error) => Self::Service(format!("{}: {error}", database.display())),
            other => other,
        }
    }
}

impl Backup {
    /// Writes an instance, which may be serving, into one file.
    ///
    /// # Errors
    /// If it is not whole, or the file cannot be written or read back.
    pub(crate) fn run(&self, data: &Path) -> Result<(), Error> {
        let passphrase = self.passphrase.chosen()?;
        let written = self.write(data, &passphrase);
        let manifest = written.map_err(|problem| {
            let doing = format!("back {} up: {problem}", data.display());
            Error::failed(doing, problem)
        })?;
        let checked = match self.is_standard() {
            true => "Nobody has read it back: restore it somewhere to be sure.",
            false => "It was read back and is whole.",
        };
        eprintln!(
            "{} with {} links as of {}. {checked}",
            self.file.display(),
            manifest.links,
            manifest.at
        );
        warn_of_unsigned(manifest.unsigned);
        Ok(())
    }

    fn is_standard(&self) -> bool {
        self.file == Path::new(STANDARD)
    }

    fn write(&self, data: &Path, passphrase: &str) -> Result<Manifest, Problem> {
        let copies = Copies::in_folder(self.scratch.as_deref().unwrap_or(data))?;
        let mut snapshot = Snapshot::take(data, &copies.folder)?;
        let links = copies.folder.join(LINKS);
        let Checked { links, unsigned } = check_links(&links, &data.join(SECRETS))?;
        let at = snapshot.at.to_string();
        let manifest = Manifest::new(at, links, unsigned, &mut snapshot.pieces)
            .map_err(Problem::io(&copies.folder))?;
        let mut seal = |out: &mut dyn Write| {
            let sealed = age::Writer::new(BufWriter::new(out), passphrase)?;
            let sealed = archive::write(sealed, &manifest, &mut snapshot.pieces)?;
            sealed.finish()?.flush()
        };
        if self.is_standard() {
            seal(&mut io::stdout().lock()).map_err(Problem::Writing)?;
            return Ok(manifest);
        }
        // The name appears with the whole: what is there was read back.
        let mut part = self.file.clone().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        let result = write_file(&part, &mut seal)
            .and_then(|()| read_back(&part, passphrase, &manifest))
            .and_then(|()| fs::rename(&part, &self.file).map_err(Problem::io(&self.file)))
            .and_then(|()| sync_folder(&self.file));
        if result.is_err() {
            let _ = fs::remove_file(&part);
        }
        result.map(|()| manifest)
    }
}

fn write_file(
    path: &Path,
    seal: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Problem> {
    // One that an end by force has left.
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(Problem::io(path))?;
    let written = seal(&mut file).and_then(|()| file.sync_all());
    written.map_err(Problem::io(path))
}

/// Reads a file from end to end and compares it with what went into it.
fn read_back(path: &Path, passphrase: &str, manifest: &Manifest) -> Result<(), Problem> {
    let file = File::open(path).map_err(Problem::io(path))?;
    let opened = age::Reader::new(BufReader::new(file), passphrase)?;
    let read = archive::read(opened, |_| Ok(()), |_| Ok(io::sink()))?;
    match read == *manifest {
        true => Ok(()),
        false => Err(Problem::Damaged {
            what: path.display().to_string(),
            how: "what was read back is not what was written".to_owned(),
        }),
    }
}

/// Counts the links of a file, and those whose signature no key of a folder of secrets
/// makes.
fn check_links(links: &Path, secrets: &Path) -> Result<Checked, Problem> {
    let keys = secrets::read(secrets, "link-mac")
        .map_err(|error| error.to_string())
        .and_then(|text| KeyRing::parse(&text))
        .map_err(Problem::Service)?;
    let checked = wait_for(sqlite::check(links, &keys)).map_err(service)?;
    let checked = checked.map_err(service)?;
    match checked.links > 0 && checked.unsigned == checked.links {
        true => Err(Problem::OtherSecrets(checked.links)),
        false => Ok(checked),
    }
}

fn service(error: impl std::error::Error) -> Problem {
    let cause = error.source().map(|cause| format!(": {cause}"));
    Problem::Service(format!("{error}{}", cause.unwrap_or_default()))
}

fn warn_of_unsigned(unsigned: u64) {
    if unsigned > 0 {
        eprintln!(
            "{unsigned} of the links are damaged or signed with no key of secrets/link-mac: nobody \
             can follow them, here or where this is restored."
        );
    }
}

/// Makes sure that a name is in its folder, also after a power cut.
fn sync_folder(file: &Path) -> Result<(), Problem> {
    let folder = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(Problem::io(folder))
}

fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

/// The folder of the copies, of one backup at a time; gone when this is.
struct Copies {
    folder: PathBuf,
    _only_one: File,
}

impl Copies {
    fn in_folder(scratch: &Path) -> Result<Self, Problem> {
        let folder = scratch.join(COPIES);
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&folder);
        made.map_err(Problem::io(&folder))?;
        let lock = folder.join("lock");
        let only_one = File::create(&lock).map_err(Problem::io(&lock))?;
        only_one
            .try_lock()
            .map_err(|_| Problem::Another(lock.clone()))?;
        for name in DATABASES {
            for left in ["", "-wal", "-shm", "-journal"] {
                let _ = fs::remove_file(folder.join(format!("{name}{left}")));
            }
        }
        Ok(Self {
            folder,
            _only_one: only_one,
        })
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
