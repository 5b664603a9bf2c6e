//! Archiving of the log, and what it is for: a restore to a moment of the past.

use std::path::PathBuf;
use std::time::Duration;

use super::{Postgres, create_private, unprivileged_user, write_for};
use crate::error::{Doing as _, Result};
use crate::process::Process;
use crate::sandbox::{Spec, StopSignal};

/// A base backup copies some 40 MB, and a checkpoint comes before.
const COPY_DEADLINE: Duration = Duration::from_secs(60);

/// To read the log that came after a base backup of seconds ago.
const REPLAY_DEADLINE: Duration = Duration::from_secs(60);

impl Postgres {
    /// Archives the log from now on, and makes a base backup: what a restore to any later
    /// moment needs. Restarts the server.
    ///
    /// # Errors
    /// If the server does not come up again, or the copy fails.
    pub fn archive(&self) -> Result<()> {
        let archive = self.archive_folder();
        create_private(&archive, unprivileged_user()?)?;
        let command = format!("test ! -f {0}/%f && cp %p {0}/%f", archive.display());
        self.query("postgres", "ALTER SYSTEM SET archive_mode = on")?;
        let sql = format!("ALTER SYSTEM SET archive_command = '{command}'");
        self.query("postgres", &sql)?;
        self.restart()?;
        self.run(
            "-base",
            "pg_basebackup",
            vec![
                format!("--host={}", self.folder.display()),
                format!("--port={}", self.port.number()),
                "--username=postgres".to_owned(),
                format!("--pgdata={}", self.folder.join("base").display()),
                "--checkpoint=fast".to_owned(),
                "--wal-method=none".to_owned(),
                "--no-sync".to_owned(),
            ],
        )
    }

    /// Puts the server back to a moment after [`Postgres::archive`], as Postgres writes
    /// times: out of the base backup and the archive alone, on the same port. Returns when
    /// it takes writes again.
    ///
    /// # Errors
    /// If the archive does not reach that far.
    pub fn restore_to(&self, moment: &str) -> Result<()> {
        // What is in the log's last file leaves the machine with it.
        self.query("postgres", "SELECT pg_switch_wal()")?;
        self.stop()?;
        let data = self.folder.join("data");
        let lost = self.folder.join("data.lost");
        std::fs::rename(&data, &lost).doing(|| format!("move {}", data.display()))?;
        std::fs::rename(self.folder.join("base"), &data)
            .doing(|| format!("move a base backup to {}", data.display()))?;
        let settings = std::fs::read_to_string(data.join("postgresql.auto.conf"))
            .doing(|| "read the settings of the base backup".to_owned())?;
        let user = unprivileged_user()?;
        write_for(
            &data.join("postgresql.auto.conf"),
            &format!(
                "{settings}\nrestore_command = 'cp {}/%f %p'\nrecovery_target_time = '{moment}'\n\
                 recovery_target_action = promote\n",
                self.archive_folder().display()
            ),
            user,
        )?;
        write_for(&data.join("recovery.signal"), "", user)?;
        self.restart()?;
        let in_recovery = "SELECT pg_is_in_recovery()";
        self.process
            .wait_until("wait for the restore of", REPLAY_DEADLINE, || {
                self.query("postgres", in_recovery)
                    .is_ok_and(|answer| answer == "f")
            })
    }

    fn archive_folder(&self) -> PathBuf {
        self.folder.join("archive")
    }

    fn run(&self, suffix: &str, program: &str, arguments: Vec<String>) -> Result<()> {
        let spec = Spec {
            name: format!("{}{suffix}", self.process.name()),
            program: self.programs.join(program),
            arguments,
            environment: Vec::new(),
            user: unprivileged_user()?,
            stop_signal: StopSignal::Kill,
        };
        Process::run(self.process.sandbox(), spec, COPY_DEADLINE)
    }
}
