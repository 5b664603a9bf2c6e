//! From the spool to the log: a bounded number of batches at a time, each again and
//! again until it is acknowledged.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::batch::Encoded;
use super::log::{ClickLog, Payload, PublishError};
use super::metrics::Metrics;
use super::spool::{SegmentId, Spool};

/// Bytes of batches on their way to the log. A segment more is read while they are
/// below this, so that 12 MiB is the most in memory.
const MAX_IN_FLIGHT: usize = 8 << 20;

/// Between two tries of one batch: doubles from the first to the last.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(2);

/// How old the gauges may be while nothing else happens.
const OBSERVE_EVERY: Duration = Duration::from_secs(1);

/// Sends for as long as it is polled.
pub(super) async fn run<L: ClickLog>(
    spool: Spool,
    mut unspooled: mpsc::Receiver<Encoded>,
    log: L,
    metrics: Metrics,
) {
    let log = Arc::new(log);
    let mut in_flight = FuturesUnordered::new();
    // Kept over the rounds: a read that is given up would leave its batches unsent.
    let mut next = std::pin::pin!(spool.next());
    let mut bytes = 0;
    let mut unspooled_open = true;
    let mut observe = tokio::time::interval(OBSERVE_EVERY);
    observe.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let send = |segment, clicks, payload| {
        send(
            Arc::clone(&log),
            metrics.clone(),
            Batch {
                segment,
                clicks,
                payload,
            },
        )
    };
    loop {
        let room = bytes < MAX_IN_FLIGHT;
        tokio::select! {
            Some(batch) = in_flight.next(), if !in_flight.is_empty() => {
                let Batch { segment, clicks, payload } = batch;
                bytes -= payload.batch.len();
                metrics.acked.inc_by(u64::from(clicks));
                if let Some(segment) = segment {
                    spool.settle(segment);
                }
            }
            chunk = &mut next, if room => {
                next.set(spool.next());
                for record in chunk.records {
                    bytes += record.batch.len();
                    let payload = Payload { partition: record.partition, batch: record.batch };
                    in_flight.push(send(Some(chunk.segment), record.clicks, payload));
                }
            }
            encoded = unspooled.recv(), if room && unspooled_open => match encoded {
                Some(Encoded { partition, clicks, batch }) => {
                    bytes += batch.len();
                    let payload = Payload { partition, batch: Bytes::from(batch) };
                    in_flight.push(send(None, clicks, payload));
                }
                None => unspooled_open = false,
            },
            _ = observe.tick() => spool.observe(),
        }
    }
}

struct Batch {
    /// None: it was never on disk.
    segment: Option<SegmentId>,
    clicks: u32,
    payload: Payload,
}

async fn send<L: ClickLog>(log: Arc<L>, metrics: Metrics, batch: Batch) -> Batch {
    let mut wait = FIRST_RETRY;
    while let Err(PublishError(error)) = log.publish(batch.payload.clone()).await {
        metrics.retries.inc();
        tracing::debug!(%error, partition = batch.payload.partition, "batch of clicks refused");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LAST_RETRY);
    }
    batch
}
