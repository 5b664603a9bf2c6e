//! The clicks of a gateway that is killed, stopped, cut off, or out of files.

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use waypost_testbed::Cluster;
use waypost_testbed::service::Kind;

use super::outages::metric;
use super::restarts::EndOnDrop;
use super::{User, small};
use crate::patience::{wait_until, wait_until_for};

/// What a gateway may take to drain: see the rolling restarts.
const DRAIN: Duration = Duration::from_secs(25);

/// Follows links by turns through a gateway until it is told to end or the gateway
/// is gone.
struct Visitors<'a> {
    users: Vec<User>,
    slugs: &'a [String],
    pause: Duration,
    /// The gateway may go away: that ends the visits.
    may_break: bool,
    ended: AtomicBool,
    /// Of each visit: which link, when it was answered, how long it took.
    answered: Mutex<Vec<(usize, Instant, Duration)>>,
    /// Visits that were begun.
    begun: Mutex<Vec<usize>>,
}

impl<'a> Visitors<'a> {
    fn of(cluster: &Cluster, count: usize, slugs: &'a [String]) -> Self {
        Self {
            users: (0..count).map(|_| User::of(cluster, 0)).collect(),
            slugs,
            pause: Duration::ZERO,
            may_break: false,
            ended: AtomicBool::new(false),
            answered: Mutex::default(),
            begun: Mutex::default(),
        }
    }

    /// Visits while `then` runs.
    fn during(&self, then: impl FnOnce()) {
        std::thread::scope(|scope| {
            for user in &self.users {
                scope.spawn(|| self.visit(user));
            }
            let ended = EndOnDrop(&self.ended);
            then();
            drop(ended);
        });
    }

    fn visit(&self, user: &User) {
        for turn in 0.. {
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            let link = turn % self.slugs.len();
            self.begun.lock().unwrap().push(link);
            let before = Instant::now();
            let path = format!("/{}", self.slugs[link]);
            match user.request("GET", &path, None).send() {
                Ok(response) => assert_eq!(response.status(), 302),
                Err(_) if self.may_break => return,
                Err(error) => panic!("{error}"),
            }
            let took = before.elapsed();
            let visit = (link, Instant::now(), took);
            self.answered.lock().unwrap().push(visit);
            std::thread::sleep(self.pause);
        }
    }

    fn wait_for(&self, visits: usize) {
        let enough = self.answered.lock().unwrap().len() + visits;
        wait_until("visitors are answered", || {
            self.answered.lock().unwrap().len() >= enough
        });
    }

    fn answered(&self, until: Instant) -> u64 {
        let answered = self.answered.lock().unwrap();
        answered.iter().filter(|(_, at, _)| *at <= until).count() as u64
    }

    /// The hundredth part of the visits since `since` took longer.
    fn p99(&self, since: Instant) -> Duration {
        let answered = self.answered.lock().unwrap();
        let since = answered.iter().filter(|(_, at, _)| *at >= since);
        let mut took: Vec<Duration> = since.map(|(_, _, took)| *took).collect();
        took.sort();
        took[took.len() * 99 / 100]
    }
}

fn links(user: &User, count: usize) -> Vec<String> {
    let url = |n| format!("https://example.com/spool/{n}");
    (0..count).map(|n| user.shorten(&url(n))).collect()
}

fn counted(user: &User, slugs: &[String]) -> u64 {
    slugs
        .iter()
        .map(|slug| user.clicks(slug).unwrap_or(0))
        .sum()
}

#[test]
fn a_gateway_that_is_killed_loses_at_most_the_clicks_of_its_last_commit() {
    let cluster = small().start().unwrap();
    let there = User::of(&cluster, 1);
    let turns: Vec<_> = (0..4)
        .map(|turn| {
            let slugs = links(&there, 3);
            let mut visitors = Visitors::of(&cluster, 2, &slugs);
            visitors.pause = Duration::from_millis(1);
            visitors.may_break = true;
            let mut killed = Instant::now();
            visitors.during(|| {
                visitors.wait_for(500 + turn * 37);
                killed = Instant::now();
                cluster.gateways[0].kill().unwrap();
            });
            cluster.gateways[0].restart().unwrap();
            let before = |ms| visitors.answered(killed - Duration::from_millis(ms));
            let begun = visitors.begun.lock().unwrap().len() as u64;
            (slugs.clone(), before(50), before(500), begun)
        })
        .collect();
    // It says so before it is ready, and has nothing else to do.
    wait_until("the spool is replayed", || {
        metric(&cluster, 0, "waypost_click_spool_bytes") == 0.0
    });
    for (slugs, _, before_500_ms, _) in &turns {
        wait_until("what was committed is counted", || {
            counted(&there, slugs) >= *before_500_ms
        });
    }
    // A busy machine may put off one commit; not that of every turn.
    wait_until("clicks older than 50 ms are counted", || {
        turns.iter().any(|(slugs, before_50_ms, _, _)| {
            assert!(*before_50_ms > 100);
            counted(&there, slugs) >= *before_50_ms
        })
    });
    for (slugs, before_50_ms, _, begun) in &turns {
        let counted = counted(&there, slugs);
        eprintln!("{counted} counted; {before_50_ms} answered 50 ms before, {begun} begun");
        assert!(counted <= *begun, "{counted} counted of {begun}");
    }
}

