//! Any other program that serves on loopback, such as one to compare with.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Doing as _, Error, Result};
use crate::process::Process;
use crate::program;
use crate::sandbox::{Sandbox, Spec, StopSignal};

/// It has nothing to recover or to wait for.
const READY_DEADLINE: Duration = Duration::from_secs(20);

/// Loopback answers at once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);

/// One running program; it ends when this is dropped, or with its sandbox.
#[derive(Debug)]
pub struct Server {
    process: Process,
}

impl Server {
    /// Starts a program of the search path, which must stay in the foreground,
    /// under a name that is unique in the sandbox; returns when it takes connections
    /// at `address` (`host:port`).
    ///
    /// # Errors
    /// If it is not installed or does not come up.
    pub fn start_in(
        sandbox: &Arc<Sandbox>,
        name: &str,
        program: &str,
        arguments: Vec<String>,
        address: &str,
    ) -> Result<Self> {
        let address: SocketAddr = address
            .parse()
            .map_err(std::io::Error::other)
            .doing(|| format!("read the address of {name}"))?;
        let program = program::of_system(program).ok_or_else(|| Error::Missing {
            what: program.to_owned(),
            remedy: format!("install the package that holds {program}"),
        })?;
        let spec = Spec {
            name: name.to_owned(),
            program,
            arguments,
            environment: Vec::new(),
            user: None,
            stop_signal: StopSignal::Kill,
        };
        let process = Process::start(sandbox, spec)?;
        process.wait_until("wait for", READY_DEADLINE, || {
            TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).is_ok()
        })?;
        Ok(Self { process })
    }

    /// Waits for more than connections.
    pub(crate) fn wait_until(&self, action: &str, holds: impl FnMut() -> bool) -> Result<()> {
        self.process.wait_until(action, READY_DEADLINE, holds)
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}
