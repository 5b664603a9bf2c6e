//! A backup's content: a tar archive of the files, behind a list of them with their
//! lengths and SHA-256.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{DATABASES, Problem, SECRETS, SPOOL};

/// The first file of an archive.
const MANIFEST: &str = "manifest.json";

/// Changes when an older release could not restore it.
const FORMAT: u32 = 1;

/// The spool's bound of a terabyte would make some 250,000 segments.
const LONGEST_MANIFEST: u64 = 64 << 20;

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    format: u32,
    /// The release that made it.
    pub(super) release: String,
    /// The instant that it shows, in RFC 3339.
    pub(super) at: String,
    /// Links, those that were deleted among them.
    pub(super) links: u64,
    /// Of these, links that nobody can follow, as their signature is none of ours.
    pub(super) unsigned: u64,
    files: Vec<Listed>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Listed {
    name: String,
    bytes: u64,
    sha256: String,
}

/// A file that goes into an archive, as long as it was when it was opened.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) name: String,
    bytes: u64,
    file: File,
}

impl Piece {
    pub(super) fn open(name: String, path: &Path) -> Result<Self, Problem> {
        Self::new(name, File::open(path).map_err(Problem::io(path))?)
    }

    pub(super) fn new(name: String, file: File) -> Result<Self, Problem> {
        let found = file.metadata().map_err(Problem::io(Path::new(&name)))?;
        Ok(Self {
            bytes: found.len(),
            name,
            file,
        })
    }

    /// From its beginning to where it ended.
    fn read(&mut self) -> io::Result<impl Read> {
        self.file.seek(SeekFrom::Start(0))?;
        Ok((&self.file).take(self.bytes))
    }
}

impl Manifest {
    pub(super) fn new(
        at: String,
        links: u64,
        unsigned: u64,
        pieces: &mut [Piece],
    ) -> io::Result<Self> {
        let mut files = Vec::new();
        for piece in pieces {
            let mut sum = Sum::of(io::sink());
            io::copy(&mut piece.read()?, &mut sum)?;
            files.push(Listed {
                name: piece.name.clone(),
                bytes: piece.bytes,
                sha256: sum.hex(),
            });
        }
        Ok(Self {
            format: FORMAT,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            at,
            links,
            unsigned,
            files,
        })
    }

    fn parse(text: &[u8]) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Made {
            format: u32,
            release: String,
        }
        let made: Made = serde_json::from_slice(text).map_err(|_| Problem::NoBackup)?;
        if made.format != FORMAT {
            return Err(Problem::OtherFormat {
                release: made.release,
            });
        }
        let manifest: Self = serde_json::from_slice(text).map_err(|_| Problem::NoBackup)?;
        let names = || manifest.files.iter().map(|file| file.name.as_str());
        let is_whole = DATABASES
            .iter()
            .all(|database| names().any(|name| name == *database));
        match is_whole && names().all(is_ours) {
            true => Ok(manifest),
            false => Err(Problem::NoBackup),
        }
    }

    /// All bytes that a restored instance takes.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Whether a file may be in a backup. What is not here is written nowhere.
fn is_ours(name: &str) -> bool {
    let is_plain = |name: &str| {
        !name.starts_with('.')
            && !name.is_empty()
            && name.len() <= 100
            && name
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'/')
    };
    match name.split_once('/') {
        None => DATABASES.contains(&name),
        Some((folder, name)) => [SECRETS, SPOOL].contains(&folder) && is_plain(name),
    }
}

/// Writes an archive.
pub(super) fn write<W: Write>(out: W, manifest: &Manifest, pieces: &mut [Piece]) -> io::Result<W> {
    let mut tar = tar::Builder::new(out);
    let text = serde_json::to_vec_pretty(manifest)?;
    append(&mut tar, MANIFEST, text.len() as u64, text.as_slice())?;
    for piece in pieces {
        let (name, bytes) = (piece.name.clone(), piece.bytes);
        append(&mut tar, &name, bytes, piece.read()?)?;
    }
    tar.into_inner()
}

fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    name: &str,
    bytes: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(0o600);
    tar.append_data(&mut header, name, content)
}

/// Reads an archive from its beginning to its end. `place` is told what the archive says
/// of itself; `write` gives, for the name of each file, where its content goes.
pub(super) fn read<W: Write>(
    archive: impl Read,
    place: impl FnOnce(&Manifest) -> Result<(), Problem>,
    mut write: impl FnMut(&str) -> io::Result<W>,
) -> Result<Manifest, Problem> {
    let mut tar = tar::Archive::new(archive);
    let mut entries = tar.entries().map_err(Problem::Reading)?;
    let first = entries.next().ok_or(Problem::NoBackup)?;
    let first = first.map_err(Problem::Reading)?;
    if first.path_bytes().as_ref() != MANIFEST.as_bytes() {
        return Err(Problem::NoBackup);
    }
    let mut text = Vec::new();
    first
        .take(LONGEST_MANIFEST)
        .read_to_end(&mut text)
        .map_err(Problem::Reading)?;
    let manifest = Manifest::parse(&text)?;
    place(&manifest)?;
    for listed in &manifest.files {
        let other = || Problem::Damaged {
            what: listed.name.clone(),
            how: "it is not what the backup's list says".to_owned(),
        };
        let mut entry = entries
            .next()
            .ok_or_else(other)?
            .map_err(Problem::Reading)?;
        if entry.path_bytes().as_ref() != listed.name.as_bytes() || entry.size() != listed.bytes {
            return Err(other());
        }
        let target = write(&listed.name).map_err(Problem::Writing)?;
        let mut sum = Sum::of(target);
        copy(&mut entry, &mut sum)?;
        if sum.hex() != listed.sha256 {
            return Err(other());
        }
    }
    if entries.next().is_some() {
        return Err(Problem::NoBackup);
    }
    // That nothing is cut off is known at the end of the file, behind the archive's.
    io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(Problem::Reading)?;
    Ok(manifest)
}

/// Copies, and tells reading that fails from writing that does.
fn copy(from: &mut impl Read, to: &mut impl Write) -> Result<(), Problem> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer).map_err(Problem::Reading)? {
            0 => return to.flush().map_err(Problem::Writing),
            read => to.write_all(&buffer[..read]).map_err(Problem::Writing)?,
        }
    }
}

/// Sums up what passes through.
struct Sum<W> {
    to: W,
    hash: Sha256,
}

impl<W> Sum<W> {
    fn of(to: W) -> Self {
        Self {
            to,
            hash: Sha256::new(),
        }
    }

    fn hex(self) -> String {
        let hash = self.hash.finalize();
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl<W: Write> Write for Sum<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_an_instance_are_taken_out_of_a_backup() {
        for name in ["links.db", "secrets/link-mac", "spool/0001-00000002.clicks"] {
            assert!(is_ours(name), "{name}");
        }
        for name in [
            "other.db",
            "/etc/passwd",
            "../links.db",
            "secrets/",
            "secrets/../links.db",
            "secrets/..",
            "secrets/a/b",
            "spool/a\nb",
            "links.db/x",
        ] {
            assert!(!is_ours(name), "{name}");
        }
    }
}
