//! Limits that the gateways hold together, and what is shed before redirects are.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};
use waypost_testbed::service::Kind;
use waypost_testbed::{Cluster, token};

use super::outages::metric;
use super::{User, small};
use crate::patience::wait_until;

const SHARED: &str = "waypost_gateway_shared_limit_questions_total{result=";

/// A burst of 100, and next to nothing after it.
fn cluster() -> Cluster {
    let builder = small()
        .limits(true)
        .set(Kind::Gateway, "WAYPOST_LIMIT_CREATES", "6:100")
        // The machine is busy; without an answer each would decide alone.
        .set(Kind::Gateway, "WAYPOST_REDIS_TIMEOUT_MS", "2000");
    builder.start().unwrap()
}

fn users(cluster: &Cluster, tenant: &str) -> [User; 2] {
    let token = cluster.token_for(tenant, token::ALL_SCOPES);
    [0, 1].map(|gateway| User::of(cluster, gateway).with_token(Some(token.clone())))
}

/// Tries so many creates, and answers how many were granted.
fn create(user: &User, tries: usize) -> usize {
    let body = json!({ "url": "https://example.com/" });
    let statuses = (0..tries).map(|_| user.send("POST", "/shorten", Some(&body)).status());
    let granted = statuses.filter(|status| {
        assert!([201, 429].contains(&status.as_u16()), "{status}");
        *status == 201
    });
    granted.count()
}

fn create_at_both(users: &[User; 2], tries: usize) -> usize {
    thread::scope(|scope| {
        let both = users
            .each_ref()
            .map(|user| scope.spawn(move || create(user, tries)));
        both.map(|one| one.join().unwrap()).iter().sum()
    })
}

#[test]
fn two_gateways_hold_the_limit_on_creates_together() {
    let cluster = cluster();
    for (gateway, user) in users(&cluster, "first-to-come").iter().enumerate() {
        wait_until("redis is asked", || {
            create(user, 1);
            metric(&cluster, gateway, &format!("{SHARED}\"granted\"")) >= 1.0
        });
    }
    let granted = create_at_both(&users(&cluster, "acme"), 120);
    assert!((80..=120).contains(&granted), "{granted}");
}

#[test]
fn without_redis_each_gateway_holds_the_limit_alone_and_nobody_is_shut_out() {
    let cluster = cluster();
    cluster.redis.kill().unwrap();
    let granted = create_at_both(&users(&cluster, "acme"), 120);
    assert!((200..=210).contains(&granted), "{granted}");
    assert!(metric(&cluster, 0, &format!("{SHARED}\"error\"")) >= 1.0);
}

#[test]
fn batches_are_shed_while_held_links_are_followed() {
    let cluster = small().start().unwrap();
    let user = User::of(&cluster, 0);
    let slug = user.shorten("https://example.com/held");
    let link = json!({ "longUrl": "https://example.com/" });
    let batch = json!({ "links": vec![link; 1_000] });
    let (shed, end) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let user = User::of(&cluster, 0);
                while !end.load(Ordering::Relaxed) {
                    let answer = user.send("POST", "/api/v1/links/batch", Some(&batch));
                    if answer.status() == 503 {
                        assert_eq!(answer.headers()["retry-after"], "1");
                        let problem: Value = answer.json().unwrap();
                        assert_eq!(problem["code"], "overloaded");
                        shed.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
        // Also when this fails: a scope waits for its threads.
        let _ended = Ended(&end);
        let mut followed = 0;
        wait_until("a batch is shed", || {
            assert_eq!(user.follow(&slug).0, 302);
            followed += 1;
            shed.load(Ordering::Relaxed) && followed >= 50
        });
    });
}

struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
