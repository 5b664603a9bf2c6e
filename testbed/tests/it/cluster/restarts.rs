//! Rolling restarts, under traffic through two gateways.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use reqwest::blocking::RequestBuilder;
use serde_json::json;
use waypost_testbed::Cluster;
use waypost_testbed::http;
use waypost_testbed::service::{Kind, Service};

use super::{User, small};
use crate::patience::wait_until;

/// A gateway takes connections while it is a lame duck, then keeps those that are
/// idle for up to 10 s, as the clients here leave theirs, and hands its last clicks
/// to the broker; the rest is for a busy machine. After its grace period of 25 s it
/// would end itself, and call that a failure.
pub(super) const DRAIN: Duration = Duration::from_secs(20);

/// [`Traffic::balance`] asks every 5 ms, so that it has a hundred chances to see
/// that a gateway is going away: enough on a busy machine, too. The default of 3 s
/// is for real load balancers, and would only make this longer.
pub(super) const LAME_DUCK_MS: &str = "500";

/// Requests without pause to the gateways that are ready, as from a load balancer
/// that asks them every few milliseconds; whatever goes wrong is a failed request.
pub(super) struct Traffic<'a> {
    gateways: &'a [Service],
    users: [User; 2],
    is_ready: [AtomicBool; 2],
    slugs: &'a [String],
    ended: AtomicBool,
    done: AtomicU64,
}

impl<'a> Traffic<'a> {
    pub(super) fn of(cluster: &'a Cluster, slugs: &'a [String]) -> Self {
        Self {
            gateways: &cluster.gateways,
            users: [User::of(cluster, 0), User::of(cluster, 1)],
            is_ready: [AtomicBool::new(true), AtomicBool::new(true)],
            slugs,
            ended: AtomicBool::new(false),
            done: AtomicU64::new(0),
        }
    }

    /// Requests without pause from four threads while `work` is done.
    pub(super) fn during(&self, work: impl FnOnce()) {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || self.run(thread));
            }
            scope.spawn(|| self.balance());
            let _ended = EndOnDrop(&self.ended);
            self.wait_for_more();
            work();
            self.wait_for_more();
        });
    }

    /// The third of four threads edits, the fourth creates, the others follow.
    fn run(&self, thread: usize) {
        let mut turn = thread;
        while !self.ended.load(Ordering::Relaxed) {
            let slug = &self.slugs[turn % self.slugs.len()];
            let (method, path, body, expected) = match thread {
                2 => {
                    let edit = json!({ "title": turn.to_string() });
                    ("PATCH", format!("/api/v1/links/{slug}"), Some(edit), 200)
                }
                3 => {
                    let new = json!({ "url": "https://example.com/meanwhile" });
                    ("POST", "/shorten".to_owned(), Some(new), 201)
                }
                _ => ("GET", format!("/{slug}"), None, 302),
            };
            let status = self.send(turn, |user| user.request(method, &path, body.as_ref()));
            assert_eq!(status, expected, "{method} {path}");
            self.done.fetch_add(1, Ordering::Relaxed);
            turn += 1;
        }
    }

    fn send(&self, turn: usize, request: impl Fn(&User) -> RequestBuilder) -> u16 {
        let user = (0..2)
            .map(|other| (turn + other) % 2)
            .find(|gateway| self.is_ready[*gateway].load(Ordering::Relaxed))
            .map(|gateway| &self.users[gateway])
            .expect("one of the gateways is ready");
        let response = request(user).send().expect("a ready gateway answers");
        response.status().as_u16()
    }

    /// Asks the gateways whether they are ready.
    fn balance(&self) {
        while !self.ended.load(Ordering::Relaxed) {
            for (gateway, is_ready) in self.gateways.iter().zip(&self.is_ready) {
                let answer = http::get(&gateway.admin(), "/ready", Duration::from_secs(1));
                is_ready.store(
                    answer.is_ok_and(|answer| answer.status == 200),
                    Ordering::Relaxed,
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(super) fn wait_for_more(&self) {
        let before = self.done.load(Ordering::Relaxed);
        wait_until("traffic flows", || {
            self.done.load(Ordering::Relaxed) > before + 200
        });
    }
}

#[test]
fn gateways_and_shard_nodes_restart_without_a_failed_request() {
    let cluster = small()
        .nodes_per_shard(2)
        // As in Kubernetes.
        .named_nodes()
        .set(Kind::Gateway, "WAYPOST_LAME_DUCK_MS", LAME_DUCK_MS)
        // Nothing is kept in memory, so that every redirect needs its shard.
        .set(Kind::Gateway, "WAYPOST_L1_MIB", "0")
        .set(Kind::Gateway, "WAYPOST_REDIS", "")
        .start()
        .unwrap();
    let user = User::of(&cluster, 0);
    let slugs: Vec<String> = (0..20)
        .map(|n| user.shorten(&format!("https://example.com/restart/{n}")))
        .collect();
    let traffic = Traffic::of(&cluster, &slugs);
    traffic.during(|| {
        for service in cluster.shards[0].nodes.iter().chain(&cluster.gateways) {
            traffic.wait_for_more();
            assert!(
                service.terminate(DRAIN).unwrap(),
                "{} drains in time",
                service.name()
            );
            traffic.wait_for_more();
            service.restart().unwrap();
        }
    });
}

/// Ends the traffic also when the test fails, or the scope would wait for ever.
pub(super) struct EndOnDrop<'a>(pub(super) &'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
