//! When requests are due: decided by the clock alone, never by an answer.

use std::time::Duration;

use fastrand::Rng;

/// How due times are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// Evenly: one request every 1/rate.
    Constant,
    /// As independent visitors arrive: exponential gaps of mean 1/rate.
    Poisson,
}

/// The due times of one worker, counted from the start of the step, in order
/// and without end.
#[derive(Debug)]
pub struct Schedule(Shape);

#[derive(Debug)]
enum Shape {
    /// Due times are worked out from a count, not summed up, so that no
    /// rounding error grows over a long run.
    Constant {
        next: u64,
        stride: u64,
        rate: f64,
    },
    Poisson {
        at: f64,
        rate: f64,
        rng: Rng,
    },
}

impl Schedule {
    /// The share of worker `index` out of `workers` in a total of `rate`
    /// requests a second.
    #[must_use]
    pub fn new(arrivals: Arrivals, rate: f64, index: usize, workers: usize, rng: Rng) -> Self {
        Self(match arrivals {
            Arrivals::Constant => Shape::Constant {
                next: index as u64,
                stride: workers as u64,
                rate,
            },
            // Independent Poisson streams add up to a Poisson stream.
            Arrivals::Poisson => Shape::Poisson {
                at: 0.0,
                rate: rate / workers as f64,
                rng,
            },
        })
    }

    /// The next due time.
    pub fn next_due(&mut self) -> Duration {
        match &mut self.0 {
            Shape::Constant { next, stride, rate } => {
                let due = *next as f64 / *rate;
                *next += *stride;
                Duration::from_secs_f64(due)
            }
            Shape::Poisson { at, rate, rng } => {
                // 1 - u is in (0, 1], so the logarithm is finite.
                *at -= (1.0 - rng.f64()).ln() / *rate;
                Duration::from_secs_f64(*at)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(arrivals: Arrivals, rate: f64, workers: usize, end: Duration) -> Vec<Duration> {
        let mut all = Vec::new();
        for index in 0..workers {
            let rng = Rng::with_seed(index as u64);
            let mut schedule = Schedule::new(arrivals, rate, index, workers, rng);
            all.extend(std::iter::repeat_with(|| schedule.next_due()).take_while(|&due| due < end));
        }
        all.sort();
        all
    }

    #[test]
    fn workers_interleave_to_one_even_stream() {
        let due = within(Arrivals::Constant, 300.0, 3, Duration::from_secs(2));
        assert_eq!(due.len(), 600);
        for (k, at) in due.iter().enumerate() {
            let expected = k as f64 / 300.0;
            assert!((at.as_secs_f64() - expected).abs() < 1e-8);
        }
    }

    #[test]
    fn poisson_gaps_have_the_mean_and_the_spread_of_an_exponential() {
        let due = within(Arrivals::Poisson, 1_000.0, 2, Duration::from_secs(100));
        assert!((99_000..101_000).contains(&due.len()), "{}", due.len());
        let gaps: Vec<f64> = due
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).as_secs_f64())
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // Mean and standard deviation of an exponential are the same.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.03);
    }
}
