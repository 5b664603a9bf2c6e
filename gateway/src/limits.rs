//! What one client may take of what is there for all, and what it is told beyond that.
//!
//! Each process counts for itself; creates are counted for all gateways of a region
//! together as well, approximately, where there is a Redis. A limit never fails closed:
//! what cannot be counted is allowed.

mod connections;
mod options;
mod rate;
#[cfg(feature = "cluster")]
mod shared;
mod table;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64_with_seed;

pub(crate) use connections::{AddressLimit, AddressPlace};
pub use options::LimitOptions;
pub(crate) use rate::Pace;
pub use rate::Rate;
use rate::Taken;
#[cfg(feature = "cluster")]
use shared::SharedLimit;
pub(crate) use table::Table;

use crate::client::ClientAddress;
use crate::metrics::Metrics;

/// How long an address that has asked for too many unknown slugs is kept from asking
/// for more: by then it has as many again, so that no shorter time is noticed.
const MISS_PENALTY: Duration = Duration::from_secs(60);

/// The part of a burst that a gateway takes from the shared limit at a time. Ten
/// gateways that each leave all of it unused keep half of a burst from its owner.
#[cfg(feature = "cluster")]
const ALLOTMENT: u32 = 20;

/// How long an allotment is believed: what is not used by then is lost.
#[cfg(feature = "cluster")]
const ALLOTTED_FOR: Duration = Duration::from_secs(10);

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    Creates,
    AnonymousCreates,
    /// At the pace of creates, which cost a shard as much, and counted apart from them.
    Edits,
    Misses,
    Reads,
}

impl Limit {
    /// In the answer to who meets it, and in metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Creates => "creates",
            Self::AnonymousCreates => "anonymous_creates",
            Self::Edits => "edits",
            Self::Misses => "misses",
            Self::Reads => "reads",
        }
    }
}

/// Whom a limit holds for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A token: an API key, or the JWTs of one subject. Not the whole tenant, of which one
    /// program that runs wild would stop all others.
    Key(String),
    Address(IpAddr),
}

impl Subject {
    /// Who has not said who it is.
    pub(crate) fn address(client: ClientAddress) -> Self {
        Self::Address(client.network())
    }

    fn bytes(&self, limit: Limit) -> Vec<u8> {
        let mut bytes = limit.name().as_bytes().to_vec();
        // The kind comes first: the octets of an address may spell a key.
        match self {
            Self::Key(key) => {
                bytes.push(b':');
                bytes.extend(key.as_bytes());
            }
            Self::Address(address) => {
                bytes.push(b'@');
                match address {
                    IpAddr::V4(address) => bytes.extend(address.octets()),
                    IpAddr::V6(address) => bytes.extend(address.octets()),
                }
            }
        }
        bytes
    }
}

/// More than a limit allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exceeded {
    pub(crate) limit: Limit,
    wait: Duration,
}

impl Exceeded {
    /// When to come back.
    pub(crate) fn retry_after(&self) -> u32 {
        whole_seconds(self.wait)
    }
}

/// A wait as it is told: whole seconds, at least one, and none too early.
pub(crate) fn whole_seconds(wait: Duration) -> u32 {
    let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    u32::try_from(whole).unwrap_or(u32::MAX).max(1)
}

/// What is granted of what was wanted.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) count: u32,
    /// Why not more.
    pub(crate) exceeded: Option<Exceeded>,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Limits(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    creates: Option<Pace>,
    anonymous_creates: Option<Pace>,
    misses: Option<Pace>,
    reads: Option<Pace>,
    table: Table,
    #[cfg(feature = "cluster")]
    shared: Option<SharedLimit>,
    /// Nobody can choose an address that another's cell belongs to.
    seed: u64,
    began: Instant,
    metrics: Metrics,
}

impl Limits {
    pub(crate) fn new(options: &LimitOptions, metrics: Metrics) -> Self {
        let pace = |rate| Pace::of(rate).filter(|_| options.limits);
        Self(Arc::new(Inner {
            creates: pace(options.limit_creates),
            anonymous_creates: pace(options.limit_anonymous_creates),
            misses: pace(options.limit_misses),
            reads: pace(options.limit_reads),
            table: Table::new(),
            #[cfg(feature = "cluster")]
            shared: None,
            seed: fastrand::u64(..),
            began: Instant::now(),
            metrics,
        }))
    }

    /// Counts creates together with the other gateways of the region.
    #[cfg(feature = "cluster")]
    pub(crate) fn shared_in(
        mut self,
        redis: waypost_runtime::redis::Redis,
        secret: &[u8; 32],
    ) -> Self {
        let inner = Arc::get_mut(&mut self.0).expect("nobody else has it yet");
        let metrics = inner.metrics.clone();
        inner.shared = Some(SharedLimit::new(redis, secret, metrics));
        self
    }

