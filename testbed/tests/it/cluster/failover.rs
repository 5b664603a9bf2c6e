//! A Redis master that is lost: what it costs, and what it must not bring back.

use waypost_testbed::service::Kind;

use super::inside::{Inside, disable, edit, name};
use super::outages::metric;
use super::{User, small};
use crate::patience::wait_until;

#[test]
fn changes_that_were_lost_with_a_redis_master_are_seen_all_the_same() {
    // Nothing is kept in memory, so that every redirect asks Redis first.
    let cluster = small()
        .set(Kind::Gateway, "WAYPOST_L1_MIB", "0")
        .start()
        .unwrap();
    let users = [User::of(&cluster, 0), User::of(&cluster, 1)];
    let inside = Inside::of(&cluster);
    let node = &cluster.shards[0].nodes[0];
    // Two links of one master.
    let edited = users[0].shorten("https://example.com/before");
    let [master, replica] = cluster.redis.home_of(&name(&edited)).unwrap();
    let is_at_home = |slug: &String| {
        let home = cluster.redis.home_of(&name(slug)).unwrap();
        home[0].address() == master.address()
    };
    let disabled = (0..100)
        .map(|_| users[0].shorten("https://example.com/before"))
        .find(is_at_home)
        .expect("one of so many belongs to the same master");
    for slug in [&edited, &disabled] {
        wait_until("redis has the link", || inside.held_link(slug).is_some());
    }
    replica.lag_behind(master).unwrap();
    let versions = [
        inside
            .change(node, &edited, &edit("https://example.com/after"))
            .version,
        inside.change(node, &disabled, &disable()).version,
    ];
    let is_held = || {
        let held = [&edited, &disabled].map(|slug| inside.held_link(slug));
        held.map(|link| link.map(|link| link.version)) == versions.map(Some)
    };
    wait_until("the master has the changes", is_held);
    master.kill().unwrap();
    wait_until("the replica is promoted", || replica.is_master());
    wait_until("the promoted replica has the changes", is_held);
    for user in users.iter().cycle().take(20) {
        assert_eq!(user.follow(&edited).1, "https://example.com/after");
        assert_eq!(user.follow(&disabled).0, 404);
    }
}

#[test]
fn a_dead_redis_master_costs_no_redirect_and_does_not_switch_the_others_off() {
    let cluster = small()
        .set(Kind::Gateway, "WAYPOST_L1_MIB", "0")
        .start()
        .unwrap();
    let user = User::of(&cluster, 0);
    let inside = Inside::of(&cluster);
    let slugs: Vec<String> = (0..60)
        .map(|n| user.shorten(&format!("https://example.com/failover/{n}")))
        .collect();
    for slug in &slugs {
        wait_until("redis has the link", || inside.held_link(slug).is_some());
    }
    let [master, _] = cluster.redis.home_of(&name(&slugs[0])).unwrap();
    let is_elsewhere = |slug: &&String| {
        let home = cluster.redis.home_of(&name(slug)).unwrap();
        home[0].address() != master.address()
    };
    let elsewhere = slugs.iter().filter(is_elsewhere).count() as f64;
    assert!((10.0..=59.0).contains(&elsewhere), "{elsewhere} of 60");
    let hits = || {
        metric(
            &cluster,
            0,
            "waypost_cache_lookups_total{result=\"hit\",tier=\"redis\"}",
        )
    };
    let open = || metric(&cluster, 0, "waypost_redis_breakers_open ");
    let follow_all = || {
        let before = hits();
        for slug in &slugs {
            assert_eq!(user.follow(slug).0, 302, "{slug}");
        }
        hits() - before
    };
    wait_until("redis is believed", || follow_all() >= 60.0);
    master.kill().unwrap();
    wait_until("the others answer while its slots are left alone", || {
        let hits = follow_all();
        open() > 0.5 && (hits - elsewhere).abs() < 0.5
    });
    assert!(open() < 32.0, "{} of 64 ranges are left alone", open());
    wait_until("the promoted replica is used", || {
        follow_all() >= 60.0 && open() < 0.5
    });
}
