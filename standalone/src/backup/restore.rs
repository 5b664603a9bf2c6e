//! `waypost restore`: unpacks, checks, prepares for a new life, and only then moves into
//! place.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use waypost_analytics_consumer::store::SqliteRollups;
use waypost_domain::{Prefix, Timestamp, mint};
use waypost_keygen::store::{CounterStore as _, SqliteCounters};
use waypost_runtime::Error;
use waypost_shard_node::store::sqlite::{self, Checked};

use super::archive::{self, Manifest};
use super::passphrase::Passphrase;
use super::{
    CLICKS, DATABASES, KEYS, LINKS, Problem, SECRETS, SPOOL, STANDARD, age, check_links, now,
    service, snapshot, sync_folder, warn_of_unsigned,
};
use crate::transfer::wait_for;

/// Where a restored instance is until it is whole. Nobody serves from a data folder that
/// has this: something may be missing.
pub(crate) const UNFINISHED: &str = "restore.tmp";

/// The options of `waypost restore`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Restore {
    /// The backup; -: standard input
    file: PathBuf,

    #[command(flatten)]
    passphrase: Passphrase,
}

impl Restore {
    /// Makes an instance of a backup in a data folder that is empty or not there.
    ///
    /// # Errors
    /// If the backup is not whole or the folder not empty; then nothing is left there.
    pub(crate) fn run(&self, data: &Path) -> Result<(), Error> {
        let failed = |problem: Problem| {
            let doing = format!("restore {}: {problem}", self.file.display());
            Error::failed(doing, problem)
        };
        refuse_unless_empty(data).map_err(failed)?;
        let passphrase = self.passphrase.known()?;
        let manifest = self.restore(data, &passphrase).map_err(failed)?;
        eprintln!(
            "{data} has the instance as of {at}: {links} links, the counts, the API keys and all \
             secrets.\n\
             \n\
             What was made, changed or deleted after {at} is not in it. Keys that were revoked \
             since are good again: revoke them again (waypost keys list, waypost keys revoke).\n\
             No slug that was given out since then will be given out again.\n\
             \n\
             Next: start waypost with --data-dir {data}",
            data = data.display(),
            at = manifest.at,
            links = manifest.links,
        );
        warn_of_unsigned(manifest.unsigned);
        Ok(())
    }

    fn restore(&self, data: &Path, passphrase: &str) -> Result<Manifest, Problem> {
        let input: Box<dyn BufRead> = match self.file == Path::new(STANDARD) {
            true => Box::new(io::stdin().lock()),
            false => {
                let file = File::open(&self.file).map_err(Problem::io(&self.file))?;
                Box::new(BufReader::new(file))
            }
        };
        let opened = age::Reader::new(input, passphrase)?;
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(data);
        made.map_err(Problem::io(data))?;
        let unfinished = data.join(UNFINISHED);
        // Two at once would each find the folder empty: one of them makes this.
        let made = DirBuilder::new().mode(0o700).create(&unfinished);
        made.map_err(Problem::io(&unfinished))?;
        let unpacked = unpack(opened, &unfinished).and_then(|manifest| {
            let checked = renew(&unfinished)?;
            compare(checked, &manifest)?;
            Ok(manifest)
        });
        match unpacked {
            Ok(manifest) => move_into_place(&unfinished, data).map(|()| manifest),
            Err(problem) => {
                let _ = fs::remove_dir_all(&unfinished);
                Err(problem)
            }
        }
    }
}

/// Prepares a data folder that something else than [`Restore`] has restored, such as
/// Litestream or a snapshot of the disk.
///
/// # Errors
/// If it is not whole, or a process serves from it.
pub(crate) fn adopt(data: &Path) -> Result<(), Error> {
    for name in DATABASES {
        if !data.join(name).exists() {
            let problem = Problem::NoInstance(data.join(name));
            return Err(Error::failed(format!("adopt it: {problem}"), problem));
        }
    }
    let _only_one = crate::serve::lock(data)?;
    let checked = renew(data).map_err(|problem| {
        let doing = format!("adopt {}: {problem}", data.display());
        Error::failed(doing, problem)
    })?;
    eprintln!(
        "{data} is whole and has {links} links. No slug that was given out before now will be \
         given out again.\n\
         Next: start waypost with --data-dir {data}",
        data = data.display(),
        links = checked.links,
    );
    warn_of_unsigned(checked.unsigned);
    Ok(())
}

