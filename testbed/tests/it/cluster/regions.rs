//! Shards and gateways at home in different regions.

use serde_json::json;
use waypost_testbed::service::Kind;

use super::inside::Inside;
use super::outages::metric;
use super::{User, small};

/// The relay of a shard tells its changes to the Redis of its own region alone.
#[test]
fn the_redis_of_another_region_than_the_shards_is_neither_asked_nor_filled() {
    let cluster = small()
        .set(Kind::Gateway, "WAYPOST_REGION", "elsewhere")
        .set(Kind::Gateway, "WAYPOST_L1_MIB", "0")
        .start()
        .unwrap();
    let (user, inside) = (User::of(&cluster, 0), Inside::of(&cluster));
    let link = json!({ "longUrl": "https://example.com/far", "alias": "far-away" });
    let created = user.send("POST", "/api/v1/links", Some(&link));
    assert_eq!(created.status(), 201);
    for _ in 0..3 {
        let followed = user.follow("far-away");
        assert_eq!(followed, (302, "https://example.com/far".to_owned()));
    }
    assert!(inside.held("far-away").is_none());
    let asked = ["hit", "miss"].map(|result| {
        let name = "waypost_cache_lookups_total{result=";
        metric(&cluster, 0, &format!("{name}\"{result}\",tier=\"redis\"}}"))
    });
    assert_eq!(asked, [0.0; 2]);
}
