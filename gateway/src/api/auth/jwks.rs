//! The public keys of those whose JWTs are believed: a JWK set (RFC 7517) in a file.

use std::path::Path;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use waypost_runtime::config::Invalid;
use waypost_runtime::watched::{Content, Source, Watched, Watcher};

/// A set has a handful of keys; an issuer in the midst of a rotation has twice that.
const MAX_BYTES: u64 = 1 << 20;
const MAX_KEYS: usize = 64;

/// Characters of an RSA modulus of 2,048 bits in base64url: shorter ones are not safe
/// (RFC 7518, section 3.3).
const MIN_MODULUS_LEN: usize = 342;

/// The members that only private and symmetric keys have (RFC 7518, section 6).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Keys, each with the one algorithm that it is for.
#[derive(Debug, Default)]
pub(super) struct Jwks(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    key: DecodingKey,
    algorithm: Algorithm,
}

impl Jwks {
    /// The key of this id; the only key, if a token names none.
    pub(super) fn find(&self, id: Option<&str>) -> Option<(&DecodingKey, Algorithm)> {
        let found = match (id, self.0.as_slice()) {
            (Some(id), keys) => keys.iter().find(|key| key.id.as_deref() == Some(id)),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        found.map(|key| (&key.key, key.algorithm))
    }
}

/// Reads the set and goes on watching it.
pub(super) fn watch(file: &Path, watcher: &Watcher) -> Result<Watched<Jwks>, Invalid> {
    let source = Source {
        option: "--jwks",
        name: "jwks",
        files: vec![file.to_owned()],
        max_bytes: MAX_BYTES,
    };
    watcher.watch(source, |contents: &[Content]| parse(&contents[0].bytes))
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// Keys of a kind or for a use that is unknown here are passed over, as RFC 7517,
/// section 5, asks; a set without any other is refused, and one that holds a secret:
/// it was meant for somebody else's eyes.
fn parse(bytes: &[u8]) -> Result<Jwks, String> {
    let set: Set = serde_json::from_slice(bytes)
        .map_err(|error| format!("not a JWK set (line {})", error.line()))?;
    if set.keys.len() > MAX_KEYS {
        return Err(format!("the set has more than {MAX_KEYS} keys"));
    }
    let mut keys: Vec<Key> = Vec::new();
    for (index, value) in set.keys.into_iter().enumerate() {
        let problem = |text: &str| format!("key {} of the set {text}", index + 1);
        if PRIVATE.iter().any(|member| value.get(member).is_some()) {
            return Err(problem("is a private or a symmetric one"));
        }
        let Some(key) = read(value).map_err(problem)? else {
            continue;
        };
        if keys.iter().any(|other| other.id == key.id) {
            return Err(problem("has the kid of another"));
        }
        keys.push(key);
    }
    if keys.is_empty() {
        return Err("the set has no key for signatures that is known here".to_owned());
    }
    Ok(Jwks(keys))
}

/// `None`: a key of another kind or for another use.
fn read(value: Value) -> Result<Option<Key>, &'static str> {
    let jwk: Jwk = serde_json::from_value(value).map_err(|_| "is malformed")?;
    if jwk
        .common
        .public_key_use
        .as_ref()
        .is_some_and(|for_what| *for_what != PublicKeyUse::Signature)
    {
        return Ok(None);
    }
    let said = jwk.common.key_algorithm;
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => {
            Algorithm::ES384
        }
        AlgorithmParameters::RSA(key) if key.n.len() < MIN_MODULUS_LEN => {
            return Err("is an RSA key of less than 2048 bits");
        }
        AlgorithmParameters::RSA(_) => match said {
            None | Some(KeyAlgorithm::RS256) => Algorithm::RS256,
            Some(KeyAlgorithm::RS384) => Algorithm::RS384,
            Some(KeyAlgorithm::RS512) => Algorithm::RS512,
            Some(KeyAlgorithm::PS256) => Algorithm::PS256,
            Some(KeyAlgorithm::PS384) => Algorithm::PS384,
            Some(KeyAlgorithm::PS512) => Algorithm::PS512,
            Some(_) => return Ok(None),
        },
        _ => return Ok(None),
    };
    if said.is_some_and(|said| said.to_string() != format!("{algorithm:?}")) {
        return Err("names an algorithm that is not for keys of its kind");
    }
    if !has_whole_coordinates(&jwk.algorithm) {
        return Err("is malformed");
    }
    let key = DecodingKey::from_jwk(&jwk).map_err(|_| "is malformed")?;
    // What is no point on its curve is found when it is first used.
    jsonwebtoken::crypto::verify("", b"", &key, algorithm).map_err(|_| "is no public key")?;
    Ok(Some(Key {
        id: jwk.common.key_id,
        key,
        algorithm,
    }))
}

/// Whether the coordinates of a point have the length of their curve's: the verifier
/// panics at an Ed25519 key of another length.
fn has_whole_coordinates(parameters: &AlgorithmParameters) -> bool {
    // In base64url, of 32 and of 48 bytes.
    let has_len = |curve: &EllipticCurve, text: &str| match curve {
        EllipticCurve::P384 => text.len() == 64,
        _ => text.len() == 43,
    };
    match parameters {
        AlgorithmParameters::OctetKeyPair(key) => has_len(&key.curve, &key.x),
        AlgorithmParameters::EllipticCurve(key) => {
            has_len(&key.curve, &key.x) && has_len(&key.curve, &key.y)
        }
        _ => true,
    }
}
