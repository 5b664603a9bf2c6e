//! Every click counted once.

use super::{User, shared};
use crate::patience::wait_until;

#[test]
fn a_thousand_redirects_of_fifty_links_count_exactly() {
    let cluster = shared();
    let users = [User::of(cluster, 0), User::of(cluster, 1)];
    let slugs: Vec<String> = (0..50)
        .map(|n| users[0].shorten(&format!("https://example.com/counted/{n}")))
        .collect();
    for slug in &slugs {
        wait_until("both gateways know the link", || {
            users[1].send("HEAD", &format!("/{slug}"), None).status() == 302
        });
    }
    // The counts differ, so that clicks given to the wrong link show.
    let times = |n: usize| if n.is_multiple_of(2) { 25 } else { 15 };
    let clicks: Vec<(usize, usize)> = (0..25)
        .flat_map(|round| (0..50).map(move |n| (round, n)))
        .filter(|(round, n)| *round < times(*n))
        .collect();
    assert_eq!(clicks.len(), 1_000);
    std::thread::scope(|scope| {
        for (part, user) in users.iter().enumerate() {
            let (slugs, clicks) = (&slugs, &clicks);
            scope.spawn(move || {
                // Each link is followed through one gateway and the other by turns.
                for (round, n) in clicks {
                    if (round + n) % 2 == part {
                        assert_eq!(user.follow(&slugs[*n]).0, 302);
                    }
                }
            });
        }
    });
    let expected: Vec<Option<u64>> = (0..50).map(|n| Some(times(n) as u64)).collect();
    for (slug, times) in slugs.iter().zip(&expected) {
        wait_until("all clicks are counted", || users[0].clicks(slug) >= *times);
    }
    let counts: Vec<Option<u64>> = slugs.iter().map(|slug| users[1].clicks(slug)).collect();
    assert_eq!(counts, expected);
}

#[test]
fn head_is_answered_like_get_and_not_counted() {
    let user = User::of(shared(), 0);
    let slug = user.shorten("https://example.com/head");
    for _ in 0..5 {
        let head = user.send("HEAD", &format!("/{slug}"), None);
        assert_eq!(head.status(), 302);
        assert_eq!(head.headers()["location"], "https://example.com/head");
    }
    assert_eq!(user.follow(&slug).0, 302);
    // The HEADs came before, so that they would be counted by now.
    wait_until("the click is counted", || user.clicks(&slug) >= Some(1));
    assert_eq!(user.clicks(&slug), Some(1));
}
