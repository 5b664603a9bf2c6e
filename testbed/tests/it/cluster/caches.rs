//! What Redis may hold, and what becomes of it.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::thread;

use serde_json::json;
use waypost_domain::LongUrl;
use waypost_proto::cache;
use waypost_testbed::Cluster;
use waypost_testbed::cluster::Link;
use waypost_testbed::proxy::Mode;
use waypost_testbed::service::Kind;

use super::inside::{Inside, key};
use super::outages::metric;
use super::{User, small};
use crate::patience::wait_until;

/// Gateways that keep nothing in memory, so that every redirect asks Redis first.
fn without_memory() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let cluster = small().set(Kind::Gateway, "WAYPOST_L1_MIB", "0");
        cluster.start().unwrap()
    })
}

fn lookups(cluster: &Cluster, result: &str) -> f64 {
    let name = "waypost_cache_lookups_total{result=";
    metric(cluster, 0, &format!("{name}\"{result}\",tier=\"redis\"}}"))
}

fn resolves(cluster: &Cluster) -> f64 {
    let name = "waypost_shard_call_duration_seconds_count{result=\"ok\",rpc=\"resolve\"}";
    metric(cluster, 0, name)
}

/// Prepares and follows a slug until Redis has been asked and has answered so. On a
/// busy machine it may be passed over at first, and the shard, too.
#[track_caller]
fn follow_until(result: &str, user: &User, slug: &str, expected: (u16, &str), prepare: impl Fn()) {
    let before = lookups(without_memory(), result);
    wait_until(result, || {
        prepare();
        let (status, location) = user.follow(slug);
        let is_right = (status, location.as_str()) == expected || status == 503;
        assert!(is_right, "{result}: {status} {location}");
        lookups(without_memory(), result) > before
    });
}

