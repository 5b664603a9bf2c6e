//! An edit and a disable are seen by both gateways within two seconds, whatever
//! else goes wrong.

use std::thread;
use std::time::{Duration, Instant};

use waypost_domain::Patch;
use waypost_testbed::cluster::Link;
use waypost_testbed::proxy::Mode;
use waypost_testbed::{Cluster, Service};

use super::inside::{Inside, disable, edit};
use super::outages::{metric, metric_of};
use super::{User, small};
use crate::patience::wait_until;

const OLD: &str = "https://example.com/before";
const NEW: &str = "https://example.com/after";

/// How long a change may be unseen in its home region.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

/// Each change, and what a visitor sees of it.
fn changes() -> [(Patch, (u16, String)); 2] {
    [
        (edit(NEW), (302, NEW.to_owned())),
        (disable(), (404, String::new())),
    ]
}

fn users(cluster: &Cluster) -> [User; 2] {
    [User::of(cluster, 0), User::of(cluster, 1)]
}

/// A link that both gateways have in memory.
fn known_to_both(users: &[User; 2]) -> String {
    let slug = users[0].shorten(OLD);
    for user in users {
        assert_eq!(user.follow(&slug), (302, OLD.to_owned()));
    }
    slug
}

/// Both gateways answer as expected soon enough, and go on doing so.
#[track_caller]
fn assert_seen(users: &[User; 2], slug: &str, expected: &(u16, String), since: Instant) {
    for user in users {
        while user.follow(slug) != *expected {
            assert!(
                since.elapsed() < SEEN_WITHIN,
                "{}: not {expected:?}",
                user.url
            );
        }
    }
    for user in users.iter().cycle().take(20) {
        assert_eq!(user.follow(slug), *expected, "{}", user.url);
    }
}

#[test]
fn a_change_is_seen_by_both_gateways_with_everything_up() {
    let cluster = small().start().unwrap();
    let (users, inside) = (users(&cluster), Inside::of(&cluster));
    let node = &cluster.shards[0].nodes[0];
    for (change, expected) in changes() {
        let slug = known_to_both(&users);
        let link = inside.change(node, &slug, &change);
        assert_seen(&users, &slug, &expected, Instant::now());
        wait_until("redis has the change", || {
            inside
                .held_link(&slug)
                .is_some_and(|held| held.version == link.version)
        });
    }
}

#[test]
fn a_change_is_seen_by_both_gateways_with_redis_down() {
    let cluster = small().start().unwrap();
    let (users, inside) = (users(&cluster), Inside::of(&cluster));
    let slugs = changes().map(|_| known_to_both(&users));
    cluster.redis.kill().unwrap();
    for ((change, expected), slug) in changes().iter().zip(&slugs) {
        inside.change(&cluster.shards[0].nodes[0], slug, change);
        assert_seen(&users, slug, expected, Instant::now());
    }
}

/// The node that relays, and the other one.
fn by_lead(nodes: &[Service]) -> [&Service; 2] {
    let leads = |node: &Service| node.is_running() && metric_of(node, "waypost_shard_leader") > 0.5;
    wait_until("a node leads", || nodes.iter().any(leads));
    match nodes {
        [first, second] if leads(first) => [first, second],
        [first, second] => [second, first],
        _ => unreachable!("there are two nodes"),
    }
}

#[test]
fn a_change_is_seen_by_both_gateways_when_its_relay_is_killed_right_after_the_commit() {
    let cluster = small().nodes_per_shard(2).start().unwrap();
    let (users, inside) = (users(&cluster), Inside::of(&cluster));
    for (change, expected) in changes() {
        let [leader, other] = by_lead(&cluster.shards[0].nodes);
        let slug = known_to_both(&users);
        // It stands still over the commit, so that it has told nobody of it.
        leader.pause().unwrap();
        let link = inside.change(other, &slug, &change);
        let committed = Instant::now();
        leader.kill().unwrap();
        assert_seen(&users, &slug, &expected, committed);
        wait_until("the next relay has put the change into redis", || {
            inside
                .held_link(&slug)
                .is_some_and(|held| held.version == link.version)
        });
        leader.restart().unwrap();
    }
}

/// A reader that read before the change and puts what it read into Redis after it.
#[test]
fn a_change_is_seen_by_both_gateways_with_a_stalled_reader_that_puts_the_old_value_back() {
    let cluster = small().proxied(Link::ShardNodes).start().unwrap();
    let (users, inside) = (users(&cluster), Inside::of(&cluster));
    let node = &cluster.shards[0].nodes[0];
    let refused = || metric(&cluster, 0, "waypost_redis_puts_total{result=\"outdated\"}");
    let asked = || {
        metric(
            &cluster,
            0,
            "waypost_cache_lookups_total{result=\"miss\",tier=\"l1\"}",
        )
    };
    for (change, expected) in changes() {
        let before = refused();
        for attempt in 1.. {
            assert!(attempt < 20, "no reader was overtaken by the change");
            // The second gateway has it in memory; the first must ask the shard.
            let slug = users[1].shorten(OLD);
            wait_until("the create is in redis", || {
                inside.held_link(&slug).is_some()
            });
            inside.remove(&slug);
            // Less than half a second for the way there and back: after that, the
            // reader would not even try.
            node.proxy()
                .unwrap()
                .set(Mode::Delay(Duration::from_millis(150)));
            let (asked_before, changed) = (asked(), Instant::now());
            let (read, link) = thread::scope(|scope| {
                let reader = scope.spawn(|| users[0].follow(&slug));
                wait_until("the reader is on its way", || asked() > asked_before);
                let link = inside.change(node, &slug, &change);
                (reader.join().unwrap(), link)
            });
            node.proxy().unwrap().set(Mode::Pass);
            assert_seen(&users, &slug, &expected, changed);
            let held = inside.held_link(&slug).map(|held| held.version);
            assert_eq!(held, Some(link.version), "what the relay has put there");
            // Else the machine was slow, and the reader after the change.
            if read == (302, OLD.to_owned()) && refused() > before {
                break;
            }
        }
    }
}

#[test]
fn a_link_that_is_known_to_be_disabled_never_comes_back_while_its_shard_is_away() {
    let cluster = small().proxied(Link::ShardNodes).start().unwrap();
    let (users, inside) = (users(&cluster), Inside::of(&cluster));
    let node = &cluster.shards[0].nodes[0];
    let (active, disabled) = (known_to_both(&users), known_to_both(&users));
    let old = inside.held(&disabled).unwrap();
    inside.change(node, &disabled, &disable());
    for user in &users {
        wait_until("the disable is seen", || user.follow(&disabled).0 == 404);
    }
    node.proxy().unwrap().set(Mode::Cut);
    // As a replica would hold it that was promoted without the change.
    inside.set(&disabled, &old);
    for gateway in 0..2 {
        let live = || metric(&cluster, gateway, "waypost_shard_stream_live");
        wait_until("the shard is not heard any more", || live() < 0.5);
    }
    for user in &users {
        for _ in 0..10 {
            assert_eq!(user.follow(&active), (302, OLD.to_owned()), "served stale");
            assert_eq!(user.follow(&disabled), (404, String::new()));
        }
    }
    // One that has it no more in memory says that it cannot know.
    cluster.gateways[0].restart().unwrap();
    assert_eq!(users[0].follow(&disabled).0, 503);
    node.proxy().unwrap().set(Mode::Pass);
    for user in &users {
        wait_until("the shard answers again", || user.follow(&active).0 == 302);
        assert_eq!(user.follow(&disabled).0, 404);
    }
}
