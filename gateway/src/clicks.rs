//! Clicks, from the redirect to the click log.
//!
//! A redirect leaves its click in a bounded buffer and is done. A thread takes the
//! buffers every 40 ms, forms batches and commits them to the spool on disk; a task
//! sends what the spool holds and removes what the log has acknowledged. Nothing
//! here makes a redirect wait or fail: where a click has to go, it is counted.

mod batch;
mod buffer;
mod country;
mod hit;
#[cfg(feature = "cluster")]
mod kafka;
mod log;
mod metrics;
mod record;
mod sender;
mod spool;
mod stall;
#[cfg(test)]
mod tests;
mod traced;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use waypost_runtime::metrics::Registry;

pub use country::Countries;
pub use hit::{ClickedLink, Hit};
#[cfg(feature = "cluster")]
pub use kafka::{KafkaLog, KafkaSettings};
pub use log::{ClickLog, Payload, PublishError};

use buffer::Buffers;
use metrics::Metrics;
use spool::Spool;
use traced::Traced;
use writer::Writer;

/// How many batches that the disk refused may wait to be sent from memory.
const UNSPOOLED: usize = 64;

/// What the pipeline needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names this gateway, the same after a restart: 1 to 64 characters.
    pub gateway: String,
    /// How many threads record clicks.
    pub threads: usize,
    /// The spool's folder; nothing else may be in there.
    pub folder: PathBuf,
    /// The most the spool may hold; beyond it the oldest clicks go.
    pub max_bytes: u64,
    /// Keys the hash of visitors; another key makes all visitors new.
    pub visitor_key: [u8; 32],
    /// A header, set by a proxy in front, with the visitor's country in two letters.
    pub country_header: Option<http::HeaderName>,
    /// Where addresses are, if that header does not say.
    pub countries: Option<Countries>,
}

impl Settings {
    /// The spool's bound unless an operator sets another: some 5 million clicks.
    pub const DEFAULT_MAX_BYTES: u64 = 1 << 30;
}

/// Registers the metrics of a click's way.
pub(crate) fn register_metrics(registry: &Registry) -> waypost_runtime::metrics::Result<()> {
    Metrics::register(registry).map(drop)
}

/// Why the pipeline cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("use the spool folder {folder}")]
    Folder {
        folder: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("use the spool folder {folder}: another process uses it")]
    InUse { folder: PathBuf },
    #[error("register the metrics of clicks")]
    Metrics(#[from] prometheus::Error),
    #[error("start the thread of the spool")]
    Thread(#[source] std::io::Error),
}

/// Takes clicks in. Cheap to clone; when the last clone is dropped, the pipeline
/// stops where it is, as in a crash: see [`Clicks::flush`].
#[derive(Debug, Clone)]
pub struct Clicks(Arc<Pipeline>);

#[derive(Debug)]
struct Pipeline {
    shared: Arc<Shared>,
    spool: Spool,
    writer: Option<JoinHandle<()>>,
    committed: watch::Receiver<u64>,
    _sender: AbortOnDropHandle<()>,
    country_header: Option<http::HeaderName>,
}

/// What the redirect path and the thread of the spool share.
#[derive(Debug)]
struct Shared {
    buffers: Buffers,
    /// Something is in the buffers, and the thread knows.
    pending: AtomicBool,
    /// Somebody waits: the next commit is not to be put off.
    hurry: AtomicBool,
    stop: AtomicBool,
    traced: Traced,
    metrics: Metrics,
}

/// What a flush left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// The log has acknowledged everything.
    All,
    /// The log did not answer in time.
    Remainder {
        /// On disk: the next start on the same folder sends it.
        bytes: u64,
        /// How many clicks these are, without what an earlier start left and this one
        /// has not read. Lost if the folder is.
        clicks: u64,
        /// Clicks that no file holds: they end with the process, and are counted.
        lost: u64,
    },
}

impl Clicks {
    /// Opens the spool and starts to send: first what earlier starts left behind.
    /// Must be called on a tokio runtime.
    ///
    /// # Errors
    /// If the folder cannot be used.
    pub fn start(
        settings: &Settings,
        log: impl ClickLog,
        registry: &Registry,
    ) -> Result<Self, StartError> {
        let metrics = Metrics::register(registry)?;
        let traced = Traced::new(log.system());
        let shared = Arc::new(Shared {
            buffers: Buffers::new(
                settings.threads,
                metrics.recorded.clone(),
                metrics.lost_buffer.clone(),
            ),
            pending: AtomicBool::new(false),
            hurry: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            traced: traced.clone(),
            metrics: metrics.clone(),
        });
        let (spool, appender) = Spool::open(&settings.folder, settings.max_bytes, metrics.clone())?;
        let (unspooled, direct) = mpsc::channel(UNSPOOLED);
        let (commits, committed) = watch::channel(0);
        let writer = Writer::new(settings, Arc::clone(&shared), appender, unspooled, commits);
        let writer = std::thread::Builder::new()
            .name("click-spool".to_owned())
            .spawn(move || writer.run())
            .map_err(StartError::Thread)?;
        let sender = tokio::spawn(sender::run(spool.clone(), direct, log, traced, metrics));
        Ok(Self(Arc::new(Pipeline {
            shared,
            spool,
            writer: Some(writer),
            committed,
            _sender: AbortOnDropHandle::new(sender),
            country_header: settings.country_header.clone(),
        })))
    }

    /// Takes a click in. It copies the few bytes it needs, waits for nothing and
    /// does not fail; the rest of the work is done elsewhere.
    pub fn record(&self, hit: &Hit<'_>) {
        let Pipeline {
            shared,
            writer,
            country_header,
            ..
        } = &*self.0;
        shared.buffers.push(hit.take(country_header.as_ref()));
        // Only the first click after a pause pays for waking the thread.
        if !shared.pending.load(Ordering::Relaxed) && !shared.pending.swap(true, Ordering::AcqRel) {
            unpark(writer.as_ref());
        }
    }

    /// Commits what is recorded so far and waits until the log has all of it, or
    /// until the deadline. For the end of the process: what is then in no file counts
    /// as lost.
    pub async fn flush(&self, deadline: Instant) -> Flushed {
        let pipeline = &*self.0;
        let all = async {
            let mut committed = pipeline.committed.clone();
            // The commit under way may have missed the newest clicks; the one after
            // it cannot.
            let enough = *committed.borrow_and_update() + 2;
            while *committed.borrow_and_update() < enough {
                pipeline.shared.hurry.store(true, Ordering::Release);
                unpark(pipeline.writer.as_ref());
                if committed.changed().await.is_err() {
                    return;
                }
            }
            pipeline.spool.drained().await;
        };
        match tokio::time::timeout_at(deadline, all).await {
            Ok(()) => Flushed::All,
            Err(_) => {
                let unsent = pipeline.spool.unsent();
                pipeline.shared.metrics.lost_exit.inc_by(unsent.in_memory);
                Flushed::Remainder {
                    bytes: unsent.bytes,
                    clicks: unsent.clicks - unsent.in_memory,
                    lost: unsent.in_memory,
                }
            }
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        unpark(self.writer.as_ref());
        if let Some(writer) = self.writer.take() {
            // It ends within one commit; its panic was reported when it happened.
            let _ = writer.join();
        }
    }
}

fn unpark(writer: Option<&JoinHandle<()>>) {
    if let Some(writer) = writer {
        writer.thread().unpark();
    }
}
