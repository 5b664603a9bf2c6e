//! The file of a full export: JSON lines. The first says what it is; then come the
//! counters of slugs, the links in the order of their keys and the rows of statistics,
//! and a last line says how many there are and their checksum. A link and a row are
//! their messages between services, in Base64: what those gain, this gains.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, Write};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use waypost_domain::mint::SUFFIXES;
use waypost_domain::{Epoch, Link, LinkKey, Prefix};
use waypost_proto::analytics::Rollup;
use waypost_proto::link::ExportedLink;

/// The version that this release writes and reads.
const FORMAT: u32 = 1;

/// Bytes of a line: the largest is a busy link's day, with some 64 KiB.
const MAX_LINE: u64 = 1 << 20;

/// A line, as it is written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Line {
    WaypostExport {
        format: u32,
        /// The fingerprint of the key that the slugs were made with.
        slug_key: String,
        /// The highest that one of its prefixes is in.
        epoch: u32,
    },
    Counter {
        prefix: String,
        next: u64,
    },
    Link(String),
    Rollup(String),
    End {
        counts: Counts,
        /// Of all lines before this one.
        sha256: String,
    },
}

/// How much of each kind is in a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    pub(super) counters: u64,
    pub(super) links: u64,
    pub(super) rollups: u64,
}

/// What a line says.
#[derive(Debug)]
pub(super) enum Record {
    /// The first number of the prefix that nobody was given.
    Counter(Prefix, u64),
    Link(Box<FullLink>),
    Rollup(Box<Rollup>),
}

/// A link with what belongs to it.
#[derive(Debug, Clone)]
pub(super) struct FullLink {
    pub(super) link: Link,
    pub(super) row: ExportedLink,
}

/// The file is not as it was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Damaged {
    #[error("the file cannot be read on after line {line}: {source}")]
    Unreadable { line: u64, source: io::Error },
    #[error(
        "line {line} of the file {problem}. Nothing more was imported; export or copy it again"
    )]
    Line { line: u64, problem: &'static str },
    #[error(
        "the file has format {0}; this release reads format {FORMAT}: import it with the release that wrote it"
    )]
    Format(u32),
}

impl FullLink {
    /// # Errors
    /// Names what is wrong with the row.
    pub(super) fn of(row: ExportedLink) -> Result<Self, &'static str> {
        let link = row.link.clone().and_then(|link| Link::try_from(link).ok());
        let link = link.ok_or("is no link")?;
        Ok(Self { link, row })
    }

    /// What it says of everything but the signature, which each cluster makes its own.
    pub(super) fn content(&self) -> Link {
        let mut link = self.link.clone();
        link.signature = [0; waypost_domain::signature::LEN];
        link
    }
}

/// A file that is being written.
pub(super) struct Writer<W> {
    out: W,
    hash: Sha256,
    counts: Counts,
}

impl<W: Write> Writer<W> {
    pub(super) fn begin(out: W, slug_key: [u8; 16], epoch: Epoch) -> io::Result<Self> {
        let mut writer = Self {
            out,
            hash: Sha256::new(),
            counts: Counts::default(),
        };
        writer.line(&Line::WaypostExport {
            format: FORMAT,
            slug_key: hex(&slug_key),
            epoch: epoch.get(),
        })?;
        Ok(writer)
    }

    pub(super) fn counter(&mut self, prefix: Prefix, next: u64) -> io::Result<()> {
        self.counts.counters += 1;
        let prefix = prefix.to_string();
        self.line(&Line::Counter { prefix, next })
    }

    pub(super) fn link(&mut self, row: &ExportedLink) -> io::Result<()> {
        self.counts.links += 1;
        self.line(&Line::Link(STANDARD.encode(row.encode_to_vec())))
    }

    pub(super) fn rollup(&mut self, row: &Rollup) -> io::Result<()> {
        self.counts.rollups += 1;
        self.line(&Line::Rollup(STANDARD.encode(row.encode_to_vec())))
    }

    pub(super) fn end(mut self) -> io::Result<Counts> {
        let counts = self.counts;
        let sha256 = hex(&self.hash.finalize_reset());
        self.line(&Line::End { counts, sha256 })?;
        self.out.flush()?;
        Ok(counts)
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line).expect("texts and numbers are JSON");
        text.push(b'\n');
        self.hash.update(&text);
        self.out.write_all(&text)
    }
}

/// A file that can be read several times.
#[derive(Debug)]
pub(super) struct FullFile(File);

impl FullFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(Self)
    }

    /// Reads it from the beginning.
    pub(super) fn read(&mut self) -> Result<Reader<'_>, Damaged> {
        let unreadable = |source| Damaged::Unreadable { line: 0, source };
        self.0.rewind().map_err(unreadable)?;
        Reader::begin(&self.0)
    }
}

