//! Traces over OTLP.
//!
//! Whether a request is traced is decided before any span is made ([`Sampler`]): a span
//! that a sampler refuses costs 6 us all the same. What is not traced meets a look at a
//! thread's own memory, and no more: every function here does nothing then.
//!
//! Nothing about a visitor goes into a span: no address, no query, no slug, no text that
//! somebody sent.

pub mod calls;
mod exporter;
mod queue;
mod sampler;

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{
    FutureExt as _, SpanContext, Status, TraceContextExt as _, TraceFlags, TraceState, Tracer as _,
    WithContext,
};
use opentelemetry::{KeyValue, Value, global};
use opentelemetry_sdk::propagation::TraceContextPropagator;

pub use opentelemetry::Context;
pub use opentelemetry::trace::SpanKind as Kind;
pub use sampler::Sampler;

pub(crate) use exporter::Exporter;
pub(crate) use queue::Fates;

/// Names the spans' origin to whoever looks at them.
const SCOPE: &str = "waypost";

/// Which span of which trace, as 16 and 8 bytes: what a click carries.
pub type Place = [u8; 24];

/// A span that is ours to end, which dropping it does; or none, if what runs is not
/// traced.
#[derive(Debug)]
#[must_use = "a span lasts as long as it is kept"]
pub struct Span(Option<Context>);

impl Span {
    /// Of what is not traced.
    pub const NONE: Self = Self(None);

    /// A part of what runs, if that is traced.
    pub fn child(kind: Kind, name: &'static str) -> Self {
        match current() {
            Some(parent) => Self::under(&parent, kind, name),
            None => Self::NONE,
        }
    }

    /// A part of `parent`.
    pub fn under(parent: &Context, kind: Kind, name: impl Into<Cow<'static, str>>) -> Self {
        let tracer = global::tracer(SCOPE);
        let builder = tracer.span_builder(name).with_kind(kind);
        let span = tracer.build_with_context(builder, parent);
        Self(Some(parent.with_span(span)))
    }

    #[must_use]
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// For what is done in its name while it lasts.
    #[must_use]
    pub fn context(&self) -> Option<Context> {
        self.0.clone()
    }

    /// Says something of it.
    pub fn set(&self, key: &'static str, value: impl Into<Value>) {
        if let Some(context) = &self.0 {
            set(context, key, value);
        }
    }

    /// Says that it came to nothing, and why in one of a few words.
    pub fn failed(&self, error_type: impl Into<Value>) {
        if let Some(context) = &self.0 {
            let span = context.span();
            span.set_attribute(KeyValue::new("error.type", error_type));
            span.set_status(Status::error(""));
        }
    }

    /// What the future does is a part of it, whoever polls it; or of nothing that is
    /// traced, if this is none.
    pub fn within<F: Future>(&self, future: F) -> WithContext<F> {
        within(self.0.clone(), future)
    }

    /// Names it to the peer that is asked, as W3C trace context.
    pub fn inject(&self, headers: &mut HeaderMap) {
        if let Some(context) = &self.0 {
            TraceContextPropagator::new().inject_context(context, &mut Writer(headers));
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(context) = &self.0 {
            context.span().end();
        }
    }
}

/// What runs, if it is traced.
#[must_use]
pub fn current() -> Option<Context> {
    Context::map_current(|context| context.has_active_span().then(|| context.clone()))
}

/// Which span runs, if it is traced.
#[must_use]
pub fn place() -> Option<Place> {
    let of = |context: &Context| {
        let span = context.span();
        let (trace, id) = (
            span.span_context().trace_id(),
            span.span_context().span_id(),
        );
        let mut place = [0; 24];
        place[..16].copy_from_slice(&trace.to_bytes());
        place[16..].copy_from_slice(&id.to_bytes());
        place
    };
    Context::map_current(|context| context.has_active_span().then(|| of(context)))
}

/// The span at a place, to have parts; `None` if these bytes name none.
#[must_use]
pub fn at(place: &[u8]) -> Option<Context> {
    let (trace, span) = place.split_at_checked(16)?;
    let context = SpanContext::new(
        u128::from_be_bytes(trace.try_into().ok()?).into(),
        u64::from_be_bytes(span.try_into().ok()?).into(),
        TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    );
    context
        .is_valid()
        .then(|| Context::new().with_remote_span_context(context))
}

/// The id of the trace that what runs belongs to, as a log line names it.
pub(crate) fn trace_id() -> Option<String> {
    let of = |context: &Context| context.span().span_context().trace_id().to_string();
    Context::map_current(|context| context.has_active_span().then(|| of(context)))
}

/// What the future does is a part of that span, whoever polls it; or of nothing that is
/// traced.
pub fn within<F: Future>(span: Option<Context>, future: F) -> WithContext<F> {
    future.with_context(span.unwrap_or_default())
}

/// Says something of a span.
pub fn set(span: &Context, key: &'static str, value: impl Into<Value>) {
    span.span().set_attribute(KeyValue::new(key, value));
}

/// Says something of what runs, if it is traced.
pub fn note(key: &'static str, value: impl Into<Value>) {
    Context::map_current(|context| {
        if context.has_active_span() {
            set(context, key, value);
        }
    });
}

/// Gives what runs another name, if it is traced.
pub fn rename(name: impl FnOnce() -> String) {
    Context::map_current(|context| {
        if context.has_active_span() {
            context.span().update_name(name());
        }
    });
}

/// A future that stays a part of what runs now, on whatever thread it is polled.
pub fn carried<F: Future>(future: F) -> WithContext<F> {
    future.with_current_context()
}

/// Has one span point at another, which did the work for both.
pub fn link(from: &Context, to: &Context) {
    let to = to.span().span_context().clone();
    from.span().add_link(to, Vec::new());
}

/// The caller's span, as W3C trace context names it; an empty context if it does not.
#[must_use]
pub fn of_caller(headers: &HeaderMap) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Reader(headers))
}

/// Whether a caller has its request traced; `None` if it does not say.
#[must_use]
pub fn asked_for(headers: &HeaderMap) -> Option<bool> {
    // 00-<32 hex>-<16 hex>-<2 hex of flags>, the lowest bit of which says so.
    let value = headers.get("traceparent")?.as_bytes();
    let (55, Some(flags)) = (value.len(), value.last()) else {
        return None;
    };
    Some(char::from(*flags).to_digit(16)? & 1 == 1)
}

struct Reader<'a>(&'a HeaderMap);

impl Extractor for Reader<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct Writer<'a>(&'a mut HeaderMap);

impl Injector for Writer<'_> {
    fn set(&mut self, key: &str, value: String) {
        let name = HeaderName::try_from(key);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_names_the_span_that_it_was_taken_of() {
        let place: Place = std::array::from_fn(|at| at as u8 + 1);
        let there = {
            let _runs = at(&place).expect("a span").attach();
            super::place()
        };
        assert_eq!(there, Some(place));
        assert_eq!(super::place(), None, "nothing runs any more");
        for bad in [&[][..], &[1; 23], &[1; 25], &[0; 24]] {
            assert!(at(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_not_traced_makes_no_span() {
        assert!(Span::child(Kind::Client, "GET").is_none());
        assert!(trace_id().is_none());
        let mut headers = HeaderMap::new();
        Span::NONE.inject(&mut headers);
        assert!(headers.is_empty());
    }
}
