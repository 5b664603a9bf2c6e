//! A shard's primary is lost: stored links are followed, at a replica's word, and
//! nothing is said to be missing or promised that only the primary could.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use waypost_testbed::cluster::{Builder, Shard};
use waypost_testbed::service::Kind;
use waypost_testbed::{Cluster, RedisNode};

use super::outages::{metric, metric_of};
use super::{User, problem, small};
use crate::patience::wait_until;

/// Several times what one read waits for a primary that says nothing, and a small
/// part of what they all would together.
const AT_ONCE: Duration = Duration::from_secs(10);
const READS: usize = 100;

/// One gateway that asks the shard about every slug.
fn uncached() -> Builder {
    small()
        .gateways(1)
        .set(Kind::Gateway, "WAYPOST_L1_MIB", "0")
        .set(Kind::Gateway, "WAYPOST_REDIS", "")
}

/// Waits until each node can do without the primary.
#[track_caller]
fn wait_usable(cluster: &Cluster) {
    let shard = &cluster.shards[0];
    for node in &shard.nodes {
        wait_until("the replicas can be read", || {
            let usable = metric_of(node, "waypost_shard_replicas_usable");
            usable >= shard.replicas.len() as f64
        });
    }
}

struct Links(Vec<(String, String)>);

impl Links {
    fn create(user: &User) -> Self {
        let link = |n| {
            let url = format!("https://example.com/replicated/{n}");
            (user.shorten(&url), url)
        };
        Self((0..10).map(link).collect())
    }

    #[track_caller]
    fn follow(&self, user: &User) {
        for (slug, url) in &self.0 {
            assert_eq!(user.follow(slug), (302, url.clone()), "{slug}");
        }
    }
}

/// What only the primary may say, while it says nothing.
#[track_caller]
fn assert_undecided(cluster: &Cluster, user: &User) {
    let unconfirmed = "waypost_lookups_unanswered_total{reason=\"unconfirmed\"}";
    let before = metric(cluster, 0, unconfirmed);
    let unknown = user.get("/neverseen");
    assert!(unknown.headers().contains_key("retry-after"));
    assert_eq!(problem(unknown).0, 503, "only the primary may say 404");
    assert!(metric(cluster, 0, unconfirmed) > before);

    let body = json!({ "url": "https://example.com/undecided" });
    let create = user.send("POST", "/shorten", Some(&body));
    assert!(create.headers().contains_key("retry-after"));
    assert_eq!(problem(create), (503, "shard_unavailable".to_owned()));
}

#[track_caller]
fn wait_normal(user: &User) {
    wait_until("the primary says what is missing", || {
        user.follow("neverseen").0 == 404
    });
    let body = json!({ "url": "https://example.com/normal-again" });
    wait_until("links are created again", || {
        user.send("POST", "/shorten", Some(&body)).status() == 201
    });
}

#[test]
fn links_are_followed_with_the_primary_killed_and_only_the_primary_says_404() {
    let cluster = uncached().nodes_per_shard(2).replicas(1).start().unwrap();
    let user = User::of(&cluster, 0);
    let links = Links::create(&user);
    wait_usable(&cluster);
    assert_eq!(user.follow("neverseen").0, 404);

    cluster.shards[0].postgres.kill().unwrap();
    let killed = Instant::now();
    for _ in 0..READS / links.0.len() {
        links.follow(&user);
    }
    assert!(killed.elapsed() < AT_ONCE, "{:?}", killed.elapsed());
    assert_undecided(&cluster, &user);

    cluster.shards[0].postgres.restart().unwrap();
    wait_normal(&user);
    links.follow(&user);
}

#[test]
fn links_are_followed_at_once_with_the_primary_frozen() {
    let cluster = uncached().nodes_per_shard(2).replicas(1).start().unwrap();
    let user = User::of(&cluster, 0);
    let links = Links::create(&user);
    wait_usable(&cluster);

    cluster.shards[0].postgres.pause().unwrap();
    let frozen = Instant::now();
    for _ in 0..READS / links.0.len() {
        links.follow(&user);
    }
    assert!(frozen.elapsed() < AT_ONCE, "{:?}", frozen.elapsed());
    assert_undecided(&cluster, &user);

    cluster.shards[0].postgres.resume().unwrap();
    wait_normal(&user);
    links.follow(&user);
}

