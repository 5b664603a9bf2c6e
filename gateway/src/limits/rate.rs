//! How much a limit allows: so many a minute, and so many at once.
//!
//! The generic cell rate algorithm: of each subject only the time is kept at which all
//! that it was granted is paid for. It lies in the future by what was taken at once.

use std::str::FromStr;
use std::time::Duration;

const MINUTE_US: u64 = 60_000_000;

/// Higher is no limit, and an interval of microseconds could not tell.
const MAX: u32 = 10_000_000;

/// `600` or `600:1000`: a minute, and at once (by default as many); `off`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    Off,
    Of { per_minute: u32, burst: u32 },
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let count = |text: &str| match text.parse() {
            Ok(count @ 1..=MAX) => Ok(count),
            _ => Err(format!(
                "expected off, or 1 to {MAX} a minute, as in 600 or, with a burst, 600:1000"
            )),
        };
        let (per_minute, burst) = match text.split_once(':') {
            Some((per_minute, burst)) => (count(per_minute)?, count(burst)?),
            None => (count(text)?, count(text)?),
        };
        Ok(Self::Of { per_minute, burst })
    }
}

/// A rate as times, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Of one unit.
    pub(super) interval: u64,
    /// How far the time at which all is paid for may lie in the future.
    pub(super) tolerance: u64,
    #[cfg(feature = "cluster")]
    pub(super) burst: u32,
}

/// What a subject gets of what it wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) count: u32,
    /// Until one more would be granted.
    pub(crate) wait: Duration,
}

impl Pace {
    pub(super) fn of(rate: Rate) -> Option<Self> {
        let Rate::Of { per_minute, burst } = rate else {
            return None;
        };
        let interval = Duration::from_micros(MINUTE_US / u64::from(per_minute));
        Some(Self::new(burst, interval))
    }

    /// So many at once, then one each interval.
    pub(crate) const fn new(burst: u32, interval: Duration) -> Self {
        let interval = interval.as_micros() as u64;
        Self {
            interval,
            tolerance: interval * burst as u64,
            #[cfg(feature = "cluster")]
            burst,
        }
    }

    /// How long until one would be granted, without taking it.
    pub(crate) fn wait(self, paid_at: u64, now: u64) -> Duration {
        let mut paid_at = paid_at;
        self.take(&mut paid_at, now, 0).wait
    }

    /// Takes up to so many at this time; `paid_at` is what is kept of the subject.
    pub(crate) fn take(self, paid_at: &mut u64, now: u64, wanted: u32) -> Taken {
        let paid = (*paid_at).clamp(now, now + self.tolerance);
        let room = (now + self.tolerance - paid) / self.interval;
        let count = wanted.min(u32::try_from(room).unwrap_or(u32::MAX));
        let paid = paid + u64::from(count) * self.interval;
        *paid_at = paid;
        let wait = (paid + self.interval).saturating_sub(now + self.tolerance);
        Taken {
            count,
            wait: Duration::from_micros(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn pace(text: &str) -> Pace {
        Pace::of(text.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_burst_is_granted_at_once_and_the_rate_after_it() {
        let (pace, mut paid_at) = (pace("60:5"), 0);
        let mut take = |second, wanted| pace.take(&mut paid_at, second * SECOND, wanted);
        assert_eq!(take(100, 3).count, 3);
        let rest = take(100, 9);
        assert_eq!((rest.count, rest.wait), (2, Duration::from_secs(1)));
        assert_eq!(take(100, 1).count, 0);
        assert_eq!(take(101, 9).count, 1);
        assert_eq!(take(101, 1).count, 0);
        assert_eq!(take(900, 9).count, 5, "no more than a burst is saved up");
    }

    #[test]
    fn over_time_no_more_is_granted_than_the_rate_and_one_burst() {
        let (pace, mut paid_at) = (pace("600:20"), 0);
        let tries = (0..60 * 100).map(|n| pace.take(&mut paid_at, n * SECOND / 100, 1).count);
        let granted: u32 = tries.sum();
        assert!((600..=620).contains(&granted), "{granted}");
    }

    #[test]
    fn a_time_beyond_all_that_could_be_granted_heals() {
        let (pace, mut paid_at) = (pace("60:5"), u64::MAX);
        assert_eq!(pace.take(&mut paid_at, SECOND, 1).count, 0);
        assert_eq!(pace.take(&mut paid_at, 2 * SECOND, 1).count, 1);
    }

    #[test]
    fn rates_are_read_as_they_are_documented() {
        let of = |per_minute, burst| Ok(Rate::Of { per_minute, burst });
        assert_eq!("600".parse(), of(600, 600));
        assert_eq!("600:1000".parse(), of(600, 1_000));
        assert_eq!("off".parse(), Ok(Rate::Off));
        for text in ["", "0", "600:0", "-1", "600:", "1:2:3", "many", "10000001"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