#[test]
fn a_gateway_that_is_stopped_loses_no_click() {
    let cluster = small()
        .set(Kind::Gateway, "WAYPOST_LAME_DUCK_MS", "500")
        .start()
        .unwrap();
    let there = User::of(&cluster, 1);
    let slugs = links(&there, 5);
    let mut visitors = Visitors::of(&cluster, 2, &slugs);
    visitors.may_break = true;
    // They come until the door is shut, so that the last are not committed yet.
    visitors.during(|| {
        visitors.wait_for(300);
        assert!(cluster.gateways[0].terminate(DRAIN).unwrap());
    });
    let answered = visitors.answered(Instant::now());
    wait_until("every click is counted", || {
        counted(&there, &slugs) >= answered
    });
    let begun = visitors.begun.lock().unwrap().len() as u64;
    assert!(counted(&there, &slugs) <= begun);
}

#[test]
fn a_gateway_that_is_stopped_without_a_broker_leaves_its_clicks_on_the_volume() {
    let cluster = small()
        .set(Kind::Gateway, "WAYPOST_LAME_DUCK_MS", "500")
        .set(Kind::Gateway, "WAYPOST_SHUTDOWN_GRACE_MS", "5000")
        .start()
        .unwrap();
    let there = User::of(&cluster, 1);
    let slugs = links(&there, 5);
    cluster.broker.pause().unwrap();
    let visitors = Visitors::of(&cluster, 2, &slugs);
    visitors.during(|| visitors.wait_for(300));
    let answered = visitors.answered(Instant::now());
    // With its connections, which the gateway would wait for.
    drop(visitors);
    // It ends; with what exit code is not the point.
    cluster.gateways[0].terminate(DRAIN).unwrap();
    cluster.broker.resume().unwrap();
    cluster.gateways[0].restart().unwrap();
    wait_until("every click is counted", || {
        counted(&there, &slugs) >= answered
    });
    assert_eq!(counted(&there, &slugs), answered);
}

#[test]
fn redirects_do_not_notice_an_outage_of_the_broker_and_its_clicks_are_counted_soon_after() {
    // WAYPOST_TEST_OUTAGE_S=300 is the outage that is promised to go unnoticed.
    let seconds = std::env::var("WAYPOST_TEST_OUTAGE_S");
    let seconds = seconds.map_or(8, |text| text.parse().unwrap());
    let lasts = Duration::from_secs(seconds);
    let cluster = small().start().unwrap();
    let there = User::of(&cluster, 1);
    let slugs = links(&there, 10);
    let mut visitors = Visitors::of(&cluster, 2, &slugs);
    visitors.pause = Duration::from_millis(5);
    let began = Instant::now();
    let mut usual = Duration::ZERO;
    let mut during = Duration::ZERO;
    visitors.during(|| {
        visitors.wait_for(500);
        usual = visitors.p99(began);
        let paused = Instant::now();
        cluster.broker.pause().unwrap();
        wait_until_for("the outage lasts", lasts * 2, || paused.elapsed() >= lasts);
        during = visitors.p99(paused);
        visitors.wait_for(10);
    });
    let answered = visitors.answered(Instant::now());
    let resumed = Instant::now();
    cluster.broker.resume().unwrap();
    wait_until_for("every click is counted", lasts * 2, || {
        counted(&there, &slugs) >= answered
    });
    eprintln!(
        "{answered} clicks, p99 {usual:?} before and {during:?} in the outage, counted after {:?}",
        resumed.elapsed()
    );
    assert_eq!(counted(&there, &slugs), answered);
    // 50 ms is what is promised; a busy machine makes everything slower.
    let bound = Duration::from_millis(50).max(usual * 3);
    assert!(
        during < bound,
        "p99 {usual:?} before, {during:?} in the outage"
    );
}

#[test]
fn a_gateway_out_of_file_descriptors_counts_every_click() {
    let cluster = small().start().unwrap();
    let there = User::of(&cluster, 1);
    let slugs = links(&there, 5);
    let gateway = &cluster.gateways[0];
    let visitors = Visitors::of(&cluster, 2, &slugs);
    let limit = |soft: &str| {
        let status = Command::new("prlimit")
            .args([
                "--pid",
                &gateway.pid().to_string(),
                &format!("--nofile={soft}:"),
            ])
            .status();
        assert!(status.unwrap().success());
    };
    visitors.during(|| {
        visitors.wait_for(100);
        // Nothing can be opened from now on; what is open stays so.
        limit("3");
        visitors.wait_for(500);
        limit("1024");
        visitors.wait_for(100);
    });
    let answered = visitors.answered(Instant::now());
    wait_until("every click is counted", || {
        counted(&there, &slugs) >= answered
    });
    assert_eq!(counted(&there, &slugs), answered);
}
