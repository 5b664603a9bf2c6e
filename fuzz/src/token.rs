//! Tokens: API keys, and JWTs before anybody has looked at their signatures.

use waypost_domain::Timestamp;
use waypost_domain::api_key::Secrets;
use waypost_domain::jwt::{Error, Expected, Unverified};

/// The corpus has keys that were signed with it.
const SECRET: &str = "7:0707070707070707070707070707070707070707070707070707070707070707";

/// Nobody's API key is taken but one of ours, letter for letter; a JWT without a good
/// signature says nothing, and with one it names a tenant.
///
/// # Panics
/// If it is not so.
pub fn token(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let secrets = Secrets::parse(SECRET).expect("it is one");
    if let Ok(key) = secrets.open(text) {
        assert_eq!(secrets.token(&key), text, "forged");
    }
    let Ok(jwt) = Unverified::parse(text) else {
        return;
    };
    let now = Timestamp::from_millis(1_795_000_000_000).expect("it is in range");
    let forged = jwt.verify(|_, _| false, &Expected::default(), now);
    assert_eq!(forged, Err(Error::Forged));
    if let Ok(bearer) = jwt.verify(|_, _| true, &Expected::default(), now) {
        assert!(!bearer.tenant.as_str().is_empty());
    }
    // The issuer's name is asked for: who does not say it is not heard.
    let expected = Expected {
        issuer: Some("nobody has this name".to_owned()),
        audience: None,
    };
    assert!(jwt.verify(|_, _| true, &expected, now).is_err());
}
