//! API keys: tokens that say themselves whose they are, what they allow and until
//! when, so that whoever has the secret can check one without asking anybody.
//!
//! In text a key is `wp_` and base64url without padding of: the format (1), the
//! number of the secret, 8 bytes of id, 2 of scopes, 8 of the expiry in seconds since
//! 1970 (all big-endian), the tenant's name, and the first 16 bytes of HMAC-SHA-256
//! over a constant and all of that.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::signature::parse_hex;
use crate::{Scopes, Tenant, Timestamp};

/// What every key starts with, so that programs that look for leaked secrets find it.
pub const PREFIX: &str = "wp_";

/// The only format so far.
const FORMAT: u8 = 1;

const HEAD_LEN: usize = 20;
const MAC_LEN: usize = 16;

/// Nothing else that is ever signed with the same secret starts like this.
const CONTEXT: &[u8] = b"waypost api key\0";

/// The longest key in text: that of a tenant with a name of 64 bytes.
pub const MAX_LEN: usize = PREFIX.len() + (HEAD_LEN + 64 + MAC_LEN).div_ceil(3) * 4;

/// Names one key, in lists and where it is revoked. Not secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(pub [u8; 8]);

impl KeyId {
    /// As it is written: 16 hex digits.
    #[must_use]
    pub fn text(self) -> KeyIdText {
        let mut digits = [0; 16];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0) {
            pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
            pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
        }
        KeyIdText(digits)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

/// A key's id in hex digits, without an allocation.
#[derive(Debug, Clone, Copy)]
pub struct KeyIdText([u8; 16]);

impl KeyIdText {
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("hex digits are ASCII")
    }
}

/// What a key says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub id: KeyId,
    pub tenant: Tenant,
    pub scopes: Scopes,
    /// Whole seconds; what is finer is cut off in a token.
    pub expires: Timestamp,
}

/// Why a text is no key of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the text is not an API key")]
    Malformed,
    #[error("the API key is of a format that this release does not know")]
    Format,
    #[error("the API key was not signed with one of these secrets")]
    Forged,
}

/// The secrets that keys are signed with: the one in use and its predecessors.
#[derive(Clone)]
pub struct Secrets(Vec<(u8, Hmac<Sha256>)>);

impl Secrets {
    /// Reads `number:64 hex digits`, one secret a line, the one to sign with first.
    /// Blank lines and lines that start with `#` are passed over.
    ///
    /// # Errors
    /// Says in words what is wrong, and never shows the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let secrets = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| {
                let (number, secret) = line.split_once(':').ok_or("expected number:hex")?;
                let number = number
                    .parse()
                    .map_err(|_| "a secret's number is 0 to 255")?;
                let secret = parse_hex(secret).ok_or("a secret is 64 hex digits")?;
                let hmac = Hmac::new_from_slice(&secret).expect("HMAC takes keys of any length");
                Ok((number, hmac))
            })
            .collect::<Result<Vec<_>, &'static str>>()?;
        if secrets.is_empty() {
            return Err("there is no secret");
        }
        Ok(Self(secrets))
    }

    /// The token of a key. It cannot be had again.
    #[must_use]
    pub fn token(&self, key: &ApiKey) -> String {
        let (number, hmac) = &self.0[0];
        let mut bytes = Vec::with_capacity(HEAD_LEN + 64 + MAC_LEN);
        bytes.extend([FORMAT, *number]);
        bytes.extend(key.id.0);
        bytes.extend(key.scopes.bits().to_be_bytes());
        bytes.extend((key.expires.millis() / 1_000).to_be_bytes());
        bytes.extend(key.tenant.as_str().as_bytes());
        let mac = mac(hmac, &bytes);
        bytes.extend(mac);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// What a token says, if it is one of ours. Whether it has expired or was
    /// revoked, the caller must see.
    ///
    /// # Errors
    /// If it is not.
    pub fn open(&self, token: &str) -> Result<ApiKey, Error> {
        let body = token.strip_prefix(PREFIX).ok_or(Error::Malformed)?;
        let mut buffer = [0; MAX_LEN];
        if token.len() > MAX_LEN {
            return Err(Error::Malformed);
        }
        let len = URL_SAFE_NO_PAD
            .decode_slice(body, &mut buffer)
            .map_err(|_| Error::Malformed)?;
        let bytes = &buffer[..len];
        if bytes.first().is_some_and(|format| *format != FORMAT) {
            return Err(Error::Format);
        }
        if len <= HEAD_LEN + MAC_LEN {
            return Err(Error::Malformed);
        }
        let (signed, given) = bytes.split_at(len - MAC_LEN);
        let is_ours = self
            .0
            .iter()
            .filter(|(number, _)| *number == signed[1])
            .any(|(_, hmac)| mac(hmac, signed).ct_eq(given).into());
        if !is_ours {
            return Err(Error::Forged);
        }
        read(signed).ok_or(Error::Malformed)
    }
}

/// Shows nothing secret.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

