//! Leaves a part of Redis alone while it fails: a dead cache must not cost every
//! miss its deadline.
//!
//! There is a breaker for each range of slots. Masters hold slots in stretches, so
//! that one that is dead shuts the ranges it holds and leaves the others' open,
//! and nobody has to know which master holds what.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::metrics::Metrics;

/// Few enough that each soon notices by itself, and so many that a range at the
/// border of two masters is a small part of either.
pub(crate) const RANGES: usize = 64;

const SLOTS: usize = 16_384;

/// Failures in a row that open a breaker: a single late answer is no outage.
const FAILURES: u32 = 3;

/// How long an open breaker lets nothing through; twice as long after each try
/// that fails. At most a second, which is how soon a cache that is back is used.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
        pause: Duration,
    },
    /// One command is on its way, to see whether Redis is back.
    Probing {
        pause: Duration,
    },
}

#[derive(Debug)]
pub(crate) struct Breakers {
    ranges: [Mutex<State>; RANGES],
    open: AtomicI64,
    metrics: Metrics,
}

impl Breakers {
    pub(crate) fn new(metrics: Metrics) -> Self {
        let closed = State::Closed { failures: 0 };
        Self {
            ranges: std::array::from_fn(|_| Mutex::new(closed)),
            open: AtomicI64::new(0),
            metrics,
        }
    }

    /// Leave to send a command about a slot; `None` while its range is left alone.
    pub(crate) fn leave(&self, slot: u16) -> Option<Leave<'_>> {
        self.leave_at(slot, Instant::now())
    }

    fn leave_at(&self, slot: u16, now: Instant) -> Option<Leave<'_>> {
        let range = usize::from(slot) * RANGES / SLOTS;
        let mut state = self.state(range);
        let is_probe = match *state {
            State::Closed { .. } => false,
            State::Open { until, pause } if until <= now => {
                *state = State::Probing { pause };
                true
            }
            State::Open { .. } | State::Probing { .. } => return None,
        };
        Some(Leave {
            breakers: self,
            range,
            is_probe,
            is_settled: false,
        })
    }

    fn settle(&self, range: usize, is_probe: bool, outcome: Outcome, now: Instant) {
        let mut state = self.state(range);
        let next = match (*state, outcome) {
            (State::Closed { failures }, Outcome::Failed) if failures + 1 < FAILURES => {
                State::Closed {
                    failures: failures + 1,
                }
            }
            (State::Closed { .. }, Outcome::Failed) => State::Open {
                until: now + PAUSE_FIRST,
                pause: PAUSE_FIRST,
            },
            (State::Closed { .. }, Outcome::Answered) => State::Closed { failures: 0 },
            (State::Probing { .. }, Outcome::Answered) if is_probe => State::Closed { failures: 0 },
            (State::Probing { pause }, Outcome::Failed) if is_probe => {
                let pause = (pause * 2).min(PAUSE_MAX);
                State::Open {
                    until: now + pause,
                    pause,
                }
            }
            // Nobody waited for the answer: the next to come tries.
            (State::Probing { pause }, Outcome::Unknown) if is_probe => {
                State::Open { until: now, pause }
            }
            // Sent before it opened: says nothing about now.
            (same, _) => same,
        };
        let was_open = !matches!(*state, State::Closed { .. });
        let is_open = !matches!(next, State::Closed { .. });
        *state = next;
        drop(state);
        if was_open != is_open {
            self.count(is_open);
        }
    }

    /// Tells the first that opens and the last that closes, not each of many.
    fn count(&self, is_open: bool) {
        let change = if is_open { 1 } else { -1 };
        let before = self.open.fetch_add(change, Ordering::Relaxed);
        self.metrics.redis_breaker(is_open);
        if is_open && before == 0 {
            tracing::warn!("redis fails, reading from the shards what it should hold");
        } else if !is_open && before == 1 {
            tracing::info!("redis answers for all slots again");
        }
    }

    fn state(&self, range: usize) -> MutexGuard<'_, State> {
        self.ranges[range]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Answered,
    Failed,
    Unknown,
}

