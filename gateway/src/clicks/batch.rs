//! Clicks become batches, and a batch gets the identity that it keeps.

use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use waypost_domain::click::{PARTITIONS, partition};
use waypost_proto::click::Batch;

use super::hit::{Taken, Visitors};

/// The format that this release writes.
const FORMAT: u32 = 1;

/// The number of the field `Batch.clicks`.
const CLICKS: u32 = 6;

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
    pub(super) fn form(&mut self, taken: &[Taken], visitors: &mut Visitors) -> Vec<Encoded> {
        let mut groups: [Group; PARTITIONS as usize] = Default::default();
        let mut batches = Vec::new();
        for taken in taken {
            let partition = partition(taken.slug());
            let group = &mut groups[partition as usize];
            group.add(taken, visitors);
            if group.bytes.len() >= MAX_BYTES {
                batches.push(self.encode(partition, &std::mem::take(group)));
            }
        }
        for (partition, group) in (0..).zip(&groups) {
            if group.clicks > 0 {
                batches.push(self.encode(partition, group));
            }
        }
        batches
    }

    fn encode(&mut self, partition: u32, group: &Group) -> Encoded {
        let next = &mut self.next[partition as usize];
        let head = Batch {
            format: FORMAT,
            gateway: self.gateway.clone(),
            boot: self.boot,
            partition,
            sequence: *next,
            clicks: Vec::new(),
        };
        *next += 1;
        // A message's fields may follow each other in any order, its clicks last.
        let mut batch = Vec::with_capacity(head.encoded_len() + group.bytes.len());
        head.encode_raw(&mut batch);
        batch.extend_from_slice(&group.bytes);
        Encoded {
            partition,
            clicks: group.clicks,
            batch,
        }
    }
}

/// The clicks of one batch to be, encoded as the field that holds them.
#[derive(Debug, Default)]
struct Group {
    clicks: u32,
    bytes: Vec<u8>,
    /// Kept from click to click: a message is preceded by its length.
    click: Vec<u8>,
}

impl Group {
    fn add(&mut self, taken: &Taken, visitors: &mut Visitors) {
        self.click.clear();
        taken.encode(visitors, &mut self.click);
        encode_key(CLICKS, WireType::LengthDelimited, &mut self.bytes);
        encode_varint(self.click.len() as u64, &mut self.bytes);
        self.bytes.extend_from_slice(&self.click);
        self.clicks += 1;
    }
}

#[cfg(test)]
mod tests {
    use waypost_proto::click::Click;

    use super::*;
    use crate::clicks::hit::tests::{taken, taken_by};

    #[test]
    fn each_partition_counts_its_batches_from_zero() {
        let mut batches = Batches::new("g".to_owned(), 9);
        let clicks: Vec<Taken> = (0..200).map(|n| taken(&format!("aa{n:03}"))).collect();
        for sequence in 0..3 {
            let formed = batches.form(&clicks, &mut Visitors::new([1; 32]));
            assert_eq!(formed.len(), 12, "200 slugs reach every partition");
            assert_eq!(formed.iter().map(|b| b.clicks).sum::<u32>(), 200);
            for encoded in formed {
                let batch = Batch::decode(&*encoded.batch).unwrap();
                assert_eq!(batch.encode_to_vec(), encoded.batch, "as prost writes it");
                assert_eq!((batch.boot, batch.sequence), (9, sequence));
                assert_eq!(batch.partition, encoded.partition);
                assert_eq!(batch.clicks.len(), encoded.clicks as usize);
                let of = |click: &Click| partition(click.slug.as_bytes());
                assert!(batch.clicks.iter().all(|c| of(c) == batch.partition));
            }
        }
    }

    #[test]
    fn no_batch_outgrows_a_kafka_message() {
        let mut batches = Batches::new("g".to_owned(), 9);
        let agent = "u".repeat(256);
        let clicks: Vec<Taken> = (0..5_000).map(|_| taken_by("abcdefgh", &agent)).collect();
        let formed = batches.form(&clicks, &mut Visitors::new([1; 32]));
        assert!(formed.len() > 1);
        assert!(formed.iter().all(|b| b.batch.len() < 600 * 1_024));
        assert_eq!(formed.iter().map(|b| b.clicks).sum::<u32>(), 5_000);
    }
}
