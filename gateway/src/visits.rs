//! Visits of links that may be followed only so often.
//!
//! The shard that owns a link grants its visits, in leases; whoever follows the link here
//! takes one out of the lease that is held. What is held dies with the process, and then
//! a link is followed so much less often; more often than it may be, never.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use waypost_domain::{LinkId, LinkKey, Version};
use xxhash_rust::xxh3::xxh3_64;

use crate::flights::Flights;
use crate::metrics::Metrics;
use crate::shards::{self, Leased, Shards};
use crate::target::Target;

/// Most visits of one lease: what a crash may cost.
const MOST: u32 = 1_000;

/// A lease that is used up sooner was too small, so that the next is twice as large; one
/// that lasts longer than the second was too large. In between a lease costs hardly
/// anything, and little is lost with it.
const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(10);

/// How long a visitor waits for a visit: for two tries at the shard.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long a link is taken for used up without asking again: other gateways may give
/// visits back, and a link that all the world still follows costs a call now and then.
const USED_UP: Duration = Duration::from_secs(5);

/// A lease that nobody draws on goes back, so that those who ask elsewhere get it.
const IDLE: Duration = Duration::from_secs(10);

/// Between two looks for idle leases.
const SWEEP: Duration = Duration::from_secs(2);

/// Writers of different slugs seldom meet on one of these.
const STRIPES: usize = 64;

/// Links of one stripe that leases are held of, 65,536 together: some 10 MiB.
const LINKS: usize = 1_024;

/// Leases that are given back at the same time when the process ends.
const RETURNS: usize = 32;

/// Whether a link may be followed once more.
#[derive(Debug, Clone)]
pub(crate) enum Grant {
    Granted,
    UsedUp,
    /// The shard knows no such limit: the link is not as it is held here.
    Outdated,
    Unknown(shards::Error),
}

/// The leases that this gateway holds. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Visits(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shards: Shards,
    stripes: [Mutex<HashMap<LinkKey, Lease>>; STRIPES],
    flights: Flights<Outcome>,
    /// Of the process: a visitor who hangs up must not take a lease along.
    runtime: Handle,
    metrics: Metrics,
}

/// What is held of one link.
#[derive(Debug)]
struct Lease {
    id: LinkId,
    /// An edit may change the limit: what was granted before goes back.
    version: Version,
    left: u32,
    /// When the shard said that none is left.
    used_up: Option<Instant>,
    wanted: u32,
    granted: Instant,
    touched: Instant,
    /// Asked for, with an unknown outcome: asked for once more under the same id, the
    /// same visits are granted.
    unanswered: Option<(Uuid, u32)>,
}

/// What came of asking for a lease, and for which version of the link it was asked.
#[derive(Debug, Clone)]
struct Outcome {
    version: Version,
    grant: Grant,
}

impl Visits {
    /// Must be called within the runtime of the process.
    pub(crate) fn start(shards: Shards, metrics: Metrics, end: CancellationToken) -> Self {
        let visits = Self(Arc::new(Inner {
            shards,
            stripes: std::array::from_fn(|_| Mutex::default()),
            flights: Flights::new(metrics.visits_joined()),
            runtime: Handle::current(),
            metrics,
        }));
        let sweeping = visits.clone();
        tokio::spawn(async move {
            let sweeps = async {
                loop {
                    tokio::time::sleep(SWEEP).await;
                    let idle = |lease: &Lease| lease.touched.elapsed() > IDLE;
                    sweeping.0.give_back_all(idle).await;
                }
            };
            end.run_until_cancelled(sweeps).await;
        });
        visits
    }

    /// Takes a visit out of what is held; `None` if the shard has to be asked.
    pub(crate) fn take(&self, target: &Target) -> Option<Grant> {
        let key = key(target);
        let mut stripe = self.0.stripe(&key);
        let lease = stripe.get_mut(&key)?;
        if lease.id != target.id || lease.version < target.version {
            return None;
        }
        lease.touched = Instant::now();
        if lease.left > 0 {
            lease.left -= 1;
            return Some(Grant::Granted);
        }
        let used_up = lease.used_up.is_some_and(|at| at.elapsed() < USED_UP);
        used_up.then_some(Grant::UsedUp)
    }

    /// Whether a link is used up, as far as this gateway has been told. Whoever only looks
    /// at a link takes no lease for that, and keeps none: its last visits would be held
    /// here, where nobody makes them.
    pub(crate) fn is_used_up(&self, target: &Target) -> bool {
        let key = key(target);
        let stripe = self.0.stripe(&key);
        stripe.get(&key).is_some_and(|lease| {
            let is_of_it = lease.id == target.id && lease.version >= target.version;
            is_of_it && lease.left == 0 && lease.used_up.is_some()
        })
    }

