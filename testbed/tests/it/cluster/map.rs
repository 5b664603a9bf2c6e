//! Gateways that are given another shard map while they serve.

use serde_json::{Value, json};
use waypost_testbed::service::Kind;
use waypost_testbed::{Cluster, Postgres};

use super::outages::{metric, metric_of};
use super::restarts::{DRAIN, LAME_DUCK_MS, Traffic};
use super::{User, small};
use crate::patience::wait_until;

/// The shard map of a cluster, and what becomes of changes of it.
pub(super) struct Map<'a> {
    cluster: &'a Cluster,
    pub(super) file: Value,
}

impl<'a> Map<'a> {
    pub(super) fn of(cluster: &'a Cluster) -> Self {
        let text = std::fs::read_to_string(cluster.shard_map()).unwrap();
        let file = serde_json::from_str(&text).unwrap();
        Self { cluster, file }
    }

    pub(super) fn shard(&mut self, index: usize) -> &mut Value {
        &mut self.file["shards"][index]
    }

    /// Adds a shard that begins with no prefixes.
    fn add(&mut self, id: &str, node: &str) {
        let shard = json!({ "id": id, "region": "local", "nodes": [node] });
        self.file["shards"].as_array_mut().unwrap().push(shard);
    }

    pub(super) fn put(&self) {
        let text = serde_json::to_string(&self.file).unwrap();
        self.cluster.replace_shard_map(&text).unwrap();
    }

    fn readings(&self, gateway: usize, result: &str) -> f64 {
        let name = "waypost_watched_file_readings_total{file=\"shard-map\",result=";
        metric(self.cluster, gateway, &format!("{name}\"{result}\"}}"))
    }

    /// Puts it in the place of the one before, and waits until all gateways have read it.
    pub(super) fn replace(&self, result: &str) {
        let gateways = 0..self.cluster.gateways.len();
        let read = || gateways.clone().map(|at| self.readings(at, result));
        let before: Vec<f64> = read().collect();
        self.put();
        wait_until("all gateways have read the map", || {
            read().zip(&before).all(|(now, before)| now > *before)
        });
    }

    /// Whether what all gateways follow is what the file says.
    fn is_current(&self) -> bool {
        let name = "waypost_watched_file_current{file=\"shard-map\"}";
        let gateways = &self.cluster.gateways;
        gateways
            .iter()
            .all(|gateway| metric_of(gateway, name) > 0.5)
    }

    /// The map that each gateway follows, by its fingerprint.
    fn followed(&self) -> Vec<String> {
        let of_one = |gateway: &waypost_testbed::Service| {
            let url = format!("http://{}/metrics", gateway.admin());
            let text = reqwest::blocking::get(url).unwrap().text().unwrap();
            let mut lines = text.lines();
            let line = lines.find(|line| line.starts_with("waypost_shard_map_info{"));
            line.unwrap().to_owned()
        };
        self.cluster.gateways.iter().map(of_one).collect()
    }
}

#[test]
fn a_shards_nodes_move_to_other_ports_under_load_without_a_failed_request() {
    let cluster = small()
        .nodes_per_shard(2)
        .set(Kind::Gateway, "WAYPOST_LAME_DUCK_MS", LAME_DUCK_MS)
        // Nothing is kept in memory, so that every redirect needs its shard.
        .set(Kind::Gateway, "WAYPOST_L1_MIB", "0")
        .set(Kind::Gateway, "WAYPOST_REDIS", "")
        .start()
        .unwrap();
    let user = User::of(&cluster, 0);
    let slugs: Vec<String> = (0..20)
        .map(|n| user.shorten(&format!("https://example.com/moved/{n}")))
        .collect();
    let mut map = Map::of(&cluster);
    let first = map.followed();
    let traffic = Traffic::of(&cluster, &slugs);
    let mut moved = Vec::new();
    traffic.during(|| {
        for (index, node) in cluster.shards[0].nodes.iter().enumerate() {
            let new = node.beside(&format!("moved-{index}"), &[]).unwrap();
            map.shard(0)["nodes"][index] = json!(new.address());
            map.replace("ok");
            traffic.wait_for_more();
            assert!(node.terminate(DRAIN).unwrap(), "{} drains", node.name());
            traffic.wait_for_more();
            moved.push(new);
        }
    });
    let followed = map.followed();
    assert_eq!(followed[0], followed[1], "both follow the same map");
    assert_ne!(followed[0], first[0]);
    wait_until("the new nodes stream", || {
        let live = |at| metric(&cluster, at, "waypost_shard_stream_live{shard=\"s0\"}");
        live(0) + live(1) > 1.5
    });
    let calls = moved
        .iter()
        .map(|node| metric_of(node, "waypost_shard_rpc_seconds_count"));
    assert!(calls.sum::<f64>() > 100.0);
}

