//! What is shed first when there is more than can be done.
//!
//! Statistics, lists and previews have few places, and batches the fewest; requests about one link
//! have many. Redirects need none: other threads answer them, and what those do not have
//! in memory waits in queues of its own. A request that finds its lane full is told so at
//! once: it would only wait for others, and its client would repeat it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::Problem;
use crate::metrics::Metrics;

/// Statistics, lists and previews at the same time. A list asks every shard.
const READS: usize = 64;

/// Batches at the same time, of each of which 512 creates are under way: with one shard,
/// half of its queue is left to those who create a single link.
const BATCHES: usize = 4;

/// Creates, edits and reads of one link at the same time: half of a shard's queue.
const SINGLE: usize = 2_048;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Statistics, lists and previews.
    Reads,
    Batches,
    /// One link.
    Single,
}

impl Lane {
    const fn name(self) -> &'static str {
        match self {
            Self::Reads => "reads",
            Self::Batches => "batches",
            Self::Single => "single",
        }
    }
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Lanes {
    reads: Arc<Semaphore>,
    batches: Arc<Semaphore>,
    single: Arc<Semaphore>,
    metrics: Metrics,
}

/// Held for as long as the request is worked on.
#[must_use]
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Lanes {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            reads: Arc::new(Semaphore::new(READS)),
            batches: Arc::new(Semaphore::new(BATCHES)),
            single: Arc::new(Semaphore::new(SINGLE)),
            metrics,
        }
    }

    /// A place, to be taken when the whole request has been read: clients that send
    /// slowly must not keep others out.
    pub(crate) fn enter(&self, lane: Lane) -> Result<Place, Problem> {
        let places = match lane {
            Lane::Reads => &self.reads,
            Lane::Batches => &self.batches,
            Lane::Single => &self.single,
        };
        match Arc::clone(places).try_acquire_owned() {
            Ok(permit) => Ok(Place { _permit: permit }),
            Err(_) => {
                self.metrics.shed(lane.name());
                Err(Problem::overloaded())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;

    #[test]
    fn a_full_lane_sheds_its_own_and_leaves_the_others_room() {
        let lanes = Lanes::new(Metrics::register(&Registry::new()).unwrap());
        let mut places: Vec<_> = (0..BATCHES)
            .map(|_| lanes.enter(Lane::Batches).unwrap())
            .collect();
        assert_eq!(lanes.enter(Lane::Batches).unwrap_err().status(), 503);
        assert!(lanes.enter(Lane::Reads).is_ok());
        assert!(lanes.enter(Lane::Single).is_ok());
        places.pop();
        assert!(lanes.enter(Lane::Batches).is_ok());
    }
}
