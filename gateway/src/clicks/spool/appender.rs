//! The writing side of the spool: commits batches and keeps the bound.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Instant;

use super::segment::{Segment, SegmentId, read_range};
use super::{Spool, State, Ticket};
use crate::clicks::batch::Encoded;
use crate::clicks::record::{self, FILE_MARK};

/// A segment is sealed when it holds so much: small enough to be read as a whole,
/// large enough that files are few.
const SEGMENT_BYTES: u64 = 4 << 20;

/// A segment that holds so much and of which the log has everything is sealed, so
/// that it can go.
const WORTH_REMOVING: u64 = 256 << 10;

/// Writes segments. There is one per spool.
#[derive(Debug)]
pub(in crate::clicks) struct Appender {
    spool: Spool,
    boot: u64,
    next_index: u32,
    active: Option<(SegmentId, File)>,
}

impl Appender {
    pub(super) fn new(spool: Spool, boot: u64) -> Self {
        Self {
            spool,
            boot,
            next_index: 0,
            active: None,
        }
    }

    pub(in crate::clicks) fn boot(&self) -> u64 {
        self.boot
    }

    /// Takes account of a batch that is to be sent though it was not committed.
    pub(in crate::clicks) fn hold(&self, clicks: u64) -> Ticket {
        self.spool.hold(clicks)
    }

    /// Writes batches and forces them to disk. After an error none of them is in
    /// the spool.
    pub(in crate::clicks) fn commit(&mut self, batches: &[Encoded]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(batches.iter().map(|b| b.batch.len() + 32).sum());
        for batch in batches {
            record::write(batch, &mut bytes);
        }
        let clicks: u64 = batches.iter().map(|batch| u64::from(batch.clicks)).sum();
        // A drain may remove the segment while it is written: then once more.
        while !self.write(&bytes, clicks)? {}
        self.spool.0.grown.notify_one();
        self.spool.observe();
        Ok(())
    }

    /// False if the segment is gone.
    fn write(&mut self, bytes: &[u8], clicks: u64) -> io::Result<bool> {
        self.roll_if_full();
        self.make_room((bytes.len() + FILE_MARK.len()) as u64);
        let (id, mut file) = match self.active.take() {
            Some(active) => active,
            None => self.create()?,
        };
        let written = file.write_all(bytes).and_then(|()| file.sync_data());
        let mut state = self.spool.state();
        let Some(segment) = state.segments.get_mut(&id) else {
            return Ok(false);
        };
        if let Err(error) = written {
            // What is behind the committed length may be anything: no more is
            // written to this file, and nothing behind that length is read.
            let _ = file.set_len(segment.length);
            self.spool.seal(&mut state, id);
            return Err(error);
        }
        segment.length += bytes.len() as u64;
        segment.unread_clicks = Some(segment.unread_clicks.unwrap_or(0) + clicks);
        segment.unread_since.get_or_insert_with(Instant::now);
        state.bytes += bytes.len() as u64;
        drop(state);
        self.active = Some((id, file));
        Ok(true)
    }

    fn roll_if_full(&mut self) {
        let Some((id, _)) = &self.active else { return };
        let mut state = self.spool.state();
        let keep = state.segments.get(id).is_some_and(|segment| {
            let removable = segment.is_settled() && segment.length >= WORTH_REMOVING;
            segment.growing && segment.length < SEGMENT_BYTES && !removable
        });
        if !keep {
            self.spool.seal(&mut state, *id);
            drop(state);
            self.active = None;
        }
    }

    fn create(&mut self) -> io::Result<(SegmentId, File)> {
        let id = SegmentId {
            boot: self.boot,
            index: self.next_index,
        };
        let path = self.spool.path(id);
        let mut file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(&path)?;
        self.next_index += 1;
        let begun = file.write_all(FILE_MARK).and_then(|()| {
            // The name must survive a power cut, too.
            File::open(&self.spool.0.folder)?.sync_all()
        });
        if let Err(error) = begun {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        let segment = Segment::begun();
        let length = segment.length;
        let mut state = self.spool.state();
        state.segments.insert(id, segment);
        state.bytes += length;
        Ok((id, file))
    }

    /// Drops the oldest segments until so many bytes fit. What of them is in flight
    /// is still sent; what was not read is lost, and counted.
    fn make_room(&mut self, bytes: u64) {
        let inner = &self.spool.0;
        loop {
            let mut state = self.spool.state();
            if state.bytes + bytes <= inner.max_bytes {
                return;
            }
            let Some(id) = oldest_droppable(&state) else {
                return;
            };
            let Some(segment) = self.spool.forget(&mut state, id) else {
                return;
            };
            drop(state);
            let path = self.spool.path(id);
            let lost = segment
                .unread_clicks
                .unwrap_or_else(|| clicks_of(&path, segment.read, segment.length));
            let _ = fs::remove_file(&path);
            if self
                .active
                .as_ref()
                .is_some_and(|(active, _)| *active == id)
            {
                self.active = None;
            }
            inner.metrics.lost_full.inc_by(lost);
            inner.shrunk.notify_waiters();
            tracing::warn!(lost, "spool of clicks is full, dropped the oldest");
        }
    }
}

/// The oldest segment, but for one that is being read at this moment.
fn oldest_droppable(state: &State) -> Option<SegmentId> {
    let mut segments = state.segments.iter();
    segments
        .find(|(_, segment)| !segment.reading)
        .map(|(id, _)| *id)
}

fn clicks_of(path: &Path, from: u64, to: u64) -> u64 {
    read_range(path, from, to).map_or(1, |bytes| {
        let scanned = record::scan(&bytes);
        let good: u64 = scanned.records.iter().map(|r| u64::from(r.clicks)).sum();
        good + scanned.damaged
    })
}
