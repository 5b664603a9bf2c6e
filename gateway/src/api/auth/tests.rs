//! Tokens of every kind, good and bad, against keys of every kind.

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};
use tempfile::TempDir;
use waypost_domain::api_key::{self, ApiKey, KeyId};
use waypost_runtime::metrics::Registry;

use super::*;

/// The private key of RFC 8037, appendix A.1, as PKCS #8.
const ED25519: &str = "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g";
const ED25519_PUBLIC: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

/// Of keys that exist no more, made and used by OpenSSL.
const RSA_MODULUS: &str = "kjPirXRbHyq1Xa62C4cBKwaSYMM2fxI2H5pElsaFkVY6kGXT_HTrIitrvLr4Q3f1B0pdh_8LIZzPvxn6aUBCaFaXWVJB6_-L7NSrccLFyPZ6m--iN75zYHml-5vpU_XedDTD-b5f6SLUSbirjZ19zqZ3ulmWwqu3ZXVjAtQLEzPT47SJE7B18m--vRGp3RTEM2xpBzKLtqG4mGEHZSWCUMgjrdhk213XYiunRHPWZHTZkBs7TjUbKthvlZz3YWtlUAjgcTpllNKQIS-rouyf5Q6_on_GOOwcfni1BshCK1zmo_98sccOAWzE2fVSS-SsAc2PKxKyO8CJXReRxse3Sw";
const SIGNED_BY_RSA: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSJ9.eyJ0ZW5hbnQiOiJkZWZhdWx0Iiwic2NvcGUiOiJsaW5rczpyZWFkIiwiZXhwIjo0MTAyNDQ0ODAwfQ.CKmuMZ5uG5ZSayqopYOgHQ51luqgDGFa_XuMAKwkL0HpAiPfxoiORLSw3sppAbIErAguV4w34sVuV5DqOY-21tUaZXNG2s21rLYyaLBjiQrWM9eT-TblF3CiOz0KTGv8ttgljhPSVilKtErRZ8Jfo--s_m8Pn1ltFuq5Td6LuJObfpd1UvneVG9cceJLXH0xAePtQA9SWJOuiSzzKpo1fq4r-j9gkDZKwsnaP5fnbI5lzu6GmLDfWjIQ0aSHCnxcW46SZVNzr0C9QkgEXzIw0lHTmKFpLEfzi3Bx0mv9eAMVWywXjVbrST6EaT0bZRJMMJPXlWt3pdIH77qmdDMZeA";
const P256: [&str; 2] = [
    "ohNwAwaj8KiyooS9DdY5yMFW5YCxuuf2ZSXhF6-6cc4",
    "OXCMqteJ0dMbNXTmFns1ot7rEBy4EsprbzBFQ5F7wwo",
];
const SIGNED_BY_P256: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImVjIn0.eyJ0ZW5hbnQiOiJkZWZhdWx0Iiwic2NvcGUiOiJsaW5rczpyZWFkIiwiZXhwIjo0MTAyNDQ0ODAwfQ.hZLY9j-fqTAm5cOozq_EL_QI2k_VBZV2y3PhIBkfPKaV5hiWqtNa_vrQcFhtaCkO_yptCgD9Y8fagEC5E_yYBw";

const SECRET: &str = "a secret of the tests, 32 bytes and more";
const MAC: &str = "1:0001020304050607080900010203040506070809000102030405060708090a0b";

/// In the year 2100.
const FAR_AWAY: u64 = 4_102_444_800;

struct Files {
    folder: TempDir,
    options: AuthOptions,
}

impl Files {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            options: AuthOptions::default(),
        }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.folder.path().join(name);
        fs::write(&file, text).unwrap();
        file
    }

    fn with_jwks(mut self, keys: &[Value]) -> Self {
        let set = json!({ "keys": keys }).to_string();
        self.options.jwks = Some(self.write("jwks.json", &set));
        self
    }

    fn with_revoked(mut self, ids: &str) -> Self {
        self.options.revoked_keys = Some(self.write("revoked-keys", ids));
        self
    }

    fn auth(&self) -> Result<Auth, Invalid> {
        let given = Secrets {
            jwt_hs256: Some(SECRET.to_owned()),
            api_key_mac: Some(MAC.to_owned()),
        };
        let watcher = Watcher::register(&Registry::new()).unwrap();
        Auth::new(&given, &self.options, false, &watcher)
    }
}

