//! Consumers that die, sleep and start over: every redirect is counted once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use waypost_testbed::Cluster;

use super::{User, small};
use crate::patience::wait_until;

/// Enough for all partitions of the log.
const LINKS: usize = 40;

struct Followed {
    slugs: Vec<String>,
    /// Redirects of each, in turn.
    rounds: AtomicU64,
}

impl Followed {
    fn create(user: &User) -> Self {
        let url = |n| format!("https://example.com/counting/{n}");
        Self {
            slugs: (0..LINKS).map(|n| user.shorten(&url(n))).collect(),
            rounds: AtomicU64::new(0),
        }
    }

    #[track_caller]
    fn follow_all(&self, user: &User) {
        for slug in &self.slugs {
            assert_eq!(user.follow(slug).0, 302, "{slug}");
        }
        self.rounds.fetch_add(1, Ordering::Relaxed);
    }

    #[track_caller]
    fn wait_counted(&self, user: &User) {
        let rounds = self.rounds.load(Ordering::Relaxed);
        for slug in &self.slugs {
            wait_until("every click is counted", || {
                user.clicks(slug) >= Some(rounds)
            });
        }
        let counts: Vec<Option<u64>> = self.slugs.iter().map(|slug| user.clicks(slug)).collect();
        assert_eq!(counts, vec![Some(rounds); LINKS]);
    }

    /// Follows all the time, while something is done.
    fn follow_during(&self, user: &User, work: impl FnOnce()) {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    self.follow_all(user);
                }
            });
            work();
            done.store(true, Ordering::Relaxed);
        });
    }
}

fn counted(cluster: &Cluster) -> u64 {
    let sum = "SELECT coalesce(sum(clicks), 0) FROM link_day";
    query(cluster, sum).parse().unwrap()
}

fn query(cluster: &Cluster, sql: &str) -> String {
    let url = cluster.analytics_url();
    let database = url.rsplit('/').next().unwrap();
    cluster.postgres.query(database, sql).unwrap()
}

#[test]
fn consumers_that_are_killed_again_and_again_count_every_redirect_once() {
    let cluster = small().consumers(2).start().unwrap();
    let user = User::of(&cluster, 0);
    let followed = Followed::create(&user);
    followed.follow_during(&user, || {
        for round in 0..4 {
            let before = counted(&cluster);
            wait_until("something more is counted", || counted(&cluster) > before);
            // In the middle of whatever it does; its partitions move to the other.
            let consumer = &cluster.consumers[round % 2];
            consumer.kill().unwrap();
            consumer.restart().unwrap();
        }
    });
    followed.wait_counted(&user);
}

#[test]
fn a_consumer_that_wakes_after_its_partitions_moved_counts_nothing_twice() {
    let cluster = small().consumers(2).start().unwrap();
    let user = User::of(&cluster, 0);
    let followed = Followed::create(&user);
    followed.follow_all(&user);
    followed.wait_counted(&user);
    for sleeper in 0..2 {
        followed.follow_during(&user, || {
            let before = counted(&cluster);
            wait_until("both are at work", || counted(&cluster) > before);
            cluster.consumers[sleeper].pause().unwrap();
        });
        let all = followed.rounds.load(Ordering::Relaxed) * LINKS as u64;
        wait_until("the other has its partitions", || counted(&cluster) == all);
        cluster.consumers[sleeper].resume().unwrap();
        followed.follow_all(&user);
        followed.wait_counted(&user);
    }
}

#[test]
fn a_log_that_is_read_again_from_its_beginning_changes_no_count() {
    let cluster = small().start().unwrap();
    let user = User::of(&cluster, 0);
    let followed = Followed::create(&user);
    for _ in 0..3 {
        followed.follow_all(&user);
        followed.wait_counted(&user);
        cluster.consumers[0].kill().unwrap();
        query(&cluster, "DELETE FROM consumer_offset");
        followed.follow_all(&user);
        cluster.consumers[0].restart().unwrap();
        followed.wait_counted(&user);
    }
}
