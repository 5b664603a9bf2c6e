//! One list out of all shards.

use serde_json::{Value, json};
use waypost_testbed::{Cluster, token};

use super::{User, problem, shared};
use crate::patience::wait_until;

const LINKS: &str = "/api/v1/links";

/// The slugs of all pages.
#[track_caller]
fn list(users: &[User; 2], query: &str) -> Vec<String> {
    list_from(users, query, String::new())
}

#[track_caller]
fn list_from(users: &[User; 2], query: &str, mut cursor: String) -> Vec<String> {
    let mut slugs = Vec::new();
    for user in users.iter().cycle() {
        let response = user.get(&format!("{LINKS}?{query}{cursor}"));
        assert_eq!(response.status(), 200);
        let page: Value = response.json().unwrap();
        let links = page["links"].as_array().unwrap();
        slugs.extend(
            links
                .iter()
                .map(|link| link["slug"].as_str().unwrap().to_owned()),
        );
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    slugs
}

fn users(cluster: &Cluster, tenant: &str) -> [User; 2] {
    let token = cluster.token_for(tenant, token::ALL_SCOPES);
    [0, 1].map(|gateway| User::of(cluster, gateway).with_token(Some(token.clone())))
}

#[track_caller]
fn create_batch(user: &User, links: &[Value]) -> Vec<String> {
    let body = json!({ "links": links });
    let answer: Value = user
        .send("POST", "/api/v1/links/batch", Some(&body))
        .json()
        .unwrap();
    let results = answer["results"].as_array().unwrap();
    let slug = |result: &Value| result["slug"].as_str().unwrap().to_owned();
    results.iter().map(slug).collect()
}

#[test]
fn a_tenants_links_of_all_shards_are_listed_once_the_newest_first_from_page_to_page() {
    let users = users(shared(), "lister");
    let mut created = Vec::new();
    for batch in 0..4 {
        let links: Vec<Value> = (0..30)
            .map(|n| {
                json!({ "longUrl": format!("https://example.com/list/{batch}/{n}"),
                        "tags": [format!("of-{}", n % 10)] })
            })
            .collect();
        // The batches have different instants, the links of each perhaps not.
        let mut slugs = create_batch(&users[batch % 2], &links);
        slugs.sort_unstable();
        created.insert(0, slugs);
    }
    let listed = list(&users, "limit=7");
    let (mut batches, mut at) = (Vec::new(), 0);
    for batch in &created {
        let mut slugs = listed[at..at + batch.len()].to_vec();
        slugs.sort_unstable();
        batches.push(slugs);
        at += batch.len();
    }
    assert_eq!(batches, created);
    assert_eq!(listed.len(), at);
    assert_eq!(list(&users, "limit=5&tag=of-3").len(), 12);
    assert_eq!(list(&users, "limit=100&q=LIST/2/").len(), 30);
    // Pages that begin at a place are not moved by what comes before it.
    let page: Value = users[0].get(&format!("{LINKS}?limit=60")).json().unwrap();
    let cursor = page["nextCursor"].as_str().unwrap();
    create_batch(
        &users[0],
        &[json!({ "longUrl": "https://example.com/list/later" })],
    );
    assert_eq!(
        list_from(&users, "limit=20", format!("&cursor={cursor}")),
        listed[60..]
    );
}

#[test]
fn a_list_that_lacks_a_shard_is_no_list() {
    let cluster = Cluster::builder()
        .nodes_per_shard(1)
        .keygens(1)
        .start()
        .unwrap();
    let users = users(&cluster, "lister");
    let links = vec![json!({ "longUrl": "https://example.com/listed" }); 20];
    create_batch(&users[0], &links);
    assert_eq!(list(&users, "").len(), 20);
    let lost = &cluster.shards[1].nodes[0];
    lost.kill().unwrap();
    let answer = users[0].get(LINKS);
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(problem(answer), (503, "shard_unavailable".to_owned()));
    lost.restart().unwrap();
    wait_until("the list is whole again", || {
        users[0].get(LINKS).status() == 200
    });
    assert_eq!(list(&users, "").len(), 20);
}
