//! One trip at a time for each slug: who misses while another is on its way waits
//! for that one's answer. A link that everybody follows costs one call when it is
//! invalidated, and not one for each visitor.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, WeakShared};
use prometheus::IntCounter;
use waypost_domain::LinkKey;
use waypost_runtime::traces;
use xxhash_rust::xxh3::xxh3_64;

/// Trips to different slugs seldom meet on one of these.
const STRIPES: usize = 64;

/// The trips under way. Cheap to clone.
///
/// Nobody owns a trip: it goes on as long as anybody waits for it, so that a
/// visitor who hangs up takes nothing from the others, and ends when nobody does.
#[derive(Debug)]
pub(crate) struct Flights<T>(Arc<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    stripes: [Mutex<HashMap<Arc<LinkKey>, Flight<T>>>; STRIPES],
    next: AtomicU64,
    joined: IntCounter,
}

#[derive(Debug)]
struct Flight<T> {
    number: u64,
    answer: WeakShared<BoxFuture<'static, T>>,
}

impl<T> Clone for Flights<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    /// `joined` counts those who waited for another's trip.
    pub(crate) fn new(joined: IntCounter) -> Self {
        Self(Arc::new(Inner {
            stripes: std::array::from_fn(|_| Mutex::new(HashMap::new())),
            next: AtomicU64::new(0),
            joined,
        }))
    }

    /// The answer of the trip for this slug that is under way, or of a new one. An
    /// error is an answer, too: it is told to all who wait, and the next to come
    /// tries again.
    pub(crate) async fn join<F>(&self, key: &Arc<LinkKey>, depart: impl FnOnce() -> F) -> T
    where
        F: Future<Output = T> + Send + 'static,
    {
        let answer = {
            let mut flights = self.0.stripe(key);
            match flights.get(key).and_then(|flight| flight.answer.upgrade()) {
                Some(answer) => {
                    self.0.joined.inc();
                    traces::note("waypost.tier", "joined");
                    answer
                }
                None => {
                    let number = self.0.next.fetch_add(1, Ordering::Relaxed);
                    let landing = Landing {
                        flights: self.clone(),
                        key: Arc::clone(key),
                        number,
                    };
                    // Whoever polls it: it is part of the request that set out.
                    let trip = traces::carried(depart());
                    let answer = async move {
                        let _landing = landing;
                        trip.await
                    };
                    let answer = answer.boxed().shared();
                    if let Some(answer) = answer.downgrade() {
                        flights.insert(Arc::clone(key), Flight { number, answer });
                    }
                    answer
                }
            }
        };
        answer.await
    }

    /// Lets nobody else join the trip that is under way: it set out before a change
    /// that has been acknowledged, and may bring back what was before.
    pub(crate) fn close(&self, key: &LinkKey) {
        self.0.stripe(key).remove(key);
    }
}

