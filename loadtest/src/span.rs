//! Spans of time as people write them: `500us`, `10ms`, `1.5s`, `2m`.

use std::fmt;
use std::time::Duration;

/// The longest span an option may name: a day, so that sums never overflow.
const LONGEST_SECONDS: f64 = 86_400.0;

/// Parses a number with one of the units us, ms, s or m.
///
/// # Errors
/// Says what is expected, for an option's error message.
pub fn parse(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, f64); 4] = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0)];
    let seconds = UNITS.iter().find_map(|(unit, factor)| {
        let number = text.strip_suffix(unit)?.parse::<f64>().ok()?;
        Some(number * factor)
    });
    match seconds {
        Some(seconds) if (0.0..=LONGEST_SECONDS).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        Some(_) => Err("expected a time between 0 and a day".to_owned()),
        None => Err("expected a number and a unit, like 500us, 10ms, 1.5s or 2m".to_owned()),
    }
}

/// A span for reading, in the unit that suits it, with three digits.
#[derive(Debug, Clone, Copy)]
pub struct Pretty(pub Duration);

impl fmt::Display for Pretty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_secs_f64() * 1e6;
        let (value, unit) = match micros {
            m if m < 1e3 => (m, "us"),
            m if m < 1e6 => (m / 1e3, "ms"),
            m => (m / 1e6, "s"),
        };
        let text = match value {
            v if v >= 100.0 || v == 0.0 => format!("{v:.0}{unit}"),
            v if v >= 10.0 => format!("{v:.1}{unit}"),
            v => format!("{v:.2}{unit}"),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_parses() {
        assert_eq!(parse("500us"), Ok(Duration::from_micros(500)));
        assert_eq!(parse("10ms"), Ok(Duration::from_millis(10)));
        assert_eq!(parse("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(parse("2m"), Ok(Duration::from_secs(120)));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "10", "ms", "-1s", "NaNs", "infs", "100000s", "1h"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_print_with_three_digits() {
        let pretty = |nanos| Pretty(Duration::from_nanos(nanos)).to_string();
        assert_eq!(pretty(0), "0us");
        assert_eq!(pretty(812_345), "812us");
        assert_eq!(pretty(1_234_567), "1.23ms");
        assert_eq!(pretty(45_600_000), "45.6ms");
        assert_eq!(pretty(2_500_000_000), "2.50s");
    }
}
