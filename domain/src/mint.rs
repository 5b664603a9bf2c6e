//! Minting slugs: a counter per prefix, permuted so that slugs show no order.
//!
//! The suffix is FF1 (format-preserving encryption, NIST SP 800-38G, AES-256)
//! of the counter over six base62 digits, with the prefix as tweak. A
//! permutation needs no lookup to be unique: two counters never meet.

use std::fmt;

use aes::Aes256;
use fpe::ff1::{FF1, FlexibleNumeralString};
use sha2::{Digest as _, Sha256};

use crate::{Epoch, Prefix, Slug, Timestamp, base62};

/// The digits of a minted slug behind its prefix.
pub const SUFFIX_LEN: usize = 6;

/// How many suffixes a prefix has: 62^6, 56.8 billion.
pub const SUFFIXES: u64 = 62_u64.pow(SUFFIX_LEN as u32);

/// The counters of one owner epoch: an owner begins at `epoch * 10^8`, so that a
/// region that takes over without its predecessor's counters issues none of its
/// keys again.
pub const COUNTERS_PER_EPOCH: u64 = 100_000_000;

/// The counters that an owner of this epoch may use; `None` when 62^6 has no
/// room for that epoch (from 568 on).
#[must_use]
pub fn counter_range(epoch: Epoch) -> Option<std::ops::Range<u64>> {
    let start = u64::from(epoch.get()) * COUNTERS_PER_EPOCH;
    let end = start + COUNTERS_PER_EPOCH;
    (end <= SUFFIXES).then_some(start..end)
}

/// How fast the clock of [`counter_after_loss`] goes, in counters a second for each
/// prefix: 153,760 slugs a second over all of them, far more than one process mints in the
/// long run. With it the counters last into the year 2070, and an epoch 29 days.
const CLOCK_RATE: u64 = 40;

/// When it began, at the first counter of all: 2026-01-01 00:00 UTC, in seconds.
const CLOCK_BEGAN: u64 = 1_767_225_600;

/// Where the counters of an instance go on that has lost what it minted last, such as one
/// that was restored from a backup, and the epoch in which they are. `highest` is the
/// highest of the counters that it still knows.
///
/// Nobody knows how many were lost, and the same backup may be restored a second time,
/// after others were minted. So they go on where a clock is that goes faster than any
/// instance mints: what was minted before now is behind it, and what is minted from now
/// on is before it wherever it will be at the next loss.
///
/// `None` when 62^6 has no room for that.
#[must_use]
pub fn counter_after_loss(now: Timestamp, highest: u64) -> Option<(Epoch, u64)> {
    let seconds = now.millis().unsigned_abs() / 1_000;
    let elapsed = seconds.saturating_sub(CLOCK_BEGAN);
    let clock = COUNTERS_PER_EPOCH + elapsed * CLOCK_RATE;
    // Where the clock was wrong once, the counters are before it. No counter of an epoch
    // that nobody has entered is in use.
    let next = match clock > highest {
        true => clock,
        false => (highest / COUNTERS_PER_EPOCH + 1) * COUNTERS_PER_EPOCH,
    };
    let epoch = Epoch::new(u32::try_from(next / COUNTERS_PER_EPOCH).ok()?)?;
    counter_range(epoch).map(|_| (epoch, next))
}

/// What is hashed before the key, so that the hash is good for nothing else.
const FINGERPRINT: &[u8] = b"waypost slug-key fingerprint 1";

/// The permutation from counters to slugs. Its key never changes: another key
/// would issue old slugs again.
pub struct Mint {
    ff1: FF1<Aes256>,
    fingerprint: [u8; 16],
}

