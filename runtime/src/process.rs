//! From `main` to exit code: what all binaries do before and after they serve.

use std::net::SocketAddr;
use std::num::NonZero;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;

use crate::admin::{self, Readiness};
use crate::config::{self, Invalid, Options, ProcessOptions, Stop};
use crate::metrics::{self, Label, Registry};
use crate::traces::{Fates, Sampler};
use crate::watched::Watcher;
use crate::{Shutdown, logs};

/// `EX_USAGE` of sysexits.h: the configuration is wrong, so that starting again
/// does not help.
const EXIT_BAD_CONFIG: u8 = 64;

/// What a drain may take beyond its grace period before the process is ended.
const OVERRUN: Duration = Duration::from_secs(2);

/// What every part of a process shares. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Process {
    pub shutdown: Shutdown,
    pub readiness: Readiness,
    pub registry: Registry,
    pub sampler: Sampler,
    pub watcher: Watcher,
    /// Threads that are to serve, at least one.
    pub threads: usize,
}

/// Why a process could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operator must change an option.
    #[error(transparent)]
    Config(#[from] Invalid),
    #[error("failed to {doing}")]
    Failed {
        /// What was being done, as in "failed to bind 127.0.0.1:80".
        doing: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// Wraps an error with what was being done.
    pub fn failed(
        doing: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Failed {
            doing: doing.into(),
            source: source.into(),
        }
    }
}

/// Runs a binary: reads its options, starts logs, signals and the admin port, and
/// calls `serve`, which returns when it has drained.
pub fn main<C, F>(service: &'static str, serve: impl FnOnce(C, Process) -> F) -> ExitCode
where
    C: Options,
    F: Future<Output = Result<(), Error>>,
{
    let options: C = match config::parse(std::env::args_os().skip(1)) {
        Ok(options) => options,
        Err(Stop::Shown(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(Stop::Bad(line)) => return bad_config(service, &line),
    };
    match options.run_instead() {
        None => {}
        Some(Ok(())) => return ExitCode::SUCCESS,
        Some(Err(Error::Config(invalid))) => return bad_config(service, &invalid.to_string()),
        Some(Err(error)) => {
            eprintln!("{service}: {error}");
            return ExitCode::FAILURE;
        }
    }
    raise_file_limit();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all();
    builder.worker_threads(threads(options.process()));
    let runtime = match builder.build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{service}: cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run(service, options, serve));
    // Tasks that are left over hold nothing that was acknowledged.
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}

/// As many as are asked for, or one per core that this process may use.
fn threads(options: &ProcessOptions) -> usize {
    match options.threads {
        0 => std::thread::available_parallelism().map_or(1, NonZero::get),
        asked => asked.into(),
    }
}

/// Raises the number of open files to what is allowed: the usual soft limit of 1,024
/// is for programs that call select(2).
fn raise_file_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        eprintln!("cannot raise the limit of {soft} open files: {error}");
    }
}

async fn run<C, F>(
    service: &'static str,
    options: C,
    serve: impl FnOnce(C, Process) -> F,
) -> ExitCode
where
    C: Options,
    F: Future<Output = Result<(), Error>>,
{
    let registry = Registry::new();
    let (watcher, spans) = register_metrics(&registry).expect("no metric has their names yet");
    // The exporter of traces needs the runtime, so that logs start inside it.
    let exporter = match logs::start(service, options.process(), spans) {
        Ok(exporter) => exporter,
        Err(invalid) => return bad_config(service, &invalid.to_string()),
    };
    let sampler = match &exporter {
        Some(_) => Sampler::one_in(options.process().trace_one_in),
        None => Sampler::OFF,
    };
    let process = Process {
        shutdown: Shutdown::new(options.process().shutdown_grace),
        readiness: Readiness::default(),
        watcher,
        registry,
        sampler,
        threads: threads(options.process()),
    };
    let result = match start_admin(&options, &process).await {
        Ok(()) => {
            let shutdown = process.shutdown.clone();
            tokio::select! {
                result = serve(options, process) => result,
                () = overrun(&shutdown) => Err(Error::failed("drain in time", "the grace period is over")),
            }
        }
        Err(error) => Err(error),
    };
    if let Some(exporter) = exporter {
        // It blocks while it sends, on a thread that may.
        let _ = tokio::task::spawn_blocking(move || exporter.stop()).await;
    }
    match result {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(Error::Config(invalid)) => bad_config(service, &invalid.to_string()),
        Err(error) => {
            tracing::error!(error = with_causes(&error), "ended by an error");
            ExitCode::FAILURE
        }
    }
}

/// What every process tells of itself.
pub(crate) fn register_metrics(registry: &Registry) -> metrics::Result<(Watcher, Fates)> {
    registry.add_process()?;
    let build = registry.gauges(
        "waypost_build_info",
        "1 for the build that runs",
        &[
            Label::such("version", "of the release"),
            Label::such("revision", "of the source, or `unknown`"),
        ],
    )?;
    // Whoever builds says so, since the source alone does not tell.
    let revision = option_env!("WAYPOST_REVISION").unwrap_or("unknown");
    build
        .with_label_values(&[env!("CARGO_PKG_VERSION"), revision])
        .set(1);
    Ok((Watcher::register(registry)?, Fates::register(registry)?))
}

/// Binds the address that an option gives.
///
/// # Errors
/// If this machine does not have it, or another process does.
pub async fn bind(option: &'static str, address: SocketAddr) -> Result<TcpListener, Invalid> {
    let bound = TcpListener::bind(address).await;
    let listener = bound.map_err(|error| Invalid {
        option,
        problem: format!("cannot bind {address}: {error}"),
    })?;
    let address = listener.local_addr().unwrap_or(address);
    tracing::info!(option, %address, "listening");
    Ok(listener)
}

async fn start_admin<C: Options>(options: &C, process: &Process) -> Result<(), Error> {
    let listener = bind("--admin-listen", options.admin_listen()).await?;
    process
        .shutdown
        .on_signals()
        .map_err(|error| Error::failed("listen to signals", error))?;
    let (shutdown, readiness) = (process.shutdown.clone(), process.readiness.clone());
    tokio::spawn(async move {
        shutdown.requested().await;
        readiness.drain();
    });
    tokio::spawn(admin::serve(
        listener,
        process.readiness.clone(),
        process.registry.clone(),
    ));
    Ok(())
}

/// Returns when a drain has taken too long.
async fn overrun(shutdown: &Shutdown) {
    shutdown.requested().await;
    tokio::time::sleep_until(shutdown.deadline() + OVERRUN).await;
}

/// An error and what led to it, in one line. Some errors repeat their cause: it is
/// said once.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    line
}

fn bad_config(service: &str, line: &str) -> ExitCode {
    eprintln!("{service}: bad configuration: {line}");
    ExitCode::from(EXIT_BAD_CONFIG)
}
