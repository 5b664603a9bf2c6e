//! A region is lost, and another one takes its shard over from a copy that lacks the last
//! moments: docs/runbooks/region-failover.md, on processes of this machine.

use std::collections::HashSet;

use serde_json::{Value, json};
use waypost_testbed::cluster::Shard;
use waypost_testbed::{Cluster, Postgres, Service};

use super::User;
use super::map::Map;
use super::outages::metric_of;
use crate::patience::wait_until;

const LINKS: usize = 100;

/// What is created afterwards: enough that some of it would be what was lost, if the
/// counters of slugs began where they began before.
const NEW_LINKS: usize = 3_000;

/// After a failover what Redis holds is not believed.
const GENERATION: (&str, &str) = ("WAYPOST_CACHE_GENERATION", "2");

/// As across regions: no commit waits for the copy.
fn detach(primary: &Postgres) {
    for sql in [
        "ALTER SYSTEM RESET synchronous_standby_names",
        "SELECT pg_reload_conf()",
    ] {
        primary.query("postgres", sql).unwrap();
    }
}

/// From now on the copy receives nothing.
fn cut(primary: &Postgres, copy: &Postgres) {
    for sql in [
        "ALTER SYSTEM SET primary_conninfo = ''",
        "SELECT pg_reload_conf()",
    ] {
        copy.query("postgres", sql).unwrap();
    }
    let streams = "SELECT count(*) FROM pg_stat_replication";
    wait_until("the copy is cut off", || {
        primary.query("postgres", streams).unwrap() == "0"
    });
}

fn links_in(postgres: &Postgres) -> usize {
    let count = "SELECT count(*) FROM links";
    let count = postgres.query(Shard::DATABASE, count).unwrap();
    count.parse().unwrap()
}

fn user_of(cluster: &Cluster, gateway: &Service) -> User {
    User {
        url: format!("http://{}", gateway.address()),
        ..User::of(cluster, 0)
    }
}

fn edit(user: &User, slug: &str, to: &str) -> u64 {
    let edit = json!({ "longUrl": to });
    let answer = user.send("PATCH", &format!("/api/v1/links/{slug}"), Some(&edit));
    assert_eq!(answer.status(), 200);
    answer.json::<Value>().unwrap()["version"].as_u64().unwrap()
}

#[test]
fn a_shard_is_promoted_in_another_region_and_gives_out_nothing_that_was_lost() {
    let cluster = Cluster::builder()
        .shards(2)
        .nodes_per_shard(1)
        .replicas(1)
        .keygens(1)
        .regions(&["west", "east"])
        .start()
        .unwrap();
    let lost_shard = &cluster.shards[0];
    let (primary, copy) = (&lost_shard.postgres, &lost_shard.replicas[0]);
    detach(primary);
    let (west, east) = (User::of(&cluster, 0), User::of(&cluster, 1));
    let create = |user: &User| user.shorten("https://example.com/before");
    let kept: Vec<String> = (0..LINKS).map(|_| create(&west)).collect();
    let theirs: Vec<String> = (0..LINKS).map(|_| create(&east)).collect();
    assert_eq!(links_in(primary), LINKS, "creates stay in their region");
    wait_until("the copy has them", || links_in(copy) == LINKS);

    // The last moments of the west, of which the east hears nothing.
    cut(primary, copy);
    let lost: HashSet<String> = (0..LINKS).map(|_| create(&west)).collect();
    let lost_version = edit(&west, &kept[0], "https://example.com/lost");
    for process in [&cluster.gateways[0], &lost_shard.nodes[0]] {
        process.kill().unwrap();
    }
    primary.kill().unwrap();
    // Its keygen is lost with it: that of the east knows nothing of these prefixes.
    let counters = "DELETE FROM key_counter WHERE prefix = ANY($1::text[])";
    let owned = "SELECT array_agg(prefix) FROM prefix_owner WHERE state = 'owned'";
    let owned = copy.query(Shard::DATABASE, owned).unwrap();
    let counters = counters.replace("$1", &format!("'{owned}'"));
    cluster
        .postgres
        .query(Cluster::KEYGEN_DATABASE, &counters)
        .unwrap();

    // The runbook.
    let mut map = Map::of(&cluster);
    map.shard(0)["region"] = json!("east");
    map.put();
    copy.query("postgres", "SELECT pg_promote()").unwrap();
    let url = lost_shard.replica_url(0);
    let settings = [
        ("WAYPOST_POSTGRES_URL", url.as_str()),
        ("WAYPOST_POSTGRES_REPLICA_URLS", ""),
        GENERATION,
    ];
    let node = lost_shard.nodes[0].beside("promoted", &settings).unwrap();
    map.shard(0)["nodes"] = json!([node.address()]);
    map.put();
    // One gateway is started anew, as the runbook says; the other follows the map.
    let settings = [GENERATION, ("WAYPOST_GATEWAY_ID", "anew")];
    let spool = cluster.sandbox().folder().join("spool-anew");
    let spool = spool.display().to_string();
    let settings = [&settings[..], &[("WAYPOST_SPOOL_DIR", spool.as_str())]].concat();
    let anew = cluster.gateways[1].beside("anew", &settings).unwrap();
    for gateway in [&anew, &cluster.gateways[1]] {
        wait_until("the promoted shard is heard", || {
            metric_of(gateway, "waypost_shard_stream_live{shard=\"s0\"}") > 0.5
        });
    }

    let user = user_of(&cluster, &anew);
    for slug in kept.iter().chain(&theirs) {
        let before = (302, "https://example.com/before".to_owned());
        assert_eq!(user.follow(slug), before, "{slug}");
    }
    for slug in &lost {
        assert_eq!(user.follow(slug).0, 404, "{slug}");
    }
    let links = links_in(copy);
    let mut new = HashSet::new();
    for turn in 0..NEW_LINKS {
        let slug = create([&user, &east][turn % 2]);
        assert!(!lost.contains(&slug), "{slug} was somebody else's");
        assert!(new.insert(slug), "twice");
    }
    let made = links_in(copy) - links;
    assert!(
        made > NEW_LINKS / 10,
        "{made} of {NEW_LINKS} on the promoted shard"
    );
    // Whoever still remembers the lost edit believes this one.
    let version = edit(&user, &kept[0], "https://example.com/after");
    assert!(version > lost_version, "{version}, after {lost_version}");
    for user in [&user, &east] {
        let after = (302, "https://example.com/after".to_owned());
        wait_until("the edit is seen", || user.follow(&kept[0]) == after);
    }
}