#[test]
fn a_shard_that_the_map_adds_can_be_asked() {
    let cluster = small().start().unwrap();
    let users = [User::of(&cluster, 0), User::of(&cluster, 1)];
    let slug = users[0].shorten("https://example.com/before");
    let postgres = Postgres::start_in(cluster.sandbox(), "postgres-s9").unwrap();
    postgres.create_database("shard").unwrap();
    let port = waypost_testbed::Port::reserve().unwrap();

    // Before there is anything behind it.
    let mut map = Map::of(&cluster);
    map.add("s9", &port.address());
    map.replace("ok");
    let list = |user: &User| user.get("/api/v1/links").status().as_u16();
    assert_eq!(
        users.each_ref().map(list),
        [200; 2],
        "nothing is missed yet"
    );
    let settings = [
        ("WAYPOST_SHARD_ID", "s9"),
        ("WAYPOST_POSTGRES_URL", &postgres.url("shard")),
        ("WAYPOST_LISTEN", &port.address()),
    ];
    let old = &cluster.shards[0];
    let _node = old.nodes[0].beside("shard-node-s9", &settings).unwrap();
    let live = "waypost_shard_stream_live{shard=\"s9\"}";
    wait_until("all gateways hear it", || {
        let heard = cluster
            .gateways
            .iter()
            .map(|gateway| metric_of(gateway, live));
        heard.sum::<f64>() > 1.5
    });

    // As a tool that moves prefixes leaves them.
    let own = |owner: &Postgres, other: &Postgres, owner_id: &str, epoch: u32| {
        let set = format!("UPDATE prefix_owner SET epoch = {epoch}, state =");
        let moved = format!("{set} 'moved', moved_to = '{owner_id}' WHERE prefix = 'aa'");
        other.query("shard", &moved).unwrap();
        let owned = format!("{set} 'owned', moved_to = NULL WHERE prefix = 'aa'");
        owner.query("shard", &owned).unwrap();
    };
    own(&postgres, &old.postgres, "s9", 2);
    let link = json!({ "longUrl": "https://example.com/there", "alias": "aa-there" });
    let created = users[0].send("POST", "/api/v1/links", Some(&link));
    assert_eq!(created.status(), 201);
    let stored = "SELECT slug FROM links WHERE slug = 'aa-there'";
    assert_eq!(postgres.query("shard", stored).unwrap(), "aa-there");
    for user in &users {
        assert_eq!(user.follow("aa-there").1, "https://example.com/there");
        assert_eq!(user.follow(&slug).1, "https://example.com/before");
        let listed: Value = user.get("/api/v1/links").json().unwrap();
        assert_eq!(listed["links"].as_array().unwrap().len(), 2);
    }
}

#[test]
fn a_map_that_cannot_be_followed_is_refused_told_and_changes_nothing() {
    let cluster = Cluster::builder()
        .nodes_per_shard(1)
        .keygens(1)
        .start()
        .unwrap();
    let user = User::of(&cluster, 0);
    let slugs: Vec<String> = (0..20)
        .map(|n| user.shorten(&format!("https://example.com/kept/{n}")))
        .collect();
    let map = Map::of(&cluster);
    let first = map.followed();
    let said = |what: &str| {
        let log = std::fs::read_to_string(cluster.sandbox().log("gateway-0")).unwrap();
        log.contains("changed files are refused") && log.contains(what)
    };
    let mut away = Map::of(&cluster);
    let swapped = away.file["prefixes"]["s0"].clone();
    away.file["prefixes"]["s0"] = away.file["prefixes"]["s1"].clone();
    away.file["prefixes"]["s1"] = swapped;
    let mut lacking = Map::of(&cluster);
    lacking.file["shards"].as_array_mut().unwrap().pop();
    let all = format!(
        "{} {}",
        map.file["prefixes"]["s0"].as_str().unwrap(),
        map.file["prefixes"]["s1"].as_str().unwrap()
    );
    lacking.file["prefixes"] = json!({ "s0": all });
    let mut nameless = Map::of(&cluster);
    nameless.shard(0)["nodes"][0] = json!("no port");
    for (bad, what) in [
        (away, "A map only seeds"),
        (lacking, "the shard s1, which it lacks, owns"),
        (nameless, "is not host:port"),
    ] {
        bad.replace("failed");
        assert!(!bad.is_current());
        wait_until(what, || said(what));
        assert_eq!(bad.followed(), first);
        for slug in &slugs {
            assert_eq!(user.follow(slug).0, 302, "{what}");
        }
        user.shorten("https://example.com/still");
    }
    cluster.replace_shard_map("{ \"format\": 1, ").unwrap();
    wait_until("half a file is refused", || said("EOF while parsing"));
    map.replace("ok");
    assert!(map.is_current());
    assert_eq!(map.followed(), first);
}

#[test]
fn a_shard_that_leaves_the_region_and_comes_home_takes_its_redis_along() {
    let cluster = small()
        .set(Kind::Gateway, "WAYPOST_L1_MIB", "0")
        .start()
        .unwrap();
    let user = User::of(&cluster, 0);
    let slug = user.shorten("https://example.com/far");
    let asked = || {
        let name = "waypost_cache_lookups_total{result=";
        let of = |result| metric(&cluster, 0, &format!("{name}\"{result}\",tier=\"redis\"}}"));
        of("hit") + of("miss")
    };
    let is_asked = || {
        let before = asked();
        assert_eq!(user.follow(&slug).0, 302);
        asked() > before
    };
    wait_until("redis is asked", is_asked);
    let mut map = Map::of(&cluster);
    map.shard(0)["region"] = json!("elsewhere");
    map.replace("ok");
    wait_until("redis is left alone", || !is_asked());
    map.shard(0)["region"] = json!("local");
    map.replace("ok");
    wait_until("redis is asked again", is_asked);
}
