//! A process of ours.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::http;
use crate::port::Port;
use crate::process::Process;
use crate::proxy::Proxy;
use crate::sandbox::{Sandbox, Spec, StopSignal};

/// A service migrates its database first, perhaps behind another that does, on a
/// machine that starts a dozen others meanwhile.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// Asked again until then, so a server that is busy starting has not failed.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

const PROBE_INTERVAL: Duration = Duration::from_millis(20);

/// Which program a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Gateway,
    ShardNode,
    Keygen,
    AnalyticsConsumer,
}

impl Kind {
    pub const ALL: [Self; 4] = [
        Self::Gateway,
        Self::ShardNode,
        Self::Keygen,
        Self::AnalyticsConsumer,
    ];

    /// The package and the program are called the same.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Gateway => "waypost-gateway",
            Self::ShardNode => "waypost-shard-node",
            Self::Keygen => "waypost-keygen",
            Self::AnalyticsConsumer => "waypost-analytics-consumer",
        }
    }
}

/// The ports of a service, held before it starts, since others must know them.
#[derive(Debug)]
pub(crate) struct Seat {
    listen: Port,
    admin: Port,
    proxy: Option<Proxy>,
}

impl Seat {
    pub(crate) fn reserve(is_proxied: bool) -> Result<Self> {
        let listen = Port::reserve()?;
        let proxy = is_proxied.then(|| Proxy::start(&listen.address()));
        Ok(Self {
            proxy: proxy.transpose()?,
            admin: Port::reserve()?,
            listen,
        })
    }

    fn settings(&self) -> Vec<(String, String)> {
        vec![
            ("WAYPOST_LISTEN".to_owned(), self.listen.address()),
            ("WAYPOST_ADMIN_LISTEN".to_owned(), self.admin.address()),
        ]
    }

    /// What its callers use: `host:port` of the proxy, if there is one.
    pub(crate) fn address(&self) -> String {
        match &self.proxy {
            Some(proxy) => proxy.address(),
            None => self.listen.address(),
        }
    }
}

/// One running program of ours, on ports that it keeps over restarts.
#[derive(Debug)]
pub struct Service {
    process: Process,
    seat: Seat,
}

impl Service {
    /// Starts it and does not wait; `settings` are options by their name in the
    /// environment.
    pub(crate) fn start(
        sandbox: &Arc<Sandbox>,
        programs: &Path,
        kind: Kind,
        name: String,
        seat: Seat,
        settings: Vec<(String, String)>,
    ) -> Result<Self> {
        let mut environment = seat.settings();
        environment.extend(settings);
        let spec = Spec {
            name,
            program: programs.join(kind.program()),
            arguments: Vec::new(),
            environment,
            user: None,
            stop_signal: StopSignal::Kill,
        };
        let process = Process::start(sandbox, spec)?;
        Ok(Self { process, seat })
    }

    /// Starts one more of its program beside it and waits until it is ready: with its
    /// options, except for these by their names in the environment, on ports of its own
    /// without a proxy.
    ///
    /// # Errors
    /// If it does not become ready.
    pub fn beside(&self, name: &str, settings: &[(&str, &str)]) -> Result<Self> {
        let seat = Seat::reserve(false)?;
        let mut spec = self.process.spec().clone();
        name.clone_into(&mut spec.name);
        spec.environment.extend(seat.settings());
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        spec.environment.extend(settings.iter().map(own));
        let process = Process::start(self.process.sandbox(), spec)?;
        let service = Self { process, seat };
        service.wait_ready()?;
        Ok(service)
    }

    /// What its callers use: `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.seat.address()
    }

    /// `host:port` of `/live`, `/ready` and `/metrics`.
    #[must_use]
    pub fn admin(&self) -> String {
        self.seat.admin.address()
    }

    /// Between it and its callers, if the cluster was asked for one.
    #[must_use]
    pub fn proxy(&self) -> Option<&Proxy> {
        self.seat.proxy.as_ref()
    }

    /// Unique in the cluster: `gateway-0`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.process.name()
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.ended().is_none()
    }

    /// Waits until `/ready` says so.
    ///
    /// # Errors
    /// If it ends before, or takes longer than a minute.
    pub fn wait_ready(&self) -> Result<()> {
        let mut last: Option<Instant> = None;
        self.process
            .wait_until("wait for /ready of", READY_DEADLINE, || {
                if last.is_some_and(|at| at.elapsed() < PROBE_INTERVAL) {
                    return false;
                }
                last = Some(Instant::now());
                http::get(&self.admin(), "/ready", PROBE_TIMEOUT)
                    .is_ok_and(|response| response.status == 200)
            })
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// If it does not end.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    /// SIGTERM: it drains. Returns when it has ended, whether with success.
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn terminate(&self, deadline: Duration) -> Result<bool> {
        self.process
            .terminate(deadline)
            .map(|status| status.success())
    }

    /// Freezes it: connections stay and nothing is answered.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }

    /// Starts it again on its ports, killed first if it runs, and waits until it is
    /// ready.
    ///
    /// # Errors
    /// If it does not become so.
    pub fn restart(&self) -> Result<()> {
        self.process.start_again()?;
        self.wait_ready()
    }

    /// Starts it again and does not wait.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_again(&self) -> Result<()> {
        self.process.start_again()
    }
}

/// The folder with our programs: `WAYPOST_BIN_DIR`, else where the running program
/// was built to.
pub fn programs_folder() -> Result<PathBuf> {
    let folder = match std::env::var_os("WAYPOST_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => build_folder().unwrap_or_default(),
    };
    let is_there = |kind: &Kind| folder.join(kind.program()).is_file();
    match Kind::ALL.into_iter().find(|kind| !is_there(kind)) {
        None => Ok(folder),
        Some(kind) => Err(Error::Missing {
            what: format!("{} in {}", kind.program(), folder.display()),
            remedy: "run `cargo build --workspace --bins`, or set WAYPOST_BIN_DIR".to_owned(),
        }),
    }
}

/// A test program lies in `deps` below the others.
fn build_folder() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let folder = program.parent()?;
    let is_deps = folder.file_name().is_some_and(|name| name == "deps");
    let folder = if is_deps { folder.parent()? } else { folder };
    Some(folder.to_owned())
}
