//! `deploy/one-person`: what one person's machine runs beside the program, with the real
//! Caddy, Litestream and systemd's own judge.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use reqwest::blocking::Client;
use rusqlite::Connection;
use waypost_testbed::{Port, pip};

use crate::process::{Waypost, command, token, wait_until};

const UNITS: [&str; 3] = [
    "waypost.service",
    "waypost-backup.service",
    "waypost-backup.timer",
];

fn deployed(file: &str) -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    workspace.join("deploy/one-person").join(file)
}

fn read(file: &str) -> String {
    fs::read_to_string(deployed(file)).unwrap()
}

/// Another program, which ends with the test.
struct Beside(Child);

impl Beside {
    fn start(command: &mut Command, log: &Path) -> Self {
        let log = fs::File::create(log).unwrap();
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.stderr(log).spawn().unwrap())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The file as it is delivered, but for its addresses.
#[test]
fn behind_caddy_limits_go_by_who_asks_and_not_by_what_is_written() {
    let folder = tempfile::tempdir().unwrap();
    // Of the environment that is delivered, what decides.
    let hops = read("waypost.env");
    let hops = hops
        .lines()
        .find_map(|line| line.strip_prefix("WAYPOST_TRUSTED_HOPS="))
        .unwrap();
    let options = [
        ("WAYPOST_TRUSTED_HOPS", hops),
        ("WAYPOST_LIMIT_MISSES", "60:5"),
    ];
    let waypost = Waypost::start_with(&folder.path().join("data"), &options);
    let slug = waypost.shorten("https://example.com/behind");
    let port = Port::reserve().unwrap();
    let file = read("Caddyfile");
    assert!(file.contains("go.example.com {") && file.contains("127.0.0.1:8080"));
    let upstream = waypost.url.strip_prefix("http://").unwrap();
    let file = file
        .replace("go.example.com {", &format!("http://{} {{", port.address()))
        .replace("127.0.0.1:8080", upstream);
    let caddyfile = folder.path().join("Caddyfile");
    fs::write(&caddyfile, format!("{{\n\tadmin off\n}}\n{file}")).unwrap();
    let mut caddy = Command::new("caddy");
    caddy
        .args(["run", "--adapter", "caddyfile", "--config"])
        .arg(&caddyfile)
        .env("HOME", folder.path());
    let _caddy = Beside::start(&mut caddy, &folder.path().join("caddy.log"));

    let of = |last: u8| {
        let address = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        let client = Client::builder().local_address(address);
        let client = client.redirect(reqwest::redirect::Policy::none());
        client.build().unwrap()
    };
    let ask = |client: &Client, slug: &str, forwarded: &str| {
        let url = format!("http://{}/{slug}", port.address());
        let request = client.get(url).header("x-forwarded-for", forwarded);
        request.send().map(|answer| answer.status().as_u16())
    };
    let (guesser, other) = (of(2), of(3));
    wait_until("caddy answers", || {
        ask(&other, &slug, "198.51.100.1").is_ok_and(|status| status == 302)
    });
    let mut invented = 0;
    wait_until("who guesses is refused, whoever it says it is", || {
        invented += 1;
        let forwarded = format!(
            "198.51.100.{}, 203.0.113.{}",
            invented % 250,
            invented % 250
        );
        ask(&guesser, "nosuchslug", &forwarded).unwrap() == 429
    });
    // Nobody else is, and nobody is refused in another's name.
    assert_eq!(ask(&other, "nosuchslug", "127.0.0.2").unwrap(), 404);
    assert_eq!(ask(&guesser, &slug, "").unwrap(), 302);
}

/// Litestream follows all databases while links are made; then the machine is lost.
#[test]
fn an_instance_that_litestream_followed_is_adopted_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let (data, lost) = (folder.path().join("data"), folder.path().join("restored"));
    let litestream = pip::LITESTREAM.path().unwrap();
    let bucket = format!("file://{}", folder.path().join("bucket").display());
    let config = read("litestream.yml");
    assert!(config.contains("path: /var/lib/waypost/links.db"));
    let config = config
        .replace("s3://BUCKET", &bucket)
        .replace("/var/lib/waypost", data.to_str().unwrap());
    let file = folder.path().join("litestream.yml");
    fs::write(&file, config).unwrap();

