//! The Job that makes one Redis Cluster of a region's nodes, and what a node is started
//! with, on real servers.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use waypost_testbed::certificates::{Authority, Life, Mount};

const NODES: usize = 6;

fn manifests() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/k8s")
}

/// What redis-cli is given, so that it speaks TLS.
fn words(mount: &Mount) -> String {
    let (certificate, key) = (mount.certificate(), mount.key());
    format!(
        "--tls --cert {} --key {} --cacert {}",
        certificate.display(),
        key.display(),
        mount.authorities().display()
    )
}

/// Servers with the manifests' settings, on ports that were free a moment ago.
struct Servers {
    processes: Vec<Child>,
    ports: Vec<u16>,
    /// Empty where nothing is encrypted.
    tls: String,
}

impl Servers {
    /// What they know of each other is in the folder, from one start to the next.
    fn start(folder: &Path) -> Self {
        let start = |file: &Path, port: u16| {
            let mut command = Command::new("redis-server");
            command.arg(file).args(["--port", &port.to_string()]);
            command
        };
        Self::with("base/redis/redis.conf", folder, String::new(), start)
    }

    /// By the script that a node with a certificate is started by.
    fn start_with_tls(folder: &Path, mount: &Mount) -> Self {
        let certificates = mount.certificate();
        let certificates = certificates.parent().unwrap();
        let tls = words(mount);
        let start = |file: &Path, port: u16| {
            let mut command = Command::new("sh");
            command
                .arg(manifests().join("components/redis-tls/start.sh"))
                .arg(file)
                .args(["--tls-port", &port.to_string()])
                .env("TLS_DIR", certificates)
                .env("REDIS_TLS", format!("-p {port} {tls}"))
                .env("REDIS_RENEW_S", "1");
            for (name, file) in [
                ("cert", "tls.crt"),
                ("key", "tls.key"),
                ("ca-cert", "ca.crt"),
            ] {
                let file = certificates.join(file).display().to_string();
                command.args([&format!("--tls-{name}-file"), &file]);
            }
            command
        };
        // The one file names the other by its place in a pod.
        let both = folder.join("tls.conf");
        let settings = ["base/redis/redis.conf", "components/redis-tls/tls.conf"]
            .map(|file| fs::read_to_string(manifests().join(file)).unwrap());
        let include = "include /etc/redis/redis.conf\n";
        let settings = settings[1].replace(include, &settings[0]);
        fs::write(&both, settings).unwrap();
        Self::with(&both.display().to_string(), folder, tls.clone(), start)
    }

    fn with(
        settings: &str,
        folder: &Path,
        tls: String,
        start: impl Fn(&Path, u16) -> Command,
    ) -> Self {
        let settings = fs::read_to_string(manifests().join(settings)).unwrap();
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
            start(&file, *port)
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
            tls,
        }
    }

    /// Runs the Job's script; answers the last line that it prints.
    fn join(&self) -> String {
        let nodes = self.ports.iter().map(|port| format!("127.0.0.1:{port}"));
        let output = Command::new("sh")
            .arg(manifests().join("base/redis/join.sh"))
            .env("REDIS_TLS", &self.tls)
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
            .args(self.tls.split_whitespace())
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

#[test]
fn nodes_speak_tls_alone_and_show_a_renewed_certificate_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create(&folder.path().join("authority")).unwrap();
    let mount = Mount::create(&folder.path().join("tls"), &authority).unwrap();
    let servers = Servers::start_with_tls(folder.path(), &mount);
    assert_eq!(servers.join(), "one cluster of 6 nodes");
    // From one node to the other, and to the replicas.
    assert_eq!(servers.query(0, &["set", "a", "1"]), "OK");
    assert_eq!(servers.query(1, &["get", "a"]), "1");
    let replicated = servers.query(0, &["cluster", "nodes"]);
    assert_eq!(
        replicated.matches(" connected").count(),
        NODES,
        "{replicated}"
    );
    let ask = |words: &str| {
        let output = Command::new("redis-cli")
            .args(["-p", &servers.ports[0].to_string()])
            .args(words.split_whitespace())
            .arg("ping")
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(ask(&servers.tls), "PONG");
    assert_eq!(ask(""), "", "in the clear");
    let stranger = Authority::create(&folder.path().join("stranger")).unwrap();
    let strange = Mount::create(&folder.path().join("strange"), &stranger).unwrap();
    assert_eq!(
        ask(&words(&strange)),
        "",
        "with another authority's certificate"
    );

    let shown = || {
        let output = Command::new("openssl")
            .args(["s_client", "-connect"])
            .arg(format!("127.0.0.1:{}", servers.ports[0]))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let from = said.find("-----BEGIN").expect("a certificate is shown");
        said[from..].split("-----END").next().unwrap().to_owned()
    };
    let before = shown();
    mount.replace(&authority, Life::Day, &[&authority]).unwrap();
    let renewed = Instant::now();
    while shown() == before {
        assert!(renewed.elapsed() < Duration::from_secs(20), "not renewed");
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(servers.join(), "one cluster of 6 nodes");
}
