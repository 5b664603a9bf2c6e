//! Values out of Redis, which anybody may have written.

use waypost_domain::{DomainId, LinkKey, Slug};
use waypost_proto::cache::{self, Entry};

/// Bytes of the version and of the checksum, in hex digits.
const VERSION: usize = 14;
const CHECKSUM: usize = 8;
const HEADER: usize = 3 + VERSION + CHECKSUM;

/// What is taken belongs to the slug that was asked for, and is taken again when it is
/// written anew.
///
/// # Panics
/// If it is not so.
pub fn cache_value(bytes: &[u8]) {
    decode(bytes);
    // By chance, no checksum is ever right.
    if bytes.len() >= HEADER {
        let (version, body) = (&bytes[3..3 + VERSION], &bytes[HEADER..]);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(version);
        hasher.update(body);
        let checksum = format!("{:08x}", hasher.finalize());
        decode(&[b"WP1", version, checksum.as_bytes(), body].concat());
    }
}

fn decode(value: &[u8]) {
    let key = LinkKey {
        domain: DomainId::MAIN,
        slug: Slug::parse("abcdefgh").expect("it is one"),
    };
    match cache::decode(&key, value) {
        Ok(Entry::Link(link)) => {
            assert_eq!(link.key, key, "another's link");
            let again = cache::decode(&key, &cache::encode_link(&link));
            let Ok(Entry::Link(again)) = again else {
                panic!("what was read cannot be written: {again:?}");
            };
            assert_eq!(again.version, link.version);
            assert_eq!(again.long_url, link.long_url);
            assert_eq!(again.state, link.state);
            assert_eq!(again.signature, link.signature);
        }
        Ok(Entry::Absent) => {
            let again = cache::decode(&key, &cache::encode_absent(&key));
            assert_eq!(again, Ok(Entry::Absent));
        }
        Err(_) => {}
    }
}
