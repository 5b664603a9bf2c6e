//! Structured logs on standard error: one line an event, with the id of the trace that
//! it belongs to, if there is one.

use std::fmt;
use std::io::IsTerminal as _;
use std::panic::PanicHookInfo;

use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{Format, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt as lines};

use crate::config::{Invalid, LogFormat, ProcessOptions};
use crate::traces::{self, Exporter, Fates};

/// Starts logging, and tracing if a collector is named. Called once, first of all.
pub(crate) fn start(
    service: &'static str,
    options: &ProcessOptions,
    spans: Fates,
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
    let layer = lines::layer().with_writer(std::io::stderr);
    let layer = if json {
        let format = lines::format().json().flatten_event(true);
        let format = format.with_current_span(false).with_span_list(false);
        layer.json().event_format(JsonLines(format)).boxed()
    } else {
        layer.boxed()
    };
    let exporter = options
        .otlp_endpoint
        .as_deref()
        .map(|endpoint| Exporter::start(service, endpoint, spans))
        .transpose()?;
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .init();
    std::panic::set_hook(Box::new(report_panic));
    Ok(exporter)
}

/// JSON as `tracing` writes it, and `trace_id`.
struct JsonLines(Format<Json>);

impl<S, F> FormatEvent<S, F> for JsonLines
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    F: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, F>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(trace_id) = traces::trace_id() else {
            return self.0.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.0
            .format_event(context, Writer::new(&mut line), event)?;
        let object = line.trim_end();
        match object.strip_suffix('}') {
            Some(begun) => writeln!(writer, "{begun},\"trace_id\":\"{trace_id}\"}}"),
            None => writer.write_str(&line),
        }
    }
}

/// A panic is a line like any other. Its message is left out if it was put together when
/// it happened: that may quote what somebody sent.
fn report_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string);
    let reason = panic.payload().downcast_ref::<&'static str>();
    let thread = std::thread::current();
    tracing::error!(
        location,
        reason,
        thread = thread.name(),
        "a part of the program panicked"
    );
}
