//! Streaming standbys of a server, and commits that wait for them.

use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use super::{Postgres, Seat};
use crate::error::Result;
use crate::process::Process;

/// A base backup copies some 40 MB, and a checkpoint comes before.
const COPY_DEADLINE: Duration = Duration::from_secs(60);

/// A standby asks for what it lacks every 100 ms.
const STREAM_DEADLINE: Duration = Duration::from_secs(30);

/// How much log a primary keeps for a standby that is down. A slot would keep it
/// without bound.
const KEPT_LOG: &str = "1GB";

impl Postgres {
    /// Starts standbys that stream from this server, and from then on has each commit
    /// wait until one of them, whichever, has it on disk (`ANY 1`). They are called
    /// as this server is, with `-r0`, `-r1`, ..
    ///
    /// # Errors
    /// If one does not start, or does not stream in time.
    pub fn start_standbys(&self, count: usize) -> Result<Vec<Self>> {
        if count == 0 {
            return Ok(Vec::new());
        }
        self.set("wal_keep_size", KEPT_LOG)?;
        let standbys = thread::scope(|scope| {
            let starts: Vec<_> = (0..count)
                .map(|index| scope.spawn(move || self.start_standby(index)))
                .collect();
            starts
                .into_iter()
                .map(|start| start.join().unwrap_or_else(|panic| resume_unwind(panic)))
                .collect::<Result<Vec<_>>>()
        })?;
        let names: Vec<String> = standbys
            .iter()
            .map(|standby| format!("\"{}\"", standby.process.name()))
            .collect();
        let names = names.join(", ");
        self.set("synchronous_standby_names", &format!("ANY 1 ({names})"))?;
        self.wait_streaming(count)?;
        Ok(standbys)
    }

    /// Waits until so many standbys stream and count towards `ANY 1`.
    ///
    /// # Errors
    /// If they do not in time.
    pub fn wait_streaming(&self, count: usize) -> Result<()> {
        let sql = "SELECT count(*) FROM pg_stat_replication
                   WHERE state = 'streaming' AND sync_state = 'quorum'";
        let expected = count.to_string();
        self.process
            .wait_until("wait for the standbys of", STREAM_DEADLINE, || {
                self.query("postgres", sql)
                    .is_ok_and(|text| text == expected)
            })
    }

    fn start_standby(&self, index: usize) -> Result<Self> {
        let name = &format!("{}-r{index}", self.process.name());
        let sandbox = self.process.sandbox();
        let mut seat = Seat::take(sandbox, name, self.password.clone())?;
        // Its certificate comes with the copy.
        seat.tls.clone_from(&self.tls);
        let source = format!(
            "host={} port={} user=postgres application_name={name}",
            self.folder.display(),
            self.port.number(),
        );
        let arguments = vec![
            format!("--dbname={source}"),
            format!("--pgdata={}", seat.data().display()),
            "--wal-method=stream".to_owned(),
            "--checkpoint=fast".to_owned(),
            // A copy that is lost in a power cut is made again.
            "--no-sync".to_owned(),
        ];
        let copy = seat.spec("-basebackup", "pg_basebackup", arguments);
        Process::run(sandbox, copy, COPY_DEADLINE)?;
        // In place of the primary's, which came with the copy. A standby looks for its
        // primary every 5 s by default, which tests would wait for.
        seat.configure(&format!(
            "primary_conninfo = '{source}'\nwal_retrieve_retry_interval = '100ms'\n"
        ))?;
        seat.write(&seat.data().join("standby.signal"), "")?;
        seat.serve()
    }

    /// Changes a setting for good that needs no restart.
    fn set(&self, name: &str, value: &str) -> Result<()> {
        self.query("postgres", &format!("ALTER SYSTEM SET {name} = '{value}'"))?;
        // Not in one: ALTER SYSTEM runs in no transaction.
        self.query("postgres", "SELECT pg_reload_conf()").map(drop)
    }
}