    /// Asks for so many creates.
    pub(crate) async fn creates(&self, subject: &Subject, wanted: u32) -> Granted {
        let (limit, pace) = match subject {
            Subject::Key(_) => (Limit::Creates, self.0.creates),
            Subject::Address(_) => (Limit::AnonymousCreates, self.0.anonymous_creates),
        };
        let Some(pace) = pace else {
            return Granted {
                count: wanted,
                exceeded: None,
            };
        };
        let taken = self.0.take(limit, subject, pace, wanted).await;
        self.granted(limit, wanted, taken)
    }

    /// Asks for one edit, of whatever kind.
    pub(crate) async fn edit(&self, subject: &Subject) -> Result<(), Exceeded> {
        let Some(pace) = self.0.creates else {
            return Ok(());
        };
        let taken = self.0.take(Limit::Edits, subject, pace, 1).await;
        self.granted(Limit::Edits, 1, taken)
            .exceeded
            .map_or(Ok(()), Err)
    }

    /// Asks for one read over the API.
    pub(crate) fn read(&self, subject: &Subject) -> Result<(), Exceeded> {
        let Some(pace) = self.0.reads else {
            return Ok(());
        };
        let (key, now) = (self.0.key(&subject.bytes(Limit::Reads)), self.0.now());
        let taken = self
            .0
            .table
            .with(key, |cell| pace.take(&mut cell.paid_at, now, 1));
        self.granted(Limit::Reads, 1, taken)
            .exceeded
            .map_or(Ok(()), Err)
    }

    /// Whether an address may ask for a slug that is not in memory.
    pub(crate) fn may_miss(&self, client: ClientAddress) -> Result<(), Exceeded> {
        if self.0.misses.is_none() {
            return Ok(());
        }
        let (key, now) = (self.0.misses_of(client), self.0.now());
        let shut_until = self.0.table.look(key, |cell| cell.shut_until);
        match shut_until.and_then(|until| until.checked_sub(now)) {
            None | Some(0) => Ok(()),
            Some(wait) => Err(self.exceeded(Limit::Misses, Duration::from_micros(wait), 1)),
        }
    }

    /// An address has asked for a slug that nobody has.
    pub(crate) fn missed(&self, client: ClientAddress) {
        let Some(pace) = self.0.misses else {
            return;
        };
        let (key, now) = (self.0.misses_of(client), self.0.now());
        self.0.table.with(key, |cell| {
            if pace.take(&mut cell.paid_at, now, 1).count == 0 {
                cell.shut_until = now + MISS_PENALTY.as_micros() as u64;
            }
        });
    }

    fn granted(&self, limit: Limit, wanted: u32, taken: Taken) -> Granted {
        let refused = wanted - taken.count;
        Granted {
            count: taken.count,
            exceeded: (refused > 0).then(|| self.exceeded(limit, taken.wait, refused)),
        }
    }

    fn exceeded(&self, limit: Limit, wait: Duration, count: u32) -> Exceeded {
        self.0.metrics.limited(limit.name(), count);
        Exceeded { limit, wait }
    }
}

impl Inner {
    #[cfg(not(feature = "cluster"))]
    async fn take(&self, limit: Limit, subject: &Subject, pace: Pace, wanted: u32) -> Taken {
        let (key, now) = (self.key(&subject.bytes(limit)), self.now());
        self.table
            .with(key, |cell| pace.take(&mut cell.paid_at, now, wanted))
    }

    /// Takes by the own count first, which costs nothing, and what that grants out of
    /// the allotment of the shared one.
    #[cfg(feature = "cluster")]
    async fn take(&self, limit: Limit, subject: &Subject, pace: Pace, wanted: u32) -> Taken {
        let subject = subject.bytes(limit);
        let (key, now) = (self.key(&subject), self.now());
        let Some(shared) = &self.shared else {
            return self
                .table
                .with(key, |cell| pace.take(&mut cell.paid_at, now, wanted));
        };
        let (here, allotted) = self.table.with(key, |cell| {
            if let Some(wait @ 1..) = cell.shut_until.checked_sub(now) {
                let wait = Duration::from_micros(wait);
                return (Taken { count: 0, wait }, 0);
            }
            let here = pace.take(&mut cell.paid_at, now, wanted);
            if cell.allotted_until <= now {
                cell.allotted = 0;
            }
            let allotted = cell.allotted.min(here.count);
            cell.allotted -= allotted;
            (here, allotted)
        });
        let lacking = here.count - allotted;
        if lacking == 0 {
            return here;
        }
        let allotment = lacking + pace.burst / ALLOTMENT;
        let Some(there) = shared.take(&subject, pace, now, allotment).await else {
            return here;
        };
        let left = there.count.saturating_sub(lacking);
        self.table.with(key, |cell| {
            if there.count < lacking {
                // Remembered, so that what is refused costs no question.
                cell.shut_until = now + there.wait.as_micros() as u64;
            }
            if left > 0 {
                cell.allotted += left;
                cell.allotted_until = now + ALLOTTED_FOR.as_micros() as u64;
            }
        });
        Taken {
            count: allotted + there.count.min(lacking),
            wait: here.wait.max(there.wait),
        }
    }

