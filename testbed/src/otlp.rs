//! The receiving side of OTLP over gRPC: a collector that keeps what it is sent.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span as Message};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::error::{Doing as _, Result};

/// Ends when dropped.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    spans: Spans,
    _runtime: Runtime,
}

type Spans = Arc<Mutex<Vec<Span>>>;

/// A span as it came. Ids are in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub service: String,
    pub name: String,
    /// As in `server`.
    pub kind: String,
    pub trace: String,
    pub id: String,
    /// Empty: none.
    pub parent: String,
    pub attributes: BTreeMap<String, String>,
    /// The spans that it points at.
    pub links: Vec<String>,
    pub is_error: bool,
    /// Nanoseconds since the Unix epoch.
    pub start: u64,
}

impl Collector {
    /// Listens on a free port of loopback.
    ///
    /// # Errors
    /// If it cannot.
    pub fn start() -> Result<Self> {
        let doing = || "start a collector".to_owned();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .doing(doing)?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
        let listener = listener.doing(doing)?;
        let address = listener.local_addr().doing(doing)?;
        let spans = Spans::default();
        let server = Server::builder()
            .add_service(TraceServiceServer::new(Receiver(Arc::clone(&spans))))
            .serve_with_incoming(TcpIncoming::from(listener));
        runtime.spawn(server);
        Ok(Self {
            address,
            spans,
            _runtime: runtime,
        })
    }

    /// What `--otlp-endpoint` names.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All that has come so far, in the order of their beginnings.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        let mut spans = lock(&self.spans).clone();
        spans.sort_by_key(|span| span.start);
        spans
    }

    /// What has come of one trace: a span a line, below the one that it is a part of,
    /// with its service, kind and attributes.
    #[must_use]
    pub fn tree(&self, trace: &str) -> String {
        let mut spans = self.spans();
        spans.retain(|span| span.trace == trace);
        let mut tree = String::new();
        let is_there = |id: &str| spans.iter().any(|span| span.id == id);
        for root in spans.iter().filter(|span| !is_there(&span.parent)) {
            draw(&mut tree, 0, root, &spans);
        }
        tree
    }
}

fn draw(tree: &mut String, depth: usize, span: &Span, all: &[Span]) {
    let indent = "  ".repeat(depth);
    let service = span.service.trim_start_matches("waypost-");
    let _ = write!(tree, "{indent}{} [{service} {}]", span.name, span.kind);
    for (key, value) in &span.attributes {
        let _ = write!(tree, " {key}={value}");
    }
    tree.push_str(if span.is_error { " ERROR\n" } else { "\n" });
    for part in all.iter().filter(|part| part.parent == span.id) {
        draw(tree, depth + 1, part, all);
    }
}

struct Receiver(Spans);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> std::result::Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans;
        lock(&self.0).extend(resources.into_iter().flat_map(spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn spans(of: ResourceSpans) -> impl Iterator<Item = Span> {
    let resource = attributes(of.resource.unwrap_or_default().attributes);
    let service = resource.get("service.name").cloned().unwrap_or_default();
    let scopes = of.scope_spans.into_iter();
    scopes
        .flat_map(|scope| scope.spans)
        .map(move |span| received(service.clone(), span))
}

fn received(service: String, span: Message) -> Span {
    let kind = span.kind().as_str_name();
    let kind = kind.trim_start_matches("SPAN_KIND_").to_lowercase();
    debug_assert_ne!(span.kind(), SpanKind::Unspecified);
    let mut attributes = attributes(span.attributes);
    // None of ours has any of these: shown, so that whoever looks sees them.
    for event in span.events {
        attributes.insert("(event)".to_owned(), event.name);
    }
    if !span.trace_state.is_empty() {
        attributes.insert("(state)".to_owned(), span.trace_state);
    }
    let status = span.status.unwrap_or_default();
    if !status.message.is_empty() {
        attributes.insert("(status)".to_owned(), status.message.clone());
    }
    Span {
        service,
        name: span.name,
        kind,
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        attributes,
        links: span.links.iter().map(|link| hex(&link.span_id)).collect(),
        is_error: status.code() == StatusCode::Error,
        start: span.start_time_unix_nano,
    }
}

fn attributes(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<Value>| match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes
        .into_iter()
        .map(|pair| (pair.key, text(pair.value.and_then(|value| value.value))))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn lock(spans: &Spans) -> MutexGuard<'_, Vec<Span>> {
    spans.lock().unwrap_or_else(PoisonError::into_inner)
}
