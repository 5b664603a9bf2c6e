//! `cargo xtask cluster up`: what it writes, what it keeps alive, and that nothing
//! is left of it.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use reqwest::blocking::Client;
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use waypost_testbed::http;

/// It may build our programs first, from nothing, on a slow machine.
const UP_DEADLINE: Duration = Duration::from_secs(30 * 60);

/// A restarted process migrates and connects, on a machine that may be building.
const REVIVAL_DEADLINE: Duration = Duration::from_secs(60);

/// Every server is killed, and Postgres is asked first.
const END_DEADLINE: Duration = Duration::from_secs(30);

const REQUEST_DEADLINE: Duration = Duration::from_secs(15);

const POLL: Duration = Duration::from_millis(20);

#[track_caller]
fn wait_until(what: &str, deadline: Duration, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < deadline, "{what}: not in {deadline:?}");
        std::thread::sleep(POLL);
    }
}

/// `cluster up`, in a process group of its own as a shell would start it.
struct Up {
    process: Child,
    file: PathBuf,
}

impl Up {
    fn start(file: PathBuf) -> Self {
        let process = Command::new(env!("CARGO_BIN_EXE_waypost-xtask"))
            .args([
                "cluster",
                "up",
                "--profile",
                "dev",
                "--supervise",
                "--observe",
            ])
            .args(["--shards", "1", "--nodes-per-shard", "1"])
            .args(["--replicas", "1", "--gateways", "1", "--state"])
            .arg(&file)
            .process_group(0)
            .spawn()
            .unwrap();
        let mut up = Self { process, file };
        wait_until("the cluster is up", UP_DEADLINE, || {
            let ended = up.process.try_wait().unwrap();
            assert!(ended.is_none(), "it ended instead: {ended:?}");
            up.file.exists()
        });
        up
    }

    /// Complete at any moment: the file is replaced as a whole.
    fn state(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(&self.file).unwrap()).unwrap()
    }

    fn group(&self) -> Pid {
        Pid::from_raw(self.process.id().try_into().unwrap())
    }

    /// What ^C sends.
    fn interrupt(&mut self) -> ExitStatus {
        killpg(self.group(), Signal::SIGINT).unwrap();
        let mut status = None;
        wait_until("the end after SIGINT", END_DEADLINE, || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Up {
    /// When the test fails; the guardian of its sandbox does the rest.
    fn drop(&mut self) {
        if let Ok(None) = self.process.try_wait() {
            let _ = killpg(self.group(), Signal::SIGKILL);
            let _ = self.process.wait();
        }
    }
}

/// A server that the state names, and the program it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Server {
    pid: u64,
    programs: &'static [&'static str],
}

impl Server {
    fn of(pid: &Value, programs: &'static [&'static str]) -> Self {
        let pid = pid.as_u64().unwrap();
        Self { pid, programs }
    }

    /// Not so for a shell around it, for a zombie, or for another process that was
    /// given the number since.
    fn is_running(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let is_zombie = stat
            .rsplit_once(") ")
            .is_none_or(|(_, state)| state.starts_with('Z'));
        let comm = fs::read_to_string(format!("/proc/{}/comm", self.pid)).unwrap_or_default();
        !is_zombie
            && self
                .programs
                .iter()
                .any(|program| cut(program) == comm.trim())
    }
}

/// The kernel keeps 15 bytes of a name.
fn cut(program: &str) -> &str {
    &program[..program.len().min(15)]
}

#[track_caller]
fn assert_keys(value: &Value, expected: &[&str]) {
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    let mut keys: Vec<&String> = value.as_object().unwrap().keys().collect();
    keys.sort_unstable();
    assert_eq!(keys, expected);
}

#[track_caller]
fn entries<'a>(state: &'a Value, list: &str, count: usize, keys: &[&str]) -> &'a [Value] {
    let entries = state[list].as_array().unwrap();
    assert_eq!(entries.len(), count, "{list}");
    for entry in entries {
        assert_keys(entry, keys);
    }
    entries
}

#[track_caller]
fn assert_address(value: &Value) {
    assert!(
        value.as_str().unwrap().parse::<SocketAddr>().is_ok(),
        "{value}"
    );
}

#[track_caller]
fn assert_ready(process: &Value) {
    let admin = process["admin"].as_str().unwrap();
    let address = admin.strip_prefix("http://").unwrap();
    let answer = http::get(address, "/ready", REQUEST_DEADLINE).unwrap();
    assert_eq!(answer.status, 200, "{admin}");
}