    let log = folder.path().join("waypost.log");
    let unlimited = [("WAYPOST_LIMITS", "false")];
    let waypost = Waypost::start_logging(&data, &log, &unlimited);
    let key = token(&data);
    let mut replicate = Command::new(&litestream);
    replicate.arg("replicate").arg("-config").arg(&file);
    let follower = Beside::start(&mut replicate, &folder.path().join("litestream.log"));
    let counted = waypost.shorten("https://example.com/counted");
    waypost.follow(&counted);
    let mut issued = HashSet::new();
    for _ in 0..5 {
        issued.extend(crate::backup::create(&waypost, &key, 1_000));
    }
    wait_until("the click is counted", || waypost.clicks(&counted) == 1);

    let restored = |database: &str| {
        let out = lost.join(database);
        for left in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(lost.join(format!("{database}{left}")));
        }
        let output = Command::new(&litestream)
            .args(["restore", "-config"])
            .arg(&file)
            .arg("-o")
            .arg(&out)
            .arg(data.join(database))
            .output()
            .unwrap();
        output
            .status
            .success()
            .then(|| Connection::open(out).unwrap())
    };
    fs::create_dir_all(&lost).unwrap();
    let count = |database: &str, sql: &str| {
        let database = restored(database)?;
        database.query_row(sql, [], |row| row.get::<_, i64>(0)).ok()
    };
    wait_until("the links are in the bucket", || {
        count("links.db", "SELECT count(*) FROM links") == Some(5_001)
    });
    wait_until("the click is in the bucket", || {
        count("clicks.db", "SELECT sum(clicks) FROM link_day") == Some(1)
    });
    wait_until("counters are in the bucket", || {
        count("keys.db", "SELECT count(*) FROM key_counter").is_some_and(|rows| rows > 0)
    });
    // What is made now may be in the bucket or not, and be lost.
    drop(follower);
    let after = crate::backup::create(&waypost, &key, 3_000);
    waypost.kill();
    let log = fs::read_to_string(log).unwrap();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");

    let adopt = || command().args(["adopt", "--data-dir"]).arg(&lost).output();
    // Without the secrets nothing would be any good.
    assert!(!adopt().unwrap().status.success());
    let secrets = lost.join("secrets");
    fs::create_dir(&secrets).unwrap();
    for entry in fs::read_dir(data.join("secrets")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), secrets.join(entry.file_name())).unwrap();
    }
    let adopted = adopt().unwrap();
    let said = String::from_utf8(adopted.stderr).unwrap();
    assert!(adopted.status.success(), "{said}");
    let waypost = Waypost::start_with(&lost, &unlimited);
    // In use, it is not adopted.
    assert!(!adopt().unwrap().status.success());
    for slug in issued.iter().step_by(101) {
        assert_eq!(waypost.follow(slug).0, 302);
    }
    assert_eq!(waypost.clicks(&counted), 1);
    issued.extend(after);
    for slug in crate::backup::create(&waypost, &key, 3_000) {
        assert!(issued.insert(slug), "a slug was given out twice");
    }
}

#[test]
fn systemd_takes_the_units_and_finds_them_closed() {
    let folder = tempfile::tempdir().unwrap();
    for unit in UNITS {
        let text = read(unit).replace("/usr/local/bin/waypost", env!("CARGO_BIN_EXE_waypost"));
        fs::write(folder.path().join(unit), text).unwrap();
    }
    let units = UNITS.map(|unit| folder.path().join(unit));
    let output = Command::new("systemd-analyze")
        .arg("verify")
        .args(&units)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    for service in &units[..2] {
        // Of 100, where 20 count as closed.
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=15", "--no-pager"])
            .arg(service)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
    }
}

#[test]
fn what_is_delivered_sets_options_that_there_are() {
    let known = command().arg("--options-as-markdown").output().unwrap();
    let backup = command().args(["backup", "--help"]).output().unwrap();
    let known = [known.stdout, backup.stdout].concat();
    let known = String::from_utf8(known).unwrap();
    let mut named = 0;
    for file in [UNITS[0], UNITS[1], "waypost.env"] {
        for line in read(file).lines() {
            let line = line.strip_prefix("Environment=").unwrap_or(line);
            let Some((name, value)) = line.split_once('=') else {
                continue;
            };
            if name.starts_with("WAYPOST_") {
                assert!(known.contains(name), "{name} in {file}");
                assert!(!value.is_empty(), "{name} in {file}");
                named += 1;
            }
        }
    }
    assert!(named >= 8, "{named} options");
    // The unit gives it more time than it takes by itself.
    let default = known
        .lines()
        .find(|line| line.contains("WAYPOST_SHUTDOWN_GRACE_MS"));
    assert!(default.unwrap().contains("25000"));
    assert!(read(UNITS[0]).contains("TimeoutStopSec=30s"));
}
