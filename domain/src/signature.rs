//! The shard's signature over everything that decides a redirect.
//!
//! The gateway checks it whenever a link enters its memory, so that a poisoned
//! cache or an edited row cannot send people elsewhere.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::Link;

/// One byte that names the key, then the first 16 of HMAC-SHA-256.
pub const LEN: usize = 17;

/// A key to sign and check with, under the number that signatures carry.
#[derive(Clone)]
pub struct Key {
    id: u8,
    hmac: Hmac<Sha256>,
}

impl Key {
    #[must_use]
    pub fn new(id: u8, secret: &[u8; 32]) -> Self {
        let hmac = Hmac::new_from_slice(secret).expect("HMAC takes keys of any length");
        Self { id, hmac }
    }

    /// The signature for a link, whatever its `signature` field holds.
    #[must_use]
    pub fn sign(&self, link: &Link) -> [u8; LEN] {
        let mut hmac = self.hmac.clone();
        hmac.update(&deciding_fields(link));
        let mut signature = [0; LEN];
        signature[0] = self.id;
        signature[1..].copy_from_slice(&hmac.finalize().into_bytes()[..LEN - 1]);
        signature
    }
}

/// Shows nothing of the secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// The keys whose signatures are believed: the one in use and its predecessors.
#[derive(Debug, Clone)]
pub struct KeyRing {
    signing: Key,
    retired: Vec<Key>,
}

impl KeyRing {
    #[must_use]
    pub fn new(signing: Key, retired: Vec<Key>) -> Self {
        Self { signing, retired }
    }

    /// Reads `id:64 hex digits`, one key a line, the one to sign with first.
    /// Blank lines and lines that start with `#` are passed over.
    ///
    /// # Errors
    /// Says in words what is wrong, and never shows the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut keys = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| {
                let (id, secret) = line.split_once(':').ok_or("expected id:hex")?;
                let id = id.parse().map_err(|_| "a key id is 0 to 255")?;
                let secret = parse_hex(secret).ok_or("a key is 64 hex digits")?;
                Ok(Key::new(id, &secret))
            })
            .collect::<Result<Vec<_>, String>>()?;
        if keys.is_empty() {
            return Err("there is no key".to_owned());
        }
        let signing = keys.remove(0);
        Ok(Self::new(signing, keys))
    }

    /// Signs with the key in use.
    #[must_use]
    pub fn sign(&self, link: &Link) -> [u8; LEN] {
        self.signing.sign(link)
    }

    /// Whether the link's signature is ours.
    #[must_use]
    pub fn verify(&self, link: &Link) -> bool {
        std::iter::once(&self.signing)
            .chain(&self.retired)
            .filter(|key| key.id == link.signature[0])
            .any(|key| key.sign(link).ct_eq(&link.signature).into())
    }
}

/// Reads 64 hex digits into 32 bytes.
#[must_use]
pub fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.trim().as_bytes();
    let mut bytes = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high * 16 + low) as u8;
    }
    Some(bytes)
}

/// Every field that decides an answer, each with its length or presence before
/// it, so that no two links share a text. The first byte is the format.
fn deciding_fields(link: &Link) -> Vec<u8> {
    fn sized(out: &mut Vec<u8>, bytes: &[u8]) {
        out.extend((bytes.len() as u32).to_be_bytes());
        out.extend(bytes);
    }
    fn optional(out: &mut Vec<u8>, number: Option<u64>) {
        out.push(u8::from(number.is_some()));
        out.extend(number.unwrap_or_default().to_be_bytes());
    }
    let mut out = Vec::with_capacity(160 + link.long_url.as_str().len());
    out.push(1);
    out.extend(link.key.domain.0.to_be_bytes());
    sized(&mut out, link.key.slug.as_str().as_bytes());
    out.extend(link.id.0.as_bytes());
    sized(&mut out, link.long_url.as_str().as_bytes());
    out.extend(link.redirect_status.code().to_be_bytes());
    sized(&mut out, link.tenant.as_bytes());
    out.push(link.state as u8);
    out.extend(link.version.get().to_be_bytes());
    optional(&mut out, link.valid_since.map(|at| at.millis() as u64));
    optional(&mut out, link.valid_until.map(|at| at.millis() as u64));
    optional(&mut out, link.max_visits);
    out.push(u8::from(link.forward_query));
    out.push(u8::from(link.password_hash.is_some()));
    sized(
        &mut out,
        link.password_hash.as_deref().unwrap_or_default().as_bytes(),
    );
    out
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::*;

    fn link() -> Link {
        Link {
            key: LinkKey {
                domain: DomainId::MAIN,
                slug: Slug::parse("abcdefgh").unwrap(),
            },
            id: LinkId(Uuid::from_u128(1)),
            long_url: LongUrl::parse("https://example.com/").unwrap(),
            redirect_status: RedirectStatus::Found,
            tenant: "t".to_owned(),
            state: State::Active,
            version: Version::first(Epoch::FIRST),
            created_at: Timestamp::from_millis(1).unwrap(),
            updated_at: Timestamp::from_millis(1).unwrap(),
            valid_since: None,
            valid_until: None,
            max_visits: None,
            title: None,
            tags: Vec::new(),
            forward_query: false,
            password_hash: None,
            create_id: CreateId(Uuid::from_u128(2)),
            source: None,
            signature: [0; LEN],
        }
    }

    #[test]
    fn a_change_of_any_deciding_field_breaks_the_signature() {
        let ring = KeyRing::parse(&format!("3:{}", "ab".repeat(32))).unwrap();
        let mut signed = link();
        assert!(!ring.verify(&signed));
        signed.signature = ring.sign(&signed);
        assert!(ring.verify(&signed));
        let changes: [fn(&mut Link); 12] = [
            |l| l.key.domain = DomainId(1),
            |l| l.key.slug = Slug::parse("abcdefgi").unwrap(),
            |l| l.id = LinkId(Uuid::from_u128(9)),
            |l| l.long_url = LongUrl::parse("https://evil.example/").unwrap(),
            |l| l.redirect_status = RedirectStatus::MovedPermanently,
            |l| l.tenant = "u".to_owned(),
            |l| l.state = State::Disabled,
            |l| l.version = l.version.next(Epoch::FIRST),
            |l| l.valid_until = Timestamp::from_millis(0),
            |l| l.max_visits = Some(0),
            |l| l.forward_query = true,
            |l| l.password_hash = Some(String::new()),
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut changed = signed.clone();
            change(&mut changed);
            assert!(!ring.verify(&changed), "change {index} went unnoticed");
        }
        // What does not decide an answer may change without a new signature.
        signed.title = Some("a title".to_owned());
        assert!(ring.verify(&signed));
    }

    #[test]
    fn retired_keys_are_believed_and_unknown_ones_are_not() {
        let old = KeyRing::parse(&format!("1:{}", "11".repeat(32))).unwrap();
        let rotated =
            KeyRing::parse(&format!("2:{}\n1:{}", "22".repeat(32), "11".repeat(32))).unwrap();
        let mut signed = link();
        signed.signature = old.sign(&signed);
        assert!(rotated.verify(&signed));
        signed.signature = rotated.sign(&signed);
        assert!(!old.verify(&signed));
        assert!(KeyRing::parse("# nothing\n").is_err());
        assert!(KeyRing::parse("1:short").is_err());
    }
}
