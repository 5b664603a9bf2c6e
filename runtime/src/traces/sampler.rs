//! Which requests are traced.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Requests of which their callers ask that they are traced, a second. Anybody can ask:
/// more than this says nothing more about the service, and would only fill a collector.
const ASKED_A_SECOND: u32 = 100;

/// Decides which requests are traced. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sampler(Option<Arc<Rule>>);

#[derive(Debug)]
struct Rule {
    one_in: u32,
    asked: Asked,
}

impl Sampler {
    /// Traces nothing.
    pub const OFF: Self = Self(None);

    /// Traces one in so many requests, and those of whose callers ask for it.
    #[must_use]
    pub fn one_in(n: u32) -> Self {
        Self(Some(Arc::new(Rule {
            one_in: n.max(1),
            asked: Asked {
                began: Instant::now(),
                second_and_count: AtomicU64::new(0),
            },
        })))
    }

    /// Whether no request is ever traced.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.0.is_none()
    }

    /// Whether to trace a request: as its caller says (see [`super::asked_for`]), as far
    /// as there is room for what callers ask for; or else if `random` falls on one in n.
    #[must_use]
    pub fn decide(&self, asked_for: Option<bool>, random: u32) -> bool {
        let Some(rule) = &self.0 else { return false };
        match asked_for {
            Some(asked_for) => asked_for && rule.asked.admit(),
            None => random.is_multiple_of(rule.one_in),
        }
    }
}

/// Counts what is asked for in each second.
#[derive(Debug)]
struct Asked {
    began: Instant,
    /// The second in the upper half, the count in the lower.
    second_and_count: AtomicU64,
}

impl Asked {
    fn admit(&self) -> bool {
        let second = self.began.elapsed().as_secs();
        let next = |held: u64| match held >> 32 == second {
            true if held as u32 >= ASKED_A_SECOND => None,
            true => Some(held + 1),
            false => Some((second << 32) + 1),
        };
        let counted = &self.second_and_count;
        counted
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::traces::asked_for;

    #[test]
    fn the_callers_decision_is_followed() {
        let sampler = Sampler::one_in(10);
        let says = |value: &str| {
            let value = HeaderValue::from_str(value).unwrap();
            let traceparent = http::HeaderName::from_static("traceparent");
            asked_for(&HeaderMap::from_iter([(traceparent, value)]))
        };
        let header = |flags| format!("00-{}-{}-{flags}", "a".repeat(32), "b".repeat(16));
        assert!(sampler.decide(says(&header("01")), 1));
        assert!(!sampler.decide(says(&header("00")), 0));
        assert!(sampler.decide(says("garbage"), 0));
        assert!(!sampler.decide(None, 1));
        assert!(sampler.decide(None, 20));
        assert!(!Sampler::OFF.decide(says(&header("01")), 0));
    }

    #[test]
    fn callers_have_only_so_many_requests_traced_a_second() {
        let sampler = Sampler::one_in(1);
        let begun = Instant::now();
        let traced = (0..10_000).filter(|_| sampler.decide(Some(true), 0));
        let traced = traced.count() as u64;
        let seconds = begun.elapsed().as_secs() + 2;
        assert!(traced >= u64::from(ASKED_A_SECOND), "{traced}");
        assert!(traced <= seconds * u64::from(ASKED_A_SECOND), "{traced}");
        assert!(sampler.decide(None, 0), "who asks for nothing is as before");
    }
}