impl Mint {
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        let ff1 = FF1::<Aes256>::new(key, u32::from(base62::RADIX))
            .expect("62 is within the radixes of FF1");
        let hash = Sha256::new().chain_update(FINGERPRINT).chain_update(key);
        let fingerprint = hash.finalize().first_chunk().copied();
        Self {
            ff1,
            fingerprint: fingerprint.expect("SHA-256 has 32 bytes"),
        }
    }

    /// What two instances tell by whether they mint with the same key. It says nothing
    /// else of the key, which is random.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 16] {
        self.fingerprint
    }

    /// The slug of a counter under a prefix. About 11 us.
    ///
    /// # Panics
    /// If the counter is not below [`SUFFIXES`].
    #[must_use]
    pub fn slug(&self, prefix: Prefix, counter: u64) -> Slug {
        assert!(counter < SUFFIXES, "a counter is below 62^6");
        let mut digits = vec![0_u16; SUFFIX_LEN];
        let mut rest = counter;
        for place in digits.iter_mut().rev() {
            *place = (rest % 62) as u16;
            rest /= 62;
        }
        let permuted = self
            .ff1
            .encrypt(&prefix.bytes(), &FlexibleNumeralString::from(digits))
            .expect("six digits of radix 62 are within FF1's domain");
        let mut text = prefix.to_string();
        text.extend(
            Vec::<u16>::from(permuted)
                .into_iter()
                .map(|value| char::from(base62::digit(value))),
        );
        Slug::parse(&text).expect("base62 digits make a slug")
    }
}

/// Shows nothing of the key.
impl fmt::Debug for Mint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mint")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn minted_slugs_are_unique_and_show_no_order() {
        let mint = Mint::new(&[7; 32]);
        let prefix = Prefix::parse("aB").unwrap();
        let start = counter_range(Epoch::FIRST).unwrap().start;
        let slugs: Vec<Slug> = (start..start + 2_000)
            .map(|counter| mint.slug(prefix, counter))
            .collect();
        assert_eq!(slugs.iter().collect::<HashSet<_>>().len(), slugs.len());
        assert!(slugs.iter().all(|slug| slug.prefix() == prefix));
        assert!(slugs.iter().all(|s| s.as_str().len() == Slug::MINTED_LEN));
        // In visible order all pairs would rise; a fair coin gives half.
        let rising = slugs.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((900..1_100).contains(&rising), "{rising} of 1,999 rise");
    }

    #[test]
    fn the_prefix_and_the_key_change_the_suffix() {
        let suffix = |key, prefix: &str| {
            let slug = Mint::new(&[key; 32]).slug(Prefix::parse(prefix).unwrap(), 1);
            slug.as_str()[2..].to_owned()
        };
        assert_ne!(suffix(1, "aa"), suffix(1, "ab"));
        assert_ne!(suffix(1, "aa"), suffix(2, "aa"));
        let fingerprint = |key| Mint::new(&[key; 32]).fingerprint();
        assert_ne!(fingerprint(1), fingerprint(2));
    }

    /// Slugs that are out in the world hang on this: it must never change.
    #[test]
    fn the_permutation_is_the_one_that_was_released() {
        let mint = Mint::new(&[0; 32]);
        let slug = mint.slug(Prefix::parse("00").unwrap(), COUNTERS_PER_EPOCH);
        assert_eq!(slug.as_str(), "00smHn2o");
    }

    #[test]
    fn epochs_have_counters_of_their_own() {
        let range = |epoch| counter_range(Epoch::new(epoch).unwrap());
        assert_eq!(range(1).unwrap().end, range(2).unwrap().start);
        assert!(range(567).is_some());
        assert!(range(568).is_none());
    }

    #[test]
    fn after_a_loss_counters_go_on_before_all_that_were_used() {
        let at = |text| Timestamp::parse(text).unwrap();
        let (first, second) = (at("2026-11-26T12:00:00Z"), at("2026-11-26T13:00:00Z"));
        let never_lost = 1_500 + COUNTERS_PER_EPOCH;
        let (epoch, once) = counter_after_loss(first, never_lost).unwrap();
        assert!(counter_range(epoch).unwrap().contains(&once));
        assert!(once > counter_range(Epoch::FIRST).unwrap().end);
        // The same backup again, an hour after, in which a million links were made.
        let (_, again) = counter_after_loss(second, never_lost).unwrap();
        assert!(again > once + 1_000_000 / 3_844);
        // A clock that was wrong at the first time.
        let (epoch, behind) = counter_after_loss(first, again).unwrap();
        assert!(behind > again && counter_range(epoch).unwrap().start == behind);
        assert!(counter_after_loss(at("2070-01-01T00:00:00Z"), 0).is_some());
        assert!(counter_after_loss(at("2071-06-01T00:00:00Z"), 0).is_none());
    }
}
