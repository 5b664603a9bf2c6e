//! What an instance holds at one instant, while it goes on serving.
//!
//! For a moment nobody writes: the locks of all databases are held together. Within it,
//! a reader of each database is started, which then goes on to see that instant, and the
//! files of clicks are opened, which stay readable when they are removed. Only then is
//! anything copied.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;
use rusqlite::{Connection, ErrorCode, OpenFlags, backup::Backup};
use waypost_domain::Timestamp;

use super::archive::Piece;
use super::{DATABASES, Problem, SECRETS, SPOOL, now};

/// How long the locks are waited for. A transaction of the process that serves takes
/// milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long one lock is waited for while others are held, for which the process that
/// serves waits up to five seconds.
const PATIENCE_HOLDING: Duration = Duration::from_millis(500);

/// Pages that are copied between two looks at whether the disk still has room.
const PAGES: i32 = 4_096;

/// What the copies leave free on their disk: the process that serves may write there.
const LEFT_FREE: u64 = 64 << 20;

/// What was there at one instant.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) at: Timestamp,
    pub(super) pieces: Vec<Piece>,
}

impl Snapshot {
    /// Copies the databases into a folder, and opens everything else.
    pub(super) fn take(data: &Path, copies: &Path) -> Result<Self, Problem> {
        let Cut { at, readers, spool } = Cut::make(data)?;
        let mut pieces = Vec::new();
        for (name, reader) in DATABASES.into_iter().zip(readers) {
            let copy = copies.join(name);
            copy_database(&reader, &copy).map_err(|error| error.about(&copy))?;
            pieces.push(Piece::open(name.to_owned(), &copy)?);
        }
        pieces.extend(files(data, SECRETS, |name| !is_passing(name))?);
        pieces.extend(spool);
        Ok(Self { at, pieces })
    }
}

/// The instant, held open by readers.
struct Cut {
    at: Timestamp,
    readers: Vec<Connection>,
    spool: Vec<Piece>,
}

impl Cut {
    fn make(data: &Path) -> Result<Self, Problem> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Self::try_make(data) {
                Err(Problem::Busy(_)) if Instant::now() < deadline => {}
                other => return other,
            }
        }
    }

    fn try_make(data: &Path) -> Result<Self, Problem> {
        let mut locked = Vec::new();
        for name in DATABASES {
            let connection = open(&data.join(name))?;
            connection.busy_timeout(match locked.is_empty() {
                true => PATIENCE,
                false => PATIENCE_HOLDING,
            })?;
            connection.execute_batch("BEGIN IMMEDIATE")?;
            locked.push(connection);
        }
        let mut readers = Vec::new();
        for name in DATABASES {
            let reader = open(&data.join(name))?;
            reader.execute_batch("BEGIN")?;
            // It begins to read with its first statement.
            reader.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
            readers.push(reader);
        }
        // What is in a database is no longer needed of the spool, and what is not is
        // still there: nothing is lost between the two, and what is in both is known.
        let spool = files(data, SPOOL, |name| name.ends_with(".clicks"))?;
        // The locks are let go with their connections.
        Ok(Self {
            at: now(),
            readers,
            spool,
        })
    }
}

/// Opens a database that must be there.
fn open(path: &Path) -> Result<Connection, Problem> {
    if !path.exists() {
        return Err(Problem::NoInstance(path.to_owned()));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok(Connection::open_with_flags(path, flags)?)
}

fn copy_database(from: &Connection, to: &Path) -> Result<(), Problem> {
    let pages: i64 = from.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    let page: i64 = from.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    room_for((pages * page).unsigned_abs(), to)?;
    let mut copy = Connection::open(to)?;
    // Half a copy is made anew: it need not survive anything.
    copy.execute_batch("PRAGMA synchronous = OFF")?;
    let running = Backup::new(from, &mut copy)?;
    running.run_to_completion(PAGES, Duration::ZERO, None)?;
    drop(running);
    check_integrity(&copy, to)?;
    settle(copy, to)
}

/// Fails if a database is not whole.
pub(super) fn check_integrity(database: &Connection, path: &Path) -> Result<(), Problem> {
    let said: String = database.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    match said.as_str() {
        "ok" => Ok(()),
        _ => Err(Problem::Damaged {
            what: path.display().to_string(),
            how: said,
        }),
    }
}

/// Leaves a database in its one file.
pub(super) fn settle(database: Connection, path: &Path) -> Result<(), Problem> {
    database.busy_timeout(PATIENCE)?;
    let mode: String = database.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))?;
    database
        .close()
        .map_err(|(_, error)| Problem::from(error))?;
    match mode.as_str() {
        "delete" => Ok(()),
        _ => Err(Problem::Busy(path.display().to_string())),
    }
}

/// Fails where a disk has not the room: filling it up would stop the process that serves.
pub(super) fn room_for(bytes: u64, at: &Path) -> Result<(), Problem> {
    let folder = at.parent().unwrap_or(at);
    let disk = statvfs(folder).map_err(|error| Problem::io(folder)(error.into()))?;
    let free = disk.blocks_available() * disk.fragment_size();
    match free < bytes + LEFT_FREE {
        true => Err(Problem::NoRoom {
            folder: folder.to_owned(),
            free,
            needed: bytes + LEFT_FREE,
        }),
        false => Ok(()),
    }
}

/// Opens the files of a folder, as far as they are written now.
fn files(data: &Path, folder: &str, is_kept: fn(&str) -> bool) -> Result<Vec<Piece>, Problem> {
    let path = data.join(folder);
    let listed = match fs::read_dir(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(Problem::io(&path))?,
    };
    let mut pieces = Vec::new();
    for entry in listed {
        let entry = entry.map_err(Problem::io(&path))?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        if !is_kept(&name) {
            continue;
        }
        match File::open(entry.path()) {
            Ok(file) if file.metadata().is_ok_and(|found| found.is_file()) => {
                pieces.push(Piece::new(format!("{folder}/{name}"), file)?);
            }
            Ok(_) => {}
            // A segment whose clicks were counted meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Problem::io(&entry.path())(error)),
        }
    }
    pieces.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(pieces)
}

/// Whether a file of the secrets is a draft or a lock.
fn is_passing(name: &str) -> bool {
    name.ends_with(".new") || name.ends_with(".lock")
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Self::Busy(error.to_string())
            }
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::Damaged {
                what: "a database".to_owned(),
                how: error.to_string(),
            },
            _ => Self::Database(error),
        }
    }
}