    fn misses_of(&self, client: ClientAddress) -> u64 {
        self.key(&Subject::address(client).bytes(Limit::Misses))
    }

    fn key(&self, subject: &[u8]) -> u64 {
        xxh3_64_with_seed(subject, self.seed)
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use waypost_runtime::metrics::Registry;

    use super::*;

    #[derive(clap::Parser)]
    struct Sample {
        #[command(flatten)]
        options: LimitOptions,
    }

    fn limits(flags: &[&str]) -> Limits {
        let flags = ["sample"].iter().chain(flags);
        let options = Sample::parse_from(flags).options;
        Limits::new(&options, Metrics::register(&Registry::new()).unwrap())
    }

    fn client(address: &str) -> ClientAddress {
        ClientAddress::of(address.parse().unwrap())
    }

    #[tokio::test]
    async fn each_key_and_each_address_has_limits_of_its_own() {
        let limits = limits(&["--limit-creates=1:5", "--limit-anonymous-creates=1:2"]);
        let (acme, other) = (Subject::Key("acme".into()), Subject::Key("b".into()));
        let address = |text| Subject::address(client(text));
        for (subject, wanted, granted) in [
            (acme.clone(), 4, 4),
            (acme.clone(), 4, 1),
            (other, 1, 1),
            (address("192.0.2.1"), 9, 2),
            (address("192.0.2.2"), 1, 1),
            (address("2001:db8::1"), 2, 2),
            (address("2001:db8::2"), 1, 0),
        ] {
            let count = limits.creates(&subject, wanted).await.count;
            assert_eq!(count, granted, "{subject:?}");
        }
        let exceeded = limits.creates(&acme, 1).await.exceeded.unwrap();
        assert_eq!(exceeded.limit, Limit::Creates);
        assert!((59..=60).contains(&exceeded.retry_after()));
    }

    #[test]
    fn an_address_whose_octets_spell_a_key_has_a_limit_of_its_own() {
        let limits = limits(&["--limit-reads=1:1"]);
        let address = Subject::address(client("97.98.99.100"));
        assert_eq!(limits.read(&address), Ok(()));
        let spelt = Subject::address(client("58.97.98.99"));
        assert_eq!(limits.read(&spelt), Ok(()));
        assert_eq!(limits.read(&Subject::Key("abc".into())), Ok(()));
        assert!(limits.read(&spelt).is_err());
    }

    #[tokio::test]
    async fn edits_are_limited_apart_from_creates() {
        let limits = limits(&["--limit-creates=1:2"]);
        let key = Subject::Key("acme".into());
        assert_eq!(limits.creates(&key, 2).await.count, 2);
        assert_eq!(limits.edit(&key).await, Ok(()));
        assert_eq!(limits.edit(&key).await, Ok(()));
        let exceeded = limits.edit(&key).await.unwrap_err();
        assert_eq!(exceeded.limit, Limit::Edits);
    }

    #[test]
    fn who_misses_too_often_is_shut_out_for_a_while_and_nobody_else() {
        let limits = limits(&["--limit-misses=60:3"]);
        let here = client("192.0.2.1");
        for _ in 0..3 {
            limits.missed(here);
            assert_eq!(limits.may_miss(here), Ok(()));
        }
        limits.missed(here);
        let exceeded = limits.may_miss(here).unwrap_err();
        assert_eq!(exceeded.retry_after(), 60);
        assert_eq!(limits.may_miss(client("192.0.2.2")), Ok(()));
    }

    #[tokio::test]
    async fn what_is_off_limits_nothing() {
        for flags in [
            &["--limits=false", "--limit-reads=1", "--limit-misses=1"][..],
            &["--limit-reads=off", "--limit-misses=off"],
        ] {
            let (limits, here) = (limits(flags), client("192.0.2.1"));
            for _ in 0..100 {
                limits.missed(here);
                assert_eq!(limits.may_miss(here), Ok(()));
                assert_eq!(limits.read(&Subject::address(here)), Ok(()));
            }
        }
    }

    #[test]
    fn nobody_is_told_to_come_back_at_once() {
        let after = |millis| {
            let (limit, wait) = (Limit::Reads, Duration::from_millis(millis));
            Exceeded { limit, wait }.retry_after()
        };
        assert_eq!([0, 1, 1_000, 1_001].map(after), [1, 1, 1, 2]);
    }
}