fn ed25519(kid: &str) -> Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": ED25519_PUBLIC })
}

fn ed25519_key() -> EncodingKey {
    EncodingKey::from_ed_der(&STANDARD.decode(ED25519).unwrap())
}

fn claims() -> Value {
    json!({ "tenant": "default", "scope": "links:read", "exp": FAR_AWAY, "jti": "token-7" })
}

fn jwt(algorithm: Algorithm, kid: Option<&str>, key: &EncodingKey) -> String {
    let mut header = Header::new(algorithm);
    header.kid = kid.map(str::to_owned);
    encode(&header, &claims(), key).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from(std::time::SystemTime::now())
}

fn api_key(expires: &str) -> String {
    let key = ApiKey {
        id: KeyId([7; 8]),
        tenant: Tenant::parse("default").unwrap(),
        scopes: Scopes::of_claim("links:read"),
        expires: Timestamp::parse(expires).unwrap(),
    };
    api_key::Secrets::parse(MAC).unwrap().token(&key)
}

#[test]
fn each_kind_of_key_signs_tokens_that_are_believed() {
    let rsa = json!({ "kty": "RSA", "kid": "rsa", "use": "sig", "n": RSA_MODULUS, "e": "AQAB" });
    let p256 = json!({ "kty": "EC", "crv": "P-256", "kid": "ec", "x": P256[0], "y": P256[1] });
    let auth = Files::new()
        .with_jwks(&[ed25519("ed"), rsa, p256])
        .auth()
        .unwrap();
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    for token in [
        jwt(Algorithm::EdDSA, Some("ed"), &ed25519_key()),
        jwt(Algorithm::HS256, None, &secret),
        jwt(Algorithm::HS256, Some("whatever"), &secret),
        SIGNED_BY_RSA.to_owned(),
        SIGNED_BY_P256.to_owned(),
        api_key("2099-01-01T00:00:00Z"),
    ] {
        let granted = auth.check(&token, now()).unwrap();
        assert_eq!(granted.tenant.as_str(), "default", "{token}");
        assert_eq!(granted.scopes.to_string(), "links:read");
        let (rest, signature) = token.split_at(token.len() - 8);
        let changed = format!("{rest}{}", signature.chars().rev().collect::<String>());
        assert_eq!(auth.check(&changed, now()), Err(Refusal::Invalid));
    }
}

