//! Structured logs on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

use crate::config::{Invalid, LogFormat, ProcessOptions};
use crate::traces::{self, Exporter};

/// Starts logging, and tracing if a collector is named. Called once, first of all.
pub(crate) fn start(
    service: &'static str,
    options: &ProcessOptions,
) -> Result<Option<Exporter>, Invalid> {
    let filter: Targets = options.log.parse().map_err(|error| Invalid {
        option: "--log",
        problem: format!("{error}"),
    })?;
    let json = match options.log_format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let lines = if json {
        fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(std::io::stderr)
            .boxed()
    } else {
        fmt::layer().with_writer(std::io::stderr).boxed()
    };
    let exporter = options
        .otlp_endpoint
        .as_deref()
        .map(|endpoint| Exporter::start(service, endpoint))
        .transpose()?;
    let spans = exporter.as_ref().map(traces::layer);
    tracing_subscriber::registry()
        .with(spans)
        .with(lines.with_filter(filter))
        .init();
    Ok(exporter)
}