/// Checks every key that is promised, and answers all servers.
fn servers(state: &Value, file: &Path) -> Vec<Server> {
    let top = [
        "gateways",
        "shards",
        "keygen",
        "analytics",
        "redis",
        "kafka",
        "kafkaPid",
        "analyticsPostgres",
        "token",
        "stateFile",
        "shardMap",
        "secrets",
        "prometheus",
        "prometheusPid",
    ];
    assert_keys(state, &top);
    // For tools that speak with the services, such as the mover of prefixes.
    let path = |key: &str| Path::new(state[key].as_str().unwrap());
    assert!(path("shardMap").is_file() && path("secrets").is_dir());
    let prometheus = state["prometheus"].as_str().unwrap();
    let address = prometheus.strip_prefix("http://").unwrap();
    let page = http::get(address, "/consoles/index.html", REQUEST_DEADLINE).unwrap();
    assert_eq!(page.status, 200);
    let mut servers = vec![Server::of(&state["prometheusPid"], &["prometheus"])];
    for gateway in entries(state, "gateways", 1, &["url", "admin", "pid"]) {
        assert_address(&json!(
            gateway["url"].as_str().unwrap().replace("http://", "")
        ));
        assert_ready(gateway);
        servers.push(Server::of(&gateway["pid"], &["waypost-gateway"]));
    }
    for shard in entries(
        state,
        "shards",
        1,
        &["id", "postgres", "postgresPid", "replicas", "nodes"],
    ) {
        assert!(!shard["id"].as_str().unwrap().is_empty());
        servers.push(Server::of(&shard["postgresPid"], &["postgres"]));
        for replica in entries(shard, "replicas", 1, &["postgres", "postgresPid"]) {
            assert_eq!(
                query(&replica["postgres"], "select pg_is_in_recovery()"),
                "t"
            );
            servers.push(Server::of(&replica["postgresPid"], &["postgres"]));
        }
        for node in entries(shard, "nodes", 1, &["grpc", "admin", "pid"]) {
            assert_address(&node["grpc"]);
            assert_ready(node);
            servers.push(Server::of(&node["pid"], &["waypost-shard-node"]));
        }
    }
    for keygen in entries(state, "keygen", 2, &["grpc", "admin", "pid"]) {
        assert_address(&keygen["grpc"]);
        assert_ready(keygen);
        servers.push(Server::of(&keygen["pid"], &["waypost-keygen"]));
    }
    for consumer in entries(state, "analytics", 1, &["admin", "pid"]) {
        assert_ready(consumer);
        servers.push(Server::of(
            &consumer["pid"],
            &["waypost-analytics-consumer"],
        ));
    }
    for node in entries(state, "redis", 6, &["addr", "pid"]) {
        assert_address(&node["addr"]);
        servers.push(Server::of(&node["pid"], &["redis-server"]));
    }
    // Nobody else's broker has a process of ours.
    if std::env::var_os("WAYPOST_KAFKA").is_none_or(|servers| servers.is_empty()) {
        assert_address(&state["kafka"]);
        servers.push(Server::of(&state["kafkaPid"], &["nisshi", "tansu"]));
    }
    assert_eq!(state["stateFile"].as_str(), file.to_str());
    servers
}

/// What psql answers at that URL.
#[track_caller]
fn query(url: &Value, sql: &str) -> String {
    let output = Command::new("psql")
        .args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-d",
            url.as_str().unwrap(),
            "-c",
            sql,
        ])
        .env("PGCONNECT_TIMEOUT", "10")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A user of the first gateway, with the token of the state.
struct User {
    http: Client,
    url: String,
    token: String,
}

impl User {
    fn of(state: &Value) -> Self {
        let http = Client::builder()
            .redirect(Policy::none())
            .timeout(REQUEST_DEADLINE)
            .build()
            .unwrap();
        Self {
            http,
            url: state["gateways"][0]["url"].as_str().unwrap().to_owned(),
            token: state["token"].as_str().unwrap().to_owned(),
        }
    }

    /// The slug, or the status of the refusal.
    fn shorten(&self, url: &str) -> Result<String, u16> {
        let request = self.http.post(format!("{}/shorten", self.url));
        let body = json!({ "url": url });
        let response = request.bearer_auth(&self.token).json(&body).send().unwrap();
        if response.status() != 201 {
            return Err(response.status().as_u16());
        }
        let answer: Value = response.json().unwrap();
        Ok(answer["slug"].as_str().unwrap().to_owned())
    }

    fn follow(&self, slug: &str) -> (u16, String) {
        let response = self
            .http
            .get(format!("{}/{slug}", self.url))
            .send()
            .unwrap();
        let location = response.headers().get("location");
        let location = location.map_or("", |location| location.to_str().unwrap());
        (response.status().as_u16(), location.to_owned())
    }
}

#[test]
fn a_cluster_is_described_is_kept_alive_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Up::start(folder.path().join("cluster.json"));
    let state = up.state();
    let mut all = servers(&state, &up.file);
    for server in &all {
        assert!(server.is_running(), "{server:?}");
    }

    let user = User::of(&state);
    let expected = (302, "https://example.com/up".to_owned());
    let slug = user.shorten(&expected.1).unwrap();
    assert_eq!(user.follow(&slug), expected);
    let postgres = &state["shards"][0]["postgres"];
    assert_eq!(query(postgres, "select count(*) from links"), "1");
    assert_eq!(query(&state["analyticsPostgres"], "select 1"), "1");

    let pid = |state: &Value| state["shards"][0]["nodes"][0]["pid"].as_i64().unwrap();
    let killed = pid(&state);
    kill(Pid::from_raw(killed.try_into().unwrap()), Signal::SIGKILL).unwrap();
    wait_until("the file names another process", REVIVAL_DEADLINE, || {
        pid(&up.state()) != killed
    });
    // Only a shard node can make one.
    let mut another = None;
    wait_until("the shard takes links again", REVIVAL_DEADLINE, || {
        another = user.shorten("https://example.com/up").ok();
        another.is_some()
    });
    for slug in [slug, another.unwrap()] {
        assert_eq!(user.follow(&slug), expected);
    }
    for server in servers(&up.state(), &up.file) {
        assert!(server.is_running(), "{server:?}");
        if !all.contains(&server) {
            all.push(server);
        }
    }

    assert_eq!(up.interrupt().code(), Some(0));
    assert!(!up.file.exists());
    // Who ended them has waited for that: there is nothing to wait for.
    for server in &all {
        assert!(!server.is_running(), "{server:?} is left");
    }
}