#[test]
fn a_bad_value_in_redis_is_a_miss_is_counted_by_its_kind_and_is_replaced() {
    let cluster = without_memory();
    let (user, inside) = (User::of(cluster, 0), Inside::of(cluster));
    let other = user.shorten("https://example.com/other");
    wait_until("redis has it", || inside.held(&other).is_some());
    let foreign = inside.held(&other).unwrap();
    let url = "https://example.com/good";
    let good = || {
        let slug = user.shorten(url);
        wait_until("redis has the link", || inside.held_link(&slug).is_some());
        let value = inside.held(&slug).unwrap();
        (slug, value)
    };
    let forged = |slug: &str| {
        let mut link = inside.held_link(slug).unwrap();
        link.long_url = LongUrl::parse("https://evil.example/").unwrap();
        link.version = waypost_domain::Version::from_stored((1 << 53) - 1).unwrap();
        cache::encode_link(&link)
    };
    let flipped = |value: &[u8]| {
        let mut value = value.to_vec();
        *value.last_mut().unwrap() ^= 1;
        value
    };
    let older = |value: &[u8]| [b"WP0", &value[3..]].concat();
    // No version that a link can have is higher.
    let huge = |value: &[u8]| [b"WP1ffffffffffffff", &value[17..]].concat();
    type Spoil<'a> = &'a dyn Fn(&str, &[u8]) -> Vec<u8>;
    let kinds: [(&str, Spoil<'_>); 6] = [
        ("other_format", &|_, _| b"garbage".to_vec()),
        ("other_format", &|_, value| older(value)),
        ("damaged", &|_, value| flipped(value)),
        ("damaged", &|_, value| huge(value)),
        ("foreign", &|_, _| foreign.clone()),
        ("bad_signature", &|slug, _| forged(slug)),
    ];
    for (result, spoil) in kinds {
        let (slug, value) = good();
        let bad = spoil(&slug, &value);
        follow_until(result, &user, &slug, (302, url), || inside.set(&slug, &bad));
        wait_until("the value is replaced", || {
            inside.held(&slug).as_ref() == Some(&value)
        });
        follow_until("hit", &user, &slug, (302, url), || {});
    }
    // A key that is no string.
    let (slug, value) = good();
    follow_until("refused", &user, &slug, (302, url), || {
        inside.put_list(&slug);
    });
    wait_until("the list is replaced", || {
        inside.held(&slug).as_ref() == Some(&value)
    });
}

#[test]
fn an_older_version_or_an_absence_never_takes_the_place_of_a_newer_link() {
    let cluster = without_memory();
    let (user, inside) = (User::of(cluster, 0), Inside::of(cluster));
    let slug = user.shorten("https://example.com/1");
    wait_until("redis has the link", || inside.held_link(&slug).is_some());
    let old = inside.held(&slug).unwrap();
    let edit = json!({ "longUrl": "https://example.com/2" });
    let path = format!("/api/v1/links/{slug}");
    assert_eq!(user.send("PATCH", &path, Some(&edit)).status(), 200);
    wait_until("redis has the edit", || {
        let held = inside.held_link(&slug);
        held.is_some_and(|link| link.long_url.as_str() == "https://example.com/2")
    });
    let new = inside.held(&slug).unwrap();
    assert!(!inside.put(&slug, &old));
    assert!(!inside.put(&slug, &cache::encode_absent(&key(&slug))));
    assert_eq!(inside.held(&slug), Some(new.clone()));
    assert!(inside.put(&slug, &new), "the same version may be damaged");
    // A later release's value, too, is compared by its version.
    inside.set(&slug, &[b"WP2", &new[3..]].concat());
    assert!(!inside.put(&slug, &old));
    assert!(inside.put(&slug, &new));
    inside.set(&slug, b"");
    assert!(inside.put(&slug, &old), "what has no version loses");
}

#[test]
fn a_missing_slug_is_asked_at_the_shard_once_in_a_while_and_a_create_ends_that() {
    let cluster = without_memory();
    let (here, there) = (User::of(cluster, 0), User::of(cluster, 1));
    let inside = Inside::of(cluster);
    let name = "not-there-yet";
    follow_until("absent", &here, name, (404, ""), || {});
    let ttl = inside.ttl(name);
    assert!(ttl <= 1_500, "{ttl} ms");
    assert_eq!(there.follow(name).0, 404);
    let body = json!({ "longUrl": "https://example.com/now", "alias": name });
    assert_eq!(
        there.send("POST", "/api/v1/links", Some(&body)).status(),
        201
    );
    let created = std::time::Instant::now();
    while here.follow(name).0 != 302 {
        let most = std::time::Duration::from_secs(2);
        assert!(created.elapsed() < most, "404 elsewhere after {most:?}");
    }
    wait_until("redis has the link", || inside.held_link(name).is_some());
    let absent = cache::encode_absent(&key(name));
    assert!(!inside.put(name, &absent), "a slow reader's absence loses");
    assert_eq!(here.follow(name).0, 302);
}

#[test]
fn a_create_takes_the_place_of_an_absence_by_itself() {
    let cluster = without_memory();
    let (user, inside) = (User::of(cluster, 0), Inside::of(cluster));
    let name = "absent-for-ever";
    // One that does not end: nothing but the create can take its place.
    inside.set(name, &cache::encode_absent(&key(name)));
    let body = json!({ "longUrl": "https://example.com/now", "alias": name });
    let created = user.send("POST", "/api/v1/links", Some(&body));
    assert_eq!(created.status(), 201);
    wait_until("redis has the link", || inside.held_link(name).is_some());
}

#[test]
fn visitors_of_a_link_that_is_in_no_cache_share_one_call_to_its_shard() {
    const VISITORS: usize = 40;
    let cluster = small().proxied(Link::ShardNodes).start().unwrap();
    let (here, there) = (User::of(&cluster, 0), User::of(&cluster, 1));
    let inside = Inside::of(&cluster);
    let slug = there.shorten("https://example.com/hot");
    wait_until("redis has the link", || inside.held_link(&slug).is_some());
    inside.remove(&slug);
    let (before, proxy) = (
        resolves(&cluster),
        cluster.shards[0].nodes[0].proxy().unwrap(),
    );
    proxy.set(Mode::Blackhole);
    let mut seen = HashMap::new();
    thread::scope(|scope| {
        let follow = || here.follow(&slug);
        let visitors = [(); VISITORS].map(|()| scope.spawn(follow));
        let joined = || metric(&cluster, 0, "waypost_lookups_joined_total");
        wait_until("all but one wait for it", || {
            joined() >= (VISITORS - 1) as f64
        });
        proxy.set(Mode::Pass);
        for visitor in visitors {
            *seen.entry(visitor.join().unwrap()).or_insert(0) += 1;
        }
    });
    let expected = (302, "https://example.com/hot".to_owned());
    assert_eq!(seen, HashMap::from([(expected, VISITORS)]));
    assert!((resolves(&cluster) - before - 1.0).abs() < 0.5);
}
