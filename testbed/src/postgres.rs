//! A real Postgres server of one's own, and standbys of it.

mod archive;
mod secure;
mod standby;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::unistd::{User, geteuid};

use crate::certificates::Mount;
use crate::error::{Doing as _, Error, Result, write};
use crate::port::Port;
use crate::process::Process;
use crate::program;
use crate::sandbox::{Sandbox, Spec, StopSignal};
use crate::secret::random_hex;

/// `initdb` writes some 40 MB; a machine that is building meanwhile is slow.
const INIT_DEADLINE: Duration = Duration::from_secs(60);

/// A restart after a kill replays the log.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// A shutdown writes what is in memory.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Durable as in production, otherwise small: several servers share a laptop.
/// Dynamic shared memory lies in the data folder and not in `/dev/shm`, so that a
/// kill leaves nothing behind.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
fsync = on
synchronous_commit = on
full_page_writes = on
shared_buffers = 64MB
max_connections = 100
dynamic_shared_memory_type = mmap
huge_pages = off
logging_collector = off
log_line_prefix = '%m [%p] %d '
";

/// A server on a free port of loopback, with its data in a temporary folder;
/// fsync is on. The superuser is `postgres`.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    port: Port,
    folder: PathBuf,
    password: String,
    programs: PathBuf,
    /// What URLs end with where clients come over TLS.
    tls: Option<String>,
}

impl Postgres {
    /// Starts a server in a sandbox of its own.
    ///
    /// # Errors
    /// If Postgres is not installed or does not start.
    pub fn start() -> Result<Self> {
        Self::start_in(&Sandbox::create()?, "postgres")
    }

    /// Starts a server under a name that is unique in the sandbox.
    ///
    /// # Errors
    /// If Postgres is not installed or does not start.
    pub fn start_in(sandbox: &Arc<Sandbox>, name: &str) -> Result<Self> {
        let seat = Seat::take(sandbox, name, random_hex(16)?)?;
        seat.init()?;
        seat.configure("")?;
        seat.serve()
    }

    /// The same, with these certificates: whoever comes over TCP must come over TLS, and
    /// needs no password but one of these, too.
    ///
    /// # Errors
    /// If Postgres is not installed or does not start.
    pub fn start_secured_in(sandbox: &Arc<Sandbox>, name: &str, mount: &Mount) -> Result<Self> {
        let mut seat = Seat::take(sandbox, name, random_hex(16)?)?;
        seat.init()?;
        seat.secure(mount)?;
        seat.configure("")?;
        seat.serve()
    }

    /// The server that all tests of this process share, each with a database of its
    /// own ([`Postgres::fresh_database`]); a server per test costs a second of each.
    /// It lives until the process ends: the guardian removes it.
    ///
    /// # Errors
    /// If Postgres is not installed or did not start.
    pub fn shared() -> std::result::Result<&'static Self, &'static Error> {
        static SHARED: OnceLock<Result<Postgres>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }

