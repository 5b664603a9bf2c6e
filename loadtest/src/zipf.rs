//! Which link is asked for: a few very often, most hardly ever.

use fastrand::Rng;

/// Draws ranks from `1..=n` where rank `k` has a probability proportional to
/// `1 / k^exponent`, in constant time and space whatever `n` is.
///
/// Rejection-inversion after W. Hörmann and G. Derflinger, "Rejection-inversion
/// to generate variates from monotone discrete distributions", ACM TOMACS 6.3
/// (1996); the numerically stable form with `exp_m1` and `ln_1p` also holds at
/// the exponents 0 (uniform) and 1, where the textbook formulas divide by zero.
#[derive(Debug, Clone)]
pub struct Zipf {
    n: f64,
    exponent: f64,
    /// The integral of the density up to 1.5, less the whole mass of rank 1.
    lowest: f64,
    /// The integral of the density up to `n + 0.5`.
    highest: f64,
    /// Below this distance a rounded draw is accepted without evaluating the
    /// density.
    squeeze: f64,
}

impl Zipf {
    /// Over `n` ranks (at least 1) with an exponent of 0 or more.
    ///
    /// # Panics
    /// When `n` is 0 or the exponent is negative or not finite.
    #[must_use]
    pub fn new(n: usize, exponent: f64) -> Self {
        assert!(n > 0, "a distribution over nothing");
        assert!(exponent.is_finite() && exponent >= 0.0, "a bad exponent");
        let n = n as f64;
        Self {
            n,
            exponent,
            lowest: integral(exponent, 1.5) - 1.0,
            highest: integral(exponent, n + 0.5),
            squeeze: 2.0
                - inverse_integral(exponent, integral(exponent, 2.5) - density(exponent, 2.0)),
        }
    }

    /// One rank, counted from 0.
    pub fn index(&self, rng: &mut Rng) -> usize {
        loop {
            let u = self.highest + rng.f64() * (self.lowest - self.highest);
            let x = inverse_integral(self.exponent, u);
            let rank = x.round().clamp(1.0, self.n);
            let accepted = rank - x <= self.squeeze
                || u >= integral(self.exponent, rank + 0.5) - density(self.exponent, rank);
            if accepted {
                return rank as usize - 1;
            }
        }
    }
}

fn density(exponent: f64, x: f64) -> f64 {
    (-exponent * x.ln()).exp()
}

/// The integral of the density from 1 to `x`.
fn integral(exponent: f64, x: f64) -> f64 {
    let ln = x.ln();
    exp_m1_over((1.0 - exponent) * ln) * ln
}

fn inverse_integral(exponent: f64, y: f64) -> f64 {
    // Rounding may carry the product just below -1, where ln_1p is undefined.
    let t = (y * (1.0 - exponent)).max(-1.0);
    (ln_1p_over(t) * y).exp()
}

/// `(e^x - 1) / x`, by its series where the quotient loses its digits.
fn exp_m1_over(x: f64) -> f64 {
    if x.abs() > 1e-8 {
        x.exp_m1() / x
    } else {
        1.0 + x / 2.0
    }
}

/// `ln(1 + x) / x`, by its series where the quotient loses its digits.
fn ln_1p_over(x: f64) -> f64 {
    if x.abs() > 1e-8 {
        x.ln_1p() / x
    } else {
        1.0 - x / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pearson's statistic of `draws` samples against the exact frequencies,
    /// divided by its degrees of freedom: near 1 for a true sampler.
    fn reduced_chi_square(n: usize, exponent: f64, draws: usize) -> f64 {
        let zipf = Zipf::new(n, exponent);
        let mut rng = Rng::with_seed(7);
        let mut seen = vec![0_u64; n];
        for _ in 0..draws {
            seen[zipf.index(&mut rng)] += 1;
        }
        let weight = |k: usize| (k as f64).powf(-exponent);
        let total: f64 = (1..=n).map(weight).sum();
        let statistic: f64 = (1..=n)
            .map(|k| {
                let expected = draws as f64 * weight(k) / total;
                (seen[k - 1] as f64 - expected).powi(2) / expected
            })
            .sum();
        statistic / (n - 1) as f64
    }

    #[test]
    fn frequencies_match_the_exact_distribution() {
        for exponent in [0.0, 0.5, 0.9, 1.0, 1.2, 2.0] {
            let fit = reduced_chi_square(50, exponent, 400_000);
            // 49 degrees of freedom: beyond 1.8 one run in 2,000 by chance.
            assert!(fit < 1.8, "exponent {exponent}: {fit}");
        }
    }

    #[test]
    fn one_link_is_always_the_first() {
        let mut rng = Rng::with_seed(1);
        for exponent in [0.0, 1.0, 3.0] {
            assert_eq!(Zipf::new(1, exponent).index(&mut rng), 0);
        }
    }

    #[test]
    fn a_large_population_stays_in_range_and_reaches_its_tail() {
        let zipf = Zipf::new(1_000_000, 1.0);
        let mut rng = Rng::with_seed(3);
        let draws: Vec<_> = (0..100_000).map(|_| zipf.index(&mut rng)).collect();
        assert!(draws.iter().all(|&index| index < 1_000_000));
        assert!(draws.iter().any(|&index| index > 500_000));
        let first = draws.iter().filter(|&&index| index == 0).count();
        // 1 / H(1,000,000) = 6.95 %.
        assert!((6_500..7_400).contains(&first), "{first}");
    }
}
