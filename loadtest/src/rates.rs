//! The rates a run goes through, step by step.

use std::str::FromStr;

/// The steepest plan: more steps than this are a typing error.
const MAX_STEPS: usize = 200;
/// Above this many requests a second one machine's clock and sockets are what
/// would be measured.
const MAX_RATE: f64 = 10_000_000.0;

/// Requests a second, step by step.
#[derive(Debug, Clone, PartialEq)]
pub struct Rates {
    steps: Vec<f64>,
    until_saturation: bool,
}

impl Rates {
    /// The rates, in order; never empty.
    #[must_use]
    pub fn steps(&self) -> &[f64] {
        &self.steps
    }

    /// Whether the run ends with the first step that is not sustained.
    #[must_use]
    pub const fn until_saturation(&self) -> bool {
        self.until_saturation
    }

    /// Parses `1000` or `1000,2000,4000`: every step is run.
    ///
    /// # Errors
    /// Says what is expected, for an option's error message.
    pub fn parse_list(text: &str) -> Result<Self, String> {
        let steps: Vec<f64> = text.split(',').map(parse_rate).collect::<Result<_, _>>()?;
        if steps.len() > MAX_STEPS {
            return Err(format!("more than {MAX_STEPS} steps"));
        }
        Ok(Self {
            steps,
            until_saturation: false,
        })
    }

    /// Parses `start:factor:max`: each step is `factor` times the one before,
    /// the last one is `max`.
    ///
    /// # Errors
    /// Says what is expected, for an option's error message.
    pub fn parse_ramp(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split(':').collect();
        let [start, factor, max] = parts.as_slice() else {
            return Err("expected start:factor:max, like 1000:1.5:50000".to_owned());
        };
        let (start, max) = (parse_rate(start)?, parse_rate(max)?);
        let factor = f64::from_str(factor)
            .ok()
            .filter(|factor| factor.is_finite() && *factor > 1.0)
            .ok_or("the factor must be a number above 1")?;
        if max < start {
            return Err("the maximum is below the start".to_owned());
        }
        let mut steps: Vec<f64> = std::iter::successors(Some(start), |rate| Some(rate * factor))
            .take_while(|&rate| rate < max)
            .take(MAX_STEPS + 1)
            .collect();
        steps.push(max);
        if steps.len() > MAX_STEPS {
            return Err(format!("more than {MAX_STEPS} steps"));
        }
        Ok(Self {
            steps,
            until_saturation: true,
        })
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    f64::from_str(text.trim())
        .ok()
        .filter(|rate| rate.is_finite() && *rate > 0.0 && *rate <= MAX_RATE)
        .ok_or_else(|| format!("{text:?} is not a rate above 0 and up to {MAX_RATE} a second"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_multiplies_and_ends_at_its_maximum() {
        let rates = Rates::parse_ramp("1000:2:5000").unwrap();
        assert_eq!(rates.steps(), [1_000.0, 2_000.0, 4_000.0, 5_000.0]);
        assert!(rates.until_saturation());
        let exact = Rates::parse_ramp("1000:2:4000").unwrap();
        assert_eq!(exact.steps(), [1_000.0, 2_000.0, 4_000.0]);
    }

    #[test]
    fn a_list_keeps_its_order() {
        let rates = Rates::parse_list("2000, 500").unwrap();
        assert_eq!(rates.steps(), [2_000.0, 500.0]);
        assert!(!rates.until_saturation());
    }

    #[test]
    fn bad_rates_are_refused() {
        for text in ["", "0", "-5", "many", "1000,", "1e99", "NaN"] {
            assert!(Rates::parse_list(text).is_err(), "{text}");
        }
        for text in ["", "1:2", "1:1:5", "10:2:5", "1:2:3:4", "1:1.0001:1000000"] {
            assert!(Rates::parse_ramp(text).is_err(), "{text}");
        }
    }
}