    /// Takes a visit; asks the shard if need be, once for all who wait.
    pub(crate) async fn ask(&self, target: &Target) -> Grant {
        let asked = tokio::time::timeout(PATIENCE, self.ask_patiently(target));
        let grant = asked
            .await
            .unwrap_or(Grant::Unknown(shards::Error::Unavailable));
        self.0.metrics.visit(match &grant {
            Grant::Granted => "granted",
            Grant::UsedUp => "used_up",
            Grant::Outdated => "outdated",
            Grant::Unknown(_) => "unknown",
        });
        grant
    }

    async fn ask_patiently(&self, target: &Target) -> Grant {
        let key = Arc::new(key(target));
        loop {
            // Those who wait for one lease may be more than it has visits.
            if let Some(grant) = self.take(target) {
                return grant;
            }
            let (inner, id, version) = (Arc::clone(&self.0), target.id, target.version);
            let lease = || {
                let (key, runtime) = (Arc::clone(&key), inner.runtime.clone());
                async move {
                    let lease = async move { inner.lease(&key, id, version).await };
                    let grant = match runtime.spawn(lease).await {
                        Ok(grant) => grant,
                        // The process ends, or a panic was reported.
                        Err(_) => Grant::Unknown(shards::Error::Unavailable),
                    };
                    Outcome { version, grant }
                }
            };
            let outcome = self.0.flights.join(&key, lease).await;
            match outcome.grant {
                Grant::Granted => {}
                // About the link as it was before an edit that we know of.
                Grant::UsedUp | Grant::Outdated if outcome.version < version => {}
                grant => return grant,
            }
        }
    }

    /// Gives back what is held, until the deadline: the process ends.
    pub(crate) async fn give_back(&self, deadline: tokio::time::Instant) {
        let all = self.0.give_back_all(|_| true);
        // What is not given back in time is lost, as in a crash.
        let _ = tokio::time::timeout_at(deadline, all).await;
    }
}

impl Inner {
    async fn lease(self: &Arc<Self>, key: &LinkKey, id: LinkId, version: Version) -> Grant {
        let (lease_id, wanted) = match self.prepare(key, id, version) {
            Ok(prepared) => prepared,
            Err(Surplus::OfAnother) => return Grant::Outdated,
            Err(Surplus::Of(count)) => {
                // Before asking anew, so that it can be granted again.
                self.give_back(key, id, count).await;
                match self.prepare(key, id, version) {
                    Ok(prepared) => prepared,
                    Err(_) => return Grant::Outdated,
                }
            }
        };
        let answer = self.shards.lease_visits(key, id, lease_id, wanted).await;
        let mut stripe = self.stripe(key);
        let current = stripe
            .get_mut(key)
            .filter(|lease| lease.id == id && lease.version == version);
        let Some(lease) = current else {
            // An edit has overtaken the answer, or the table was full.
            if let Ok(Leased::Granted(count)) = answer {
                let (this, key) = (Arc::clone(self), key.clone());
                self.runtime
                    .spawn(async move { this.give_back(&key, id, count).await });
            }
            return match answer {
                Ok(Leased::Granted(_)) => Grant::Granted,
                Ok(Leased::UsedUp) => Grant::UsedUp,
                Ok(Leased::Absent) => Grant::Outdated,
                Err(error) => Grant::Unknown(error),
            };
        };
        lease.touched = Instant::now();
        // Of a call that was lost on its way nobody knows whether it was heard.
        let is_unknown = matches!(answer, Err(shards::Error::Unavailable));
        lease.unanswered = is_unknown.then_some((lease_id, wanted));
        match answer {
            Ok(Leased::Granted(count)) => {
                lease.left += count;
                lease.used_up = None;
                lease.granted = Instant::now();
                Grant::Granted
            }
            Ok(Leased::UsedUp) => {
                lease.used_up = Some(Instant::now());
                Grant::UsedUp
            }
            Ok(Leased::Absent) => {
                stripe.remove(key);
                Grant::Outdated
            }
            Err(error) => Grant::Unknown(error),
        }
    }