#[test]
fn a_replica_that_lags_behind_shows_and_unlocks_nothing_that_was_switched_off() {
    let builder = small().gateways(1).replicas(1);
    let cluster = builder.set(Kind::Gateway, "WAYPOST_REDIS", "").start();
    let cluster = cluster.unwrap();
    let user = User::of(&cluster, 0);
    let create = |password: Option<&str>| {
        let link = json!({ "longUrl": "https://example.com/lag", "password": password });
        let created = user.send("POST", "/api/v1/links", Some(&link));
        let created: serde_json::Value = created.json().unwrap();
        created["slug"].as_str().unwrap().to_owned()
    };
    let [open, locked, edited] = [None, Some("x"), None].map(create);
    let unlock = |slug: &str| {
        let form = user.request("POST", &format!("/{slug}"), None);
        let form = form.header("content-type", "application/x-www-form-urlencoded");
        form.body("password=x").send().unwrap().status().as_u16()
    };
    let preview = |slug: &str| user.get(&format!("/{slug}+")).status().as_u16();
    assert_eq!((preview(&open), unlock(&locked)), (200, 303));
    wait_usable(&cluster);
    let replica = &cluster.shards[0].replicas[0];
    replica
        .query(Shard::DATABASE, "SELECT pg_wal_replay_pause()")
        .unwrap();
    for slug in [&open, &locked] {
        let path = format!("/api/v1/links/{slug}/disable");
        assert_eq!(user.send("POST", &path, None).status(), 200);
    }
    let edit = json!({ "longUrl": "https://example.com/changed" });
    let path = format!("/api/v1/links/{edited}");
    assert_eq!(user.send("PATCH", &path, Some(&edit)).status(), 200);

    cluster.shards[0].postgres.kill().unwrap();
    assert_eq!((preview(&open), unlock(&open)), (404, 404));
    assert_eq!((preview(&locked), unlock(&locked)), (404, 404));
    // What it leads to now, the replica cannot say.
    assert_eq!(preview(&edited), 503);
}

#[test]
fn nothing_that_a_replica_said_is_put_into_redis() {
    let cluster = small()
        .gateways(1)
        .set(Kind::Gateway, "WAYPOST_L1_MIB", "0")
        .replicas(1)
        .start()
        .unwrap();
    let user = User::of(&cluster, 0);
    let links = Links::create(&user);
    wait_usable(&cluster);
    let masters = &cluster.redis.nodes()[..3];
    let held = || -> usize {
        let count = |master: &RedisNode| master.query("DBSIZE").unwrap();
        let counts = masters.iter().map(count);
        counts.map(|count| count.parse::<usize>().unwrap()).sum()
    };
    wait_until("the creates are in redis", || held() == links.0.len());
    for master in masters {
        master.query("FLUSHALL").unwrap();
    }

    cluster.shards[0].postgres.kill().unwrap();
    for _ in 0..10 {
        links.follow(&user);
        assert_eq!(held(), 0, "links in redis");
    }
    cluster.shards[0].postgres.restart().unwrap();
    wait_until("the primary's word is put into redis", || {
        links.follow(&user);
        held() == links.0.len()
    });
}

