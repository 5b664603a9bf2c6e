//! What is asked for, and how often each.

use std::fmt;
use std::str::FromStr;

use fastrand::Rng;

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `GET /{slug}` of a link that exists.
    Redirect,
    /// `GET /{slug}` of a link that does not.
    Miss,
    /// `POST /api/v1/links`.
    Create,
    /// `PATCH /api/v1/links/{slug}` with a new destination.
    Edit,
    /// `GET /api/v1/links/{slug}/stats`.
    Stats,
}

impl Kind {
    /// All kinds, in the order reports list them.
    pub const ALL: [Self; 5] = [
        Self::Redirect,
        Self::Miss,
        Self::Create,
        Self::Edit,
        Self::Stats,
    ];

    /// The name in options and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redirect => "redirect",
            Self::Miss => "miss",
            Self::Create => "create",
            Self::Edit => "edit",
            Self::Stats => "stats",
        }
    }

    /// Whether a request of this kind names one of the prepared links.
    #[must_use]
    pub const fn needs_links(self) -> bool {
        matches!(self, Self::Redirect | Self::Edit | Self::Stats)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| {
                let known = Self::ALL.map(Self::name).join(", ");
                format!("unknown kind {text:?}, expected one of {known}")
            })
    }
}

/// Relative weights of the kinds, as in `redirect=95,miss=2,create=3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix([u32; Kind::ALL.len()]);

impl Mix {
    /// The largest weight: sums of all of them stay far from overflow.
    const MAX_WEIGHT: u32 = 1_000_000;

    /// The kinds that occur.
    pub fn kinds(self) -> impl Iterator<Item = Kind> {
        Kind::ALL
            .into_iter()
            .filter(move |&kind| self.0[kind as usize] > 0)
    }

    /// One kind, with a chance in proportion to its weight.
    pub fn pick(self, rng: &mut Rng) -> Kind {
        let mut left = rng.u32(0..self.0.iter().sum());
        for kind in Kind::ALL {
            let weight = self.0[kind as usize];
            if left < weight {
                return kind;
            }
            left -= weight;
        }
        unreachable!("the draw is below the sum of the weights")
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self
            .kinds()
            .map(|kind| format!("{kind}={}", self.0[kind as usize]))
            .collect();
        f.write_str(&parts.join(","))
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut weights = [None; Kind::ALL.len()];
        for part in text.split(',') {
            let (kind, weight) = part
                .split_once('=')
                .ok_or_else(|| format!("expected kind=weight, found {part:?}"))?;
            let kind: Kind = kind.trim().parse()?;
            let weight = weight
                .trim()
                .parse::<u32>()
                .ok()
                .filter(|&weight| weight <= Self::MAX_WEIGHT)
                .ok_or_else(|| {
                    format!(
                        "the weight of {kind} must be a whole number up to {}",
                        Self::MAX_WEIGHT
                    )
                })?;
            if weights[kind as usize].replace(weight).is_some() {
                return Err(format!("{kind} is given twice"));
            }
        }
        let weights = weights.map(Option::unwrap_or_default);
        if weights.iter().all(|&weight| weight == 0) {
            return Err("all weights are 0".to_owned());
        }
        Ok(Self(weights))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_come_in_proportion_to_their_weights() {
        let mix: Mix = "redirect=95,miss=2,create=3".parse().unwrap();
        let mut rng = Rng::with_seed(5);
        let mut counts = [0_u32; Kind::ALL.len()];
        for _ in 0..100_000 {
            counts[mix.pick(&mut rng) as usize] += 1;
        }
        let near = |kind: Kind, expected: u32| {
            // Five standard deviations of a count around 95,000 of 100,000.
            counts[kind as usize].abs_diff(expected) < 350
        };
        assert!(near(Kind::Redirect, 95_000), "{counts:?}");
        assert!(near(Kind::Miss, 2_000), "{counts:?}");
        assert!(near(Kind::Create, 3_000), "{counts:?}");
        assert_eq!(counts[Kind::Edit as usize], 0);
    }

    #[test]
    fn a_mix_prints_as_it_parses() {
        let text = "redirect=95,miss=2,stats=3";
        assert_eq!(text.parse::<Mix>().unwrap().to_string(), text);
    }

    #[test]
    fn bad_mixes_are_refused_with_the_reason() {
        for (text, reason) in [
            ("", "expected kind=weight"),
            ("redirect", "expected kind=weight"),
            ("walk=1", "unknown kind \"walk\""),
            ("miss=-1", "weight of miss"),
            ("miss=1,miss=2", "given twice"),
            ("miss=0", "all weights are 0"),
        ] {
            let error = text.parse::<Mix>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
