//! What Redis holds for a slug, and how it is replaced.
//!
//! A value is `WP1`, 14 hex digits of version, 8 hex digits of checksum, and an
//! encoded `Entry`. The version is readable from outside, so that a script can
//! let the newer value win; the checksum and the slug within make a damaged or
//! misplaced value a miss.

use bytes::Bytes;
use prost::Message as _;
use waypost_domain::{Link, LinkKey};

use crate::generated::cache::v1::{self as message, entry};

const MAGIC: &[u8; 3] = b"WP1";
const VERSION_DIGITS: usize = 14;
const CHECKSUM_DIGITS: usize = 8;
const HEADER: usize = MAGIC.len() + VERSION_DIGITS + CHECKSUM_DIGITS;

/// Sets `KEYS[1]` to `ARGV[1]` for `ARGV[2]` milliseconds unless it holds a newer
/// version. Answers 1 if it did. Versions are below 2^53, so that Lua's numbers hold
/// them.
///
/// A value of the same version is replaced, since what is there may be damaged, and
/// so is what is no value of ours. One that is damaged, or forged, may claim any
/// version: who has read one that is no good names it as `ARGV[3]`, and it is
/// replaced if it is still there, byte by byte. Other formats have the version in
/// the same place, so that two releases keep each other's newer values.
pub const PUT_UNLESS_NEWER: &str = "\
local held = redis.pcall('GET', KEYS[1])
if type(held) == 'string' and held ~= ARGV[3] and string.sub(held, 1, 2) == 'WP' then
  local newer = tonumber(string.sub(held, 4, 17), 16)
  if newer and newer > tonumber(string.sub(ARGV[1], 4, 17), 16) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1";

/// What a value says about a slug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// The link without title, tags, create id and source.
    Link(Box<Link>),
    /// The primary had no such link a moment ago.
    Absent,
}

/// Why a value is as good as none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the value is of another format")]
    Format,
    #[error("the value is damaged")]
    Damaged,
    #[error("the value belongs to another slug")]
    Foreign,
}

/// The key of a slug. The generation changes when what Redis holds must no longer
/// be believed: after a restore from backup or a failover to another region.
#[must_use]
pub fn key(generation: u32, key: &LinkKey) -> String {
    format!("w{generation}:{}:{}", key.domain.0, key.slug)
}

/// The value for a link.
#[must_use]
pub fn encode_link(link: &Link) -> Vec<u8> {
    let mut message = crate::link::Link::from(link);
    message.title = None;
    message.tags = Vec::new();
    message.create_id = Bytes::new();
    message.source = None;
    envelope(link.version.get(), entry::Entry::Link(message))
}

/// The value for a slug without a link. Its version 0 loses to every link.
#[must_use]
pub fn encode_absent(key: &LinkKey) -> Vec<u8> {
    let absent = message::Absent {
        domain: key.domain.0,
        slug: key.slug.to_string(),
    };
    envelope(0, entry::Entry::Absent(absent))
}

/// Reads the value that was found under a key. The link's signature is still to
/// be checked.
///
/// # Errors
/// Says why the value is to be treated as a miss.
pub fn decode(expected: &LinkKey, value: &[u8]) -> Result<Entry, Error> {
    let (header, body) = value.split_at_checked(HEADER).ok_or(Error::Format)?;
    let (magic, rest) = header.split_at(MAGIC.len());
    let (version, checksum) = rest.split_at(VERSION_DIGITS);
    if magic != MAGIC {
        return Err(Error::Format);
    }
    let stored_version = hex(version).ok_or(Error::Damaged)?;
    if hex(checksum) != Some(u64::from(checksum_of(version, body))) {
        return Err(Error::Damaged);
    }
    let entry = message::Entry::decode(body)
        .ok()
        .and_then(|entry| entry.entry)
        .ok_or(Error::Damaged)?;
    match entry {
        entry::Entry::Link(mut link) => {
            // The id of the create is not cached; any will do here.
            link.create_id = Bytes::from_static(&[0; 16]);
            let link = Link::try_from(link).map_err(|_| Error::Damaged)?;
            if link.key != *expected {
                return Err(Error::Foreign);
            }
            if link.version.get() != stored_version {
                return Err(Error::Damaged);
            }
            Ok(Entry::Link(Box::new(link)))
        }
        entry::Entry::Absent(absent) => {
            if absent.domain != expected.domain.0 || absent.slug != expected.slug.as_str() {
                return Err(Error::Foreign);
            }
            Ok(Entry::Absent)
        }
    }
}

fn envelope(version: u64, entry: entry::Entry) -> Vec<u8> {
    let body = message::Entry { entry: Some(entry) }.encode_to_vec();
    let version = format!("{version:0VERSION_DIGITS$x}");
    let checksum = checksum_of(version.as_bytes(), &body);
    let mut value = Vec::with_capacity(HEADER + body.len());
    value.extend_from_slice(MAGIC);
    value.extend_from_slice(version.as_bytes());
    value.extend_from_slice(format!("{checksum:0CHECKSUM_DIGITS$x}").as_bytes());
    value.extend_from_slice(&body);
    value
}

fn checksum_of(version: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(version);
    hasher.update(body);
    hasher.finalize()
}

fn hex(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::tests::link;

    #[test]
    fn a_value_brings_back_what_a_redirect_needs() {
        let link = link("abcdefgh");
        let Ok(Entry::Link(read)) = decode(&link.key, &encode_link(&link)) else {
            panic!("the value was not read back");
        };
        assert_eq!(read.long_url, link.long_url);
        assert_eq!(read.signature, link.signature);
        assert_eq!(read.version, link.version);
        assert_eq!(read.title, None);
        let absent = decode(&link.key, &encode_absent(&link.key));
        assert_eq!(absent, Ok(Entry::Absent));
    }

    #[test]
    fn damaged_foreign_and_older_values_are_misses() {
        let link_a = link("abcdefgh");
        let good = encode_link(&link_a);
        for at in 0..good.len() {
            let mut flipped = good.clone();
            flipped[at] ^= 0x04;
            assert!(decode(&link_a.key, &flipped).is_err(), "byte {at}");
            assert!(decode(&link_a.key, &good[..at]).is_err(), "cut at {at}");
        }
        let foreign = decode(&link("abcdefgi").key, &good);
        assert_eq!(foreign, Err(Error::Foreign));
        assert_eq!(
            decode(&link_a.key, b"WP0whatever else it may hold"),
            Err(Error::Format)
        );
    }
}
