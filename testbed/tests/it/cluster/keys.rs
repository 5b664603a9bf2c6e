//! Keys are given out once, whoever gives them out and to whom.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::outages::{metric, metric_of};
use super::{User, shared};

/// Few enough that a busy machine answers in time, here and in tests beside this.
const LINKS_PER_BATCH: usize = 100;

const BATCHES_PER_GATEWAY: usize = 15;

fn create_batch(user: &User) -> Vec<String> {
    let links = vec![json!({ "longUrl": "https://example.com/distinct" }); LINKS_PER_BATCH];
    let body = json!({ "links": links });
    let response = user.send("POST", "/api/v1/links/batch", Some(&body));
    assert_eq!(response.status(), 200);
    let answer: Value = response.json().unwrap();
    let results = answer["results"].as_array().unwrap();
    let slug = |result: &Value| {
        assert_eq!(result["status"], 201, "{result}");
        result["slug"].as_str().unwrap().to_owned()
    };
    results.iter().map(slug).collect()
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
