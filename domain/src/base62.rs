//! Base62 digits in the order `0-9 A-Z a-z`, which is also their byte order.

/// The number of digits.
pub const RADIX: u16 = 62;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The value of a digit, 0 to 61; `None` for any other byte.
#[must_use]
pub const fn value(digit: u8) -> Option<u16> {
    match digit {
        b'0'..=b'9' => Some((digit - b'0') as u16),
        b'A'..=b'Z' => Some((digit - b'A') as u16 + 10),
        b'a'..=b'z' => Some((digit - b'a') as u16 + 36),
        _ => None,
    }
}

/// The digit of a value, which is taken modulo 62.
#[must_use]
pub const fn digit(value: u16) -> u8 {
    DIGITS[(value % RADIX) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_digit_has_its_own_value_and_back() {
        let values: Vec<u16> = DIGITS.iter().filter_map(|d| value(*d)).collect();
        assert_eq!(values, (0..62).collect::<Vec<_>>());
        assert!((0..62).all(|v| value(digit(v)) == Some(v)));
        assert_eq!(value(b'-'), None);
        assert_eq!(value(b'_'), None);
    }
}