impl<T> Inner<T> {
    fn stripe(&self, key: &LinkKey) -> MutexGuard<'_, HashMap<Arc<LinkKey>, Flight<T>>> {
        let stripe = xxh3_64(key.slug.as_str().as_bytes()) as usize % STRIPES;
        self.stripes[stripe]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a trip off the list when it has ended, or nobody waits for it any more.
struct Landing<T> {
    flights: Flights<T>,
    key: Arc<LinkKey>,
    number: u64,
}

impl<T> Drop for Landing<T> {
    fn drop(&mut self) {
        let mut flights = self.flights.0.stripe(&self.key);
        // After a `close` another trip may be there.
        if flights
            .get(&self.key)
            .is_some_and(|flight| flight.number == self.number)
        {
            flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use tokio::sync::Semaphore;
    use tokio::task::JoinSet;
    use waypost_domain::{DomainId, Slug};

    use super::*;

    type Answer = Result<usize, &'static str>;

    /// Trips that wait until they are let go, and the count of those begun.
    #[derive(Clone)]
    struct Trips {
        flights: Flights<Answer>,
        begun: Arc<AtomicUsize>,
        gate: Arc<Semaphore>,
    }

    impl Trips {
        fn new() -> Self {
            Self {
                flights: Flights::new(IntCounter::new("joined", "joined").unwrap()),
                begun: Arc::new(AtomicUsize::new(0)),
                gate: Arc::new(Semaphore::new(0)),
            }
        }

        /// Brings back the number of the trip.
        async fn go(self, slug: &'static str, outcome: fn(usize) -> Answer) -> Answer {
            let (begun, gate) = (Arc::clone(&self.begun), self.gate);
            let trip = || async move {
                let number = begun.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                outcome(number)
            };
            self.flights.join(&Arc::new(key(slug)), trip).await
        }

        fn under_way(&self) -> usize {
            let stripes = self.flights.0.stripes.iter();
            stripes.map(|stripe| stripe.lock().unwrap().len()).sum()
        }

        async fn until(&self, holds: impl Fn(&Self) -> bool) {
            let all = async {
                while !holds(self) {
                    tokio::task::yield_now().await;
                }
            };
            let patience = Duration::from_secs(30);
            tokio::time::timeout(patience, all).await.expect("in time");
        }
    }

    fn key(slug: &str) -> LinkKey {
        LinkKey {
            domain: DomainId::MAIN,
            slug: Slug::parse(slug).unwrap(),
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn whoever_misses_a_slug_at_the_same_time_shares_one_trip() {
        let trips = Trips::new();
        let mut all = JoinSet::new();
        for _ in 0..1_000 {
            all.spawn(trips.clone().go("hot-link", Ok));
        }
        trips
            .until(|trips| trips.flights.0.joined.get() == 999)
            .await;
        all.spawn(trips.clone().go("other-link", Ok));
        trips
            .until(|trips| trips.begun.load(Ordering::SeqCst) == 2)
            .await;
        trips.gate.add_permits(2);
        let mut answers = [0; 2];
        while let Some(answer) = all.join_next().await {
            answers[answer.unwrap().unwrap()] += 1;
        }
        assert_eq!(answers, [1_000, 1]);
        assert_eq!(trips.under_way(), 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_visitor_who_hangs_up_strands_nobody_and_the_last_one_ends_the_trip() {
        let trips = Trips::new();
        let first = tokio::spawn(trips.clone().go("hot-link", Ok));
        trips
            .until(|trips| trips.begun.load(Ordering::SeqCst) == 1)
            .await;
        let second = tokio::spawn(trips.clone().go("hot-link", Ok));
        trips.until(|trips| trips.flights.0.joined.get() == 1).await;
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        trips.gate.add_permits(1);
        assert_eq!(second.await.unwrap(), Ok(0), "the first one's trip");

        let alone = tokio::spawn(trips.clone().go("hot-link", Ok));
        trips
            .until(|trips| trips.begun.load(Ordering::SeqCst) == 2)
            .await;
        alone.abort();
        assert!(alone.await.unwrap_err().is_cancelled());
        assert_eq!(trips.under_way(), 0);
        trips.gate.add_permits(1);
        assert_eq!(trips.go("hot-link", Ok).await, Ok(2), "a trip of its own");
    }

    #[tokio::test]
    async fn a_trip_stays_in_the_trace_of_who_set_out_whoever_takes_it_on() {
        let flights: Flights<Option<traces::Place>> =
            Flights::new(IntCounter::new("joined", "joined").unwrap());
        let place: traces::Place = [7; 24];
        let gate = Arc::new(Semaphore::new(0));
        let (key, open) = (Arc::new(key("hot-link")), Arc::clone(&gate));
        let trip = || async move {
            open.acquire().await.unwrap().forget();
            traces::place()
        };
        let mut first = Box::pin(traces::within(traces::at(&place), flights.join(&key, trip)));
        assert!(futures_util::poll!(&mut first).is_pending());
        let mut second = Box::pin(flights.join(&key, std::future::pending));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        gate.add_permits(1);
        assert_eq!(second.await, Some(place));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_failure_is_told_to_those_who_wait_and_to_nobody_after_them() {
        let trips = Trips::new();
        let mut all = JoinSet::new();
        for _ in 0..10 {
            all.spawn(trips.clone().go("hot-link", |_| Err("no shard")));
        }
        trips.until(|trips| trips.flights.0.joined.get() == 9).await;
        trips.gate.add_permits(2);
        while let Some(answer) = all.join_next().await {
            assert_eq!(answer.unwrap(), Err("no shard"));
        }
        assert_eq!(trips.go("hot-link", Ok).await, Ok(1));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nobody_joins_a_trip_that_set_out_before_a_change() {
        let trips = Trips::new();
        let before = tokio::spawn(trips.clone().go("hot-link", Ok));
        trips
            .until(|trips| trips.begun.load(Ordering::SeqCst) == 1)
            .await;
        trips.flights.close(&key("hot-link"));
        let after = tokio::spawn(trips.clone().go("hot-link", Ok));
        trips
            .until(|trips| trips.begun.load(Ordering::SeqCst) == 2)
            .await;
        trips.gate.add_permits(1);
        assert_eq!(before.await.unwrap(), Ok(0));
        // The end of the first trip has not taken the second off the list.
        let with_after = tokio::spawn(trips.clone().go("hot-link", Ok));
        trips.until(|trips| trips.flights.0.joined.get() == 1).await;
        trips.gate.add_permits(1);
        assert_eq!(after.await.unwrap(), Ok(1));
        assert_eq!(with_after.await.unwrap(), Ok(1));
    }
}
