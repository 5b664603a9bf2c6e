//! Reads at the standbys of the shard's database, while that cannot be asked.
//!
//! How far each standby has come in the log is looked at all the time. One that is
//! far behind is not asked; of the others the furthest is asked first: a log has no
//! holes, so that it has all that was acknowledged.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use waypost_domain::LinkKey;

use super::resolve::ResolveAtReplica;
use crate::lane::{Lane, cause};
use crate::metrics::Metrics;
use crate::store::{Error, LinkStore, Position, Purpose, Resolved, Session as _};

/// Sessions at each replica. It serves only while the primary does not, and two keep
/// one statement on its way while another is being answered.
const READERS: usize = 2;

/// What a read waits for one replica. With what it has waited for the primary before,
/// that is less than a gateway waits.
const PATIENCE: Duration = Duration::from_millis(300);

/// Between two looks at the servers: so long the loss of one goes unnoticed by reads
/// that do not meet it, and its return by all.
const LOOK: Duration = Duration::from_millis(250);

/// A server that needs longer to say where it is counts as away.
const ANSWER: Duration = Duration::from_millis(500);

/// How far a replica may have been behind when the primary was last heard: as much as
/// the loss of a region may cost. It is streaming, or was until the primary was lost,
/// if it has what the primary had so long before.
const MAX_LAG: Duration = Duration::from_secs(10);

/// The replicas of a shard, at least one. Cheap to clone.
#[derive(Debug)]
pub(super) struct Replicas<S: LinkStore> {
    lanes: Arc<[Lane<S, ResolveAtReplica>]>,
    standing: Arc<Mutex<Standing>>,
}

impl<S: LinkStore> Clone for Replicas<S> {
    fn clone(&self) -> Self {
        Self {
            lanes: Arc::clone(&self.lanes),
            standing: Arc::clone(&self.standing),
        }
    }
}

/// Who can be asked.
#[derive(Debug)]
struct Standing {
    primary_answers: bool,
    /// Indices of replicas, the furthest first.
    usable: Vec<usize>,
}

impl<S: LinkStore> Replicas<S> {
    /// Starts the replicas' workers and the look-out, which end with `shutdown`;
    /// `None` if there are no replicas.
    pub(super) fn start(
        primary: &S,
        replicas: &[S],
        metrics: &Metrics,
        shutdown: &CancellationToken,
    ) -> Option<Self> {
        if replicas.is_empty() {
            return None;
        }
        let standing = Arc::new(Mutex::new(Standing {
            primary_answers: true,
            usable: Vec::new(),
        }));
        let lookout = LookOut {
            primary: Server::of(primary),
            replicas: replicas.iter().map(Server::of).collect(),
            progress: Progress::default(),
            standing: Arc::clone(&standing),
            metrics: metrics.clone(),
        };
        let end = shutdown.clone();
        tokio::spawn(async move { end.run_until_cancelled(lookout.run()).await });
        let lanes = replicas
            .iter()
            .map(|replica| Lane::start(replica, READERS, metrics, shutdown))
            .collect();
        Some(Self { lanes, standing })
    }

    /// Whether one of them can stand in for the primary.
    pub(super) fn any_usable(&self) -> bool {
        !lock(&self.standing).usable.is_empty()
    }

    /// Whether the primary has answered when it was asked last.
    pub(super) fn primary_answers(&self) -> bool {
        lock(&self.standing).primary_answers
    }

    /// The primary has left a read waiting: others need not try it until it has said
    /// something again.
    pub(super) fn primary_failed(&self) {
        lock(&self.standing).primary_answers = false;
    }

    /// The word of the first replica that answers, if one does.
    pub(super) async fn resolve(&self, keys: &[LinkKey]) -> Option<Vec<Resolved>> {
        let usable = lock(&self.standing).usable.clone();
        for replica in usable {
            let asking = self.lanes[replica].run(keys.to_vec());
            if let Ok(Ok(outcomes)) = timeout(PATIENCE, asking).await {
                return Some(outcomes);
            }
        }
        None
    }
}

fn lock(standing: &Mutex<Standing>) -> MutexGuard<'_, Standing> {
    standing.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks every server again and again where it is.
struct LookOut<S: LinkStore> {
    primary: Server<S>,
    replicas: Vec<Server<S>>,
    progress: Progress,
    standing: Arc<Mutex<Standing>>,
    metrics: Metrics,
}

