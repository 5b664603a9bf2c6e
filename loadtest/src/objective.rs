//! What the caller promises its users: latency percentiles and an error share.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::mix::Kind;
use crate::span::{self, Pretty};

/// One promise, for all requests or for one kind of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Objective {
    /// The kind it speaks of; all if none.
    pub kind: Option<Kind>,
    /// What is promised.
    pub bound: Bound,
}

/// An upper limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// This percentile of the latency from the intended start is at most so long.
    Latency {
        /// Above 0 and up to 100.
        percentile: f64,
        /// The longest accepted.
        limit: Duration,
    },
    /// The share of failed requests is at most this, from 0 to 1.
    Errors(f64),
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(kind) = self.kind {
            write!(f, "{kind}.")?;
        }
        match self.bound {
            Bound::Latency { percentile, limit } => {
                write!(f, "p{percentile} <= {}", Pretty(limit))
            }
            Bound::Errors(share) => write!(f, "errors <= {}%", share * 100.0),
        }
    }
}

impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| format!("expected name=limit, found {text:?}"))?;
        let (kind, measure) = match name.trim().split_once('.') {
            // `p99.9` has a dot of its own.
            Some((kind, measure)) if !is_percentile(kind) => (Some(kind.parse()?), measure),
            _ => (None, name.trim()),
        };
        let bound = if measure == "errors" {
            Bound::Errors(parse_share(value.trim())?)
        } else {
            let percentile = measure
                .strip_prefix('p')
                .and_then(|digits| digits.parse::<f64>().ok())
                .filter(|percentile| *percentile > 0.0 && *percentile <= 100.0)
                .ok_or_else(|| {
                    format!("unknown objective {measure:?}, expected errors or p50, p99, p99.9, ..")
                })?;
            Bound::Latency {
                percentile,
                limit: span::parse(value.trim())?,
            }
        };
        Ok(Self { kind, bound })
    }
}

fn is_percentile(text: &str) -> bool {
    text.strip_prefix('p')
        .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse(),
    };
    share
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| format!("{text:?} is not a share like 0.01% or 0.0001"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_print_as_they_parse() {
        for (text, printed) in [
            ("p50=10ms", "p50 <= 10.0ms"),
            ("p99.9=1s", "p99.9 <= 1.00s"),
            ("redirect.p99=5ms", "redirect.p99 <= 5.00ms"),
            ("create.p99.9=50ms", "create.p99.9 <= 50.0ms"),
            ("errors=0.01%", "errors <= 0.01%"),
            ("miss.errors=0.5", "miss.errors <= 50%"),
        ] {
            let objective: Objective = text.parse().unwrap();
            assert_eq!(objective.to_string(), printed);
        }
    }

    #[test]
    fn bad_objectives_are_refused() {
        for text in [
            "p50",
            "p0=1ms",
            "p101=1ms",
            "p99=10",
            "errors=2",
            "errors=-1%",
            "latency=1ms",
            "walk.p50=1ms",
        ] {
            assert!(text.parse::<Objective>().is_err(), "{text}");
        }
    }
}
