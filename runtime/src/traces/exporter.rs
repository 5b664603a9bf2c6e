//! The connection to the collector.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter};

use super::queue::{Fates, Queue};
use crate::config::Invalid;

/// For one batch of spans, tries included.
const EXPORT: Duration = Duration::from_secs(5);

/// For what is left at the end.
const LAST_EXPORT: Duration = Duration::from_secs(2);

/// Between two lines that say that nothing is sent.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Spans are sent in batches from a thread of its own; when the collector is away they
/// are dropped beyond a queue of 2,048, and counted. Neither is waited for by any request.
#[derive(Debug)]
pub(crate) struct Exporter(SdkTracerProvider);

impl Exporter {
    pub(crate) fn start(
        service: &'static str,
        endpoint: &str,
        fates: Fates,
    ) -> Result<Self, Invalid> {
        let invalid = |problem: String| Invalid {
            option: "--otlp-endpoint",
            problem,
        };
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(EXPORT)
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        let resource = Resource::builder()
            .with_service_name(service)
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let queue = Queue::new(fates);
        let telling = Telling::new(exporter, endpoint, queue.clone());
        let provider = SdkTracerProvider::builder()
            .with_span_processor(queue.before(telling))
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource)
            .build();
        global::set_tracer_provider(provider.clone());
        Ok(Self(provider))
    }

    /// Sends what is left. Blocks.
    pub(crate) fn stop(&self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST_EXPORT) {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

/// Says in our own words, and seldom, that the collector takes nothing.
#[derive(Debug)]
struct Telling<E> {
    exporter: E,
    endpoint: String,
    queue: Queue,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    warned: Option<Instant>,
    lost: usize,
}

impl<E> Telling<E> {
    fn new(exporter: E, endpoint: &str, queue: Queue) -> Self {
        Self {
            exporter,
            endpoint: endpoint.to_owned(),
            queue,
            state: Mutex::default(),
        }
    }

    fn tell(&self, spans: usize, outcome: &OTelSdkResult) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(()) => {
                if state.warned.take().is_some() {
                    let lost = std::mem::take(&mut state.lost);
                    tracing::info!(lost, "the collector takes traces again");
                }
            }
            Err(error) => {
                state.lost += spans;
                if state.warned.is_none_or(|at| at.elapsed() > WARN_EVERY) {
                    state.warned = Some(Instant::now());
                    let (endpoint, lost) = (&*self.endpoint, state.lost);
                    tracing::warn!(%error, endpoint, lost, "the collector takes no traces");
                }
            }
        }
    }
}

impl<E: SpanExporter> SpanExporter for Telling<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.queue.left(spans);
        let outcome = self.exporter.export(batch).await;
        self.queue.ended(spans, &outcome);
        self.tell(spans, &outcome);
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
