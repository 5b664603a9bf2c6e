//! `deploy/docker`, without Docker: what can be read of it is as the programs have it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use waypost_domain::ShardId;
use waypost_domain::shard_map::{Shard, ShardMap};
use waypost_testbed::{pip, service};

fn folder() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    workspace.join("deploy/docker")
}

fn read(file: &str) -> String {
    fs::read_to_string(folder().join(file)).unwrap()
}

/// The compose file, with all that it refers to by anchors.
fn composed() -> Value {
    let output = Command::new(pip::COMPOSE.path().unwrap())
        .arg("--file")
        .arg(folder().join("compose.yaml"))
        .args(["config", "--format", "json"])
        .env("POSTGRES_PASSWORD", "of-the-test")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The environment's names of a program's options, and which of them it cannot do without.
fn options(program: &str) -> BTreeMap<String, bool> {
    let path = service::programs_folder().unwrap().join(program);
    let output = Command::new(path)
        .arg("--options-as-markdown")
        .env_clear()
        .output()
        .unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let rows = table.lines().filter_map(|row| {
        let mut cells = row.split(" | ").skip(1);
        let name = cells.next()?.trim_matches('`').to_owned();
        Some((name, cells.next()? == "required"))
    });
    rows.filter(|(name, _)| name.starts_with("WAYPOST_"))
        .collect()
}

/// The services that run programs of ours: their name, the program, the environment.
fn ours(composed: &Value) -> Vec<(String, String, BTreeMap<String, String>)> {
    let services = composed["services"].as_object().unwrap();
    let ours = services.iter().filter_map(|(name, service)| {
        let program = service["build"]["target"].as_str()?;
        let environment = service["environment"].as_object().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let environment = environment
            .iter()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect();
        Some((name.clone(), program.to_owned(), environment))
    });
    ours.collect()
}

/// Whether something is `host:port` of a service.
fn listens(composed: &Value, address: &str, option: &str) -> bool {
    let Some((host, port)) = address.split_once(':') else {
        return false;
    };
    let Some(service) = composed["services"].get(host) else {
        return false;
    };
    match service["environment"].get(option) {
        Some(listen) => listen.as_str().unwrap().ends_with(&format!(":{port}")),
        None => (host.starts_with("redis-") && port == "6379") || address == "kafka:9092",
    }
}

#[test]
fn hadolint_has_nothing_to_say_of_the_dockerfile() {
    let output = Command::new(pip::HADOLINT.path().unwrap())
        .arg(folder().join("Dockerfile"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}");
    // It does say something where there is something.
    let bad = tempfile::NamedTempFile::new().unwrap();
    fs::write(bad.path(), "FROM debian\nRUN cd /tmp && sudo ls\n").unwrap();
    let output = Command::new(pip::HADOLINT.path().unwrap())
        .arg(bad.path())
        .output();
    assert!(!output.unwrap().status.success());
}

#[test]
fn images_have_no_root_and_set_options_and_ports_that_their_programs_have() {
    let text = read("Dockerfile").replace("\\\n", " ");
    let stages: Vec<&str> = text.split("\nFROM ").skip(1).collect();
    let base = stages.iter().find(|stage| stage.contains(" AS base\n"));
    let base = base.unwrap();
    assert!(base.starts_with("gcr.io/distroless/") && base.contains("\nUSER 65532:65532\n"));
    let mut programs = BTreeSet::new();
    for stage in stages {
        let Some(program) = stage
            .strip_prefix("base AS ")
            .and_then(|rest| rest.split('\n').next())
        else {
            continue;
        };
        programs.insert(program);
        assert!(stage.contains(&format!("ENTRYPOINT [\"/usr/local/bin/{program}\"]")));
        let known = options(program);
        let line = |word: &str| stage.lines().find_map(|line| line.strip_prefix(word));
        let settings = line("ENV ").unwrap();
        let mut ports = Vec::new();
        for (name, value) in settings.split(' ').map(|one| one.split_once('=').unwrap()) {
            assert!(known.contains_key(name), "{name} of {program}");
            ports.extend(value.strip_prefix("0.0.0.0:"));
        }
        assert_eq!(line("EXPOSE ").unwrap(), ports.join(" "), "{program}");
    }
    let all = service::Kind::ALL.map(service::Kind::program);
    let all: BTreeSet<&str> = all.into_iter().chain(["waypost"]).collect();
    assert_eq!(programs, all);
}

#[test]
fn compose_sets_what_the_programs_ask_for_and_nothing_that_they_do_not_know() {
    let composed = composed();
    let ours = ours(&composed);
    let programs: BTreeSet<&str> = ours.iter().map(|(_, program, _)| &**program).collect();
    assert_eq!(programs.len(), service::Kind::ALL.len());
    for (service, program, environment) in &ours {
        let known = options(program);
        for name in environment
            .keys()
            .filter(|name| name.starts_with("WAYPOST"))
        {
            assert!(known.contains_key(name), "{name} of {service}");
        }
        for (name, _) in known.iter().filter(|(_, is_required)| **is_required) {
            assert!(environment.contains_key(name), "{service} lacks {name}");
        }
        for option in [
            "WAYPOST_REDIS",
            "WAYPOST_KAFKA",
            "WAYPOST_KEYGEN",
            "WAYPOST_ANALYTICS",
        ] {
            let addresses = environment.get(option).map_or("", |value| value);
            for address in addresses.split(',').filter(|address| !address.is_empty()) {
                let there = listens(&composed, address, "WAYPOST_LISTEN");
                assert!(there, "{option} of {service}: {address}");
            }
        }
    }
}

#[test]
fn prometheus_scrapes_the_admin_port_of_every_program() {
    let composed = composed();
    let text = read("prometheus.yaml");
    let targets: BTreeSet<&str> = text
        .split('"')
        .filter(|word| word.contains(':') && !word.contains(' ') && !word.contains('['))
        .collect();
    for target in &targets {
        let there = listens(&composed, target, "WAYPOST_ADMIN_LISTEN");
        assert!(there, "{target}");
    }
    let scraped: BTreeSet<&str> = targets
        .iter()
        .map(|target| target.split(':').next().unwrap())
        .collect();
    let ours = ours(&composed);
    let services: BTreeSet<&str> = ours.iter().map(|(service, ..)| &**service).collect();
    assert_eq!(scraped, services);
    let checked = Command::new("promtool")
        .args(["check", "config", "--syntax-only"])
        .arg(folder().join("prometheus.yaml"))
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");
}

#[test]
fn the_shard_map_is_what_the_ring_says_of_the_services_that_there_are() {
    let composed = composed();
    let shard = |id: &str| Shard {
        id: ShardId::parse(id).unwrap(),
        region: "local".to_owned(),
        nodes: ["a", "b"]
            .map(|node| format!("shard-node-{id}-{node}:7101"))
            .to_vec(),
    };
    let map = ShardMap::seed(vec![shard("s0"), shard("s1")]).unwrap();
    for node in map.shards().iter().flat_map(|shard| &shard.nodes) {
        assert!(listens(&composed, node, "WAYPOST_LISTEN"), "{node}");
    }
    let expected = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shard-map.json");
    fs::write(&expected, map.to_json() + "\n").unwrap();
    let found = fs::read_to_string(folder().join("shard-map.json")).unwrap_or_default();
    let is_same = found == map.to_json() + "\n";
    assert!(is_same, "it should be as {}", expected.display());
}

#[test]
fn the_script_makes_the_secrets_that_compose_mounts_once() {
    let place = tempfile::tempdir().unwrap();
    let script = place.path().join("secrets.sh");
    fs::copy(folder().join("secrets.sh"), &script).unwrap();
    let run = || Command::new("sh").arg(&script).output().unwrap();
    assert!(run().status.success());
    let made = || -> BTreeMap<String, String> {
        fs::read_dir(place.path().join("secrets"))
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read_to_string(entry.path()).unwrap())
            })
            .collect()
    };
    let secrets = made();
    let composed = composed();
    let mounted = composed["secrets"].as_object().unwrap();
    assert!(secrets.keys().eq(mounted.keys()));
    for (name, text) in &secrets {
        let hex = text
            .trim_end()
            .strip_prefix("1:")
            .unwrap_or(text.trim_end());
        assert!(hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(text.starts_with("1:"), name.ends_with("-mac"), "{name}");
    }
    let password = fs::read_to_string(place.path().join(".env")).unwrap();
    assert!(password.contains("\nPOSTGRES_PASSWORD="));
    assert!(run().status.success());
    assert_eq!(made(), secrets, "they are made once");
}
