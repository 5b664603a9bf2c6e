//! Creates that are sent again, at once and to several gateways: one link.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use waypost_testbed::cluster::{Link, Shard};
use waypost_testbed::proxy::Mode;
use waypost_testbed::{Cluster, token};

use super::restarts::EndOnDrop;
use super::{User, problem, shared, small};
use crate::patience::wait_until;

/// Requests that race.
const RACERS: usize = 100;

/// How long somebody goes on repeating a create whose shard comes and goes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Times that a shard-node is killed under creates.
const KILLS: usize = 5;

const LINKS: &str = "/api/v1/links";

/// Sends the same request many times at once, to both gateways in turn, and answers
/// each one's status and slug.
fn race(cluster: &Cluster, key: Option<&str>, body: &Value) -> Vec<(u16, Option<String>)> {
    let start = Barrier::new(RACERS);
    std::thread::scope(|scope| {
        let racers: Vec<_> = (0..RACERS)
            .map(|racer| {
                let start = &start;
                scope.spawn(move || {
                    let user = User::of(cluster, racer % 2);
                    start.wait();
                    create(&user, key, body)
                })
            })
            .collect();
        racers
            .into_iter()
            .map(|racer| racer.join().unwrap())
            .collect()
    })
}

fn create(user: &User, key: Option<&str>, body: &Value) -> (u16, Option<String>) {
    let mut request = user.request("POST", LINKS, Some(body));
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let response = request.send().unwrap();
    let status = response.status().as_u16();
    let answer: Value = response.json().unwrap();
    (status, answer["slug"].as_str().map(str::to_owned))
}

/// In all shards together.
fn rows(cluster: &Cluster, long_url: &str) -> u64 {
    let sql = format!("SELECT count(*) FROM links WHERE long_url = '{long_url}'");
    let shards = cluster.shards.iter();
    let counts = shards.map(|shard| shard.postgres.query(Shard::DATABASE, &sql).unwrap());
    counts
        .map(|count| count.trim().parse::<u64>().unwrap())
        .sum()
}

#[test]
fn of_a_hundred_equal_creates_at_two_gateways_one_makes_a_link_and_all_answer_it() {
    let find = "https://example.com/raced/find";
    let keyed = "https://example.com/raced/key";
    let key = "an-idempotency-key";
    for (url, key, body) in [
        (find, None, json!({ "longUrl": find, "findIfExists": true })),
        (
            keyed,
            Some(key),
            json!({ "longUrl": keyed, "title": "Raced" }),
        ),
    ] {
        let answers = race(shared(), key, &body);
        let made = answers.iter().filter(|(status, _)| *status == 201).count();
        let found = answers.iter().filter(|(status, _)| *status == 200).count();
        assert_eq!((made, found), (1, RACERS - 1), "{url}");
        let slug = answers[0].1.clone().unwrap();
        assert!(answers.iter().all(|(_, one)| one.as_ref() == Some(&slug)));
        assert_eq!(rows(shared(), url), 1);
        for gateway in 0..2 {
            let user = User::of(shared(), gateway);
            assert_eq!(user.follow(&slug).1, url, "gateway {gateway}");
        }
    }
}

#[test]
fn of_a_hundred_creates_of_one_alias_one_is_made_and_the_others_are_told() {
    let alias = "raced-for-alias";
    let body = json!({ "longUrl": "https://example.com/raced/alias", "alias": alias });
    let answers = race(shared(), None, &body);
    let made = answers.iter().filter(|(status, _)| *status == 201).count();
    let taken = answers.iter().filter(|(status, _)| *status == 409).count();
    assert_eq!((made, taken), (1, RACERS - 1));

    // Deleted, it stays its owner's.
    let owner = User::of(shared(), 0);
    let delete = owner.send("DELETE", &format!("{LINKS}/{alias}"), None);
    assert_eq!(delete.status(), 204);
    let token = shared().token_for("stranger", token::ALL_SCOPES);
    let stranger = User::of(shared(), 1).with_token(Some(token));
    let theirs = stranger.send("POST", LINKS, Some(&body));
    assert_eq!(problem(theirs), (409, "alias_taken".to_owned()));
    let again = User::of(shared(), 1).send("POST", LINKS, Some(&body));
    assert_eq!(again.status(), 201);
}

