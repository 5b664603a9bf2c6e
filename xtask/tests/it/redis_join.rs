//! The Job that makes one Redis Cluster of a region's nodes, on real servers.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const NODES: usize = 6;

fn manifests() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/k8s/base/redis")
}

/// Servers with the manifests' settings, on ports that were free a moment ago.
struct Servers {
    processes: Vec<Child>,
    ports: Vec<u16>,
}

impl Servers {
    /// What they know of each other is in the folder, from one start to the next.
    fn start(folder: &Path) -> Self {
        let settings = fs::read_to_string(manifests().join("redis.conf")).unwrap();
        let ports = free_ports();
        let processes = ports.iter().enumerate().map(|(index, port)| {
            let data = folder.join(index.to_string());
            fs::create_dir_all(&data).unwrap();
            let own = format!("dir {}", data.display());
            let settings = settings
                .replace("dir /data", &own)
                .replace("bind * -::*", "bind 127.0.0.1");
            let file = data.join("redis.conf");
            fs::write(&file, settings).unwrap();
            Command::new("redis-server")
                .arg(file)
                .args(["--port", &port.to_string()])
                .args(["--maxmemory", "32mb"])
                .args(["--cluster-announce-ip", "127.0.0.1"])
                .args(["--cluster-announce-hostname", "localhost"])
                .stdout(Stdio::null())
                .spawn()
                .expect("redis-server is installed by `cargo xtask packages`")
        });
        Self {
            processes: processes.collect(),
            ports: ports.clone(),
        }
    }

    /// Runs the Job's script; answers the last line that it prints.
    fn join(&self) -> String {
        let nodes = self.ports.iter().map(|port| format!("127.0.0.1:{port}"));
        let output = Command::new("sh")
            .arg(manifests().join("join.sh"))
            .env("REDIS_NODES", nodes.collect::<Vec<_>>().join(" "))
            .env("REDIS_REPLICAS", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}\n{output:?}");
        // What redis-cli colours, it leaves so.
        let last = said.lines().last().unwrap_or_default();
        last.trim_start_matches("\u{1b}[0m").to_owned()
    }

    fn query(&self, node: usize, command: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-c", "-p", &self.ports[node].to_string()])
            .args(command)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Of each node, whose replica it is, if it is one.
    fn masters(&self) -> Vec<String> {
        let of = |node| {
            let own = self.query(node, &["cluster", "nodes"]);
            let own = own.lines().find(|line| line.contains("myself"));
            own.unwrap().split(' ').nth(3).unwrap().to_owned()
        };
        (0..NODES).map(of).collect()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// With room for the ports of the nodes among themselves, which are 10,000 higher.
fn free_ports() -> Vec<u16> {
    let mut held = Vec::new();
    while held.len() < NODES {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        held.push(listener);
        let port = held[held.len() - 1].local_addr().unwrap().port();
        if port > 55_000 || TcpListener::bind(("127.0.0.1", port + 10_000)).is_err() {
            held.pop();
        }
    }
    let ports = held
        .iter()
        .map(|listener| listener.local_addr().unwrap().port());
    ports.collect()
}

#[test]
fn nodes_are_joined_once_and_found_again_when_all_their_addresses_have_changed() {
    let folder = tempfile::tempdir().unwrap();
    let servers = Servers::start(folder.path());
    assert_eq!(servers.join(), "one cluster of 6 nodes");
    let masters = servers.masters();
    assert_eq!(masters.iter().filter(|master| *master == "-").count(), 3);
    assert_eq!(servers.query(0, &["set", "a", "1"]), "OK");
    // Nothing is done to a cluster that there is.
    assert_eq!(servers.join(), "one cluster of 6 nodes");
    assert_eq!(servers.masters(), masters);
    assert_eq!(servers.query(1, &["get", "a"]), "1");
    drop(servers);
    let elsewhere = Servers::start(folder.path());
    assert_eq!(elsewhere.join(), "one cluster of 6 nodes");
    for node in 0..NODES {
        let known = elsewhere.query(node, &["cluster", "nodes"]);
        assert!(
            !known.contains("fail") && !known.contains("disconnected"),
            "{known}"
        );
        assert_eq!(elsewhere.query(node, &["set", "b", "2"]), "OK");
    }
}
