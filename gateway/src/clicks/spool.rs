//! The spool: segment files that hold what the log does not have yet.
//!
//! * A segment is written by one start of the gateway (its **boot**) and is never
//!   written again after it was **sealed**.
//! * Files are named by boot and index, so that their order is the order of time.
//! * The file is gone when the log has all its batches. Until then a restart sends
//!   all of it again, under the same identities.

mod appender;
mod quarantine;
mod segment;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

pub(super) use appender::Appender;
use segment::{EXTENSION, Segment, SegmentId, read_range};

use super::StartError;
use super::metrics::Metrics;
use super::record::{self, FILE_MARK, Record};

/// The lock that keeps a second process out.
const LOCK: &str = "lock";

/// Until a segment that is there and cannot be read is tried again. Others are read
/// meanwhile.
const READ_RETRY: Duration = Duration::from_millis(500);

/// No commit makes a segment so large: the buffers hold some 60 MB. Whatever has the
/// name of a segment and is larger would only fill the memory.
const LARGEST: u64 = 128 << 20;

/// The sender's side. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Spool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    max_bytes: u64,
    state: Mutex<State>,
    /// There is something to read.
    grown: Notify,
    /// Something was settled or dropped.
    shrunk: Notify,
    metrics: Metrics,
    /// Held, not read: locked as long as the spool is open.
    _lock: File,
}

#[derive(Debug, Default)]
struct State {
    segments: BTreeMap<SegmentId, Segment>,
    bytes: u64,
    /// Batches on their way to the log, by when they were committed.
    sending: BTreeMap<Instant, usize>,
    /// Clicks on their way that no file holds: a process that ends takes them along.
    in_memory: u64,
}

/// What was read of a segment, to be settled batch by batch.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) records: Vec<(Record, Ticket)>,
}

/// A batch on its way to the log; given back when its fate is known.
#[derive(Debug)]
pub(super) struct Ticket {
    /// None: it was never on disk.
    segment: Option<SegmentId>,
    pub(super) clicks: u64,
    since: Instant,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Acknowledged,
    /// The log will never take it.
    Refused,
}

/// What the log does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unsent {
    /// In files.
    pub(super) bytes: u64,
    /// As far as is known: what an earlier start left is counted when it is read.
    pub(super) clicks: u64,
    /// Of these, what is in no file.
    pub(super) in_memory: u64,
}

