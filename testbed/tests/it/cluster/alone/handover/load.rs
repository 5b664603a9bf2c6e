//! Users of two gateways, who remember what they were told and look whether it stays so.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::blocking::Response;
use serde_json::{Value, json};
use waypost_testbed::Cluster;

use super::super::super::User;
use super::super::super::outages::metric;
use super::super::super::restarts::EndOnDrop;
use crate::patience::wait_until;

/// How long an acknowledged edit may be unseen, by what the product states.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

/// Links that are edited, and such with a limit of visits.
const EDITED: usize = 40;
const LIMITED: usize = 12;
const VISITS: u64 = 150;

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) redirects: u64,
    /// Answered otherwise than 302, apart from those of links with a limit.
    pub(super) failed_redirects: u64,
    pub(super) writes: u64,
    /// Answered 503, to be sent again.
    pub(super) put_off: u64,
    /// Visits that limited links were given up to their limits, and lack.
    pub(super) burned_visits: u64,
}

#[derive(Default)]
struct Counts {
    redirects: AtomicU64,
    failed_redirects: AtomicU64,
    writes: AtomicU64,
    put_off: AtomicU64,
}

/// An edited link: the number of each edit, and when it was acknowledged.
#[derive(Default)]
struct Edits(Mutex<Vec<(u64, Instant)>>);

/// A link with a limit: how often it led anywhere.
struct Limited {
    slug: String,
    visits: AtomicU64,
}

pub(super) struct Load {
    users: [User; 2],
    /// What is only followed, and where each leads.
    stable: Vec<(String, String)>,
    edited: Vec<(String, Edits)>,
    limited: Vec<Limited>,
    created: Mutex<BTreeMap<String, String>>,
    counts: Counts,
    ended: AtomicBool,
}

impl Load {
    pub(super) fn prepare(cluster: &Cluster, links: usize) -> Self {
        let user = User::of(cluster, 0);
        let stable = (0..links).map(|n| {
            let url = format!("https://example.com/stable/{n}");
            (user.shorten(&url), url)
        });
        let edited = (0..EDITED).map(|_| {
            let slug = user.shorten("https://example.com/edited/0");
            (slug, Edits(Mutex::new(vec![(0, Instant::now())])))
        });
        let limited = (0..LIMITED).map(|_| {
            let link = json!({ "longUrl": "https://example.com/limited", "maxVisits": VISITS });
            let response = user.send("POST", "/api/v1/links", Some(&link));
            assert_eq!(response.status(), 201);
            Limited {
                slug: slug_of(response),
                visits: AtomicU64::new(0),
            }
        });
        Self {
            stable: stable.collect(),
            edited: edited.collect(),
            limited: limited.collect(),
            created: Mutex::default(),
            counts: Counts::default(),
            ended: AtomicBool::new(false),
            users: [user, User::of(cluster, 1)],
        }
    }

