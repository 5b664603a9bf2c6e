//! Analytics in the process of the gateway: batches come by a call instead of a log.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use waypost_domain::click::PARTITIONS;
use waypost_proto::click::Batch;
use waypost_runtime::Error;
use waypost_runtime::metrics::Registry;

use crate::batch::{Invalid, check};
use crate::metrics::Metrics;
use crate::service::Analytics;
use crate::store::{Keep, LOOK, ON_ITS_WAY, Portion, RollupStore as _, SqliteRollups, age, now_ms};
use crate::trace;

/// Batches that wait for their turn; each caller waits for its own.
const QUEUE: usize = 64;

/// Batches that are counted in one transaction.
const MAX_PORTION: usize = 64;

/// Counts batches into SQLite. Cheap to clone.
#[derive(Debug, Clone)]
pub struct InProcess {
    store: Arc<SqliteRollups>,
    queue: mpsc::Sender<Waiting>,
    metrics: Metrics,
}

/// Why a batch is not counted.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Trying again is of no use.
    #[error("count a batch of clicks: {0}")]
    Invalid(#[from] Invalid),
    /// It may be counted nevertheless; trying again never counts it twice.
    #[error("count a batch of clicks: {0}")]
    Store(String),
    #[error("count a batch of clicks: the process ends")]
    Stopping,
}

#[derive(Debug)]
struct Waiting {
    batch: Batch,
    counted: oneshot::Sender<Result<(), ApplyError>>,
}

/// Analytics on a SQLite file. Must be called on a tokio runtime.
///
/// # Errors
/// If the file cannot be opened or holds another schema.
pub async fn open_sqlite(path: &Path, registry: &Registry) -> Result<InProcess, Error> {
    let metrics = Metrics::register(registry)
        .map_err(|error| Error::failed("register the metrics of analytics", error))?;
    let store = SqliteRollups::open(path)
        .await
        .map_err(|error| Error::failed(format!("open the rollups {}", path.display()), error))?;
    let store = Arc::new(store);
    let (queue, waiting) = mpsc::channel(QUEUE);
    tokio::spawn(count(Arc::clone(&store), waiting, metrics.clone()));
    Ok(InProcess {
        store,
        queue,
        metrics,
    })
}

impl InProcess {
    /// Counts a batch, unless it was counted before, and returns when it is durable.
    /// Those of concurrent callers share a transaction.
    ///
    /// # Errors
    /// Says whether trying again is of use.
    pub async fn apply(&self, batch: Batch) -> Result<(), ApplyError> {
        check(&batch)?;
        let (counted, outcome) = oneshot::channel();
        let waiting = Waiting { batch, counted };
        let sent = self.queue.send(waiting).await;
        sent.map_err(|_| ApplyError::Stopping)?;
        outcome.await.unwrap_or(Err(ApplyError::Stopping))
    }

    /// The service that answers statistics from the same file.
    #[must_use]
    pub fn service(&self) -> Analytics<SqliteRollups> {
        Analytics::new(Arc::clone(&self.store), self.metrics.clone())
    }
}

/// Counts what waits, until nobody can add to it any more.
async fn count(store: Arc<SqliteRollups>, mut queue: mpsc::Receiver<Waiting>, metrics: Metrics) {
    let mut waiting = Vec::with_capacity(MAX_PORTION);
    let mut pruned: Option<Instant> = None;
    let mut is_behind = false;
    loop {
        let at_ms = now_ms();
        let taken = queue.recv_many(&mut waiting, MAX_PORTION);
        match tokio::time::timeout(LOOK, taken).await {
            Ok(0) => return,
            Ok(_) => is_behind = !apply(&store, &mut waiting, &metrics).await,
            // What could not be counted comes again later; until then nobody can say
            // that everything is.
            Err(_) if !is_behind => look(&store, at_ms, &metrics).await,
            Err(_) => {}
        }
        if pruned.is_none_or(|at| at.elapsed() > Keep::EVERY) {
            pruned = Some(Instant::now());
            if let Err(error) = store.prune(Keep::DEFAULT).await {
                tracing::warn!(%error, "what is too old could not be removed");
            }
        }
    }
}

/// Counts a portion; false if that failed.
async fn apply(store: &SqliteRollups, waiting: &mut Vec<Waiting>, metrics: &Metrics) -> bool {
    let (batches, callers): (Vec<Batch>, Vec<_>) =
        waiting.drain(..).map(|w| (w.batch, w.counted)).unzip();
    let portion = Portion {
        batches,
        ..Portion::default()
    };
    let begun = Instant::now();
    let counting = trace::Counting::begin(&portion);
    let outcome = store.apply(&portion).await;
    metrics.tried(portion.batches.len(), begun.elapsed());
    match &outcome {
        Ok(applied) => {
            metrics.applied(applied);
            counting.counted(applied);
        }
        Err(error) => {
            metrics.retries.inc();
            counting.failed("database");
            let source = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(%error, source, "clicks could not be counted");
        }
    }
    for caller in callers {
        let outcome = match &outcome {
            Ok(_) => Ok(()),
            Err(error) => Err(ApplyError::Store(error.to_string())),
        };
        // Whoever stopped waiting will see it counted the next time.
        let _ = caller.send(outcome);
    }
    outcome.is_ok()
}

/// Nothing came since then, so that everything before is counted.
async fn look(store: &SqliteRollups, at_ms: i64, metrics: &Metrics) {
    let on_its_way = ON_ITS_WAY.as_millis() as i64;
    let partitions: Vec<i32> = (0..PARTITIONS.cast_signed()).collect();
    // Both are in memory or in a file of ours: what they fail of shows elsewhere.
    let _ = store.caught_up(&partitions, at_ms - on_its_way).await;
    if let Ok(Some(time)) = store.counted_up_to().await {
        metrics.counted_up_to(age(time));
    }
}
