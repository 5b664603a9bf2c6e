//! How many different visitors there were: a HyperLogLog sketch with 2^14 registers,
//! after Flajolet et al., with the estimator of Ertl ("New cardinality estimation
//! algorithms for HyperLogLog sketches", 2017), which needs no table of corrections.
//! The standard error is 0.8 %: of 70 estimates one is off by more than 2 %.

/// Bits of a hash that choose its register.
const PRECISION: u32 = 14;

const REGISTERS: usize = 1 << PRECISION;

/// Bits of a hash that are left for the rank, which is at most one more.
const RANK_BITS: u32 = 64 - PRECISION;

/// Above so many registers that are set, all of them take no more room than these.
const MAX_SPARSE: usize = REGISTERS / 4;

/// The first byte of what is stored: 3 bytes for each register that is set, or 6 bits
/// for each register.
const SPARSE: u8 = 1;
const DENSE: u8 = 2;

/// Adding is taking the greater of two registers, so that the order does not matter
/// and adding twice changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sketch {
    /// `index << 6 | rank`, in order, for registers that are set.
    Sparse(Vec<u32>),
    /// A rank for each register.
    Dense(Box<[u8]>),
}

impl Sketch {
    pub(crate) fn new() -> Self {
        Self::Sparse(Vec::new())
    }

    /// From what was stored; none if it is no sketch.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (kind, packed) = match bytes.split_first() {
            Some((kind, packed)) => (*kind, packed),
            None => return Some(Self::new()),
        };
        let words = packed.as_chunks::<3>().0.iter();
        let words = words.map(|[a, b, c]| u32::from_be_bytes([0, *a, *b, *c]));
        match kind {
            SPARSE => {
                let entries: Vec<u32> = words.collect();
                let ordered = entries.windows(2).all(|pair| pair[0] >> 6 < pair[1] >> 6);
                let valid = ordered && entries.iter().all(|e| (e >> 6) < REGISTERS as u32);
                valid.then_some(Self::Sparse(entries))
            }
            DENSE if packed.len() == REGISTERS / 4 * 3 => {
                let ranks = words.flat_map(|word| [18, 12, 6, 0].map(|s| (word >> s & 63) as u8));
                Some(Self::Dense(ranks.collect()))
            }
            _ => None,
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let packed = |kind: u8, words: &mut dyn Iterator<Item = u32>| {
            let mut bytes = vec![kind];
            for word in words {
                bytes.extend_from_slice(&word.to_be_bytes()[1..]);
            }
            bytes
        };
        match self {
            Self::Sparse(entries) => packed(SPARSE, &mut entries.iter().copied()),
            Self::Dense(ranks) => {
                let quartets = ranks.as_chunks::<4>().0.iter();
                let mut words = quartets.map(|quartet| {
                    let shifted = |word: u32, rank: &u8| word << 6 | u32::from(*rank);
                    quartet.iter().fold(0, shifted)
                });
                packed(DENSE, &mut words)
            }
        }
    }

    /// Adds visitors; says whether that changed anything.
    pub(crate) fn add(&mut self, visitors: impl Iterator<Item = u64>) -> bool {
        self.merge(visitors.map(register))
    }

    /// Adds another sketch's visitors.
    pub(crate) fn add_sketch(&mut self, other: &Self) {
        match other {
            Self::Sparse(entries) => self.merge(entries.iter().copied()),
            Self::Dense(ranks) => {
                let set = (0..).zip(&**ranks).filter(|(_, rank)| **rank > 0);
                self.merge(set.map(|(index, rank)| index << 6 | u32::from(*rank)))
            }
        };
    }

    fn merge(&mut self, entries: impl Iterator<Item = u32>) -> bool {
        match self {
            Self::Dense(ranks) => {
                let mut changed = false;
                for entry in entries {
                    let held = &mut ranks[(entry >> 6) as usize];
                    let rank = (entry & 63) as u8;
                    changed |= rank > *held;
                    *held = rank.max(*held);
                }
                changed
            }
            Self::Sparse(held) => {
                let mut merged = held.clone();
                merged.extend(entries);
                merged.sort_unstable();
                // Of a register's ranks the greatest comes last, and is kept.
                merged.dedup_by(|later, kept| {
                    let same = *later >> 6 == *kept >> 6;
                    if same {
                        *kept = *later;
                    }
                    same
                });
                let changed = merged != *held;
                *self = if merged.len() > MAX_SPARSE {
                    let mut ranks = vec![0; REGISTERS];
                    for entry in merged {
                        ranks[(entry >> 6) as usize] = (entry & 63) as u8;
                    }
                    Self::Dense(ranks.into_boxed_slice())
                } else {
                    Self::Sparse(merged)
                };
                changed
            }
        }
    }

    /// How many visitors were added.
    pub(crate) fn estimate(&self) -> u64 {
        // How many registers have each rank.
        let mut ranks = [0_u32; RANK_BITS as usize + 2];
        let mut tell = |rank: u32| ranks[(rank as usize).min(RANK_BITS as usize + 1)] += 1;
        match self {
            Self::Sparse(entries) => {
                entries.iter().for_each(|entry| tell(entry & 63));
                ranks[0] = REGISTERS as u32 - entries.len() as u32;
            }
            Self::Dense(registers) => registers.iter().for_each(|rank| tell((*rank).into())),
        }
        let registers = REGISTERS as f64;
        let (full, rest) = ranks.split_last().expect("there are 52");
        let mut z = registers * tau(1.0 - f64::from(*full) / registers);
        for count in rest[1..].iter().rev() {
            z = 0.5 * (z + f64::from(*count));
        }
        z += registers * sigma(f64::from(rest[0]) / registers);
        (registers * registers / (2.0 * std::f64::consts::LN_2 * z)).round() as u64
    }
}

