//! How often passwords may be tried, counted in this process.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use waypost_domain::LinkKey;

use crate::client::ClientAddress;

/// Wrong passwords of one link, whoever sends them: 10 at once, then one in 6 s. That
/// is 14,400 guesses a day and gateway, far from any password that is one.
const OF_LINK: Rate = Rate {
    burst: 10,
    each: Duration::from_secs(6),
};

/// Passwords from one address, right or wrong and of whatever link: an office behind
/// one address opens links now and then, a guesser tries all day.
const OF_CLIENT: Rate = Rate {
    burst: 30,
    each: Duration::from_secs(2),
};

/// For how long who has sent a wrong password of a link shares its count with all who
/// did. Who has sent none is heard even when others have used that up: else anybody could
/// keep those out who know it. A guesser gains one guess an hour for each of his networks.
const OF_GUESSER: Rate = Rate {
    burst: 1,
    each: Duration::from_secs(60 * 60),
};

/// Links, and clients, that are remembered at once: some MiB. With more, some of them
/// are forgotten early.
const REMEMBERED: usize = 16_384;

#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: u32,
    each: Duration,
}

/// No further attempt is heard for so many seconds, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooOften(pub(crate) u32);

/// Who has tried, and what.
#[derive(Debug)]
pub(crate) struct Attempts {
    of_client: Counted<IpAddr>,
    of_link: Counted<LinkKey>,
    of_guesser: Counted<(LinkKey, IpAddr)>,
}

impl Attempts {
    pub(crate) fn new() -> Self {
        Self {
            of_client: Counted::new(OF_CLIENT),
            of_link: Counted::new(OF_LINK),
            of_guesser: Counted::new(OF_GUESSER),
        }
    }

    /// A client sends a password.
    pub(crate) fn by(&self, client: ClientAddress) -> Result<(), TooOften> {
        let (client, now) = (client.network(), Instant::now());
        self.of_client.heard(&client, now)?;
        self.of_client.count(client, now);
        Ok(())
    }

    /// Whether a client's password of this link is looked at.
    pub(crate) fn at(&self, link: &LinkKey, client: ClientAddress) -> Result<(), TooOften> {
        let now = Instant::now();
        self.of_link.heard(link, now).or_else(|often| {
            let guesser = (link.clone(), client.network());
            let has_guessed = self.of_guesser.heard(&guesser, now).is_err();
            if has_guessed { Err(often) } else { Ok(()) }
        })
    }

    /// A password was wrong. Right ones do not count: else those who know it would keep
    /// each other out.
    pub(crate) fn wrong(&self, link: &LinkKey, client: ClientAddress) {
        let now = Instant::now();
        self.of_link.count(link.clone(), now);
        self.of_guesser.count((link.clone(), client.network()), now);
    }
}

/// Cells of the generic cell rate algorithm: until when the attempts so far keep their
/// subject busy, were each of them to take the time between two.
#[derive(Debug)]
struct Counted<K> {
    rate: Rate,
    busy_until: Mutex<HashMap<K, Instant>>,
}

impl<K: Eq + Hash + Clone> Counted<K> {
    fn new(rate: Rate) -> Self {
        Self {
            rate,
            busy_until: Mutex::default(),
        }
    }

    fn heard(&self, subject: &K, now: Instant) -> Result<(), TooOften> {
        let Some(until) = self.cells().get(subject).copied() else {
            return Ok(());
        };
        let room = self.rate.each * (self.rate.burst - 1);
        let wait = until.saturating_duration_since(now).saturating_sub(room);
        if wait.is_zero() {
            return Ok(());
        }
        // Of the last moment, too, a whole second is told.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Err(TooOften(u32::try_from(seconds).unwrap_or(u32::MAX)))
    }

    fn count(&self, subject: K, now: Instant) {
        let mut cells = self.cells();
        if cells.len() >= REMEMBERED && !cells.contains_key(&subject) {
            cells.retain(|_, until| *until > now);
            // An eighth, so that a flood does not pay for each of its subjects.
            let surplus = (cells.len() + REMEMBERED / 8).saturating_sub(REMEMBERED);
            let forgotten: Vec<K> = cells.keys().take(surplus).cloned().collect();
            for subject in forgotten {
                cells.remove(&subject);
            }
        }
        let until = cells.entry(subject).or_insert(now);
        *until = (*until).max(now) + self.rate.each;
    }

    fn cells(&self) -> MutexGuard<'_, HashMap<K, Instant>> {
        self.busy_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_burst_attempts_are_heard_at_their_pace() {
        let counted = Counted::new(OF_LINK);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for _ in 0..10 {
            assert_eq!(counted.heard(&"link", start), Ok(()));
            counted.count("link", start);
        }
        assert_eq!(counted.heard(&"link", start), Err(TooOften(6)));
        let nearly = at(6).checked_sub(Duration::from_nanos(1)).unwrap();
        assert_eq!(counted.heard(&"link", nearly), Err(TooOften(1)));
        assert_eq!(counted.heard(&"link", at(6)), Ok(()));
        counted.count("link", at(6));
        assert_eq!(counted.heard(&"link", at(6)), Err(TooOften(6)));
        assert_eq!(counted.heard(&"other", at(6)), Ok(()));
        assert_eq!(counted.heard(&"link", at(600)), Ok(()));
    }

    #[test]
    fn subjects_that_are_remembered_are_bounded_in_number() {
        let counted = Counted::new(OF_CLIENT);
        let now = Instant::now();
        for subject in 0..3 * REMEMBERED {
            counted.count(subject, now);
        }
        assert!((REMEMBERED / 2..=REMEMBERED).contains(&counted.cells().len()));
        counted.count(usize::MAX, now + Duration::from_secs(60));
        assert!(counted.cells().len() <= REMEMBERED);
    }
}