fn refuse_unless_empty(data: &Path) -> Result<(), Problem> {
    match fs::read_dir(data) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Problem::io(data)(error)),
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Problem::NotEmpty(data.to_owned())),
        },
    }
}

fn unpack(opened: impl io::Read, folder: &Path) -> Result<Manifest, Problem> {
    let room = |manifest: &Manifest| {
        let at = Timestamp::parse(&manifest.at).ok_or(Problem::NoBackup)?;
        if now() < at {
            return Err(Problem::Clock { now: now(), at });
        }
        snapshot::room_for(manifest.bytes(), &folder.join(LINKS))
    };
    for name in [SECRETS, SPOOL] {
        let path = folder.join(name);
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(Problem::io(&path))?;
    }
    archive::read(opened, room, |name| {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(folder.join(name))
    })
}

/// Checks what was restored, and lets slugs and versions go on where no earlier life of
/// the instance has been.
fn renew(folder: &Path) -> Result<Checked, Problem> {
    for name in DATABASES {
        let path = folder.join(name);
        let database = Connection::open(&path)?;
        snapshot::check_integrity(&database, &path).map_err(|problem| problem.about(&path))?;
    }
    let checked = check_links(&folder.join(LINKS), &folder.join(SECRETS))?;
    wait_for(go_on(folder)).map_err(service)??;
    for name in DATABASES {
        let path = folder.join(name);
        snapshot::settle(Connection::open(&path)?, &path)?;
        let synced = File::open(&path).and_then(|file| file.sync_all());
        synced.map_err(Problem::io(&path))?;
    }
    Ok(checked)
}

/// What is in the databases must be what the backup says of itself.
fn compare(found: Checked, manifest: &Manifest) -> Result<(), Problem> {
    if (found.links, found.unsigned) == (manifest.links, manifest.unsigned) {
        return Ok(());
    }
    Err(Problem::Damaged {
        what: LINKS.to_owned(),
        how: format!(
            "it has {} links, {} of them without a good signature, and had {} and {}",
            found.links, found.unsigned, manifest.links, manifest.unsigned
        ),
    })
}

async fn go_on(folder: &Path) -> Result<(), Problem> {
    let counters = SqliteCounters::open(&folder.join(KEYS)).await;
    let counters = counters.map_err(service)?;
    let highest = counters.highest().await.map_err(service)?;
    let (epoch, next) = mint::counter_after_loss(now(), highest).ok_or(Problem::UsedUp)?;
    let all: Vec<(Prefix, u64)> = Prefix::all().map(|prefix| (prefix, next)).collect();
    counters.raise(&all).await.map_err(service)?;
    counters.close().await;
    let begun = sqlite::begin_epoch(&folder.join(LINKS), epoch).await;
    begun.map_err(service)?;
    // For its schema, which a later release may have made.
    let clicks = SqliteRollups::open(&folder.join(CLICKS)).await;
    clicks.map_err(service)?.close().await;
    Ok(())
}

/// The links last: without them nothing is served by mistake.
fn move_into_place(unfinished: &Path, data: &Path) -> Result<(), Problem> {
    for name in [SECRETS, SPOOL, CLICKS, KEYS, LINKS] {
        let to = data.join(name);
        fs::rename(unfinished.join(name), &to).map_err(Problem::io(&to))?;
    }
    sync_folder(&data.join(LINKS))?;
    fs::remove_dir_all(unfinished).map_err(Problem::io(unfinished))?;
    sync_folder(&data.join(LINKS))
}
