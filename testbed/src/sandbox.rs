//! The folder and the processes of a cluster, with somebody to clean them up.
//!
//! A guardian (a shell outside of our process group) holds the reading end of a
//! pipe whose writing end only we have. Whether we drop the sandbox, panic, exit
//! or are killed: the pipe ends, and the guardian stops every process and removes
//! the folder. There is no second way of cleaning up that could rot.

use std::fs::{self, File, Permissions};
use std::io::{PipeWriter, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Doing as _, Result};

/// Records itself with the guardian over its standard input before it becomes
/// the program, so that there is no moment in which the program runs unrecorded.
const RECORD_AND_RUN: &str = "echo \"+ $$ $0\" >&0 && exec \"$@\" </dev/null";

/// How many lines of each log a panicking test prints.
const LINES_ON_PANIC: usize = 40;

/// A temporary folder and the processes that live in it; both are gone when this
/// is dropped, or when the process that holds it ends in any way.
#[derive(Debug)]
pub struct Sandbox {
    folder: PathBuf,
    guardian: Mutex<Option<Guardian>>,
}

#[derive(Debug)]
struct Guardian {
    shell: Child,
    records: PipeWriter,
}

/// How a process is started.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// Names the log file; unique in its sandbox.
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    /// Runs as this user and group instead of ours.
    pub(crate) user: Option<(u32, u32)>,
    /// What stops it for good when nobody waits for what it was doing.
    pub(crate) stop_signal: StopSignal,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum StopSignal {
    Kill,
    /// Postgres: away with all at once, but take the shared memory along.
    Quit,
}

impl Sandbox {
    /// # Errors
    /// If the folder or the guardian cannot be made.
    pub fn create() -> Result<Arc<Self>> {
        let folder = tempfile::Builder::new()
            .prefix("waypost-")
            .tempdir()
            .doing(|| "create a temporary folder".to_owned())?
            .keep();
        // Others may pass through: Postgres runs as a user of its own. What is
        // secret lies in folders of its own below.
        fs::set_permissions(&folder, Permissions::from_mode(0o711))
            .and_then(|()| fs::create_dir(folder.join("logs")))
            .doing(|| format!("prepare {}", folder.display()))?;
        let (input, records) = std::io::pipe().doing(|| "open a pipe".to_owned())?;
        let shell = Command::new("sh")
            .args(["-c", include_str!("guardian.sh"), "waypost-guardian"])
            .arg(&folder)
            .current_dir("/")
            .stdin(input)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .doing(|| "start the guardian".to_owned())?;
        let guardian = Mutex::new(Some(Guardian { shell, records }));
        Ok(Arc::new(Self { folder, guardian }))
    }

    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder with a log of each process.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }

    /// Where the process of that name writes what it has to say.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    /// Stops every process and removes the folder, and returns when that is done.
    /// (A test that is panicking prints the ends of the logs first.)
    pub fn end(&self) {
        if std::thread::panicking() {
            self.print_logs();
        }
        let guardian = self.lock().take();
        if let Some(Guardian { mut shell, records }) = guardian {
            drop(records);
            // Nothing is left to do if even waiting fails.
            let _ = shell.wait();
        }
    }

    /// Starts a process in a group of its own; its output is appended to its log.
    pub(crate) fn spawn(&self, spec: &Spec) -> Result<Child> {
        let action = || format!("start {}", spec.name);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log(&spec.name))
            .doing(action)?;
        let errors = log.try_clone().doing(action)?;
        let records = match &*self.lock() {
            Some(guardian) => guardian.records.try_clone(),
            None => Err(std::io::Error::other("the sandbox has ended")),
        };
        let signal = match spec.stop_signal {
            StopSignal::Kill => "KILL",
            StopSignal::Quit => "QUIT",
        };
        let mut command = Command::new("sh");
        // What the developer has set is not meant for these.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"WAYPOST_") {
                command.env_remove(name);
            }
        }
        command
            .args(["-c", RECORD_AND_RUN, signal])
            .arg(&spec.program)
            .args(&spec.arguments)
            .envs(spec.environment.iter().map(|(key, value)| (key, value)))
            .current_dir(&self.folder)
            .stdin(records.doing(action)?)
            .stdout(log)
            .stderr(errors)
            .process_group(0);
        if let Some((user, group)) = spec.user {
            command.uid(user).gid(group);
        }
        command.spawn().doing(action)
    }

    /// Tells the guardian that a process is gone and its id may name another.
    pub(crate) fn forget(&self, pid: u32) {
        if let Some(guardian) = &mut *self.lock() {
            // Should the guardian have been killed, there is no one to tell.
            let _ = writeln!(guardian.records, "- {pid}");
        }
    }

    /// The last lines of a process's log.
    #[must_use]
    pub fn log_tail(&self, name: &str, lines: usize) -> String {
        tail(&self.log(name), lines)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Guardian>> {
        self.guardian.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn print_logs(&self) {
        let Ok(entries) = fs::read_dir(self.logs()) else {
            return;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let text = tail(&path, LINES_ON_PANIC);
            if !text.is_empty() {
                eprintln!("--- the end of {}\n{text}", path.display());
            }
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.end();
    }
}

fn tail(path: &Path, lines: usize) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
