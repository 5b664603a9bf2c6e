//! Keys are given out once, whoever gives them out and to whom.

use std::collections::HashSet;

use serde_json::{Value, json};
use waypost_domain::Prefix;
use waypost_testbed::Cluster;
use waypost_testbed::cluster::Shard;

use super::outages::{metric, metric_of};
use super::{User, shared, small};
use crate::patience::wait_until;

/// Few enough that a busy machine answers in time, here and in tests beside this.
const LINKS_PER_BATCH: usize = 100;

const BATCHES_PER_GATEWAY: usize = 15;

fn create_batch(user: &User) -> Vec<String> {
    let mut slugs = Vec::with_capacity(LINKS_PER_BATCH);
    wait_until("a batch is created", || {
        let link = json!({ "longUrl": "https://example.com/distinct" });
        let links = vec![link; LINKS_PER_BATCH - slugs.len()];
        let body = json!({ "links": links });
        let response = user.send("POST", "/api/v1/links/batch", Some(&body));
        assert_eq!(response.status(), 200);
        let answer: Value = response.json().unwrap();
        for result in answer["results"].as_array().unwrap() {
            if result["error"]["code"] == "keys_unavailable" {
                // Asked for faster than this machine mints: the answer says to try again.
                continue;
            }
            assert_eq!(result["status"], 201, "{result}");
            slugs.push(result["slug"].as_str().unwrap().to_owned());
        }
        slugs.len() == LINKS_PER_BATCH
    });
    slugs
}

#[test]
fn two_keygens_and_two_gateways_at_once_never_give_a_slug_twice() {
    let cluster = shared();
    let slugs: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|gateway| {
                scope.spawn(move || {
                    let user = User::of(cluster, gateway);
                    let batches = (0..BATCHES_PER_GATEWAY).map(|_| create_batch(&user));
                    batches.flatten().collect::<Vec<_>>()
                })
            })
            .collect();
        let created = threads.into_iter().map(|thread| thread.join().unwrap());
        created.flatten().collect()
    });
    assert_eq!(slugs.len(), 3_000);
    assert_eq!(slugs.iter().collect::<HashSet<_>>().len(), 3_000);
    for keygen in &cluster.keygens {
        let given = metric_of(keygen, "waypost_keygen_slugs_total");
        assert!(given > 0.0, "{} had no part in it", keygen.name());
    }
    // A shard refuses a slug that it has, and the gateway takes another: a keygen
    // that repeated itself would show nowhere else.
    for gateway in 0..2 {
        let conflicts = metric(cluster, gateway, "waypost_key_conflicts_total");
        assert!(conflicts < 0.5, "gateway {gateway}: {conflicts}");
    }
}

#[test]
fn twenty_thousand_slugs_are_spread_over_three_shards_by_their_share_and_show_no_order() {
    let cluster = Cluster::builder()
        .shards(3)
        .nodes_per_shard(1)
        .start()
        .unwrap();
    let slugs: Vec<String> = std::thread::scope(|scope| {
        let gateways = [0, 1].map(|gateway| {
            let user = User::of(&cluster, gateway);
            let batches = move || (0..100).map(|_| create_batch(&user)).collect::<Vec<_>>();
            scope.spawn(move || batches().concat())
        });
        gateways.map(|thread| thread.join().unwrap()).concat()
    });
    assert_eq!(slugs.len(), 20_000);
    assert_eq!(slugs.iter().collect::<HashSet<_>>().len(), slugs.len());
    for shard in &cluster.shards {
        let count = |sql: &str| {
            let text = shard.postgres.query(Shard::DATABASE, sql).unwrap();
            text.trim().parse::<f64>().unwrap()
        };
        let rows = count("SELECT count(*) FROM links");
        let owned = count("SELECT count(*) FROM prefix_owner WHERE state = 'owned'");
        let expected = slugs.len() as f64 * owned / Prefix::COUNT as f64;
        // Each lease draws 128 of the prefixes, and these are some five leases: a share
        // is within 6 % two times out of three.
        assert!(
            (rows / expected - 1.0).abs() < 0.3,
            "{}: {rows} rows, {expected} expected",
            shard.id
        );
    }
    // In the order of their creation a slug is above the one before as often as below:
    // 10,000 times, give or take 41.
    let rising = slugs.windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert!((9_700..10_300).contains(&rising), "{rising} rise");
    // So it is behind the prefix, where counters are permuted.
    let mut suffixes: Vec<&str> = slugs.iter().map(|slug| &slug[2..]).collect();
    let rising = suffixes.windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert!((9_700..10_300).contains(&rising), "{rising} suffixes rise");
    suffixes.sort_unstable();
    suffixes.dedup();
    // By chance one in 300 runs has a pair of equal ones.
    let repeated = slugs.len() - suffixes.len();
    assert!(repeated <= 2, "prefixes repeat each other's");
}

#[test]
fn no_slug_is_given_twice_over_kills_of_keygen_and_a_gateway() {
    let cluster = small().start().unwrap();
    let users = [User::of(&cluster, 0), User::of(&cluster, 1)];
    let mut slugs: Vec<String> = users.iter().flat_map(create_batch).collect();
    for _ in 0..3 {
        wait_until("the gateways have slugs in stock", || {
            (0..2).all(|gateway| metric(&cluster, gateway, "waypost_keys_in_stock") > 3_000.0)
        });
        cluster.keygens[0].kill().unwrap();
        // Out of the stock.
        slugs.extend(users.iter().flat_map(create_batch));
        // What it has in stock is burned.
        cluster.gateways[0].kill().unwrap();
        slugs.extend(create_batch(&users[1]));
        cluster.keygens[0].restart().unwrap();
        cluster.gateways[0].restart().unwrap();
        slugs.extend(users.iter().flat_map(create_batch));
    }
    assert_eq!(slugs.iter().collect::<HashSet<_>>().len(), slugs.len());
    for gateway in 0..2 {
        let conflicts = metric(&cluster, gateway, "waypost_key_conflicts_total");
        assert!(conflicts < 0.5, "gateway {gateway}: {conflicts}");
    }
}