impl<S: LinkStore> LookOut<S> {
    async fn run(mut self) {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let asked = Instant::now();
            let replicas = join_all(self.replicas.iter_mut().map(Server::position));
            let (primary, replicas) = tokio::join!(self.primary.position(), replicas);
            // Somebody may have made it a standby of another.
            let primary = primary.filter(|position| !position.is_standby);
            let usable = self.progress.see(asked, primary, &replicas);
            self.tell(primary.is_some(), usable);
            if let Some(lag) = self.progress.lag(asked) {
                let gauge = self.metrics.replication_lag.with_label_values::<&str>(&[]);
                gauge.set(lag.as_secs_f64());
            }
        }
    }

    fn tell(&self, primary_answers: bool, usable: Vec<usize>) {
        self.metrics.replicas_usable.set(usable.len() as i64);
        let now = Standing {
            primary_answers,
            usable,
        };
        let (count, replicas) = (now.usable.len(), self.replicas.len());
        let before = std::mem::replace(&mut *lock(&self.standing), now);
        match (before.primary_answers, primary_answers) {
            (true, false) => tracing::warn!(replicas = count, "primary does not answer"),
            (false, true) => tracing::info!("primary answers again"),
            _ => {}
        }
        if count < before.usable.len() {
            tracing::warn!(usable = count, of = replicas, "replica lost or far behind");
        } else if count > before.usable.len() {
            tracing::info!(usable = count, of = replicas, "replica can be read");
        }
    }
}

/// One server, with a session of its own: behind the requests' sessions, a busy
/// server would look like one that is away.
struct Server<S: LinkStore> {
    store: S,
    session: Option<S::Session>,
}

impl<S: LinkStore> Server<S> {
    fn of(store: &S) -> Self {
        Self {
            store: store.clone(),
            session: None,
        }
    }

    /// Where it is; `None` if it does not say.
    async fn position(&mut self) -> Option<Position> {
        match timeout(ANSWER, self.ask()).await {
            Ok(Ok(position)) => Some(position),
            // Who asks for links there says so in the log, too, and louder.
            Ok(Err(error)) => {
                tracing::debug!(error = %cause(&error), "server does not say where it is");
                None
            }
            Err(_) => None,
        }
    }

    async fn ask(&mut self) -> Result<Position, Error> {
        // Taken out, so that it is gone if it fails or takes too long.
        let mut session = match self.session.take() {
            Some(session) => session,
            None => self.store.connect(Purpose::Read).await?,
        };
        let position = session.position().await?;
        self.session = Some(session);
        Ok(position)
    }
}

/// What was seen of the primary's log, and of who follows it.
#[derive(Debug, Default)]
struct Progress {
    log: Option<i64>,
    /// When the primary was asked, and where it was then: the last [`MAX_LAG`], and
    /// one that is older, if there is.
    marks: VecDeque<(Instant, u64)>,
    /// By replica: whether it has left the primary while that was there.
    strayed: Vec<bool>,
    /// The latest time for which one of them has all that the primary had.
    caught_up_to: Option<Instant>,
}

impl Progress {
    /// Takes a look at all servers in, and gives the replicas that can be read, the
    /// furthest first.
    fn see(
        &mut self,
        asked: Instant,
        primary: Option<Position>,
        replicas: &[Option<Position>],
    ) -> Vec<usize> {
        if let Some(position) = primary {
            self.mark(asked, position);
        }
        self.strayed.resize(replicas.len(), false);
        let mut usable = Vec::new();
        for (index, replica) in replicas.iter().enumerate() {
            let Some(replica) = replica else { continue };
            if replica.is_standby {
                self.strayed[index] = false;
            } else if primary.is_some() {
                self.strayed[index] = true;
            }
            if replica.is_standby {
                self.caught_up_to = self.caught_up_to.max(self.mark_within(*replica));
            }
            // One that is promoted while there is no primary knows best.
            if !self.strayed[index] && self.has_enough(*replica) {
                usable.push((replica.at, index));
            }
        }
        usable.sort_unstable_by(|a, b| b.cmp(a));
        usable.into_iter().map(|(_, index)| index).collect()
    }

    fn mark(&mut self, asked: Instant, primary: Position) {
        let is_behind = self.marks.back().is_some_and(|(_, at)| *at > primary.at);
        // Another server has become the primary, or a copy was restored: what the old
        // one had last is no measure.
        if is_behind || self.log != Some(primary.log) {
            self.marks.clear();
        }
        self.log = Some(primary.log);
        self.marks.push_back((asked, primary.at));
        while self
            .marks
            .get(1)
            .is_some_and(|(seen, _)| asked.duration_since(*seen) >= MAX_LAG)
        {
            self.marks.pop_front();
        }
    }