/// The register that a visitor sets: hashes of visitors are keyed, but nothing says
/// that all gateways make them so evenly.
fn register(visitor: u64) -> u32 {
    // The finaliser of SplitMix64.
    let mut hash = visitor.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    let index = (hash >> RANK_BITS) as u32;
    let rank = (hash << PRECISION).leading_zeros().min(RANK_BITS) + 1;
    index << 6 | rank
}

/// For registers that are not set.
fn sigma(mut x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

/// For registers that are full.
fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(visitors: impl Iterator<Item = u64>) -> Sketch {
        let mut sketch = Sketch::new();
        sketch.add(visitors);
        sketch
    }

    #[test]
    fn estimates_err_by_no_more_than_2_to_the_14_registers_must() {
        const SKETCHES: u64 = 24;
        for count in [1, 10, 100, 1_000, 5_000, 20_000, 50_000, 100_000, 1_000_000] {
            let errors: Vec<f64> = (0..SKETCHES)
                .map(|seed| of((0..count).map(|n| seed << 40 | n)).estimate())
                .map(|estimate| estimate as f64 / count as f64 - 1.0)
                .collect();
            let squares: f64 = errors.iter().map(|error| error * error).sum();
            let standard = (squares / SKETCHES as f64).sqrt();
            assert!(standard < 0.0115, "{count}: {standard}");
            // Of a normal distribution with 0.8 %, 1.4 % is beyond 2 %.
            let within = errors.iter().filter(|error| error.abs() < 0.02).count();
            assert!(within + 2 >= SKETCHES as usize, "{count}: {errors:?}");
        }
        assert_eq!(Sketch::new().estimate(), 0);
    }

    #[test]
    fn a_few_visitors_take_a_few_bytes_and_any_number_a_bounded_one() {
        assert_eq!(Sketch::new().to_bytes().len(), 1);
        assert!(of(0..10).to_bytes().len() <= 31);
        assert_eq!(of(0..1_000_000).to_bytes().len(), 12_289);
    }

    #[test]
    fn what_is_no_sketch_is_not_read_as_one() {
        assert_eq!(Sketch::read(&[]), Some(Sketch::new()));
        for bad in [
            &[0_u8][..],
            &[3, 1, 1, 1],
            &[DENSE, 0, 0, 0],
            &[SPARSE, 9, 9, 9, 9, 9, 8],
        ] {
            assert_eq!(Sketch::read(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_order_and_the_parts_in_which_visitors_are_added_do_not_matter(
            seed in any::<u64>(), count in 0..20_000_u64, cut in 0.0..1.0_f64,
        ) {
            let visitors = |range: std::ops::Range<u64>| range.map(move |n| n.wrapping_mul(seed | 1));
            let cut = (count as f64 * cut) as u64;
            let whole = of(visitors(0..count));
            let mut parts = of(visitors(cut..count));
            parts.add_sketch(&of(visitors(0..cut)));
            prop_assert_eq!(&parts, &whole);
            prop_assert!(!parts.add(visitors(0..count)), "nothing is new");
            prop_assert_eq!(Sketch::read(&whole.to_bytes()), Some(whole));
        }
    }
}
