//! Clicks become batches, and a batch gets the identity that it keeps.

use prost::Message as _;
use waypost_domain::Slug;
use waypost_domain::click::{PARTITIONS, partition};
use waypost_proto::click::{Batch, Click};

/// The format that this release writes.
const FORMAT: u32 = 1;

/// Well below the megabyte that a Kafka broker takes, with the largest click on top.
const MAX_BYTES: usize = 512 * 1_024;

/// A batch, encoded, and what is to be known of it without decoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Encoded {
    pub(super) partition: u32,
    pub(super) clicks: u32,
    pub(super) batch: Vec<u8>,
}

/// Numbers the batches of one start of one gateway.
#[derive(Debug)]
pub(super) struct Batches {
    gateway: String,
    boot: u64,
    next: [u64; PARTITIONS as usize],
}

impl Batches {
    pub(super) fn new(gateway: String, boot: u64) -> Self {
        let next = [0; PARTITIONS as usize];
        Self {
            gateway,
            boot,
            next,
        }
    }

    /// Groups clicks by partition and gives each group the next sequence.
    pub(super) fn form(&mut self, clicks: impl Iterator<Item = Click>) -> Vec<Encoded> {
        let mut groups: [(usize, Vec<Click>); PARTITIONS as usize] = Default::default();
        let mut batches = Vec::new();
        for click in clicks {
            let Ok(slug) = Slug::parse(&click.slug) else {
                debug_assert!(false, "a hit holds a slug");
                continue;
            };
            let partition = partition(&slug);
            let (bytes, group) = &mut groups[partition as usize];
            *bytes += click.encoded_len();
            group.push(click);
            if *bytes >= MAX_BYTES {
                *bytes = 0;
                let group = std::mem::take(group);
                batches.push(self.encode(partition, group));
            }
        }
        for (partition, (_, group)) in (0..).zip(groups) {
            if !group.is_empty() {
                batches.push(self.encode(partition, group));
            }
        }
        batches
    }

    fn encode(&mut self, partition: u32, clicks: Vec<Click>) -> Encoded {
        let next = &mut self.next[partition as usize];
        let batch = Batch {
            format: FORMAT,
            gateway: self.gateway.clone(),
            boot: self.boot,
            partition,
            sequence: *next,
            clicks,
        };
        *next += 1;
        Encoded {
            partition,
            clicks: u32::try_from(batch.clicks.len()).unwrap_or(u32::MAX),
            batch: batch.encode_to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_counts_its_batches_from_zero() {
        let mut batches = Batches::new("g".to_owned(), 9);
        let clicks = || {
            Slug::parse("aaa").unwrap();
            (0..200).map(|n| Click {
                slug: format!("aa{n:03}"),
                ..Click::default()
            })
        };
        for sequence in 0..3 {
            let formed = batches.form(clicks());
            assert_eq!(formed.len(), 12, "200 slugs reach every partition");
            assert_eq!(formed.iter().map(|b| b.clicks).sum::<u32>(), 200);
            for encoded in formed {
                let batch = Batch::decode(&*encoded.batch).unwrap();
                assert_eq!((batch.boot, batch.sequence), (9, sequence));
                assert_eq!(batch.partition, encoded.partition);
                let of = |c: &Click| partition(&Slug::parse(&c.slug).unwrap());
                assert!(batch.clicks.iter().all(|c| of(c) == batch.partition));
            }
        }
    }

    #[test]
    fn no_batch_outgrows_a_kafka_message() {
        let mut batches = Batches::new("g".to_owned(), 9);
        let formed = batches.form((0..5_000).map(|_| Click {
            slug: "abcdefgh".to_owned(),
            user_agent: "u".repeat(256),
            ..Click::default()
        }));
        assert!(formed.len() > 1);
        assert!(formed.iter().all(|b| b.batch.len() < 600 * 1_024));
        assert_eq!(formed.iter().map(|b| b.clicks).sum::<u32>(), 5_000);
    }
}
