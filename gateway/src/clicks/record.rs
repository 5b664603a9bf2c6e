//! The format of a segment file: a mark, then one record per batch.
//!
//! A record is a header of 24 bytes and the encoded batch. The header has a
//! checksum of its own, so that a damaged batch is still counted exactly and a
//! damaged header is noticed before its length is believed.
//!
//! ```text
//! "CLK1" | partition u32 | clicks u32 | length u32 | crc32 of batch | crc32 of these 20 bytes
//! ```

use bytes::Bytes;
use prost::Message as _;
use waypost_proto::click::Batch;

use super::batch::Encoded;

/// What every segment begins with; the last byte is the format's number.
pub(super) const FILE_MARK: &[u8; 8] = b"waypost1";

const RECORD_MARK: &[u8; 4] = b"CLK1";

const HEADER: usize = 24;

/// What a segment's bytes hold.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    pub(super) records: Vec<Record>,
    /// Clicks in records that cannot be read; at least 1 for each place where
    /// something is wrong and nobody can say what was there.
    pub(super) damaged: u64,
}

/// A batch out of a segment.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) partition: u32,
    pub(super) clicks: u32,
    pub(super) batch: Bytes,
}

/// Appends the record of a batch.
pub(super) fn write(encoded: &Encoded, into: &mut Vec<u8>) {
    let start = into.len();
    let length = u32::try_from(encoded.batch.len()).expect("a batch is below 1 MiB");
    into.extend_from_slice(RECORD_MARK);
    into.extend_from_slice(&encoded.partition.to_le_bytes());
    into.extend_from_slice(&encoded.clicks.to_le_bytes());
    into.extend_from_slice(&length.to_le_bytes());
    into.extend_from_slice(&crc32fast::hash(&encoded.batch).to_le_bytes());
    let checksum = crc32fast::hash(&into[start..]);
    into.extend_from_slice(&checksum.to_le_bytes());
    into.extend_from_slice(&encoded.batch);
}

/// Reads records, and goes on behind what is damaged.
pub(super) fn scan(bytes: &Bytes) -> Scanned {
    let mut scanned = Scanned::default();
    let mut at = 0;
    while at < bytes.len() {
        let Some(header) = Header::read(&bytes[at..]) else {
            let next = resync(bytes, at + 1);
            scanned.damaged += clicks_of_headless(&bytes[at..next]);
            at = next;
            continue;
        };
        let start = at + HEADER;
        let end = start.saturating_add(header.length);
        match bytes.get(start..end) {
            Some(batch) if crc32fast::hash(batch) == header.checksum => {
                scanned.records.push(Record {
                    partition: header.partition,
                    clicks: header.clicks,
                    batch: bytes.slice(start..end),
                });
                at = end;
            }
            // Flipped within: the header still says where the next one begins.
            Some(_) => {
                scanned.damaged += u64::from(header.clicks);
                at = end;
            }
            // Cut off, unless another record follows within what it claims.
            None => {
                scanned.damaged += u64::from(header.clicks);
                at = resync(bytes, start);
            }
        }
    }
    scanned
}

struct Header {
    partition: u32,
    clicks: u32,
    length: usize,
    checksum: u32,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..HEADER)?;
        let number = |at: usize| {
            let bytes = header[at..at + 4].try_into().expect("four bytes");
            u32::from_le_bytes(bytes)
        };
        let whole = header.starts_with(RECORD_MARK) && crc32fast::hash(&header[..20]) == number(20);
        whole.then(|| Self {
            partition: number(4),
            clicks: number(8),
            length: number(12) as usize,
            checksum: number(16),
        })
    }
}

/// The next place from `from` on where a whole header is; the end if there is none.
fn resync(bytes: &[u8], from: usize) -> usize {
    (from..bytes.len())
        .find(|at| bytes[*at..].starts_with(RECORD_MARK) && Header::read(&bytes[*at..]).is_some())
        .unwrap_or(bytes.len())
}

/// How many clicks a record with a damaged header had, as far as it can be told.
fn clicks_of_headless(record: &[u8]) -> u64 {
    record
        .get(HEADER..)
        .filter(|batch| !batch.is_empty())
        .and_then(|batch| Batch::decode(batch).ok())
        .map_or(1, |batch| batch.clicks.len().max(1) as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use waypost_proto::click::Click;

    use super::*;

    fn segment(clicks: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (sequence, clicks) in (0..).zip(clicks) {
            let click = Click {
                slug: "abcdefgh".to_owned(),
                ..Click::default()
            };
            let batch = Batch {
                sequence,
                clicks: vec![click; *clicks as usize],
                ..Batch::default()
            };
            let encoded = Encoded {
                partition: 3,
                clicks: *clicks,
                batch: batch.encode_to_vec(),
            };
            write(&encoded, &mut bytes);
        }
        bytes
    }

    fn good(scanned: &Scanned) -> Vec<u32> {
        scanned.records.iter().map(|record| record.clicks).collect()
    }

    proptest! {
        #[test]
        fn a_flipped_bit_costs_the_record_it_is_in_and_is_counted(
            place in 0.0..1.0_f64, bit in 0..8_u32,
        ) {
            let clicks = [3, 5, 1, 7];
            let mut bytes = segment(&clicks);
            let place = (place * bytes.len() as f64) as usize;
            bytes[place] ^= 1 << bit;
            let scanned = scan(&bytes.into());
            let sent: u32 = good(&scanned).iter().sum();
            prop_assert_eq!(scanned.records.len(), 3);
            prop_assert_eq!(u64::from(sent) + scanned.damaged, 16);
        }

        #[test]
        fn a_torn_tail_costs_the_last_record(cut in 1..40_usize) {
            let mut bytes = segment(&[3, 5]);
            bytes.truncate(bytes.len() - cut);
            let scanned = scan(&bytes.into());
            prop_assert_eq!(good(&scanned), [3]);
            prop_assert!((1..=5).contains(&scanned.damaged));
        }

        #[test]
        fn noise_is_no_record(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            prop_assert!(scan(&bytes.into()).records.is_empty());
        }
    }
}
