//! How often passwords may be tried, counted in this process.

use std::time::{Duration, Instant};

use waypost_domain::LinkKey;
use xxhash_rust::xxh3::Xxh3;

use crate::client::ClientAddress;
use crate::limits::{Pace, Table, whole_seconds};

/// Wrong passwords of one link, whoever sends them: 10 at once, then one in 6 s. That
/// is 14,400 guesses a day and gateway, far from any password that is one.
const OF_LINK: Pace = Pace::new(10, Duration::from_secs(6));

/// Passwords from one address, right or wrong and of whatever link: an office behind
/// one address opens links now and then, a guesser tries all day.
const OF_CLIENT: Pace = Pace::new(30, Duration::from_secs(2));

/// For how long who has sent a wrong password of a link shares its count with all who
/// did. Who has sent none is heard even when others have used that up: else anybody could
/// keep those out who know it. A guesser gains one guess an hour for each of his networks.
const OF_GUESSER: Pace = Pace::new(1, Duration::from_secs(60 * 60));

/// No further attempt is heard for so many seconds, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooOften(pub(crate) u32);

/// Who has tried, and what.
#[derive(Debug)]
pub(crate) struct Attempts {
    table: Table,
    /// Nobody can choose an address that another's cell belongs to.
    seed: u64,
    began: Instant,
}

impl Attempts {
    pub(crate) fn new() -> Self {
        Self {
            table: Table::new(),
            seed: fastrand::u64(..),
            began: Instant::now(),
        }
    }

    /// A client sends a password.
    pub(crate) fn by(&self, client: ClientAddress) -> Result<(), TooOften> {
        self.take(OF_CLIENT, self.key(None, Some(client)), self.now())
    }

    /// Whether a client's password of this link is looked at.
    pub(crate) fn at(&self, link: &LinkKey, client: ClientAddress) -> Result<(), TooOften> {
        self.at_time(link, client, self.now())
    }

    /// A password was wrong. Right ones do not count: else those who know it would keep
    /// each other out.
    pub(crate) fn wrong(&self, link: &LinkKey, client: ClientAddress) {
        self.wrong_at_time(link, client, self.now());
    }

    fn at_time(&self, link: &LinkKey, client: ClientAddress, now: u64) -> Result<(), TooOften> {
        let wait = |pace: Pace, key| {
            let wait = self.table.look(key, |cell| pace.wait(cell.paid_at, now));
            wait.filter(|wait| !wait.is_zero())
        };
        let Some(often) = wait(OF_LINK, self.key(Some(link), None)) else {
            return Ok(());
        };
        match wait(OF_GUESSER, self.key(Some(link), Some(client))) {
            Some(_) => Err(TooOften(whole_seconds(often))),
            None => Ok(()),
        }
    }

    fn wrong_at_time(&self, link: &LinkKey, client: ClientAddress, now: u64) {
        // Several that were heard at once may be more than were left; the rest is free.
        let _ = self.take(OF_LINK, self.key(Some(link), None), now);
        let _ = self.take(OF_GUESSER, self.key(Some(link), Some(client)), now);
    }

    fn take(&self, pace: Pace, key: u64, now: u64) -> Result<(), TooOften> {
        let taken = self
            .table
            .with(key, |cell| pace.take(&mut cell.paid_at, now, 1));
        match taken.count {
            0 => Err(TooOften(whole_seconds(taken.wait))),
            _ => Ok(()),
        }
    }

    /// Of a client, of a link, or of both.
    fn key(&self, link: Option<&LinkKey>, client: Option<ClientAddress>) -> u64 {
        let mut hash = Xxh3::with_seed(self.seed);
        if let Some(link) = link {
            hash.update(&link.domain.0.to_be_bytes());
            hash.update(link.slug.as_str().as_bytes());
        }
        // No slug has this character: what is before it is a link, what is behind an address.
        hash.update(b"@");
        if let Some(client) = client {
            hash.update(client.network().to_string().as_bytes());
        }
        hash.digest()
    }

    /// Microseconds since the process began.
    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }
}

#[cfg(test)]
mod tests {
    use waypost_domain::{DomainId, Slug};

    use super::*;

    const SECOND: u64 = 1_000_000;

    fn link(slug: &str) -> LinkKey {
        LinkKey {
            domain: DomainId::MAIN,
            slug: Slug::parse(slug).unwrap(),
        }
    }

    fn client(address: &str) -> ClientAddress {
        ClientAddress::of(address.parse().unwrap())
    }

    #[test]
    fn after_a_burst_attempts_are_heard_at_their_pace() {
        let (attempts, here) = (Attempts::new(), client("192.0.2.1"));
        let (link, other) = (link("secret-1"), link("secret-2"));
        let heard = |link, now| attempts.at_time(link, here, now);
        for _ in 0..10 {
            assert_eq!(heard(&link, SECOND), Ok(()));
            attempts.wrong_at_time(&link, here, SECOND);
        }
        assert_eq!(heard(&link, SECOND), Err(TooOften(6)));
        assert_eq!(heard(&link, 7 * SECOND - 1), Err(TooOften(1)));
        assert_eq!(heard(&link, 7 * SECOND), Ok(()));
        attempts.wrong_at_time(&link, here, 7 * SECOND);
        assert_eq!(heard(&link, 7 * SECOND), Err(TooOften(6)));
        assert_eq!(heard(&other, 7 * SECOND), Ok(()));
        assert_eq!(heard(&link, 600 * SECOND), Ok(()));
    }

    #[test]
    fn who_has_not_guessed_is_heard_whatever_others_did() {
        let attempts = Attempts::new();
        let (guesser, owner) = (client("192.0.2.1"), client("192.0.2.2"));
        let link = link("secret-1");
        for _ in 0..10 {
            attempts.wrong(&link, guesser);
        }
        assert!(attempts.at(&link, guesser).is_err());
        assert_eq!(attempts.at(&link, owner), Ok(()));
        // A single wrong one, and it is as any other.
        attempts.wrong(&link, owner);
        assert!(attempts.at(&link, owner).is_err());
    }

    #[test]
    fn a_client_may_send_thirty_at_once_whatever_the_link() {
        let attempts = Attempts::new();
        for address in ["192.0.2.1", "192.0.2.2"] {
            let sent = (0..31).filter(|_| attempts.by(client(address)).is_ok());
            assert_eq!(sent.count(), 30, "{address}");
        }
    }
}
