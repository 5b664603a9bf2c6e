//! From the spool to the log: a bounded number of batches at a time, each again and
//! again until it is acknowledged.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use waypost_runtime::traces::Span;

use super::batch::Encoded;
use super::log::{ClickLog, Payload, PublishError};
use super::metrics::Metrics;
use super::spool::{Fate, Spool, Ticket};
use super::stall::Stall;
use super::traced::Traced;

/// Bytes of batches on their way to the log. A segment more is read while they are
/// below this, so that 12 MiB is the most in memory.
const MAX_IN_FLIGHT: usize = 8 << 20;

/// Between two tries of one batch: doubles from the first to the last.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(2);

/// How often in a row the log refuses a batch until it is believed: others that
/// travelled along may have been the reason, and by then have gone.
const REFUSALS: u32 = 6;

/// How old the gauges may be while nothing else happens.
const OBSERVE_EVERY: Duration = Duration::from_secs(1);

/// A batch that the disk refused.
#[derive(Debug)]
pub(super) struct Unspooled {
    pub(super) batch: Encoded,
    pub(super) ticket: Ticket,
}

/// Sends for as long as it is polled.
pub(super) async fn run<L: ClickLog>(
    spool: Spool,
    mut unspooled: mpsc::Receiver<Unspooled>,
    log: L,
    traced: Traced,
    metrics: Metrics,
) {
    let log = Arc::new(log);
    let stall = Arc::new(Stall::default());
    let mut in_flight = FuturesUnordered::new();
    // Kept over the rounds: a read that is given up would leave its batches unsent.
    let mut next = std::pin::pin!(spool.next());
    let mut bytes = 0;
    let mut unspooled_open = true;
    let mut observe = tokio::time::interval(OBSERVE_EVERY);
    observe.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let send = |ticket, payload: Payload| {
        let (log, stall) = (Arc::clone(&log), Arc::clone(&stall));
        let spans = traced.publish(payload.partition, &payload.batch);
        let sending = Sending { ticket, payload };
        sending.send(log, stall, spans, metrics.clone())
    };
    loop {
        let room = bytes < MAX_IN_FLIGHT;
        tokio::select! {
            Some((sent, fate)) = in_flight.next(), if !in_flight.is_empty() => {
                let Sending { ticket, payload } = sent;
                bytes -= payload.batch.len();
                let counter = match fate {
                    Fate::Acknowledged => &metrics.acked,
                    Fate::Refused => &metrics.lost_refused,
                };
                counter.inc_by(ticket.clicks);
                spool.settle(&ticket, fate);
            }
            chunk = &mut next, if room => {
                next.set(spool.next());
                for (record, ticket) in chunk.records {
                    bytes += record.batch.len();
                    let payload = Payload { partition: record.partition, batch: record.batch };
                    in_flight.push(send(ticket, payload));
                }
            }
            taken = unspooled.recv(), if room && unspooled_open => match taken {
                Some(Unspooled { batch, ticket }) => {
                    bytes += batch.batch.len();
                    let payload = Payload {
                        partition: batch.partition,
                        batch: Bytes::from(batch.batch),
                    };
                    in_flight.push(send(ticket, payload));
                }
                None => unspooled_open = false,
            },
            _ = observe.tick() => stall.look(spool.observe()),
        }
    }
}

/// A batch on its way.
struct Sending {
    ticket: Ticket,
    payload: Payload,
}

impl Sending {
    async fn send<L: ClickLog>(
        self,
        log: Arc<L>,
        stall: Arc<Stall>,
        // Of its traced clicks; they end when it is acknowledged, or refused for good.
        spans: Vec<Span>,
        metrics: Metrics,
    ) -> (Self, Fate) {
        let mut wait = FIRST_RETRY;
        let mut refusals = 0;
        while let Err(error) = log.publish(self.payload.clone()).await {
            refusals = match error {
                PublishError::Refused(_) => refusals + 1,
                PublishError::Failed(_) => 0,
            };
            if refusals == REFUSALS {
                let (clicks, bytes) = (self.ticket.clicks, self.payload.batch.len());
                let error = &error as &dyn std::error::Error;
                tracing::error!(
                    error,
                    clicks,
                    bytes,
                    "clicks are lost, their batch is refused"
                );
                spans.iter().for_each(|span| span.failed("refused"));
                return (self, Fate::Refused);
            }
            metrics.retries.inc();
            stall.note(&error);
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LAST_RETRY);
        }
        (self, Fate::Acknowledged)
    }
}