    /// Everybody is at it while `work` is done.
    pub(super) fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for gateway in 0..2 {
                let user = &self.users[gateway];
                threads.push(scope.spawn(move || self.visit(user, gateway)));
                threads.push(scope.spawn(move || self.create(user)));
                threads.push(scope.spawn(move || self.edit(user, gateway)));
                threads.push(scope.spawn(move || self.look_at_edits(user, gateway)));
                threads.push(scope.spawn(move || self.use_up(user, gateway)));
            }
            let ended = EndOnDrop(&self.ended);
            let worked = work();
            // What goes wrong afterwards counts as well.
            let made = || self.counts.redirects.load(Ordering::Relaxed);
            let before = made();
            wait_until("users go on", || made() >= before + 50);
            drop(ended);
            for thread in threads {
                thread.join().unwrap();
            }
            worked
        })
    }

    fn is_on(&self) -> bool {
        // So that the machine is not busy with the users alone: all of them together make
        // some hundred requests a second.
        std::thread::sleep(Duration::from_millis(30));
        !self.ended.load(Ordering::Relaxed)
    }

    fn visit(&self, user: &User, gateway: usize) {
        let mut turn = gateway * self.stable.len() / 2;
        while self.is_on() {
            let (slug, url) = &self.stable[turn % self.stable.len()];
            self.counts.redirects.fetch_add(1, Ordering::Relaxed);
            match user.follow(slug) {
                (302, location) => assert_eq!(location, *url),
                (status, _) => {
                    eprintln!("redirect of {slug} answered {status}");
                    self.counts.failed_redirects.fetch_add(1, Ordering::Relaxed);
                }
            }
            turn += 1;
        }
    }

    fn create(&self, user: &User) {
        let mut turn = 0;
        while self.is_on() {
            let url = format!("https://example.com/created/{turn}");
            let response = user.send("POST", "/shorten", Some(&json!({ "url": url })));
            if self.is_done(&response, 201) {
                let slug = slug_of(response);
                let before = self.created.lock().unwrap().insert(slug, url);
                assert_eq!(before, None, "one slug for two");
            }
            turn += 1;
        }
    }

    fn edit(&self, user: &User, gateway: usize) {
        for number in 1.. {
            // Each has its own links, so that it knows which edit is the last.
            for (slug, edits) in self.edited.iter().skip(gateway).step_by(2) {
                if !self.is_on() {
                    return;
                }
                let edit = json!({ "longUrl": format!("https://example.com/edited/{number}") });
                let path = format!("/api/v1/links/{slug}");
                let response = user.send("PATCH", &path, Some(&edit));
                if self.is_done(&response, 200) {
                    edits.0.lock().unwrap().push((number, Instant::now()));
                }
            }
        }
    }

    /// Whether a write was made; anything else must be a refusal that says to try again.
    #[track_caller]
    fn is_done(&self, response: &Response, status: u16) -> bool {
        self.counts.writes.fetch_add(1, Ordering::Relaxed);
        if response.status() == status {
            return true;
        }
        assert_eq!(response.status(), 503);
        assert!(response.headers().contains_key("retry-after"));
        self.counts.put_off.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Nobody is led to where a link led more than two seconds ago.
    fn look_at_edits(&self, user: &User, gateway: usize) {
        let mut turn = gateway;
        while self.is_on() {
            let (slug, edits) = &self.edited[turn % EDITED];
            let asked = Instant::now();
            let expected = edits.seen_by(asked);
            if let (302, location) = user.follow(slug) {
                let number = location.rsplit('/').next().unwrap();
                let number: u64 = number.parse().unwrap();
                assert!(number >= expected, "{slug}: {number} long after {expected}");
            }
            turn += 1;
        }
    }

    fn use_up(&self, user: &User, gateway: usize) {
        let mut turn = gateway;
        while self.is_on() {
            self.visit_limited(user, &self.limited[turn % LIMITED]);
            turn += 1;
        }
    }

    fn visit_limited(&self, user: &User, limited: &Limited) -> u16 {
        let (status, _) = user.follow(&limited.slug);
        match status {
            302 => {
                limited.visits.fetch_add(1, Ordering::Relaxed);
            }
            410 | 503 => {}
            other => panic!("{} answered {other}", limited.slug),
        }
        status
    }

    /// Everything is as it was acknowledged, at both gateways.
    pub(super) fn judge(&self, cluster: &Cluster) -> Seen {
        for user in &self.users {
            for (slug, url) in &self.stable {
                assert_eq!(user.follow(slug), (302, url.clone()), "{slug}");
            }
            for (slug, url) in self.created.lock().unwrap().iter() {
                assert_eq!(user.follow(slug), (302, url.clone()), "{slug}");
            }
            for (slug, edits) in &self.edited {
                let last = edits.seen_by(Instant::now() + SEEN_WITHIN);
                let (status, location) = user.follow(slug);
                let number: u64 = location.rsplit('/').next().unwrap().parse().unwrap();
                // One that was put off may have been made all the same.
                assert!(
                    status == 302 && number >= last,
                    "{slug}: {number}, not {last}"
                );
            }
        }
        let mut burned_visits = 0;
        for limited in &self.limited {
            // Each gateway has been told by now, or asks.
            let began = Instant::now();
            for user in &self.users {
                while self.visit_limited(user, limited) != 410 {
                    assert!(
                        began.elapsed() < Duration::from_secs(30),
                        "{}",
                        limited.slug
                    );
                }
            }
            let visits = limited.visits.load(Ordering::Relaxed);
            assert!(visits <= VISITS, "{visits} visits of {}", limited.slug);
            burned_visits += VISITS - visits;
        }
        // The shards agree with what was answered.
        let gone = |gateway| metric(cluster, gateway, "waypost_bad_signatures_total");
        assert_eq!((gone(0), gone(1)), (0.0, 0.0));
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let seen = Seen {
            redirects: count(&self.counts.redirects),
            failed_redirects: count(&self.counts.failed_redirects),
            writes: count(&self.counts.writes),
            put_off: count(&self.counts.put_off),
            burned_visits,
        };
        eprintln!("{seen:?}");
        seen
    }
}

impl Edits {
    /// The edit that whoever asks at this time must see, or a later one.
    fn seen_by(&self, asked: Instant) -> u64 {
        let edits = self.0.lock().unwrap();
        let old_enough = |(_, at): &&(u64, Instant)| *at + SEEN_WITHIN <= asked;
        edits
            .iter()
            .rev()
            .find(old_enough)
            .map_or(0, |(number, _)| *number)
    }
}

fn slug_of(response: Response) -> String {
    let link: Value = response.json().unwrap();
    link["slug"].as_str().unwrap().to_owned()
}