/// Gives the records of a file, and checks it on the way.
pub(super) struct Reader<'a> {
    input: BufReader<&'a File>,
    text: Vec<u8>,
    line: u64,
    hash: Sha256,
    counts: Counts,
    last: Option<LinkKey>,
    pub(super) slug_key: Vec<u8>,
    pub(super) epoch: Epoch,
}

impl<'a> Reader<'a> {
    fn begin(file: &'a File) -> Result<Self, Damaged> {
        let mut reader = Self {
            input: BufReader::new(file),
            text: Vec::new(),
            line: 0,
            hash: Sha256::new(),
            counts: Counts::default(),
            last: None,
            slug_key: Vec::new(),
            epoch: Epoch::FIRST,
        };
        let none = "is not the first of a full export (waypost export --full FILE)";
        match reader.line() {
            Ok(Line::WaypostExport {
                format: FORMAT,
                slug_key,
                epoch,
            }) => {
                reader.slug_key = from_hex(&slug_key).ok_or(reader.damaged(none))?;
                reader.epoch = Epoch::new(epoch).ok_or(reader.damaged(none))?;
                reader.hash.update(&reader.text);
                Ok(reader)
            }
            Ok(Line::WaypostExport { format, .. }) => Err(Damaged::Format(format)),
            Err(error @ Damaged::Unreadable { .. }) => Err(error),
            _ => Err(reader.damaged(none)),
        }
    }

    /// The next record; `None` at the end of a file that is whole.
    pub(super) fn next(&mut self) -> Result<Option<Record>, Damaged> {
        let line = self.line()?;
        let record = match line {
            Line::WaypostExport { .. } => Err("begins a second file"),
            Line::End { counts, sha256 } => return self.end(counts, &sha256).map(|()| None),
            Line::Counter { prefix, next } => {
                self.counts.counters += 1;
                counter(&prefix, next)
            }
            Line::Link(row) => {
                self.counts.links += 1;
                self.link(&row)
            }
            Line::Rollup(row) => {
                self.counts.rollups += 1;
                decoded(&row).map(|row| Record::Rollup(Box::new(row)))
            }
        };
        let record = record.map_err(|problem| self.damaged(problem))?;
        self.hash.update(&self.text);
        Ok(Some(record))
    }

    /// What was read so far.
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    fn link(&mut self, row: &str) -> Result<Record, &'static str> {
        let link = FullLink::of(decoded(row)?)?;
        let key = &link.link.key;
        if self.last.as_ref().is_some_and(|last| last >= key) {
            return Err("is out of order");
        }
        self.last = Some(key.clone());
        Ok(Record::Link(Box::new(link)))
    }

    fn end(&mut self, counts: Counts, sha256: &str) -> Result<(), Damaged> {
        let is_whole = counts == self.counts && hex(&self.hash.finalize_reset()) == sha256;
        if !is_whole {
            return Err(self.damaged("does not agree with those before it"));
        }
        match self.line() {
            Err(Damaged::Line {
                problem: CUT_OFF, ..
            }) => Ok(()),
            Err(error @ Damaged::Unreadable { .. }) => Err(error),
            _ => Err(self.damaged("comes after the end")),
        }
    }

    /// Reads a line; its text is kept.
    fn line(&mut self) -> Result<Line, Damaged> {
        self.text.clear();
        let mut bounded = (&mut self.input).take(MAX_LINE);
        let read = bounded.read_until(b'\n', &mut self.text);
        let read = read.map_err(|source| Damaged::Unreadable {
            line: self.line,
            source,
        })?;
        self.line += 1;
        if read == 0 {
            return Err(self.damaged(CUT_OFF));
        }
        serde_json::from_slice(&self.text).map_err(|_| self.damaged("is none of a full export"))
    }

    fn damaged(&self, problem: &'static str) -> Damaged {
        Damaged::Line {
            line: self.line,
            problem,
        }
    }
}

/// What is wrong with a file that ends without its last line.
const CUT_OFF: &str = "is missing: the file is cut off";

fn counter(prefix: &str, next: u64) -> Result<Record, &'static str> {
    let prefix = Prefix::parse(prefix).filter(|_| next <= SUFFIXES);
    Ok(Record::Counter(prefix.ok_or("is no counter")?, next))
}

fn decoded<M: prost::Message + Default>(text: &str) -> Result<M, &'static str> {
    let bytes = STANDARD.decode(text).map_err(|_| "is no Base64")?;
    M::decode(&*bytes).map_err(|_| "cannot be read")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    text.as_bytes().chunks(2).map(pair).collect()
}
