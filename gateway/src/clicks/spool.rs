//! The spool: segment files that hold what the log does not have yet.
//!
//! * A segment is written by one start of the gateway (its **boot**) and is never
//!   written again after it was **sealed**.
//! * Files are named by boot and index, so that their order is the order of time.
//! * The file is gone when the log has all its batches. Until then a restart sends
//!   all of it again, under the same identities.

mod appender;
mod quarantine;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::Notify;

pub(super) use appender::Appender;

use super::StartError;
use super::metrics::Metrics;
use super::record::{self, FILE_MARK, Record};

/// The lock that keeps a second process out.
const LOCK: &str = "lock";

const EXTENSION: &str = "clicks";

/// Between two tries to read a segment that is there and cannot be read.
const READ_RETRY: Duration = Duration::from_millis(200);

/// Which segment: the boot that wrote it and its place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentId {
    boot: u64,
    index: u32,
}

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
    /// Something was acknowledged or dropped.
    shrunk: Notify,
    metrics: Metrics,
    /// Held, not read: locked as long as the spool is open.
    _lock: File,
}

#[derive(Debug, Default)]
struct State {
    segments: BTreeMap<SegmentId, Segment>,
    bytes: u64,
}

#[derive(Debug)]
struct Segment {
    /// What is committed: as far as may be read.
    length: u64,
    /// As far as the sender has read.
    read: u64,
    /// The sender is reading right now: the file must stay.
    reading: bool,
    /// Clicks between `read` and `length`; unknown in what an earlier boot left.
    unread_clicks: Option<u64>,
    /// Batches that were read and are not acknowledged.
    in_flight: usize,
    /// The appender may add to it.
    growing: bool,
    /// Something in it could not be read.
    damaged: bool,
    /// When the oldest batch that waits was committed.
    waiting_since: Option<Instant>,
}

/// What was read of a segment, to be settled batch by batch.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) segment: SegmentId,
    pub(super) records: Vec<Record>,
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
            let length = entry.metadata().map_err(failed)?.len();
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
            if let Some((id, from, to)) = self.begin_reading() {
                let spool = self.clone();
                let read = tokio::task::spawn_blocking(move || spool.read(id, from, to));
                match read.await {
                    Ok(Ok(chunk)) if !chunk.records.is_empty() => return chunk,
                    Ok(Ok(_)) => continue,
                    Ok(Err(error)) => {
                        // Out of file descriptors, perhaps: what is on disk stays
                        // there, and is read again.
                        tracing::warn!(%error, "segment of clicks could not be read, trying again");
                        tokio::time::sleep(READ_RETRY).await;
                        continue;
                    }
                    Err(_) => return std::future::pending().await,
                }
            }
            grown.await;
        }
    }

    /// Notes that the log has a batch. The file goes with its last one.
    pub(super) fn settle(&self, id: SegmentId) {
        let mut state = self.state();
        if let Some(segment) = state.segments.get_mut(&id) {
            segment.in_flight = segment.in_flight.saturating_sub(1);
            if segment.is_settled() {
                segment.waiting_since = None;
            }
        }
        self.remove_if_done(&mut state, id);
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
                if state.segments.values().all(Segment::is_settled) {
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

    pub(super) fn unsent_bytes(&self) -> u64 {
        let state = self.state();
        let waiting = state.segments.values().filter(|s| !s.is_settled());
        waiting.map(|segment| segment.length).sum()
    }

    /// Brings the gauges up to date.
    pub(super) fn observe(&self) {
        let state = self.state();
        let since = state
            .segments
            .values()
            .filter_map(|s| s.waiting_since)
            .min();
        let waited = since.map_or(0, |since| since.elapsed().as_millis());
        let metrics = &self.0.metrics;
        metrics
            .oldest_ms
            .set(i64::try_from(waited).unwrap_or(i64::MAX));
        metrics.bytes.set(state.bytes.cast_signed());
    }

    fn begin_reading(&self) -> Option<(SegmentId, u64, u64)> {
        let mut state = self.state();
        let (id, segment) = state
            .segments
            .iter_mut()
            .find(|(_, segment)| segment.read < segment.length)?;
        segment.reading = true;
        let from = std::mem::replace(&mut segment.read, segment.length);
        Some((*id, from, segment.length))
    }

    fn read(&self, id: SegmentId, from: u64, to: u64) -> io::Result<Chunk> {
        let bytes = read_range(&self.path(id), from, to);
        let mut state = self.state();
        let Some(segment) = state.segments.get_mut(&id) else {
            return Ok(Chunk::empty(id));
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
                return Err(error);
            }
        };
        let read: u64 = scanned.records.iter().map(|r| u64::from(r.clicks)).sum();
        if scanned.damaged > 0 {
            segment.damaged = true;
            self.0.metrics.lost_damaged.inc_by(scanned.damaged);
            tracing::warn!(
                lost = scanned.damaged,
                kept = read,
                "damaged records of clicks"
            );
        }
        segment.reading = false;
        segment.in_flight += scanned.records.len();
        // What was committed meanwhile is unread, and only that.
        segment.unread_clicks = Some(
            segment
                .unread_clicks
                .map_or(0, |clicks| clicks.saturating_sub(read + scanned.damaged)),
        );
        if segment.is_settled() {
            segment.waiting_since = None;
        }
        self.remove_if_done(&mut state, id);
        drop(state);
        self.0.shrunk.notify_waiters();
        Ok(Chunk {
            segment: id,
            records: scanned.records,
        })
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
            let damaged = segment.damaged;
            self.forget(state, id);
            let path = self.path(id);
            let removed = if damaged {
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

    fn forget(&self, state: &mut State, id: SegmentId) -> Option<Segment> {
        let segment = state.segments.remove(&id)?;
        state.bytes -= segment.length;
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

impl Segment {
    fn left_behind(length: u64) -> Self {
        Self {
            length,
            read: 0,
            reading: false,
            unread_clicks: None,
            in_flight: 0,
            growing: false,
            damaged: false,
            waiting_since: Some(Instant::now()),
        }
    }

    /// Nothing in it waits.
    fn is_settled(&self) -> bool {
        self.read == self.length && !self.reading && self.in_flight == 0
    }
}

impl SegmentId {
    fn of_file(path: &Path) -> Option<Self> {
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

impl Chunk {
    fn empty(segment: SegmentId) -> Self {
        Self {
            segment,
            records: Vec::new(),
        }
    }
}

/// Reads records, without the mark that a segment begins with. A mark that is
/// damaged is left in place: it is then no record and counted as such.
fn read_range(path: &Path, from: u64, to: u64) -> io::Result<Bytes> {
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
