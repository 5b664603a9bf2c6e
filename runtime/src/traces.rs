//! Traces over OTLP. Whether a request is traced is decided before any span is
//! made: a span that the sampler refuses costs 6 us all the same.

use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler as OtelSampler, SdkTracer, SdkTracerProvider};
use tracing::Subscriber;
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt as _};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::config::Invalid;

/// The target of the spans that are exported; all others are for logs only.
pub const TARGET: &str = "waypost::trace";

/// The connection to the collector. Spans are sent in batches from a thread of
/// its own; when the collector is away they are dropped, not queued without end.
#[derive(Debug)]
pub(crate) struct Exporter(SdkTracerProvider, SdkTracer);

impl Exporter {
    pub(crate) fn start(service: &'static str, endpoint: &str) -> Result<Self, Invalid> {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .map_err(|error| Invalid {
                option: "--otlp-endpoint",
                problem: error.to_string(),
            })?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(OtelSampler::AlwaysOn)
            .with_resource(Resource::builder().with_service_name(service).build())
            .build();
        let tracer = provider.tracer(service);
        Ok(Self(provider, tracer))
    }

    /// Sends what is left, within the exporter's own deadline of 5 s.
    pub(crate) fn stop(&self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

pub(crate) fn layer<S>(exporter: &Exporter) -> impl Layer<S> + Send + Sync + use<S>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    OpenTelemetryLayer::new(exporter.1.clone())
        .with_filter(filter_fn(|metadata| metadata.target() == TARGET))
}

/// Decides which requests are traced. Cheap to clone.
#[derive(Debug, Clone, Copy)]
pub struct Sampler {
    /// 0: none.
    one_in: u32,
}

impl Sampler {
    /// Traces nothing.
    pub const OFF: Self = Self { one_in: 0 };

    pub(crate) fn one_in(n: u32) -> Self {
        Self { one_in: n }
    }

    /// Whether no request is ever traced.
    #[must_use]
    pub fn is_off(self) -> bool {
        self.one_in == 0
    }

    /// Whether to trace a request: as its caller says in `traceparent`, or else
    /// if `random` falls on one in n.
    #[must_use]
    pub fn decide(self, traceparent: Option<&[u8]>, random: u32) -> bool {
        if self.is_off() {
            return false;
        }
        // 00-<32 hex>-<16 hex>-<2 hex of flags>, the lowest bit of which says so.
        match traceparent {
            Some([.., flags]) if traceparent.is_some_and(|text| text.len() == 55) => {
                char::from(*flags)
                    .to_digit(16)
                    .is_some_and(|bits| bits & 1 == 1)
            }
            _ => random.is_multiple_of(self.one_in),
        }
    }
}

/// Makes a span the child of the caller's, as W3C trace context says.
pub fn continue_from(span: &tracing::Span, headers: &dyn Extractor) {
    let parent = TraceContextPropagator::new().extract(headers);
    // Refused only when the span is disabled, and then there is nothing to do.
    let _ = span.set_parent(parent);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_decision_is_followed() {
        let sampler = Sampler::one_in(10);
        let header = |flags| format!("00-{}-{}-{flags}", "a".repeat(32), "b".repeat(16));
        assert!(sampler.decide(Some(header("01").as_bytes()), 1));
        assert!(!sampler.decide(Some(header("00").as_bytes()), 0));
        assert!(sampler.decide(Some(b"garbage"), 0));
        assert!(!sampler.decide(None, 1));
        assert!(sampler.decide(None, 20));
        assert!(!Sampler::OFF.decide(Some(header("01").as_bytes()), 0));
    }
}