#[test]
fn the_key_is_chosen_by_kid_and_decides_the_algorithm() {
    let files = Files::new().with_jwks(&[ed25519("a"), {
        json!({ "kty": "RSA", "kid": "rsa", "n": RSA_MODULUS, "e": "AQAB" })
    }]);
    let auth = files.auth().unwrap();
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    let public = URL_SAFE_NO_PAD.decode(ED25519_PUBLIC).unwrap();
    let modulus = URL_SAFE_NO_PAD.decode(RSA_MODULUS).unwrap();
    let none = {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.", part(&json!({ "alg": "none" })), part(&claims()))
    };
    let refused = [
        // Of another key than the one named, of a key that is unknown, and of one of
        // several without a word which.
        jwt(Algorithm::EdDSA, Some("rsa"), &ed25519_key()),
        jwt(Algorithm::EdDSA, Some("b"), &ed25519_key()),
        jwt(Algorithm::EdDSA, None, &ed25519_key()),
        // A public key is no secret.
        jwt(
            Algorithm::HS256,
            Some("a"),
            &EncodingKey::from_secret(&public),
        ),
        jwt(
            Algorithm::HS256,
            Some("a"),
            &EncodingKey::from_secret(ED25519_PUBLIC.as_bytes()),
        ),
        jwt(
            Algorithm::HS256,
            Some("rsa"),
            &EncodingKey::from_secret(&modulus),
        ),
        // The secret is for one algorithm only.
        jwt(Algorithm::HS384, None, &secret),
        jwt(Algorithm::HS512, None, &secret),
        none.clone(),
        none.replace(
            "eyJhbGciOiJub25lIn0",
            &URL_SAFE_NO_PAD.encode(r#"{"alg":"None"}"#),
        ),
        jwt(Algorithm::HS256, None, &EncodingKey::from_secret(b"")),
    ];
    for token in refused {
        assert_eq!(auth.check(&token, now()), Err(Refusal::Invalid), "{token}");
    }
    let only = Files::new().with_jwks(&[ed25519("a")]).auth().unwrap();
    let unnamed = jwt(Algorithm::EdDSA, None, &ed25519_key());
    assert!(only.check(&unnamed, now()).is_ok(), "the only key");
}

#[test]
fn a_set_of_keys_that_would_not_do_is_refused() {
    let sets = [
        (vec![], "no key"),
        (
            vec![json!({ "kty": "oct", "kid": "a", "k": "c2VjcmV0" })],
            "private or a symmetric",
        ),
        (
            vec![json!({ "kty": "OKP", "crv": "Ed25519", "x": ED25519_PUBLIC, "d": "AA" })],
            "private or a symmetric",
        ),
        (vec![ed25519("a"), ed25519("a")], "kid of another"),
        (
            vec![json!({ "kty": "OKP", "crv": "Ed25519", "alg": "RS256", "x": ED25519_PUBLIC })],
            "not for keys of its kind",
        ),
        (
            vec![json!({ "kty": "OKP", "crv": "Ed25519", "x": "AAAA" })],
            "malformed",
        ),
        (
            vec![json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB" })],
            "2048 bits",
        ),
        (
            vec![json!({ "kty": "OKP", "crv": "X25519", "x": ED25519_PUBLIC })],
            "no key",
        ),
        (
            vec![json!({ "kty": "OKP", "crv": "Ed25519", "use": "enc", "x": ED25519_PUBLIC })],
            "no key",
        ),
    ];
    for (keys, expected) in sets {
        let problem = Files::new().with_jwks(&keys).auth().unwrap_err();
        assert_eq!(problem.option, "--jwks");
        assert!(problem.problem.contains(expected), "{problem}: {keys:?}");
        assert!(!problem.problem.contains("c2VjcmV0"));
    }
    let mut garbled = Files::new().with_jwks(&[]);
    garbled.options.jwks = Some(garbled.write("jwks.json", "{\"keys\": ["));
    assert!(garbled.auth().is_err());
    // What is for something else is passed over, if there is another.
    let mixed = [json!({ "kty": "new", "kid": "n" }), ed25519("a")];
    assert!(Files::new().with_jwks(&mixed).auth().is_ok());
}

#[test]
fn what_has_expired_or_was_revoked_says_so() {
    let auth = Files::new().auth().unwrap();
    let expired = auth.check(&api_key("2026-01-01T00:00:00Z"), now());
    assert_eq!(expired, Err(Refusal::Expired));
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    let token = jwt(Algorithm::HS256, None, &secret);
    assert_eq!(auth.check(&token, Timestamp::MAX), Err(Refusal::Expired));

    let auth = Files::new()
        .with_revoked("0707070707070707\ntoken-7\n")
        .auth()
        .unwrap();
    let key = api_key("2099-01-01T00:00:00Z");
    assert_eq!(auth.check(&key, now()), Err(Refusal::Revoked));
    assert_eq!(auth.check(&token, now()), Err(Refusal::Revoked));
}

#[test]
fn only_the_operators_own_keys_speak_for_those_who_have_none() {
    let auth = Files::new().auth().unwrap();
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    let claims = json!({ "tenant": "anonymous", "scope": "links:read", "exp": FAR_AWAY });
    let token = encode(&Header::new(Algorithm::HS256), &claims, &secret).unwrap();
    assert_eq!(auth.check(&token, now()), Err(Refusal::Invalid));
    let key = ApiKey {
        id: KeyId([7; 8]),
        tenant: Tenant::parse("anonymous").unwrap(),
        scopes: Scopes::of_claim("links:read"),
        expires: Timestamp::parse("2099-01-01T00:00:00Z").unwrap(),
    };
    let key = api_key::Secrets::parse(MAC).unwrap().token(&key);
    assert!(auth.check(&key, now()).is_ok());
}

#[test]
fn a_server_that_could_check_no_token_does_not_start() {
    let watcher = Watcher::register(&Registry::new()).unwrap();
    let none = Auth::new(&Secrets::default(), &AuthOptions::default(), true, &watcher);
    assert_eq!(none.unwrap_err().option, "--secrets-dir");
    let mut files = Files::new();
    files.options.revoked_keys = Some(files.folder.path().join("missing"));
    assert_eq!(files.auth().unwrap_err().option, "--revoked-keys");
}
