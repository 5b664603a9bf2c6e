//! What was seen: latencies as HDR histograms, failures by kind and class.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::mix::Kind;

/// The finest latency told apart from 0.
const SHORTEST: Duration = Duration::from_micros(1);
/// Longer ones are recorded as this: twice the longest deadline there may be.
const LONGEST: Duration = Duration::from_secs(240);
/// Values are kept to 0.1 %.
const DIGITS: u8 = 3;

/// Why a request did not get the answer it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// No connection could be made.
    Connect,
    /// The connection broke, or the answer was not HTTP.
    Transport,
    /// No answer by the deadline.
    Timeout,
    /// Never sent: too many were already waiting.
    Overflow,
    /// A redirect to another place than the link's.
    Location,
    /// Another status than expected.
    Status(u16),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("connect"),
            Self::Transport => f.write_str("transport"),
            Self::Timeout => f.write_str("timeout"),
            Self::Overflow => f.write_str("overflow"),
            Self::Location => f.write_str("location"),
            Self::Status(status) => write!(f, "status {status}"),
        }
    }
}

/// One finished request.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// What was asked.
    pub kind: Kind,
    /// When the request was due.
    pub intended: Instant,
    /// When it was handed to a connection; none if it never was.
    pub sent: Option<Instant>,
    /// When it was over.
    pub finished: Instant,
    /// How it ended.
    pub outcome: Result<(), Failure>,
}

/// A histogram of spans of time, in nanoseconds.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(nanos(SHORTEST), nanos(LONGEST), DIGITS);
        Self(histogram.expect("the bounds are constants within the crate's limits"))
    }
}

impl Latencies {
    /// Adds one.
    pub fn record(&mut self, span: Duration) {
        self.0.saturating_record(nanos(span));
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        self.0
            .add(&other.0)
            .expect("all histograms have the same bounds");
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The value that this share (percent) of all does not exceed; 0 if there
    /// are none.
    #[must_use]
    pub fn percentile(&self, percentile: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_percentile(percentile))
    }

    /// The longest.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }

    /// The arithmetic mean.
    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.0.mean() as u64)
    }

    fn clear(&mut self) {
        self.0.reset();
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// What one kind of request met.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// How many were due.
    pub due: u64,
    /// How many were answered as expected.
    pub answered: u64,
    /// Of these, before the step was over.
    pub answered_in_time: u64,
    /// From the intended start. Answered requests, and timeouts as long as
    /// they were waited for. Other failures are only counted: they may be
    /// fast, and must not make a bad run look quick.
    pub latency: Latencies,
    /// From the actual start, of the same requests as far as they were sent.
    pub service: Latencies,
    /// The others, by class.
    pub failures: BTreeMap<Failure, u64>,
}

impl Tally {
    /// How many failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        self.due += other.due;
        self.answered += other.answered;
        self.answered_in_time += other.answered_in_time;
        self.latency.merge(&other.latency);
        self.service.merge(&other.service);
        for (failure, count) in &other.failures {
            *self.failures.entry(*failure).or_default() += count;
        }
    }
}

/// What a worker saw in one step.
#[derive(Debug)]
pub struct Record {
    /// When the step is over; answers after this are late.
    end: Instant,
    /// By kind; only those that occurred.
    pub kinds: BTreeMap<Kind, Tally>,
    /// How late this program itself was in noticing that requests were due.
    pub lag: Latencies,
    second: Second,
}

/// What happened since the last look.
#[derive(Debug, Default, Clone)]
pub struct Second {
    /// Answered as expected.
    pub answered: u64,
    /// Failed.
    pub failed: u64,
    /// From the intended start, as in [`Tally::latency`].
    pub latency: Latencies,
}

impl Second {
    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.latency.merge(&other.latency);
    }
}

impl Record {
    /// An empty record of a step that ends then.
    #[must_use]
    pub fn new(end: Instant) -> Self {
        Self {
            end,
            kinds: BTreeMap::new(),
            lag: Latencies::default(),
            second: Second::default(),
        }
    }

    /// Notes that a request came due, and how late that was noticed.
    pub fn due(&mut self, kind: Kind, lag: Duration) {
        self.kinds.entry(kind).or_default().due += 1;
        self.lag.record(lag);
    }

    /// Notes how a request ended.
    pub fn finish(&mut self, sample: &Sample) {
        let tally = self.kinds.entry(sample.kind).or_default();
        match sample.outcome {
            Ok(()) => {
                tally.answered += 1;
                tally.answered_in_time += u64::from(sample.finished <= self.end);
                self.second.answered += 1;
            }
            Err(failure) => {
                *tally.failures.entry(failure).or_default() += 1;
                self.second.failed += 1;
            }
        }
        if matches!(sample.outcome, Ok(()) | Err(Failure::Timeout)) {
            let latency = sample.finished.saturating_duration_since(sample.intended);
            tally.latency.record(latency);
            self.second.latency.record(latency);
            if let Some(sent) = sample.sent {
                tally
                    .service
                    .record(sample.finished.saturating_duration_since(sent));
            }
        }
    }

    /// Adds what happened since the last call to `total`, and forgets it.
    pub fn drain_second(&mut self, total: &mut Second) {
        total.merge(&self.second);
        self.second.answered = 0;
        self.second.failed = 0;
        self.second.latency.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(start: Instant, outcome: Result<(), Failure>) -> Sample {
        Sample {
            kind: Kind::Redirect,
            intended: start,
            sent: Some(start + Duration::from_millis(90)),
            finished: start + Duration::from_millis(100),
            outcome,
        }
    }

    #[test]
    fn latency_counts_from_the_intended_start_and_service_from_the_send() {
        let start = Instant::now();
        let mut record = Record::new(start + Duration::from_secs(1));
        record.finish(&sample(start, Ok(())));
        let tally = &record.kinds[&Kind::Redirect];
        assert_eq!(tally.latency.percentile(50.0).as_millis(), 100);
        assert_eq!(tally.service.percentile(50.0).as_millis(), 10);
    }

    #[test]
    fn timeouts_count_as_long_and_other_failures_not_as_fast() {
        let start = Instant::now();
        let mut record = Record::new(start + Duration::from_secs(1));
        record.finish(&sample(start, Err(Failure::Timeout)));
        record.finish(&sample(start, Err(Failure::Connect)));
        record.finish(&sample(start, Err(Failure::Status(503))));
        let tally = &record.kinds[&Kind::Redirect];
        assert_eq!(tally.latency.count(), 1);
        assert_eq!(tally.failed(), 3);
    }

    #[test]
    fn an_answer_after_the_end_is_late() {
        let start = Instant::now();
        let mut record = Record::new(start + Duration::from_millis(99));
        record.finish(&sample(start, Ok(())));
        let tally = &record.kinds[&Kind::Redirect];
        assert_eq!((tally.answered, tally.answered_in_time), (1, 0));
    }

    #[test]
    fn a_second_is_told_once() {
        let start = Instant::now();
        let mut record = Record::new(start);
        record.finish(&sample(start, Ok(())));
        let mut second = Second::default();
        record.drain_second(&mut second);
        record.drain_second(&mut second);
        assert_eq!((second.answered, second.latency.count()), (1, 1));
    }
}
