//! What a lost peer costs: never a redirect of a stored link, never a click.

use waypost_testbed::{Cluster, Service};

use super::{User, small};
use crate::patience::wait_until;

/// Links, some of which this gateway has in memory and some not.
struct Links {
    slugs: Vec<String>,
}

impl Links {
    fn create(user: &User) -> Self {
        let slugs = (0..20)
            .map(|n| user.shorten(&format!("https://example.com/outage/{n}")))
            .collect();
        Self { slugs }
    }

    #[track_caller]
    fn follow_all(&self, user: &User, times: usize) {
        for _ in 0..times {
            for slug in &self.slugs {
                assert_eq!(user.follow(slug).0, 302, "{slug}");
            }
        }
    }

    #[track_caller]
    fn wait_counted(&self, user: &User, times: u64) {
        for slug in &self.slugs {
            wait_until("every click is counted", || {
                user.clicks(slug) >= Some(times)
            });
            assert_eq!(user.clicks(slug), Some(times), "{slug}");
        }
    }
}

fn users(cluster: &Cluster) -> [User; 2] {
    [User::of(cluster, 0), User::of(cluster, 1)]
}

#[test]
fn redirects_and_edits_go_on_with_redis_killed() {
    let cluster = small().start().unwrap();
    let [here, there] = users(&cluster);
    let links = Links::create(&here);
    cluster.redis.kill().unwrap();
    links.follow_all(&here, 2);
    // The other gateway has none of them in memory.
    links.follow_all(&there, 2);
    let slug = there.shorten("https://example.com/without-redis");
    assert_eq!(there.follow(&slug).0, 302);
    assert_eq!(here.follow(&slug).0, 302);
    let path = format!("/api/v1/links/{slug}");
    assert_eq!(here.send("DELETE", &path, None).status(), 204);
    wait_until("the deletion is seen without redis", || {
        there.follow(&slug).0 == 410
    });
    links.wait_counted(&here, 4);
}

#[test]
fn redirects_go_on_with_the_broker_stopped_and_their_clicks_are_counted_afterwards() {
    let cluster = small().start().unwrap();
    let [here, there] = users(&cluster);
    let links = Links::create(&here);
    links.follow_all(&here, 1);
    links.wait_counted(&here, 1);
    cluster.broker.pause().unwrap();
    links.follow_all(&here, 3);
    links.follow_all(&there, 2);
    cluster.broker.resume().unwrap();
    links.wait_counted(&here, 6);
}

#[test]
fn a_gateway_that_is_killed_while_the_broker_is_stopped_loses_no_click_it_has_kept() {
    let cluster = small().start().unwrap();
    let [here, there] = users(&cluster);
    let links = Links::create(&here);
    links.follow_all(&here, 1);
    links.wait_counted(&here, 1);
    cluster.broker.pause().unwrap();
    links.follow_all(&here, 3);
    // The last group of clicks is on disk within 50 ms; its metric says when.
    let spooled = || metric(&cluster, 0, "waypost_clicks_spooled_total");
    wait_until("the clicks are in the spool", || spooled() >= 80.0);
    cluster.gateways[0].kill().unwrap();
    cluster.broker.resume().unwrap();
    cluster.gateways[0].restart().unwrap();
    links.wait_counted(&there, 4);
}

#[test]
fn redirects_and_creates_go_on_with_keygen_killed() {
    let cluster = small().start().unwrap();
    let [here, there] = users(&cluster);
    let links = Links::create(&here);
    cluster.keygens[0].kill().unwrap();
    links.follow_all(&here, 1);
    links.follow_all(&there, 1);
    for n in 0..100 {
        let slug = there.shorten(&format!("https://example.com/from-stock/{n}"));
        assert_eq!(there.follow(&slug).0, 302);
    }
    links.wait_counted(&here, 2);
}

#[test]
fn redirects_go_on_with_the_consumer_killed_and_their_clicks_are_counted_afterwards() {
    let cluster = small().start().unwrap();
    let [here, there] = users(&cluster);
    let links = Links::create(&here);
    links.follow_all(&here, 2);
    cluster.consumers[0].kill().unwrap();
    links.follow_all(&here, 1);
    links.follow_all(&there, 2);
    assert_eq!(
        here.clicks(&links.slugs[0]),
        None,
        "statistics without their server"
    );
    cluster.consumers[0].restart().unwrap();
    links.wait_counted(&here, 5);
}

#[test]
fn what_is_in_memory_is_followed_with_the_shard_killed_and_nothing_else_is_said_to_be_missing() {
    let cluster = small().start().unwrap();
    let [here, _] = users(&cluster);
    let links = Links::create(&here);
    links.follow_all(&here, 1);
    cluster.shards[0].nodes[0].kill().unwrap();
    links.follow_all(&here, 1);
    assert_eq!(here.follow("neverseen").0, 503, "only a shard may say 404");
    cluster.shards[0].nodes[0].restart().unwrap();
    wait_until("the shard answers again", || {
        here.follow("neverseen").0 == 404
    });
}

#[test]
fn a_gateway_starts_and_follows_stored_links_with_nothing_up_but_the_shard() {
    let cluster = small().start().unwrap();
    let [here, there] = users(&cluster);
    let links = Links::create(&here);
    cluster.redis.kill().unwrap();
    cluster.broker.pause().unwrap();
    cluster.keygens[0].kill().unwrap();
    cluster.consumers[0].kill().unwrap();
    // It had the links in memory, and has not any more.
    cluster.gateways[0].restart().unwrap();
    links.follow_all(&here, 2);
    cluster.broker.resume().unwrap();
    cluster.consumers[0].restart().unwrap();
    links.wait_counted(&there, 2);
}

/// The sum of a gateway's metric over its labels.
pub(super) fn metric(cluster: &Cluster, gateway: usize, name: &str) -> f64 {
    metric_of(&cluster.gateways[gateway], name)
}

/// The sum of a metric over its labels.
pub(super) fn metric_of(service: &Service, name: &str) -> f64 {
    let url = format!("http://{}/metrics", service.admin());
    let text = reqwest::blocking::get(url).unwrap().text().unwrap();
    text.lines()
        .filter(|line| line.starts_with(name))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}
