//! The connection that a handle uses, and what puts another in its place.
//!
//! The client reconnects by itself, but two things it cannot: it reads certificates once,
//! and when all of its connections are cut while commands are under way it can come to
//! wait for itself for good (seen with 1.8.1: the reconnections it queues wait for a lock
//! that its own look at the slots holds, and nobody polls them meanwhile). A failover, or
//! a restart of all nodes, cuts them like that. So it is watched from outside.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use redis::cluster_async::ClusterConnection;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::Cluster;
use crate::watched::Watched;

/// Between two looks at whether another connection is needed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// After so long without an answer the client has had time enough to reconnect, also
/// after a failover, which takes about three seconds.
const STUCK_AFTER: Duration = Duration::from_secs(3);

/// For the first answer over another connection.
const FIRST_ANSWER: Duration = Duration::from_secs(5);

/// Between two tries to get that: one is bounded by the handle's own times, which may
/// be shorter than a connection takes to come about.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// See above.
pub(super) struct Held {
    connection: ArcSwap<ClusterConnection>,
    began: Instant,
    /// When the first command failed since the last answer, in milliseconds after
    /// `began` and at least 1; 0 while commands are answered.
    failing_since: AtomicU64,
}

impl Held {
    /// Holds `connection`, on the current runtime, as long as the answer lives.
    pub(super) fn keep(connection: ClusterConnection, cluster: Arc<Cluster>) -> Arc<Self> {
        let held = Arc::new(Self {
            connection: ArcSwap::from_pointee(connection),
            began: Instant::now(),
            failing_since: AtomicU64::new(0),
        });
        tokio::spawn(look_after(Arc::downgrade(&held), cluster));
        held
    }

    pub(super) fn connection(&self) -> ClusterConnection {
        ClusterConnection::clone(&self.connection.load())
    }

    /// A node answered, be it with a refusal.
    pub(super) fn answered(&self) {
        // Read first: the line stays shared by all cores while all is well.
        if self.failing_since.load(Ordering::Relaxed) != 0 {
            self.failing_since.store(0, Ordering::Relaxed);
        }
    }

    /// No node answered a command.
    pub(super) fn failed(&self) {
        let now = self.began.elapsed().as_millis() as u64;
        // If it fails since before, that stands.
        let _ = self.failing_since.compare_exchange(
            0,
            now.max(1),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    fn is_stuck(&self) -> bool {
        let since = self.failing_since.load(Ordering::Relaxed);
        since != 0 && self.began.elapsed() >= Duration::from_millis(since) + STUCK_AFTER
    }

    fn replace(&self, fresh: ClusterConnection) {
        self.connection.store(Arc::new(fresh));
        self.failing_since.store(0, Ordering::Relaxed);
    }
}

/// Puts another connection in the place of the one that is held, when that is stuck or
/// certificates have changed. The old one serves until the new one has answered.
async fn look_after(held: Weak<Held>, cluster: Arc<Cluster>) {
    let certificates = cluster.access.certificates.as_ref();
    let mut changes = certificates.map(Watched::changes);
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut outdated = false;
    loop {
        look.tick().await;
        if let Some(changes) = &mut changes
            && changes.has_changed().unwrap_or(false)
        {
            changes.mark_unchanged();
            outdated = true;
        }
        let Some(stuck) = held.upgrade().map(|held| held.is_stuck()) else {
            return;
        };
        if !stuck && !outdated {
            continue;
        }
        let Some(fresh) = answering(&cluster).await else {
            continue;
        };
        let Some(held) = held.upgrade() else {
            return;
        };
        held.replace(fresh);
        if stuck {
            tracing::warn!("redis is asked over another connection: one gave no answers");
        }
        outdated = false;
    }
}

/// Another connection, once it has answered.
async fn answering(cluster: &Cluster) -> Option<ClusterConnection> {
    let fresh = match cluster.connect() {
        Ok(fresh) => fresh,
        Err(error) => {
            tracing::warn!(%error, "redis certificates are of no use");
            return None;
        }
    };
    let ping = redis::cmd("PING");
    let answered = async {
        let mut asked = fresh.clone();
        while ping.query_async::<String>(&mut asked).await.is_err() {
            sleep(ASK_AGAIN).await;
        }
    };
    timeout(FIRST_ANSWER, answered).await.ok().map(|()| fresh)
}
