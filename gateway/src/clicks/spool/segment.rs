//! A segment file, as the spool keeps account of it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;

use crate::clicks::record::FILE_MARK;

/// What segments are called, behind the dot.
pub(super) const EXTENSION: &str = "clicks";

/// Which segment: the boot that wrote it and its place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::clicks) struct SegmentId {
    pub(super) boot: u64,
    pub(super) index: u32,
}

#[derive(Debug)]
pub(super) struct Segment {
    /// What is committed: as far as may be read.
    pub(super) length: u64,
    /// As far as the sender has read.
    pub(super) read: u64,
    /// The sender is reading right now: the file must stay.
    pub(super) reading: bool,
    /// It could not be read: not before then is it tried again.
    pub(super) retry_at: Option<Instant>,
    /// Clicks between `read` and `length`; unknown in what an earlier boot left.
    pub(super) unread_clicks: Option<u64>,
    /// When the oldest batch between `read` and `length` was committed, or found.
    pub(super) unread_since: Option<Instant>,
    /// Batches that were read and are not settled, and their clicks.
    pub(super) in_flight: usize,
    pub(super) in_flight_clicks: u64,
    /// The appender may add to it.
    pub(super) growing: bool,
    /// It is kept aside when it is done: something in it could not be read, or the
    /// log will never take it.
    pub(super) kept_aside: bool,
}

impl Segment {
    pub(super) fn left_behind(length: u64) -> Self {
        Self {
            length,
            read: 0,
            reading: false,
            retry_at: None,
            unread_clicks: None,
            unread_since: Some(Instant::now()),
            in_flight: 0,
            in_flight_clicks: 0,
            growing: false,
            kept_aside: false,
        }
    }

    pub(super) fn begun() -> Self {
        let length = FILE_MARK.len() as u64;
        Self {
            read: length,
            unread_clicks: Some(0),
            unread_since: None,
            growing: true,
            ..Self::left_behind(length)
        }
    }

    /// Nothing in it waits.
    pub(super) fn is_settled(&self) -> bool {
        self.read == self.length && !self.reading && self.in_flight == 0
    }

    pub(super) fn is_readable(&self, now: Instant) -> bool {
        self.read < self.length && self.retry_at.is_none_or(|at| at <= now)
    }
}

impl SegmentId {
    pub(super) fn of_file(path: &Path) -> Option<Self> {
        if path.extension()? != EXTENSION {
            return None;
        }
        let (boot, index) = path.file_stem()?.to_str()?.split_once('-')?;
        Some(Self {
            boot: u64::from_str_radix(boot, 16).ok()?,
            index: u32::from_str_radix(index, 16).ok()?,
        })
    }
}

/// Reads records, without the mark that a segment begins with. A mark that is
/// damaged is left in place: it is then no record and counted as such.
pub(super) fn read_range(path: &Path, from: u64, to: u64) -> io::Result<Bytes> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::with_capacity(usize::try_from(to - from).unwrap_or(0));
    file.take(to - from).read_to_end(&mut bytes)?;
    let bytes = Bytes::from(bytes);
    if from == 0 && bytes.starts_with(FILE_MARK) {
        return Ok(bytes.slice(FILE_MARK.len()..));
    }
    Ok(bytes)
}