#[test]
fn what_a_replica_said_is_asked_again_though_the_shards_changes_are_heard() {
    let cluster = small()
        .replicas(1)
        .set(Kind::Gateway, "WAYPOST_REDIS", "")
        .start()
        .unwrap();
    let (here, there) = (User::of(&cluster, 0), User::of(&cluster, 1));
    let slug = here.shorten("https://example.com/not-believed");
    wait_usable(&cluster);
    let is_heard = || metric(&cluster, 1, "waypost_shard_stream_live") >= 1.0;
    wait_until("changes are heard", is_heard);

    // Frozen are the sessions that read, and not the one that tells changes.
    let shard = &cluster.shards[0];
    let readers = "SELECT pid FROM pg_stat_activity
                   WHERE datname = 'shard' AND pid <> pg_backend_pid()
                     AND query NOT LIKE '%shard.relay%' AND query NOT LIKE '%shard.position%'";
    for pid in shard
        .postgres
        .query(Shard::DATABASE, readers)
        .unwrap()
        .lines()
    {
        kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGSTOP).unwrap();
    }
    let hits = || {
        let name = "waypost_cache_lookups_total{result=\"hit\",tier=\"l1\"}";
        metric(&cluster, 1, name)
    };
    assert_eq!(there.follow(&slug).0, 302);
    let node = &shard.nodes[0];
    let name = "waypost_shard_batch_items_count{operation=\"resolve_replica\"}";
    assert!(metric_of(node, name) >= 1.0, "the replica was read");
    assert!(is_heard());
    let before = hits();
    assert_eq!(there.follow(&slug).0, 302);
    assert!(
        (hits() - before).abs() < 0.5,
        "believed on a replica's word"
    );
    // The primary's word is believed.
    wait_until("the link is found in memory", || {
        there.follow(&slug).0 == 302 && hits() > before
    });
}

#[test]
fn what_was_acknowledged_is_on_a_replica_when_the_primary_is_killed() {
    let cluster = uncached().replicas(2).start().unwrap();
    let user = User::of(&cluster, 0);
    let shard = &cluster.shards[0];
    wait_usable(&cluster);
    // One of two is enough, whichever.
    shard.replicas[0].pause().unwrap();
    let is_over = AtomicBool::new(false);
    let acknowledged: HashSet<String> = thread::scope(|scope| {
        let creator = scope.spawn(|| {
            let body = json!({ "url": "https://example.com/acknowledged" });
            let mut slugs = HashSet::new();
            while !is_over.load(Ordering::Relaxed) {
                let response = user.send("POST", "/shorten", Some(&body));
                if response.status() == 201 {
                    let answer: serde_json::Value = response.json().unwrap();
                    slugs.insert(answer["slug"].as_str().unwrap().to_owned());
                }
            }
            slugs
        });
        let stored = || {
            let count = shard
                .postgres
                .query(Shard::DATABASE, "SELECT count(*) FROM links");
            count.unwrap().parse::<usize>().unwrap()
        };
        wait_until("creates are under way", || stored() >= 100);
        shard.postgres.kill().unwrap();
        is_over.store(true, Ordering::Relaxed);
        creator.join().unwrap()
    });
    assert!(acknowledged.len() >= 90, "{}", acknowledged.len());
    wait_until("the replica has every link that was acknowledged", || {
        let slugs = shard.replicas[1].query(Shard::DATABASE, "SELECT slug FROM links");
        let slugs: HashSet<String> = slugs.unwrap().lines().map(str::to_owned).collect();
        acknowledged.is_subset(&slugs)
    });
}

#[test]
fn no_create_is_acknowledged_while_no_replica_has_it() {
    let cluster = uncached().replicas(1).start().unwrap();
    let user = User::of(&cluster, 0);
    let shard = &cluster.shards[0];
    let links = Links::create(&user);
    shard.replicas[0].pause().unwrap();
    let body = json!({ "url": "https://example.com/unacknowledged" });
    for _ in 0..12 {
        let create = user.send("POST", "/shorten", Some(&body));
        assert_eq!(problem(create), (503, "shard_unavailable".to_owned()));
    }
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let waiting = shard.postgres.query(Shard::DATABASE, waiting).unwrap();
    // Those of the node's sessions that create: 2. Each has at most been replaced while
    // the others' wait was young.
    assert!(
        (1..=4).contains(&waiting.parse().unwrap()),
        "{waiting} wait"
    );
    links.follow(&user);
    assert_eq!(user.follow("neverseen").0, 404, "the primary speaks");
    shard.replicas[0].resume().unwrap();
    wait_normal(&user);
}
