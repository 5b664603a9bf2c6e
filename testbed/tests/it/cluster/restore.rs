//! A shard's database is put back to a moment of the past: docs/runbooks/restore.md.

use serde_json::json;
use waypost_testbed::cluster::Shard;
use waypost_testbed::service::Kind;

use super::inside::Inside;
use super::{User, small};
use crate::patience::wait_until;

const GOOD: &str = "https://example.com/good";
const WRONG: &str = "https://example.com/wrong";

#[test]
fn a_shard_is_put_back_to_the_moment_before_a_bad_bulk_edit() {
    let folder = tempfile::tempdir().unwrap();
    let options = folder.path().join("options.toml");
    let generation = |number: u32| {
        std::fs::write(&options, format!("cache_generation = {number}\n")).unwrap();
    };
    generation(1);
    let file = options.to_str().unwrap();
    let cluster = small()
        .set(Kind::Gateway, "WAYPOST_CONFIG", file)
        .set(Kind::ShardNode, "WAYPOST_CONFIG", file)
        .start()
        .unwrap();
    let (shard, node) = (&cluster.shards[0], &cluster.shards[0].nodes[0]);
    let users = [User::of(&cluster, 0), User::of(&cluster, 1)];
    let inside = Inside::of(&cluster);
    shard.postgres.archive().unwrap();
    let new = json!({ "url": GOOD });
    wait_until("links are made again", || {
        users[0].send("POST", "/shorten", Some(&new)).status() == 201
    });
    let slugs: Vec<String> = (0..20).map(|_| users[0].shorten(GOOD)).collect();
    let sql = "SELECT clock_timestamp()";
    let moment = shard.postgres.query("postgres", sql).unwrap();

    // Somebody edits what should have stayed, half of it over the API, so that caches
    // take it over, and half of it in the database.
    let by_api = &slugs[..10];
    let edit = json!({ "longUrl": WRONG });
    for slug in by_api {
        let path = format!("/api/v1/links/{slug}");
        assert_eq!(users[0].send("PATCH", &path, Some(&edit)).status(), 200);
        wait_until("redis has the wrong destination", || {
            let held = inside.held_link(slug);
            held.is_some_and(|link| link.long_url.as_str() == WRONG)
        });
    }
    let sql = format!("UPDATE links SET long_url = '{WRONG}' WHERE long_url = '{GOOD}'");
    shard.postgres.query(Shard::DATABASE, &sql).unwrap();
    let late = users[1].shorten("https://example.com/late");

    node.kill().unwrap();
    shard.postgres.restore_to(&moment).unwrap();
    let sql = "UPDATE prefix_owner SET epoch = epoch + 1 WHERE state = 'owned'";
    shard.postgres.query(Shard::DATABASE, sql).unwrap();
    generation(2);
    node.restart().unwrap();
    for gateway in &cluster.gateways {
        gateway.restart().unwrap();
    }

    for user in &users {
        for slug in &slugs {
            wait_until("the link leads where it led", || {
                let (status, to) = user.follow(slug);
                assert!(status != 302 || to == GOOD, "{to}");
                status == 302
            });
        }
        wait_until("what was made afterwards is gone", || {
            user.follow(&late).0 == 404
        });
    }
    // It goes on: a change is newer than those that were lost, and no slug comes twice.
    let path = format!("/api/v1/links/{}", slugs[0]);
    let edit = json!({ "title": "after the restore" });
    let link: serde_json::Value = users[0].send("PATCH", &path, Some(&edit)).json().unwrap();
    assert!(link["version"].as_u64().unwrap() >> 32 >= 2, "{link}");
    for _ in 0..20 {
        let slug = users[0].shorten("https://example.com/new");
        assert!(slug != late && !slugs.contains(&slug));
    }
}