fn mac(hmac: &Hmac<Sha256>, signed: &[u8]) -> [u8; MAC_LEN] {
    let mut hmac = hmac.clone();
    hmac.update(CONTEXT);
    hmac.update(signed);
    let mut mac = [0; MAC_LEN];
    mac.copy_from_slice(&hmac.finalize().into_bytes()[..MAC_LEN]);
    mac
}

fn read(signed: &[u8]) -> Option<ApiKey> {
    let (head, tenant) = signed.split_at_checked(HEAD_LEN)?;
    let seconds = i64::from_be_bytes(head[12..20].try_into().ok()?);
    Some(ApiKey {
        id: KeyId(head[2..10].try_into().ok()?),
        tenant: Tenant::parse(str::from_utf8(tenant).ok()?)?,
        scopes: Scopes::from_bits(u16::from_be_bytes(head[10..12].try_into().ok()?)),
        expires: Timestamp::from_millis(seconds.checked_mul(1_000)?)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Scope;

    const SECRET: &str = "0001020304050607080900010203040506070809000102030405060708090a0b";

    fn key(tenant: &str) -> ApiKey {
        ApiKey {
            id: KeyId([0, 1, 2, 3, 0xfc, 0xfd, 0xfe, 0xff]),
            tenant: Tenant::parse(tenant).unwrap(),
            scopes: [Scope::WriteLinks, Scope::ReadStats].into_iter().collect(),
            expires: Timestamp::parse("2027-01-01T00:00:00Z").unwrap(),
        }
    }

    fn secrets(text: &str) -> Secrets {
        Secrets::parse(text).unwrap()
    }

    /// Keys that are out there have this form: it must never change.
    #[test]
    fn the_first_format_stays_as_it_is() {
        let secrets = secrets(&format!("1:{SECRET}"));
        let token = secrets.token(&key("default"));
        assert_eq!(
            token,
            "wp_AQEAAQID_P3-_wAFAAAAAGs27IBkZWZhdWx0nN5m6i_Oq8tMaduwKbdZWQ"
        );
        assert_eq!(secrets.open(&token), Ok(key("default")));
        assert_eq!(key("default").id.to_string(), "00010203fcfdfeff");
    }

    #[test]
    fn a_secret_is_replaced_without_an_end_of_the_keys_before() {
        let old = secrets(&format!("1:{SECRET}")).token(&key("a"));
        let next = SECRET.replace('a', "b");
        let both = secrets(&format!("# new\n2:{next}\n1:{SECRET}\n"));
        assert_eq!(both.open(&old), Ok(key("a")));
        let new = both.token(&key("a"));
        assert_eq!(secrets(&format!("2:{next}")).open(&new), Ok(key("a")));
        assert_eq!(secrets(&format!("2:{next}")).open(&old), Err(Error::Forged));
        // The number is no more than a hint: it is signed as all the rest.
        assert_eq!(secrets(&format!("1:{next}")).open(&old), Err(Error::Forged));
    }

    #[test]
    fn what_is_no_key_is_told_apart() {
        let secrets = secrets(&format!("1:{SECRET}"));
        for text in [
            "",
            "wp_",
            "wp_AQ",
            "wp_A",
            "wp_====",
            "eyJhbGciOiJub25lIn0.e30.",
        ] {
            assert_eq!(secrets.open(text), Err(Error::Malformed), "{text}");
        }
        let later = format!("wp_{}", URL_SAFE_NO_PAD.encode([2; 60]));
        assert_eq!(secrets.open(&later), Err(Error::Format));
        let long = format!("wp_AQ{}", "A".repeat(MAX_LEN));
        assert_eq!(secrets.open(&long), Err(Error::Malformed));
    }

    #[test]
    fn a_key_of_the_longest_name_fits() {
        let secrets = secrets(&format!("1:{SECRET}"));
        let key = key(&"x".repeat(64));
        let token = secrets.token(&key);
        assert!(token.len() <= MAX_LEN);
        assert_eq!(secrets.open(&token), Ok(key));
    }

    #[test]
    fn a_malformed_secret_is_not_shown() {
        for text in [
            "",
            "# none",
            "secret",
            "x:00",
            "300:00",
            &format!("1:{SECRET}0"),
        ] {
            let problem = Secrets::parse(text).unwrap_err();
            assert!(!problem.contains("secret:") && !problem.contains(SECRET));
        }
    }

    proptest! {
        /// Not one bit of a token can be changed.
        #[test]
        fn a_changed_token_is_refused(at in 0..1_000_usize, to in "[0-9A-Za-z_-]") {
            let secrets = secrets(&format!("1:{SECRET}"));
            let token = secrets.token(&key("default"));
            let at = at % token.len();
            let mut changed = token.clone();
            changed.replace_range(at..=at, &to);
            prop_assume!(changed != token);
            prop_assert!(secrets.open(&changed).is_err());
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*", bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let secrets = secrets(&format!("1:{SECRET}"));
            prop_assert!(secrets.open(&text).is_err());
            let token = format!("wp_{}", URL_SAFE_NO_PAD.encode(bytes));
            prop_assert!(secrets.open(&token).is_err());
        }
    }
}