    /// The URL of a database, with user and password.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        self.url_through(&self.address(), database)
    }

    /// The same through a proxy at `host:port`.
    #[must_use]
    pub fn url_through(&self, address: &str, database: &str) -> String {
        match &self.tls {
            None => format!("postgres://postgres:{}@{address}/{database}", self.password),
            Some(tls) => format!("postgres://postgres@{address}/{database}?{tls}"),
        }
    }

    /// `host:port`
    #[must_use]
    pub fn address(&self) -> String {
        self.port.address()
    }

    /// Of the server's first process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// # Errors
    /// If there is one of that name, or the server does not answer.
    pub fn create_database(&self, name: &str) -> Result<()> {
        self.query("postgres", &format!("CREATE DATABASE \"{name}\""))
            .map(drop)
    }

    /// Creates a database of a name nobody has; answers its URL.
    ///
    /// # Errors
    /// If the server does not answer.
    pub fn fresh_database(&self) -> Result<String> {
        let name = format!("test_{}", random_hex(8)?);
        self.create_database(&name)?;
        Ok(self.url(&name))
    }

    /// Runs SQL with psql and answers what it prints: a line per row, fields
    /// separated by `|`.
    ///
    /// # Errors
    /// If a statement fails or the server does not answer.
    pub fn query(&self, database: &str, sql: &str) -> Result<String> {
        let output = Command::new(self.programs.join("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
            .args(["-U", "postgres", "-p", &self.port.number().to_string()])
            .arg("-h")
            .arg(&self.folder)
            .args(["-d", database, "-c", sql])
            .env("PGCONNECT_TIMEOUT", "10")
            .stdin(Stdio::null())
            .output()
            .doing(|| "start psql".to_owned())?;
        if output.status.success() {
            let text = String::from_utf8_lossy(&output.stdout);
            return Ok(text.trim_end().to_owned());
        }
        Err(Error::Process {
            action: format!("run SQL in {}", self.process.name()),
            reason: output.status.to_string(),
            log: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// SIGKILL to the server and all its processes: the machine lost power, except
    /// that its disk cache survives.
    ///
    /// # Errors
    /// If they do not end.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    /// Ends it in order, dropping its connections.
    ///
    /// # Errors
    /// If it does not end.
    pub fn stop(&self) -> Result<()> {
        self.process.resume()?;
        self.process.signal(nix::sys::signal::Signal::SIGINT)?;
        self.process.wait(STOP_DEADLINE).map(drop)
    }

    /// Freezes the server: connections stay and nothing is answered.
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

    /// Starts it with the same port and data, killed first if it runs; returns when
    /// it takes connections.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn restart(&self) -> Result<()> {
        self.process.start_again()?;
        self.wait_ready()
    }

    /// By the file with which `pg_ctl` does it: its first line is the server's
    /// process (another one's file may still lie there), its eighth the state.
    fn wait_ready(&self) -> Result<()> {
        let file = self.folder.join("data/postmaster.pid");
        let pid = self.pid().to_string();
        self.process.wait_until("wait for", READY_DEADLINE, || {
            let text = fs::read_to_string(&file).unwrap_or_default();
            let mut lines = text.lines();
            lines.next() == Some(&pid) && lines.nth(6).is_some_and(|line| line.trim() == "ready")
        })
    }
}

/// Where a server is to run: its folder, its port, and as whom.
struct Seat<'a> {
    sandbox: &'a Arc<Sandbox>,
    name: &'a str,
    folder: PathBuf,
    port: Port,
    password: String,
    programs: PathBuf,
    user: Option<(u32, u32)>,
    tls: Option<String>,
}

impl<'a> Seat<'a> {
    fn take(sandbox: &'a Arc<Sandbox>, name: &'a str, password: String) -> Result<Self> {
        let programs = program::postgres_folder()?;
        let user = unprivileged_user()?;
        let folder = sandbox.folder().join(name);
        create_private(&folder, user)?;
        Ok(Self {
            sandbox,
            name,
            folder,
            port: Port::reserve()?,
            password,
            programs,
            user,
            tls: None,
        })
    }

    /// Makes an empty database cluster.
    fn init(&self) -> Result<()> {
        let initdb = self.spec("-initdb", "initdb", init_arguments(self)?);
        Process::run(self.sandbox, initdb, INIT_DEADLINE)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// One of Postgres's programs, which says what it has to under the server's name
    /// and this suffix.
    fn spec(&self, suffix: &str, program: &str, arguments: Vec<String>) -> Spec {
        Spec {
            name: format!("{}{suffix}", self.name),
            program: self.programs.join(program),
            arguments,
            environment: Vec::new(),
            user: self.user,
            stop_signal: StopSignal::Kill,
        }
    }

    /// Writes a file that the server is to read.
    fn write(&self, path: &Path, text: &str) -> Result<()> {
        write_for(path, text, self.user)
    }

    /// Sets what all servers have, where this one is, and the rest.
    fn configure(&self, rest: &str) -> Result<()> {
        let place = format!(
            "port = {}\nunix_socket_directories = '{}'\n",
            self.port.number(),
            self.folder.display()
        );
        let file = self.data().join("postgresql.auto.conf");
        let tls = if self.tls.is_some() {
            secure::SETTINGS
        } else {
            ""
        };
        self.write(&file, &format!("{SETTINGS}{place}{tls}{rest}"))
    }

    /// Starts the server on its data; returns when it takes connections.
    fn serve(self) -> Result<Postgres> {
        let arguments = vec!["-D".to_owned(), self.data().display().to_string()];
        let server = Spec {
            stop_signal: StopSignal::Quit,
            ..self.spec("", "postgres", arguments)
        };
        let postgres = Postgres {
            process: Process::start(self.sandbox, server)?,
            port: self.port,
            folder: self.folder,
            password: self.password,
            programs: self.programs,
            tls: self.tls,
        };
        postgres.wait_ready()?;
        Ok(postgres)
    }
}

/// Nobody else may reach into the folder: the socket in there asks for no password.
fn create_private(folder: &Path, user: Option<(u32, u32)>) -> Result<()> {
    fs::create_dir(folder)
        .and_then(|()| fs::set_permissions(folder, Permissions::from_mode(0o700)))
        .and_then(|()| give(folder, user))
        .doing(|| format!("create {}", folder.display()))
}

/// Writes a file that the server is to read, who runs as this user.
fn write_for(path: &Path, text: &str, user: Option<(u32, u32)>) -> Result<()> {
    write(path, text)?;
    give(path, user).doing(|| format!("give {} to Postgres", path.display()))
}

fn give(path: &Path, user: Option<(u32, u32)>) -> io::Result<()> {
    match user {
        Some((user, group)) => chown(path, Some(user), Some(group)),
        None => Ok(()),
    }
}

fn init_arguments(seat: &Seat<'_>) -> Result<Vec<String>> {
    let file = seat.folder.join("password");
    seat.write(&file, &seat.password)?;
    let mut arguments = vec![
        format!("--pgdata={}", seat.data().display()),
        format!("--pwfile={}", file.display()),
    ];
    let fixed = [
        "--username=postgres",
        "--auth-local=trust",
        // In the clear: it stays on this machine, and many tests connect often.
        "--auth-host=password",
        "--encoding=UTF8",
        "--no-locale",
        // An empty server need not survive a power cut.
        "--no-sync",
        "--no-instructions",
    ];
    arguments.extend(fixed.map(str::to_owned));
    Ok(arguments)
}

/// Whether the programs are there, and the user as whom root runs them.
#[must_use]
pub fn is_installed() -> bool {
    program::postgres_folder().is_ok() && unprivileged_user().is_ok()
}

/// Postgres refuses to run as root; then it runs as user `postgres`, which its
/// package creates.
fn unprivileged_user() -> Result<Option<(u32, u32)>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let user = User::from_name("postgres")
        .map_err(Into::into)
        .doing(|| "look up user postgres".to_owned())?;
    let user = user.ok_or_else(|| Error::Missing {
        what: "user postgres, as whom root runs Postgres".to_owned(),
        remedy: "install the package postgresql".to_owned(),
    })?;
    Ok(Some((user.uid.as_raw(), user.gid.as_raw())))
}
