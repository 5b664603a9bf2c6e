//! The thread of the spool: takes the buffers, forms batches, commits them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use waypost_domain::click::partition;
use waypost_runtime::traces::{self, Kind, Place, Span};

use super::batch::Batches;
use super::hit::{Taken, Visitors};
use super::sender::Unspooled;
use super::spool::Appender;
use super::{Settings, Shared};

/// How long clicks gather before they are committed together. With the time that
/// the disk takes they are safe within 50 ms.
const GATHER: Duration = Duration::from_millis(40);

/// Between two warnings about a disk that refuses.
const WARN_EVERY: Duration = Duration::from_secs(10);

pub(super) struct Writer {
    shared: Arc<Shared>,
    appender: Appender,
    batches: Batches,
    visitors: Visitors,
    /// For what the disk refused.
    unspooled: mpsc::Sender<Unspooled>,
    commits: watch::Sender<u64>,
    warned: Option<Instant>,
}

impl Writer {
    pub(super) fn new(
        settings: &Settings,
        shared: Arc<Shared>,
        appender: Appender,
        unspooled: mpsc::Sender<Unspooled>,
        commits: watch::Sender<u64>,
    ) -> Self {
        Self {
            batches: Batches::new(settings.gateway.clone(), appender.boot()),
            visitors: Visitors::new(settings.visitor_key)
                .with_countries(settings.countries.clone()),
            shared,
            appender,
            unspooled,
            commits,
            warned: None,
        }
    }

    /// Commits until it is told to stop; what is in the buffers then is lost, as it
    /// is in a crash.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let asked = || shared.hurry.load(Ordering::Acquire) || shared.stop.load(Ordering::Acquire);
        loop {
            while !shared.pending.load(Ordering::Acquire) && !asked() {
                std::thread::park();
            }
            let gathered = Instant::now() + GATHER;
            while !asked() {
                let left = gathered.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                std::thread::park_timeout(left);
            }
            if shared.stop.load(Ordering::Acquire) {
                return;
            }
            shared.hurry.store(false, Ordering::Release);
            // Before the buffers are taken: a click that comes later wakes us again.
            shared.pending.store(false, Ordering::SeqCst);
            self.commit();
            self.commits.send_modify(|commits| *commits += 1);
        }
    }

    fn commit(&mut self) {
        let taken = self.shared.buffers.drain();
        if taken.is_empty() {
            return;
        }
        let batches = self.batches.form(&taken, &mut self.visitors);
        let traced = taken.iter().filter_map(Taken::trace);
        let spans: Vec<Span> = traced.filter_map(spooled).collect();
        for taken in &taken {
            if let Some(click) = taken.trace() {
                let partition = partition(taken.slug());
                self.shared.traced.remember(partition, *click);
            }
        }
        drop(taken);
        let metrics = &self.shared.metrics;
        let committed = self.appender.commit(&batches);
        if committed.is_err() {
            spans.iter().for_each(|span| span.failed("disk"));
        }
        drop(spans);
        match committed {
            Ok(()) => {
                let clicks = batches.iter().map(|batch| u64::from(batch.clicks)).sum();
                metrics.spooled.inc_by(clicks);
            }
            Err(error) => {
                if self.warned.is_none_or(|at| at.elapsed() > WARN_EVERY) {
                    self.warned = Some(Instant::now());
                    tracing::warn!(%error, "clicks could not be spooled, sending from memory");
                }
                for batch in batches {
                    let clicks = batch.clicks.into();
                    match self.unspooled.try_reserve() {
                        Ok(permit) => permit.send(Unspooled {
                            ticket: self.appender.hold(clicks),
                            batch,
                        }),
                        Err(_) => metrics.lost_disk.inc_by(clicks),
                    }
                }
            }
        }
    }
}

/// A traced click's part of a commit.
fn spooled(place: &Place) -> Option<Span> {
    let click = traces::at(place)?;
    Some(Span::under(&click, Kind::Producer, "spool click"))
}
