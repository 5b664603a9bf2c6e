//! What is shed first when there is more than can be done.
//!
//! Statistics, lists and previews have few places, and batches the fewest; requests about one link
//! have many. Redirects need none: other threads answer them, and what those do not have
//! in memory waits in queues of its own. A request that finds its lane full is told so at
//! once: it would only wait for others, and its client would repeat it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::api::Problem;
use crate::metrics::Metrics;

/// Statistics, lists and previews at the same time. A list asks every shard.
const READS: usize = 64;

/// Batches at the same time, of each of which 512 creates are under way: with one shard,
/// half of its queue is left to those who create a single link.
const BATCHES: usize = 4;

/// Creates, edits and reads of one link at the same time: half of a shard's queue.
const SINGLE: usize = 2_048;

/// Bytes of bodies that are held while the rest of them comes, of batches and of all other
/// requests apart: 32 batches of the largest size at once, and 2,048 others, so that
/// whoever fills the one keeps the other free. Counted as they come: who sends nothing
/// takes nothing.
const BODIES: usize = 32 * 1024 * 1024;

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
    batch_bodies: Arc<Semaphore>,
    other_bodies: Arc<Semaphore>,
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
            batch_bodies: Arc::new(Semaphore::new(BODIES)),
            other_bodies: Arc::new(Semaphore::new(BODIES)),
            metrics,
        }
    }

    /// Places that are taken, by lane.
    pub(crate) fn in_use(&self) -> [(&'static str, usize); 3] {
        let lanes = [
            (Lane::Reads, &self.reads, READS),
            (Lane::Batches, &self.batches, BATCHES),
            (Lane::Single, &self.single, SINGLE),
        ];
        lanes.map(|(lane, places, all)| (lane.name(), all - places.available_permits()))
    }

    /// Room for the body of a request to this lane, none of which is taken yet.
    pub(crate) fn room(&self, lane: Lane) -> Room<'_> {
        Room {
            free: match lane {
                Lane::Batches => &self.batch_bodies,
                Lane::Reads | Lane::Single => &self.other_bodies,
            },
            taken: None,
            metrics: &self.metrics,
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

/// What one body takes of the room for all, until it is parsed.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    free: &'a Semaphore,
    taken: Option<SemaphorePermit<'a>>,
    metrics: &'a Metrics,
}

impl Room<'_> {
    /// Takes room for so many bytes more.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), Problem> {
        let count = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Ok(more) = self.free.try_acquire_many(count) else {
            self.metrics.shed("bodies");
            return Err(Problem::overloaded());
        };
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use waypost_runtime::metrics::Registry;

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
        let taken = [("reads", 0), ("batches", BATCHES - 1), ("single", 0)];
        assert_eq!(lanes.in_use(), taken);
        assert!(lanes.enter(Lane::Batches).is_ok());
    }

    #[test]
    fn bodies_are_held_only_as_far_as_there_is_room() {
        let lanes = Lanes::new(Metrics::register(&Registry::new()).unwrap());
        let mut first = lanes.room(Lane::Batches);
        first.take(BODIES / 2).unwrap();
        first.take(BODIES / 2).unwrap();
        let mut second = lanes.room(Lane::Batches);
        assert_eq!(second.take(1).unwrap_err().status(), 503);
        assert!(lanes.room(Lane::Single).take(BODIES).is_ok());
        drop(first);
        assert!(second.take(BODIES).is_ok());
    }
}