    /// What is to be asked for, if nothing is in the way that is held already.
    fn prepare(
        self: &Arc<Self>,
        key: &LinkKey,
        id: LinkId,
        version: Version,
    ) -> Result<(Uuid, u32), Surplus> {
        let mut stripe = self.stripe(key);
        if let Some(lease) = stripe.get_mut(key) {
            if lease.version > version {
                return Err(Surplus::OfAnother);
            }
            if lease.version < version {
                let (former, left) = (lease.id, lease.left);
                *lease = Lease::first(id, version);
                if former == id && left > 0 {
                    return Err(Surplus::Of(left));
                }
                // Visits of a life that has ended are nobody's.
            }
            return Ok(lease.request());
        }
        if stripe.len() >= LINKS {
            self.make_room(&mut stripe);
        }
        let lease = stripe.entry(key.clone());
        Ok(lease.or_insert(Lease::first(id, version)).request())
    }

    /// Lets go of the link that has waited longest, rather of one that is used up.
    fn make_room(self: &Arc<Self>, stripe: &mut HashMap<LinkKey, Lease>) {
        let idlest = stripe
            .iter()
            .min_by_key(|(_, lease)| (lease.left > 0, lease.touched))
            .map(|(key, _)| key.clone());
        let Some((key, lease)) = idlest.and_then(|key| stripe.remove_entry(&key)) else {
            return;
        };
        if lease.left > 0 {
            let this = Arc::clone(self);
            self.runtime
                .spawn(async move { this.give_back(&key, lease.id, lease.left).await });
        }
    }

    async fn give_back_all(&self, which: impl Fn(&Lease) -> bool) {
        let mut leases = Vec::new();
        for stripe in &self.stripes {
            let mut stripe = stripe.lock().unwrap_or_else(PoisonError::into_inner);
            leases.extend(stripe.extract_if(|_, lease| which(lease)));
        }
        leases.retain(|(_, lease)| lease.left > 0);
        stream::iter(&leases)
            .for_each_concurrent(RETURNS, |(key, lease)| {
                self.give_back(key, lease.id, lease.left)
            })
            .await;
    }

    /// Tells the shard that so many visits will not be made; at most once, since said
    /// twice they would be granted twice.
    async fn give_back(&self, key: &LinkKey, id: LinkId, count: u32) {
        let heard = self.shards.return_visits(key, id, count).await.is_ok();
        self.metrics.visits_returned(heard, count);
    }

    fn stripe(&self, key: &LinkKey) -> MutexGuard<'_, HashMap<LinkKey, Lease>> {
        let stripe = xxh3_64(key.slug.as_str().as_bytes()) as usize % STRIPES;
        self.stripes[stripe]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why nothing can be asked for yet.
#[derive(Debug)]
enum Surplus {
    /// So many visits of an earlier version are left.
    Of(u32),
    /// A later version is held.
    OfAnother,
}

impl Lease {
    fn first(id: LinkId, version: Version) -> Self {
        let now = Instant::now();
        Self {
            id,
            version,
            left: 0,
            used_up: None,
            wanted: 0,
            granted: now,
            touched: now,
            unanswered: None,
        }
    }

    fn request(&mut self) -> (Uuid, u32) {
        if let Some(unanswered) = self.unanswered {
            return unanswered;
        }
        let lasted = self.granted.elapsed();
        self.wanted = match self.wanted {
            0 => 1,
            wanted if lasted < SHORT => wanted.saturating_mul(2).min(MOST),
            wanted if lasted > LONG => (wanted / 2).max(1),
            wanted => wanted,
        };
        (Uuid::new_v4(), self.wanted)
    }
}

fn key(target: &Target) -> LinkKey {
    LinkKey {
        domain: target.domain,
        slug: target.slug().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_grows_while_it_is_used_up_quickly_and_shrinks_when_it_lasts() {
        let version = Version::first(waypost_domain::Epoch::FIRST);
        let mut lease = Lease::first(LinkId(Uuid::nil()), version);
        let wanted: Vec<u32> = (0..12).map(|_| lease.request().1).collect();
        assert_eq!(wanted[..5], [1, 2, 4, 8, 16]);
        assert_eq!(wanted[9..], [512, 1_000, 1_000]);
        let ago = |span| Instant::now().checked_sub(span).unwrap();
        lease.granted = ago(SHORT * 2);
        assert_eq!(lease.request().1, 1_000);
        lease.granted = ago(LONG * 2);
        assert_eq!(lease.request().1, 500);
        let unanswered = (Uuid::from_u128(7), 3);
        lease.unanswered = Some(unanswered);
        assert_eq!(lease.request(), unanswered);
    }
}
