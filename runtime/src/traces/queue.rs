//! The spans that wait for the collector, and what becomes of each.
//!
//! The SDK's processor has a bound of its own, and tells only at the end how many spans
//! went beyond it. So the same bound is kept before it, where it can be counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor,
};
use prometheus::IntCounter;

use crate::metrics::{self, Label, Registry};

/// What OpenTelemetry calls the bound, and what it is without that.
const BOUND: &str = "OTEL_BSP_MAX_QUEUE_SIZE";
const DEFAULT_BOUND: usize = 2_048;

/// What became of spans. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Fates {
    sent: IntCounter,
    failed: IntCounter,
    queue_full: IntCounter,
}

impl Fates {
    pub(crate) fn register(registry: &Registry) -> metrics::Result<Self> {
        let result = Label::one_of("result", &["sent", "failed", "queue_full"]);
        let spans = registry.counters(
            "waypost_trace_spans_total",
            "Spans by what became of them. sent: the collector has them, failed: it did not \
             take them, queue_full: too many waited for it",
            &[result],
        )?;
        let of = |result| spans.with_label_values(&[result]);
        Ok(Self {
            sent: of("sent"),
            failed: of("failed"),
            queue_full: of("queue_full"),
        })
    }
}

/// Spans that have ended and were not handed to the exporter yet. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    bound: usize,
    waiting: Arc<AtomicUsize>,
    fates: Fates,
}

impl Queue {
    pub(super) fn new(fates: Fates) -> Self {
        let named = std::env::var(BOUND).ok();
        let bound = named.and_then(|bound| bound.parse().ok());
        Self {
            bound: bound.unwrap_or(DEFAULT_BOUND).max(1),
            waiting: Arc::default(),
            fates,
        }
    }

    /// What gathers batches for an exporter, which must say that it [has](Self::left)
    /// them.
    pub(super) fn before(self, exporter: impl SpanExporter + 'static) -> Bounded {
        let config = BatchConfigBuilder::default().with_max_queue_size(self.bound);
        let batches = BatchSpanProcessor::builder(exporter).with_batch_config(config.build());
        Bounded {
            batches: batches.build(),
            queue: self,
        }
    }

    /// So many wait no longer: they are being sent.
    pub(super) fn left(&self, spans: usize) {
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
    }

    /// What came of sending them.
    pub(super) fn ended(&self, spans: usize, outcome: &OTelSdkResult) {
        let fate = match outcome {
            Ok(()) => &self.fates.sent,
            Err(_) => &self.fates.failed,
        };
        fate.inc_by(spans as u64);
    }

    fn admits(&self) -> bool {
        let one_more = |waiting| (waiting < self.bound).then_some(waiting + 1);
        let admitted = self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        admitted.is_ok()
    }
}

/// Gathers spans into batches as long as there is room for them.
#[derive(Debug)]
pub(super) struct Bounded {
    batches: BatchSpanProcessor,
    queue: Queue,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        match self.queue.admits() {
            true => self.batches.on_end(span),
            false => self.queue.fates.queue_full.inc(),
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}
