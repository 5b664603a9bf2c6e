//! One child process: its life and the faults done to it.

use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::error::{Doing as _, Error, Result};
use crate::sandbox::{Sandbox, Spec, StopSignal};

/// How often a condition is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(5);

/// Long enough for Postgres to tell its children to quit and see them go.
const STOP_DEADLINE: Duration = Duration::from_secs(3);

/// How many lines of the log an error carries.
const LINES_IN_ERROR: usize = 30;

#[derive(Debug)]
pub(crate) struct Process {
    sandbox: Arc<Sandbox>,
    spec: Spec,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    child: Child,
    ended: Option<ExitStatus>,
}

impl Process {
    pub(crate) fn start(sandbox: &Arc<Sandbox>, spec: Spec) -> Result<Self> {
        let child = sandbox.spawn(&spec)?;
        let state = Mutex::new(State { child, ended: None });
        Ok(Self {
            sandbox: Arc::clone(sandbox),
            spec,
            state,
        })
    }

    /// Runs a program to its end.
    pub(crate) fn run(sandbox: &Arc<Sandbox>, spec: Spec, deadline: Duration) -> Result<()> {
        let process = Self::start(sandbox, spec)?;
        let status = process.wait(deadline)?;
        if status.success() {
            return Ok(());
        }
        Err(process.error("run", status.to_string()))
    }

    /// Starts the same again, on the same ports and data; kills what still runs.
    pub(crate) fn start_again(&self) -> Result<()> {
        self.kill()?;
        let child = self.sandbox.spawn(&self.spec)?;
        *self.lock() = State { child, ended: None };
        Ok(())
    }

    pub(crate) fn sandbox(&self) -> &Arc<Sandbox> {
        &self.sandbox
    }

    pub(crate) fn spec(&self) -> &Spec {
        &self.spec
    }

    pub(crate) fn name(&self) -> &str {
        &self.spec.name
    }

    /// Of the process, or, once it has ended, the one it had.
    pub(crate) fn pid(&self) -> u32 {
        self.lock().child.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        let mut state = self.lock();
        if state.ended.is_none() {
            state.ended = state.child.try_wait().ok().flatten();
            if state.ended.is_some() {
                self.sandbox.forget(state.child.id());
            }
        }
        state.ended
    }

    /// Waits for its end.
    pub(crate) fn wait(&self, deadline: Duration) -> Result<ExitStatus> {
        let mut status = None;
        self.poll("wait for the end of", deadline, || {
            status = self.ended();
            Ok(status.is_some())
        })?;
        status.ok_or_else(|| self.error("wait for the end of", "it goes on".to_owned()))
    }

    /// Waits until the condition holds; fails when the process ends before.
    pub(crate) fn wait_until(
        &self,
        action: &str,
        deadline: Duration,
        mut holds: impl FnMut() -> bool,
    ) -> Result<()> {
        self.poll(action, deadline, || match self.ended() {
            Some(status) => Err(self.error(action, status.to_string())),
            None => Ok(holds()),
        })
    }

    fn poll(
        &self,
        action: &str,
        deadline: Duration,
        mut holds: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let started = Instant::now();
        while !holds()? {
            if started.elapsed() > deadline {
                return Err(self.error(action, format!("not within {deadline:?}")));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// SIGKILL to it and its children; returns when they are gone.
    pub(crate) fn kill(&self) -> Result<()> {
        if self.ended().is_some() {
            return Ok(());
        }
        // A stopped parent makes no more children while we list them.
        self.signal(Signal::SIGSTOP)?;
        let children = children(self.pid());
        send_all(&children, Signal::SIGKILL);
        self.signal(Signal::SIGKILL)?;
        self.wait(STOP_DEADLINE)?;
        self.poll("end the children of", STOP_DEADLINE, || {
            Ok(children.iter().all(|child| !is_alive(*child)))
        })
    }

    /// SIGTERM, then waits for its end.
    pub(crate) fn terminate(&self, deadline: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended() {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        self.wait(deadline)
    }

    /// SIGSTOP to it and its children: they keep their connections and answer
    /// nothing.
    pub(crate) fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        send_all(&children(self.pid()), Signal::SIGSTOP);
        Ok(())
    }

    /// Ends a pause.
    pub(crate) fn resume(&self) -> Result<()> {
        send_all(&children(self.pid()), Signal::SIGCONT);
        self.signal(Signal::SIGCONT)
    }

    pub(crate) fn signal(&self, which: Signal) -> Result<()> {
        if self.ended().is_some() {
            return Ok(());
        }
        // Until `ended` has collected it, the id names no other process.
        signal::killpg(process_id(self.pid()), which)
            .map_err(Into::into)
            .doing(|| format!("send {which} to {}", self.spec.name))
    }

    pub(crate) fn error(&self, action: &str, reason: String) -> Error {
        Error::Process {
            action: format!("{action} {}", self.spec.name),
            reason,
            log: self.sandbox.log_tail(&self.spec.name, LINES_IN_ERROR),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let StopSignal::Quit = self.spec.stop_signal {
            let gone = self
                .resume()
                .and_then(|()| self.signal(Signal::SIGQUIT))
                .and_then(|()| self.wait(STOP_DEADLINE));
            if gone.is_ok() {
                return;
            }
        }
        // The guardian tries again.
        let _ = self.kill();
    }
}

/// Postgres gives each child a session of its own, out of reach of a signal to
/// the group. (Not every kernel is built with `/proc/../children`.)
fn children(pid: u32) -> Vec<Pid> {
    let parent = process_id(pid);
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
        .filter(|candidate| status(*candidate).is_some_and(|(_, of)| of == parent))
        .collect()
}

fn send_all(pids: &[Pid], which: Signal) {
    for pid in pids {
        // A child that is gone by now needs no signal.
        let _ = signal::kill(*pid, which);
    }
}

/// A zombie is as good as gone: its parent has yet to collect it.
fn is_alive(pid: Pid) -> bool {
    status(pid).is_some_and(|(state, _)| state != "Z")
}

/// The state of a process and its parent. The name before them, in parentheses,
/// may hold anything.
fn status(pid: Pid) -> Option<(String, Pid)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.to_owned();
    Some((state, Pid::from_raw(fields.next()?.parse().ok()?)))
}

fn process_id(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("Linux keeps process ids below 2^22"))
}
