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
    std::thread::scope(|scope| {
        for (part, user) in users.iter().enumerate() {
            let slugs = &slugs;
            scope.spawn(move || {
                // Link n is followed n or n + 1 times a round, so that counts differ.
                for click in (part..1_000).step_by(2) {
                    assert_eq!(user.follow(&slugs[click % 50]).0, 302);
                }
            });
        }
    });
    for slug in &slugs {
        wait_until("all clicks are counted", || {
            users[0].clicks(slug) >= Some(20)
        });
    }
    let counts: Vec<Option<u64>> = slugs.iter().map(|slug| users[1].clicks(slug)).collect();
    assert_eq!(counts, vec![Some(20); 50]);
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
