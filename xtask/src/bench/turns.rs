//! Taking turns on the same cores, and what many turns say together.
//!
//! A machine is never the same for long: others use it, it grows warm. So each turn
//! of ours is compared with the turn of the yardstick beside it, and only then is
//! the median taken.

use crate::Error;

/// Runs both sides `repeats` times. Who begins alternates, so that neither gains
/// from a machine that becomes slower or faster.
pub(crate) fn take<A, B>(
    repeats: usize,
    mut ours: impl FnMut() -> Result<A, Error>,
    mut yardstick: impl FnMut() -> Result<B, Error>,
) -> Result<Vec<(A, B)>, Error> {
    let mut pairs = Vec::with_capacity(repeats);
    for index in 0..repeats {
        eprintln!("xtask: turn {} of {repeats}", index + 1);
        pairs.push(if index % 2 == 0 {
            let ours = ours()?;
            (ours, yardstick()?)
        } else {
            let yardstick = yardstick()?;
            (ours()?, yardstick)
        });
    }
    Ok(pairs)
}

/// What the turns said: the median, and how far they were apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of one value for each turn, of which there is at least one.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (middle, is_even) = (values.len() / 2, values.len().is_multiple_of(2));
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Self {
            median: match (is_even, middle) {
                (true, 1..) => f64::midpoint(at(middle - 1), at(middle)),
                _ => at(middle),
            },
            min: at(0),
            max: at(values.len().saturating_sub(1)),
        }
    }

    /// Of what was measured once.
    pub(crate) fn once(value: f64) -> Self {
        Self::of([value])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_taken_within_each_pair_and_then_the_median() {
        // The machine became three times slower; the ratio did not change.
        let pairs = [(2.0, 1.0), (6.0, 3.0), (7.0, 3.0)];
        let ratio = Spread::of(pairs.map(|(ours, yardstick)| ours / yardstick));
        assert_eq!((ratio.median, ratio.min), (2.0, 2.0));
        assert_eq!(ratio.max, 7.0 / 3.0);
    }

    #[test]
    fn an_even_number_of_turns_has_its_median_between_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]);
        let expected = Spread {
            median: 2.5,
            min: 1.0,
            max: 4.0,
        };
        assert_eq!(spread, expected);
        assert_eq!(Spread::once(3.0).median, 3.0);
    }

    #[test]
    fn who_begins_alternates() {
        let order = std::cell::RefCell::new(String::new());
        let side = |name| {
            order.borrow_mut().push(name);
            Ok(())
        };
        take(3, || side('o'), || side('y')).unwrap();
        assert_eq!(*order.borrow(), "oyyooy");
    }
}