    /// When the primary was last seen at a place that this replica has reached.
    fn mark_within(&self, replica: Position) -> Option<Instant> {
        if self.log != Some(replica.log) {
            return None;
        }
        let reached = self.marks.iter().rev().find(|(_, at)| *at <= replica.at);
        reached.map(|(seen, _)| *seen)
    }

    /// How far the furthest replica is behind; `None` as long as none was heard.
    fn lag(&self, now: Instant) -> Option<Duration> {
        let caught_up_to = self.caught_up_to?;
        // While the primary is away it writes nothing that a replica could lack.
        let (last_seen, _) = self.marks.back()?;
        Some(now.min(*last_seen).duration_since(caught_up_to))
    }

    fn has_enough(&self, replica: Position) -> bool {
        let oldest = self.marks.front();
        oldest.is_some_and(|(_, at)| replica.at >= *at) && self.log == Some(replica.log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn primary(at: u64) -> Option<Position> {
        Some(Position {
            log: 7,
            at,
            is_standby: false,
        })
    }

    fn standby(at: u64) -> Option<Position> {
        primary(at).map(|position| Position {
            is_standby: true,
            ..position
        })
    }

    #[test]
    fn who_was_far_behind_when_the_primary_was_last_heard_is_not_asked() {
        let mut progress = Progress::default();
        let start = Instant::now();
        let replicas = [standby(100), standby(115), standby(120), None];
        let mut see = |seconds, primary| {
            progress.see(start + Duration::from_secs(seconds), primary, &replicas)
        };
        assert_eq!(see(0, None), [0; 0], "nothing is known of the primary");
        assert_eq!(see(1, primary(100)), [2, 1, 0]);
        assert_eq!(see(5, primary(110)), [2, 1, 0]);
        assert_eq!(see(14, primary(200)), [2, 1, 0], "9 s are not too much");
        assert_eq!(see(15, primary(210)), [2, 1]);
        assert_eq!(
            see(900, None),
            [2, 1],
            "without a primary nothing is missed"
        );
    }

    #[test]
    fn a_standby_that_is_promoted_is_asked_only_if_there_was_no_primary() {
        let mut progress = Progress::default();
        let at = Instant::now();
        assert_eq!(progress.see(at, primary(10), &[standby(10)]), [0]);
        assert_eq!(progress.see(at, None, &[primary(11)]), [0]);
        assert_eq!(progress.see(at, primary(12), &[primary(12)]), [0; 0]);
        assert_eq!(progress.see(at, None, &[primary(99)]), [0; 0], "it strayed");
        assert_eq!(progress.see(at, None, &[standby(12)]), [0], "and is back");
    }

    #[test]
    fn the_lag_is_that_of_the_furthest_replica_and_grows_while_none_comes_on() {
        let mut progress = Progress::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(progress.lag(start), None);
        progress.see(at(0), primary(100), &[standby(100), standby(90)]);
        assert_eq!(progress.lag(at(0)), Some(Duration::ZERO));
        for second in 1..=30 {
            progress.see(at(second), primary(100 + second), &[standby(104), None]);
        }
        assert_eq!(progress.lag(at(30)), Some(Duration::from_secs(26)));
        // The primary is lost: no more is written that they could lack.
        progress.see(at(90), None, &[standby(104)]);
        assert_eq!(progress.lag(at(90)), Some(Duration::from_secs(26)));
        progress.see(at(91), primary(130), &[standby(130)]);
        assert_eq!(progress.lag(at(91)), Some(Duration::ZERO));
    }

    #[test]
    fn a_server_of_another_log_is_never_asked() {
        let mut progress = Progress::default();
        let other = standby(1_000).map(|position| Position { log: 8, ..position });
        assert_eq!(progress.see(Instant::now(), primary(10), &[other]), [0; 0]);
    }

    #[test]
    fn a_primary_that_took_over_with_less_is_the_new_measure() {
        let mut progress = Progress::default();
        let at = Instant::now();
        assert_eq!(progress.see(at, primary(100), &[standby(90)]), [0; 0]);
        assert_eq!(progress.see(at, primary(90), &[standby(90)]), [0]);
    }
}