impl Spool {
    /// Opens the folder, notes what earlier boots left in it, and gives both sides.
    pub(super) fn open(
        folder: &Path,
        max_bytes: u64,
        metrics: Metrics,
    ) -> Result<(Self, Appender), StartError> {
        let failed = |source| StartError::Folder {
            folder: folder.to_owned(),
            source,
        };
        fs::create_dir_all(folder).map_err(failed)?;
        let lock = File::create(folder.join(LOCK)).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => StartError::InUse {
                folder: folder.to_owned(),
            },
            fs::TryLockError::Error(source) => failed(source),
        })?;
        let mut state = State::default();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some(id) = SegmentId::of_file(&entry.path()) else {
                continue;
            };
            let about = entry.metadata().map_err(failed)?;
            let length = about.len();
            if !about.is_file() || length > LARGEST {
                tracing::warn!(path = %entry.path().display(), "no segment of clicks, left alone");
                continue;
            }
            if length <= FILE_MARK.len() as u64 {
                // Begun, and nothing was ever committed to it.
                fs::remove_file(entry.path()).map_err(failed)?;
                continue;
            }
            state.bytes += length;
            state.segments.insert(id, Segment::left_behind(length));
        }
        let left = state.segments.len();
        if left > 0 {
            tracing::info!(
                segments = left,
                bytes = state.bytes,
                "sending clicks of earlier starts"
            );
        }
        metrics.bytes.set(state.bytes.cast_signed());
        // Later than every boot that left something, also if the clock was set back.
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let newest = state.segments.keys().map(|id| id.boot).max().unwrap_or(0);
        let boot = u64::try_from(now.as_micros())
            .unwrap_or(0)
            .max(newest.saturating_add(1));
        metrics.max_bytes.set(max_bytes.cast_signed());
        let spool = Self(Arc::new(Inner {
            folder: folder.to_owned(),
            max_bytes,
            state: Mutex::new(state),
            grown: Notify::new(),
            shrunk: Notify::new(),
            metrics,
            _lock: lock,
        }));
        Ok((spool.clone(), Appender::new(spool, boot)))
    }

    /// Reads the oldest batches that were not read yet: at most a segment of them.
    /// Waits for some. Once it began, it must be polled to its end: what it has read
    /// nobody else reads.
    pub(super) async fn next(&self) -> Chunk {
        loop {
            let grown = self.0.grown.notified();
            match self.begin_reading() {
                Reading::Of(id, from, to) => {
                    let spool = self.clone();
                    let read = tokio::task::spawn_blocking(move || spool.read(id, from, to));
                    match read.await {
                        Ok(chunk) if !chunk.records.is_empty() => return chunk,
                        Ok(_) => {}
                        Err(_) => return std::future::pending().await,
                    }
                }
                // Time may be what helps, or something else to read.
                Reading::Later => {
                    let _ = tokio::time::timeout(READ_RETRY, grown).await;
                }
                Reading::Nothing => grown.await,
            }
        }
    }

    /// Takes account of a batch that the disk refused.
    fn hold(&self, clicks: u64) -> Ticket {
        let since = Instant::now();
        let mut state = self.state();
        *state.sending.entry(since).or_default() += 1;
        state.in_memory += clicks;
        Ticket {
            segment: None,
            clicks,
            since,
        }
    }

    /// Notes what became of a batch. The file goes with its last one.
    pub(super) fn settle(&self, ticket: &Ticket, fate: Fate) {
        let mut state = self.state();
        if let Some(batches) = state.sending.get_mut(&ticket.since) {
            *batches -= 1;
            if *batches == 0 {
                state.sending.remove(&ticket.since);
            }
        }
        let held = ticket.segment.and_then(|id| state.segments.get_mut(&id));
        match held {
            Some(segment) => {
                segment.in_flight = segment.in_flight.saturating_sub(1);
                segment.in_flight_clicks = segment.in_flight_clicks.saturating_sub(ticket.clicks);
                segment.kept_aside |= fate == Fate::Refused;
            }
            None => state.in_memory = state.in_memory.saturating_sub(ticket.clicks),
        }
        if let Some(id) = ticket.segment {
            self.remove_if_done(&mut state, id);
        }
        drop(state);
        self.0.shrunk.notify_waiters();
    }

    /// Waits until nothing waits to be acknowledged.
    pub(super) async fn drained(&self) {
        loop {
            let mut shrunk = std::pin::pin!(self.0.shrunk.notified());
            shrunk.as_mut().enable();
            {
                let mut state = self.state();
                if state.in_memory == 0 && state.segments.values().all(Segment::is_settled) {
                    // The last segment need not be kept for what it may still take.
                    let ids: Vec<SegmentId> = state.segments.keys().copied().collect();
                    for id in ids {
                        self.seal(&mut state, id);
                    }
                    return;
                }
            }
            shrunk.await;
        }
    }

    pub(super) fn unsent(&self) -> Unsent {
        self.state().unsent()
    }

    /// Brings the gauges up to date, and answers how long the oldest click waits.
    pub(super) fn observe(&self) -> Duration {
        let state = self.state();
        let waited = state.oldest().map_or(Duration::ZERO, |at| at.elapsed());
        let metrics = &self.0.metrics;
        metrics.oldest.set(waited.as_secs_f64());
        metrics.bytes.set(state.bytes.cast_signed());
        metrics.waiting.set(state.unsent().clicks.cast_signed());
        waited
    }

    fn begin_reading(&self) -> Reading {
        let now = Instant::now();
        let mut state = self.state();
        let mut segments = state.segments.iter_mut();
        if let Some((id, segment)) = segments.find(|(_, segment)| segment.is_readable(now)) {
            segment.reading = true;
            let from = std::mem::replace(&mut segment.read, segment.length);
            return Reading::Of(*id, from, segment.length);
        }
        if state.segments.values().any(|s| s.read < s.length) {
            Reading::Later
        } else {
            Reading::Nothing
        }
    }

    fn read(&self, id: SegmentId, from: u64, to: u64) -> Chunk {
        let bytes = read_range(&self.path(id), from, to);
        let mut state = self.state();
        let Some(segment) = state.segments.get_mut(&id) else {
            return Chunk::default();
        };
        let scanned = match bytes {
            Ok(bytes) => record::scan(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => record::Scanned {
                records: Vec::new(),
                damaged: segment.unread_clicks.unwrap_or(1),
            },
            Err(error) => {
                segment.reading = false;
                segment.read = from;
                let is_first = segment.retry_at.is_none();
                segment.retry_at = Some(Instant::now() + READ_RETRY);
                if is_first {
                    // Out of file descriptors, perhaps: what is on disk stays there.
                    tracing::warn!(%error, "segment of clicks could not be read, trying again");
                }
                return Chunk::default();
            }
        };
        let read: u64 = scanned.records.iter().map(|r| u64::from(r.clicks)).sum();
        if scanned.damaged > 0 {
            segment.kept_aside = true;
            self.0.metrics.lost_damaged.inc_by(scanned.damaged);
            tracing::warn!(
                lost = scanned.damaged,
                kept = read,
                "damaged records of clicks"
            );
        }
        segment.reading = false;
        segment.retry_at = None;
        segment.in_flight += scanned.records.len();
        segment.in_flight_clicks += read;
        // What was committed meanwhile is unread, and only that.
        segment.unread_clicks = Some(
            segment
                .unread_clicks
                .map_or(0, |clicks| clicks.saturating_sub(read + scanned.damaged)),
        );
        let since = segment.unread_since.unwrap_or_else(Instant::now);
        segment.unread_since = (segment.read < segment.length).then(Instant::now);
        if !scanned.records.is_empty() {
            *state.sending.entry(since).or_default() += scanned.records.len();
        }
        self.remove_if_done(&mut state, id);
        drop(state);
        self.0.shrunk.notify_waiters();
        let ticket = |record: &Record| Ticket {
            segment: Some(id),
            clicks: record.clicks.into(),
            since,
        };
        let records = scanned.records.into_iter();
        Chunk {
            records: records.map(|r| (r.clone(), ticket(&r))).collect(),
        }
    }

    /// Nothing is added to the segment from now on.
    fn seal(&self, state: &mut State, id: SegmentId) {
        if let Some(segment) = state.segments.get_mut(&id) {
            segment.growing = false;
        }
        self.remove_if_done(state, id);
    }

    fn remove_if_done(&self, state: &mut State, id: SegmentId) {
        let done = |segment: &&mut Segment| !segment.growing && segment.is_settled();
        if let Some(segment) = state.segments.get_mut(&id).filter(done) {
            let kept_aside = segment.kept_aside;
            self.forget(state, id);
            let path = self.path(id);
            let removed = if kept_aside {
                quarantine::take(&self.0.folder, &path)
            } else {
                fs::remove_file(&path)
            };
            if let Err(error) = removed {
                // The next start sends it again, and the log knows it all.
                tracing::warn!(%error, "segment of clicks could not be removed");
            }
        }
    }

    /// What of it is on its way stays there, in memory only.
    fn forget(&self, state: &mut State, id: SegmentId) -> Option<Segment> {
        let segment = state.segments.remove(&id)?;
        state.bytes -= segment.length;
        state.in_memory += segment.in_flight_clicks;
        self.0.metrics.bytes.set(state.bytes.cast_signed());
        Some(segment)
    }

    fn path(&self, id: SegmentId) -> PathBuf {
        let SegmentId { boot, index } = id;
        self.0
            .folder
            .join(format!("{boot:016x}-{index:08x}.{EXTENSION}"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the sender can do.
enum Reading {
    /// Read this segment, from here to there.
    Of(SegmentId, u64, u64),
    /// What there is could not be read a moment ago.
    Later,
    Nothing,
}

impl State {
    fn unsent(&self) -> Unsent {
        let waiting = self.segments.values().filter(|s| !s.is_settled());
        let mut unsent = Unsent {
            bytes: 0,
            clicks: self.in_memory,
            in_memory: self.in_memory,
        };
        for segment in waiting {
            unsent.bytes += segment.length;
            unsent.clicks += segment.in_flight_clicks + segment.unread_clicks.unwrap_or(0);
        }
        unsent
    }

    /// When the oldest batch that the log does not have was committed.
    fn oldest(&self) -> Option<Instant> {
        let unread = self.segments.values().filter_map(|s| s.unread_since);
        unread.chain(self.sending.keys().copied()).min()
    }
}
