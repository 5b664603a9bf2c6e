//! Prefixes move to a new shard, under load, and whatever is killed meanwhile.

mod load;

use std::collections::BTreeSet;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use waypost_testbed::cluster::Builder;
use waypost_testbed::service::programs_folder;
use waypost_testbed::{Cluster, Postgres};

use self::load::Load;
use super::super::User;
use super::super::outages::metric_of;
use super::alone;
use crate::patience::wait_until;

/// Two shards with all prefixes, and a third with none.
fn with_new_shard() -> Builder {
    Cluster::builder().shards(3).empty_shards(1)
}

/// `waypost-shard-node move-prefixes`, as an operator types it.
fn mover(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = Command::new(programs_folder().unwrap().join("waypost-shard-node"));
    command
        .arg("move-prefixes")
        .args(arguments)
        .env_clear()
        .env("WAYPOST_SHARD_MAP", cluster.shard_map())
        .env("WAYPOST_SECRETS_DIR", &cluster.secrets.folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// Runs it to its end; answers what it said.
#[track_caller]
fn run(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = mover(cluster, arguments).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    told(&output)
}

/// The prefixes that a shard's database says it owns.
fn owned(cluster: &Cluster, shard: usize) -> BTreeSet<String> {
    let sql = "SELECT string_agg(prefix, ' ') FROM prefix_owner WHERE state = 'owned'";
    let found = query(cluster, shard, sql);
    found.split_whitespace().map(str::to_owned).collect()
}

fn query(cluster: &Cluster, shard: usize, sql: &str) -> String {
    let postgres: &Postgres = &cluster.shards[shard].postgres;
    postgres
        .query(waypost_testbed::cluster::Shard::DATABASE, sql)
        .unwrap()
}

/// The third shard has its share, each prefix has one owner, and nobody has rows that are
/// another's.
#[track_caller]
fn assert_balanced(cluster: &Cluster) {
    let owned: Vec<_> = (0..3).map(|shard| owned(cluster, shard)).collect();
    let counts: Vec<usize> = owned.iter().map(BTreeSet::len).collect();
    assert_eq!(counts[2], 3_844 / 3, "{counts:?}");
    assert!(counts.iter().all(|count| *count >= 3_844 / 3), "{counts:?}");
    let all: BTreeSet<_> = owned.iter().flatten().collect();
    assert_eq!((all.len(), counts.iter().sum()), (3_844, 3_844));
    for shard in 0..3 {
        let strays = "SELECT count(*) FROM links AS l JOIN prefix_owner AS o
                      ON o.prefix = left(l.slug, 2) WHERE o.state <> 'owned'";
        assert_eq!(query(cluster, shard, strays), "0", "strays at {shard}");
        let rest = "SELECT count(*) FROM prefix_owner
                    WHERE frozen_until IS NOT NULL OR coming_epoch IS NOT NULL";
        assert_eq!(query(cluster, shard, rest), "0", "left over at {shard}");
    }
}

#[test]
fn a_new_shard_is_given_its_share_under_load_without_a_failed_redirect_or_a_lost_write() {
    let _alone = alone();
    let cluster = with_new_shard().start().unwrap();
    let load = Load::prepare(&cluster, 300);
    let plan = run(&cluster, &["--to", "s2", "--dry-run"]);
    assert!(plan.starts_with("would move 1281 prefixes to s2"), "{plan}");
    assert_eq!(owned(&cluster, 2).len(), 0);
    let done = load.during(|| run(&cluster, &["--to", "s2"]));
    assert!(done.contains("done: 1281 prefixes moved to s2"), "{done}");
    assert_balanced(&cluster);
    let seen = load.judge(&cluster);
    assert_eq!(
        (seen.failed_redirects, seen.burned_visits),
        (0, 0),
        "{seen:?}"
    );
    assert!(seen.writes > 200 && seen.redirects > 200, "{seen:?}");
    assert!(
        seen.put_off * 50 <= seen.writes,
        "too many were put off: {seen:?}"
    );
    assert!(
        query(&cluster, 2, "SELECT count(*) > 20 FROM links") == "t",
        "{seen:?}"
    );
    // Once more changes nothing.
    let before: Vec<_> = (0..3).map(|shard| owned(&cluster, shard)).collect();
    let again = run(&cluster, &["--to", "s2"]);
    assert!(
        again.contains("done: 0 prefixes moved to s2; 0 rows"),
        "{again}"
    );
    let after: Vec<_> = (0..3).map(|shard| owned(&cluster, shard)).collect();
    assert_eq!(before, after);
    let status = run(&cluster, &["--status"]);
    let expected = "s2 (local): 1281 prefixes, highest epoch 2; 0 frozen, 0 on their way here";
    assert!(status.contains(expected), "{status}");
    for gateway in &cluster.gateways {
        assert!(metric_of(gateway, "waypost_shard_stream_live") > 2.5);
    }
}

#[test]
fn named_prefixes_move_there_and_back_and_no_memory_shows_what_was_before() {
    let _alone = alone();
    let cluster = with_new_shard().start().unwrap();
    let [here, there] = [User::of(&cluster, 0), User::of(&cluster, 1)];
    let slug = here.shorten("https://example.com/1");
    let prefix = &slug[..2];
    let home = usize::from(owned(&cluster, 1).contains(prefix));
    let edit = |user: &User, n: u32| {
        let edit = serde_json::json!({ "longUrl": format!("https://example.com/{n}") });
        let path = format!("/api/v1/links/{slug}");
        let link = user.send("PATCH", &path, Some(&edit));
        assert_eq!(link.status(), 200);
        let link: serde_json::Value = link.json().unwrap();
        link["version"].as_u64().unwrap()
    };
    let seen = |n: u32| {
        let expected = (302, format!("https://example.com/{n}"));
        let began = Instant::now();
        for user in [&here, &there] {
            while user.follow(&slug) != expected {
                assert!(
                    began.elapsed() < Duration::from_secs(2),
                    "{n} at {}",
                    user.url
                );
            }
        }
    };
    let mut version = edit(&here, 2);
    seen(2);
    let name = |shard: usize| format!("s{shard}");
    for (n, to) in [(3, 2), (4, home), (5, 2), (6, 1 - home)] {
        let moved = run(&cluster, &["--to", &name(to), "--prefixes", prefix]);
        assert!(moved.contains("done: 1 prefixes moved"), "{moved}");
        assert!(owned(&cluster, to).contains(prefix));
        // The one learns by its edit, the other by the streams.
        let next = edit([&here, &there][n as usize % 2], n);
        assert!(next > version, "versions run backwards");
        version = next;
        seen(n);
    }
    // Another that the map does not name, or where it is already.
    let refused = mover(&cluster, &["--to", "s9"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(64), "{}", told(&refused));
    let there_already = run(&cluster, &["--to", &name(1 - home), "--prefixes", prefix]);
    assert!(
        there_already.contains("done: 0 prefixes"),
        "{there_already}"
    );
}

/// Numbers that differ from run to run: each run kills at other moments.
fn millis(below: u64) -> Duration {
    let nanos = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .subsec_nanos();
    Duration::from_millis(u64::from(nanos / 1_000) % below)
}

fn start(cluster: &Cluster) -> Child {
    mover(cluster, &["--to", "s2", "--freeze-ms", "2000"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn kill(mut mover: Child) {
    mover.kill().unwrap();
    mover.wait().unwrap();
}

#[test]
fn whenever_the_mover_or_a_node_is_killed_redirects_go_on_and_running_it_again_ends_the_same() {
    let _alone = alone();
    let cluster = with_new_shard().start().unwrap();
    let load = Load::prepare(&cluster, 300);
    load.during(|| {
        for round in 0..14 {
            let mover = start(&cluster);
            std::thread::sleep(Duration::from_millis(150) + millis(900));
            // Of the giver and of the taker in turn; each has another node.
            let node = &cluster.shards[[0, 2, 1][round % 3]].nodes[round / 3 % 2];
            if round % 2 == 1 {
                node.kill().unwrap();
                std::thread::sleep(millis(300));
            }
            kill(mover);
            if round % 2 == 1 {
                node.restart().unwrap();
            }
        }
        wait_until("writes go on by themselves", || {
            let held = "SELECT count(*) FROM prefix_owner WHERE frozen_until IS NOT NULL";
            (0..2).all(|shard| query(&cluster, shard, held) == "0")
        });
        assert!(
            owned(&cluster, 2).len() < 1_281,
            "nothing was left to be killed"
        );
        run(&cluster, &["--to", "s2"]);
    });
    assert_balanced(&cluster);
    let seen = load.judge(&cluster);
    assert_eq!(seen.failed_redirects, 0, "{seen:?}");
    assert!(seen.writes > 200 && seen.redirects > 200, "{seen:?}");
}

#[test]
fn whenever_a_database_is_killed_nothing_acknowledged_is_lost_and_the_move_ends_the_same() {
    let _alone = alone();
    let cluster = with_new_shard().nodes_per_shard(1).start().unwrap();
    let load = Load::prepare(&cluster, 200);
    load.during(|| {
        for round in 0..6 {
            let mover = start(&cluster);
            std::thread::sleep(Duration::from_millis(200) + millis(900));
            let postgres = &cluster.shards[[2, 0, 1][round % 3]].postgres;
            postgres.kill().unwrap();
            std::thread::sleep(millis(300));
            if round % 2 == 0 {
                kill(mover);
                postgres.restart().unwrap();
            } else {
                // The mover waits for it.
                postgres.restart().unwrap();
                std::thread::sleep(millis(1_500));
                kill(mover);
            }
        }
        run(&cluster, &["--to", "s2"]);
    });
    assert_balanced(&cluster);
    let seen = load.judge(&cluster);
    assert!(seen.writes > 200, "{seen:?}");
}