#[test]
fn of_racing_requests_with_one_key_for_different_aliases_one_is_made() {
    let start = Barrier::new(20);
    let answers: Vec<(u16, String)> = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..20)
            .map(|racer| {
                let start = &start;
                scope.spawn(move || {
                    let user = User::of(shared(), racer % 2);
                    let alias = format!("{racer:02}-keyed-alias");
                    let body = json!({ "longUrl": "https://example.com/keyed", "alias": alias });
                    start.wait();
                    (create(&user, Some("one-key"), &body).0, alias)
                })
            })
            .collect();
        racers
            .into_iter()
            .map(|racer| racer.join().unwrap())
            .collect()
    });
    let made: Vec<_> = answers
        .iter()
        .filter(|(status, _)| *status == 201)
        .collect();
    let reused = answers.iter().filter(|(status, _)| *status == 422).count();
    assert_eq!((made.len(), reused), (1, 19), "{answers:?}");
    let there = answers
        .iter()
        .filter(|(_, alias)| User::of(shared(), 0).follow(alias).0 == 302);
    assert_eq!(there.collect::<Vec<_>>(), made);
}

#[test]
fn a_create_whose_outcome_is_unknown_is_repeated_without_a_second_link() {
    let cluster = small().start().unwrap();
    User::of(&cluster, 0).shorten("https://example.com/first");
    let shard = &cluster.shards[0];
    let (unknown, made) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ended = EndOnDrop(&ended);
        for creator in 0..4 {
            let (cluster, unknown, made, ended) = (&cluster, &unknown, &made, ended.0);
            scope.spawn(move || {
                let users = [User::of(cluster, 0), User::of(cluster, 1)];
                for n in 0.. {
                    if ended.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = format!("{creator}-{n}");
                    let body = json!({ "longUrl": format!("https://example.com/lost/{key}") });
                    repeated(&users, &key, &body, unknown);
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..KILLS {
            let before = made.load(Ordering::Relaxed);
            wait_until("links are made", || {
                made.load(Ordering::Relaxed) > before + 20
            });
            // In the midst of four creates.
            shard.nodes[0].kill().unwrap();
            shard.nodes[0].restart().unwrap();
        }
    });
    assert!(unknown.into_inner() >= KILLS, "the kills cut nothing off");
    let sql = "SELECT count(*) FROM links WHERE long_url LIKE 'https://example.com/lost/%'";
    let rows = shard.postgres.query(Shard::DATABASE, sql).unwrap();
    assert_eq!(rows.trim().parse(), Ok(made.into_inner()));
}

/// Sends a create until it is answered, each time to the other gateway.
fn repeated(users: &[User; 2], key: &str, body: &Value, unknown: &AtomicUsize) {
    let began = Instant::now();
    for user in users.iter().cycle() {
        assert!(began.elapsed() < PATIENCE, "{key} is never answered");
        match create(user, Some(key), body) {
            (200 | 201, Some(_)) => return,
            (503, None) => unknown.fetch_add(1, Ordering::Relaxed),
            other => panic!("{key}: {other:?}"),
        };
    }
}

#[test]
fn the_answer_of_a_create_that_was_lost_on_the_way_is_given_to_its_repetition() {
    let cluster = small()
        .gateways(1)
        .proxied(Link::ShardNodes)
        .start()
        .unwrap();
    let user = User::of(&cluster, 0);
    user.shorten("https://example.com/first");
    let proxy = cluster.shards[0].nodes[0].proxy().unwrap();
    let url = "https://example.com/answer-lost";
    for (key, body) in [
        (Some("lost"), json!({ "longUrl": url })),
        (None, json!({ "longUrl": url, "findIfExists": true })),
        (
            Some("alias"),
            json!({ "longUrl": url, "alias": "answer-lost" }),
        ),
    ] {
        proxy.set(Mode::DropReplies);
        assert_eq!(create(&user, key, &body).0, 503, "{body}");
        proxy.set(Mode::Pass);
        // Not made by the repetition, nor a second time.
        let (status, slug) = create(&user, key, &body);
        let expected = if body["alias"].is_string() { 201 } else { 200 };
        assert_eq!(status, expected, "{body}");
        assert_eq!(create(&user, key, &body), (200, slug), "{body}");
    }
    assert_eq!(rows(&cluster, url), 3);
}