/// To be told what became of the command.
#[must_use]
#[derive(Debug)]
pub(crate) struct Leave<'a> {
    breakers: &'a Breakers,
    range: usize,
    is_probe: bool,
    is_settled: bool,
}

impl Leave<'_> {
    pub(crate) fn answered(self) {
        self.settle_at(Outcome::Answered, Instant::now());
    }

    pub(crate) fn failed(self) {
        self.settle_at(Outcome::Failed, Instant::now());
    }

    fn settle_at(mut self, outcome: Outcome, now: Instant) {
        self.is_settled = true;
        self.breakers
            .settle(self.range, self.is_probe, outcome, now);
    }
}

/// Who hangs up while the one probe is on its way must not shut Redis off for good.
impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            let now = Instant::now();
            self.breakers
                .settle(self.range, self.is_probe, Outcome::Unknown, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use waypost_runtime::metrics::Registry;

    use super::*;

    fn breakers() -> Breakers {
        Breakers::new(Metrics::register(&Registry::new()).unwrap())
    }

    fn fail(breakers: &Breakers, slot: u16, now: Instant) {
        let leave = breakers.leave_at(slot, now).expect("leave");
        leave.settle_at(Outcome::Failed, now);
    }

    #[test]
    fn failures_in_a_row_shut_their_range_and_no_other() {
        let (breakers, now) = (breakers(), Instant::now());
        fail(&breakers, 0, now);
        fail(&breakers, 0, now);
        let leave = breakers.leave_at(0, now).unwrap();
        leave.settle_at(Outcome::Answered, now);
        for _ in 0..FAILURES {
            assert!(breakers.leave_at(255, now).is_some(), "not in a row yet");
            fail(&breakers, 0, now);
        }
        assert!(breakers.leave_at(0, now).is_none());
        assert!(breakers.leave_at(255, now).is_none());
        assert!(breakers.leave_at(256, now).is_some());
        assert!(breakers.leave_at(16_383, now).is_some());
        assert_eq!(breakers.open.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn one_probe_at_a_time_after_pauses_that_grow_to_a_second() {
        let (breakers, mut now) = (breakers(), Instant::now());
        (0..FAILURES).for_each(|_| fail(&breakers, 9, now));
        for pause in [50, 100, 200, 400, 800, 1_000, 1_000].map(Duration::from_millis) {
            let early = now + pause - Duration::from_millis(1);
            assert!(breakers.leave_at(9, early).is_none(), "{pause:?}");
            now += pause;
            let probe = breakers.leave_at(9, now).expect("a probe");
            assert!(breakers.leave_at(9, now).is_none(), "a second probe");
            probe.settle_at(Outcome::Failed, now);
        }
        let probe = breakers.leave_at(9, now + PAUSE_MAX).unwrap();
        probe.settle_at(Outcome::Answered, now);
        assert!(breakers.leave_at(9, now).is_some());
        assert_eq!(breakers.open.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_probe_that_nobody_waits_for_makes_way_for_the_next() {
        let (breakers, now) = (breakers(), Instant::now());
        (0..FAILURES).for_each(|_| fail(&breakers, 9, now));
        let later = now + PAUSE_FIRST;
        drop(breakers.leave_at(9, later).unwrap());
        let next = breakers.leave_at(9, later.max(Instant::now()));
        assert!(next.is_some_and(|leave| leave.is_probe));
    }

    #[test]
    fn answers_to_what_was_sent_before_it_opened_change_nothing() {
        let (breakers, now) = (breakers(), Instant::now());
        let early = [(); 2].map(|()| breakers.leave_at(9, now).unwrap());
        (0..FAILURES).for_each(|_| fail(&breakers, 9, now));
        let [one, other] = early;
        one.settle_at(Outcome::Failed, now + Duration::from_secs(9));
        other.settle_at(Outcome::Answered, now);
        assert!(breakers.leave_at(9, now).is_none());
        assert!(breakers.leave_at(9, now + PAUSE_FIRST).is_some());
    }
}
