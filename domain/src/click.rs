//! How clicks spread over the partitions of the click log.

use xxhash_rust::xxh3::xxh3_64;

/// The partitions of the topic. Frozen: the identity of a batch of clicks holds
/// its partition, and the clicks of a link stay on one.
pub const PARTITIONS: u32 = 12;

/// The partition that the clicks of a slug, given as its characters, go to.
#[must_use]
pub fn partition(slug: &[u8]) -> u32 {
    let partition = xxh3_64(slug) % u64::from(PARTITIONS);
    u32::try_from(partition).expect("a remainder of 12 is below 12")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clicks that wait in a gateway's spool hang on this: it must never change.
    #[test]
    fn partitions_are_the_ones_that_were_released() {
        let slugs = ["00smHn2o", "aB-_", "abcdefgh", "zz0"];
        let partitions = slugs.map(|slug| partition(slug.as_bytes()));
        assert_eq!(partitions, [7, 1, 11, 9]);
    }
}
