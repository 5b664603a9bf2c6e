//! Nothing is left of a sandbox, however its owner ends. The owner is this test
//! program, started again with the name of a test that only then does something.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use waypost_testbed::{Broker, Postgres, RedisCluster, RedisNode, Sandbox};

use crate::patience::wait_until;

const IS_OWNER: &str = "TESTBED_OWNER";

/// Not a test of anything by itself: what `Owner` runs.
#[test]
fn owner() {
    if std::env::var_os(IS_OWNER).is_none() {
        return;
    }
    let sandbox = Sandbox::create().unwrap();
    let postgres = Postgres::start_in(&sandbox, "postgres").unwrap();
    let redis = RedisCluster::start_in(&sandbox).unwrap();
    let broker = Broker::start_in(&sandbox).unwrap();
    // A guardian that forgets to wake the frozen would wait for them in vain.
    postgres.pause().unwrap();
    let mut pids = vec![postgres.pid()];
    pids.extend(redis.nodes().iter().map(RedisNode::pid));
    pids.extend(broker.pid());
    println!("\nfolder {}", sandbox.folder().display());
    println!("pids {pids:?}");
    if std::env::var(IS_OWNER).unwrap() == "panics" {
        panic!("as asked");
    }
    wait_until("a signal", || false);
}

struct Owner {
    process: Child,
    folder: PathBuf,
    pids: Vec<i32>,
}

impl Owner {
    fn start(how: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "guardian::owner", "--nocapture"])
            .env(IS_OWNER, how)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (mut folder, mut pids) = (PathBuf::new(), Vec::new());
        for line in lines.map_while(Result::ok) {
            if let Some(path) = line.strip_prefix("folder ") {
                folder = Path::new(path).to_owned();
            }
            if let Some(list) = line.strip_prefix("pids ") {
                let list = list.trim_matches(['[', ']']);
                pids = list.split(", ").map(|pid| pid.parse().unwrap()).collect();
                break;
            }
        }
        assert!(pids.len() > 6 && folder.is_dir());
        Self {
            process,
            folder,
            pids,
        }
    }

    fn is_anything_left(&self) -> bool {
        let is_alive = |pid: &i32| Path::new("/proc").join(pid.to_string()).exists();
        self.folder.exists()
            || self.pids.iter().any(is_alive)
            || self.is_working_in_folder()
            || self.is_sharing_memory()
    }

    /// A Postgres that is killed rather than asked to quit leaves a segment, of
    /// which a system has no endless number.
    fn is_sharing_memory(&self) -> bool {
        let segments = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
        let creators = segments
            .lines()
            .filter_map(|line| line.split_whitespace().nth(4));
        creators
            .filter_map(|pid| pid.parse().ok())
            .any(|pid| self.pids.contains(&pid))
    }

    /// The children of Postgres are seen by that.
    fn is_working_in_folder(&self) -> bool {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let mut folders = processes.filter_map(|entry| entry.path().join("cwd").read_link().ok());
        // "(deleted)" is appended to the path of a folder that is gone.
        folders.any(|folder| {
            folder
                .display()
                .to_string()
                .starts_with(&*self.folder.to_string_lossy())
        })
    }
}

#[test]
fn nothing_is_left_when_the_owner_is_killed() {
    let mut owner = Owner::start("waits");
    assert!(owner.is_working_in_folder() && owner.is_sharing_memory());
    kill(Pid::from_raw(owner.process.id() as i32), Signal::SIGKILL).unwrap();
    owner.process.wait().unwrap();
    wait_until("all is gone", || !owner.is_anything_left());
}

#[test]
fn nothing_is_left_when_the_owner_panics() {
    let mut owner = Owner::start("panics");
    assert!(!owner.process.wait().unwrap().success());
    // Dropped on the way out, so there is nothing to wait for.
    assert!(!owner.is_anything_left());
}
