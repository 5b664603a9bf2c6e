//! JSON Web Tokens (RFC 7519), as far as reading them needs neither a key nor a clock.
//!
//! Nothing in a token is shown before somebody has looked at its signature, but what
//! is needed to choose the key.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use crate::{Scopes, Tenant, Timestamp};

/// Bytes of a token: most have a few hundred. It also bounds what a forger can make
/// us read.
pub const MAX_LEN: usize = 4_096;

/// How far the clocks of the issuer and of this machine may be apart, in seconds.
const LEEWAY: f64 = 5.0;

/// A token whose signature nobody has looked at.
#[derive(Debug)]
pub struct Unverified<'a> {
    header: Header,
    /// Header and claims as they stand in the token, which is what is signed.
    signed: &'a str,
    /// In base64url, as it stands in the token.
    signature: &'a str,
    claims: &'a str,
}

/// The members of a header that matter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Header {
    /// What the token claims to be signed by: never to be taken for what it is.
    pub alg: String,
    pub kid: Option<String>,
    /// Extensions that a reader must understand, and none is understood here.
    crit: Option<Value>,
}

/// What the token says of its bearer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    pub tenant: Tenant,
    pub scopes: Scopes,
    /// The token's own name, by which it can be revoked.
    pub id: Option<String>,
    /// Who it was issued to, whatever that is to its issuer, as JSON.
    pub subject: Option<String>,
}

/// Who must have made a token, and for whom; `None`: whoever.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    pub issuer: Option<String>,
    pub audience: Option<String>,
}

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the text is not a JWT")]
    Malformed,
    #[error("the signature is not that of a known key")]
    Forged,
    #[error("the claims are not those of a tenant's token")]
    Claims,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the token has expired")]
    Expired,
    #[error("the token is of another issuer or for another audience")]
    Foreign,
}

impl<'a> Unverified<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// If it does not consist of header, claims and signature, or is too long.
    pub fn parse(token: &'a str) -> Result<Self, Error> {
        if token.len() > MAX_LEN {
            return Err(Error::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Error::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Error::Malformed)?;
        if claims.contains('.') {
            return Err(Error::Malformed);
        }
        let header: Header = json(header)?;
        if header.crit.is_some() {
            return Err(Error::Malformed);
        }
        Ok(Self {
            header,
            signed,
            signature,
            claims,
        })
    }

    /// What a key is chosen by.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What the token says, if `is_signed` finds the signature (in base64url, the
    /// second argument) over the text (the first) to be right.
    ///
    /// # Errors
    /// If it is not, or the token does not hold now or here.
    pub fn verify(
        &self,
        is_signed: impl FnOnce(&[u8], &str) -> bool,
        expected: &Expected,
        now: Timestamp,
    ) -> Result<Bearer, Error> {
        if !is_signed(self.signed.as_bytes(), self.signature) {
            return Err(Error::Forged);
        }
        let claims: Claims = json(self.claims).map_err(|_| Error::Claims)?;
        claims.check(expected, now)
    }
}

#[derive(Debug, Deserialize)]
struct Claims {
    tenant: String,
    #[serde(default)]
    scope: String,
    /// Seconds since 1970; fractions are allowed (RFC 7519, section 2).
    exp: f64,
    nbf: Option<f64>,
    iss: Option<String>,
    aud: Option<Audience>,
    jti: Option<String>,
    sub: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Claims {
    fn check(self, expected: &Expected, now: Timestamp) -> Result<Bearer, Error> {
        let now = now.millis() as f64 / 1_000.0;
        if now >= self.exp + LEEWAY {
            return Err(Error::Expired);
        }
        if self.nbf.is_some_and(|since| now < since - LEEWAY) {
            return Err(Error::NotYet);
        }
        if expected.issuer.is_some() && expected.issuer != self.iss {
            return Err(Error::Foreign);
        }
        let is_for = |wanted: &String| match &self.aud {
            None => false,
            Some(Audience::One(one)) => one == wanted,
            Some(Audience::Many(many)) => many.contains(wanted),
        };
        if !expected.audience.as_ref().is_none_or(is_for) {
            return Err(Error::Foreign);
        }
        Ok(Bearer {
            tenant: Tenant::parse(&self.tenant).ok_or(Error::Claims)?,
            scopes: Scopes::of_claim(&self.scope),
            id: self.jti,
            subject: self.sub.map(|sub| sub.to_string()),
        })
    }
}

fn json<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Error::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| Error::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn token(header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2ln", part(header), part(claims))
    }

    /// At the second 1,000 of the epoch, with a signature that is always right.
    fn read(claims: &Value, expected: &Expected) -> Result<Bearer, Error> {
        let now = Timestamp::from_millis(1_000_000).unwrap();
        let token = token(&json!({ "alg": "HS256" }), claims);
        Unverified::parse(&token)?.verify(|_, _| true, expected, now)
    }

    fn anywhere(claims: &Value) -> Result<Bearer, Error> {
        read(claims, &Expected::default())
    }

    #[test]
    fn a_token_holds_from_nbf_to_exp_give_or_take_five_seconds() {
        let between = |nbf: Value, exp: Value| {
            anywhere(&json!({ "tenant": "a", "nbf": nbf, "exp": exp })).map(drop)
        };
        assert_eq!(between(json!(1004), json!(995.001)), Ok(()));
        assert_eq!(between(json!(1005), json!(1e300)), Ok(()));
        assert_eq!(between(json!(1005.1), json!(2000)), Err(Error::NotYet));
        assert_eq!(between(json!(0), json!(995)), Err(Error::Expired));
        assert_eq!(between(Value::Null, json!(-1)), Err(Error::Expired));
        assert_eq!(between(Value::Null, json!("2000")), Err(Error::Claims));
        let endless = json!({ "tenant": "a" });
        assert_eq!(anywhere(&endless), Err(Error::Claims));
    }

    #[test]
    fn a_token_of_another_issuer_or_audience_is_foreign() {
        let expected = Expected {
            issuer: Some("https://id.example".to_owned()),
            audience: Some("waypost".to_owned()),
        };
        let from = |iss: Value, aud: Value| {
            let claims = json!({ "tenant": "a", "exp": 2000, "iss": iss, "aud": aud });
            read(&claims, &expected).map(drop)
        };
        let iss = || json!("https://id.example");
        assert_eq!(from(iss(), json!("waypost")), Ok(()));
        assert_eq!(from(iss(), json!(["other", "waypost"])), Ok(()));
        assert_eq!(from(iss(), json!(["other"])), Err(Error::Foreign));
        assert_eq!(from(iss(), Value::Null), Err(Error::Foreign));
        assert_eq!(from(Value::Null, json!("waypost")), Err(Error::Foreign));
        assert_eq!(
            from(json!("https://id.example/"), json!("waypost")),
            Err(Error::Foreign)
        );
        let other = json!({ "tenant": "a", "exp": 2000, "aud": "x", "iss": "y" });
        assert!(anywhere(&other).is_ok(), "nobody asked");
    }

    #[test]
    fn the_claims_name_a_tenant() {
        for tenant in [json!(""), json!("a\nb"), json!(7), json!("x".repeat(65))] {
            let claims = json!({ "tenant": tenant, "exp": 2000 });
            assert_eq!(anywhere(&claims), Err(Error::Claims), "{tenant}");
        }
        let claims = json!({ "tenant": "a", "exp": 2000, "scope": "links:read x", "jti": "7" });
        let bearer = anywhere(&claims).unwrap();
        assert_eq!(bearer.scopes.to_string(), "links:read");
        assert_eq!(bearer.id.as_deref(), Some("7"));
    }

    #[test]
    fn nothing_is_read_of_a_token_whose_signature_is_wrong() {
        let token = token(&json!({ "alg": "HS256" }), &json!("no claims"));
        let parsed = Unverified::parse(&token).unwrap();
        let now = Timestamp::MAX;
        let refused = parsed.verify(|_, _| false, &Expected::default(), now);
        assert_eq!(refused, Err(Error::Forged));
    }

    #[test]
    fn what_is_no_token_or_needs_more_than_we_know_is_malformed() {
        let good = json!({ "alg": "HS256" });
        let extended = token(
            &json!({ "alg": "HS256", "crit": ["b64"], "b64": false }),
            &good,
        );
        let twice = format!(
            "{}.e30.",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"a","alg":"b"}"#)
        );
        let long = token(&good, &json!("x".repeat(MAX_LEN)));
        let dots = format!("{}.x", token(&good, &good));
        for text in [
            "",
            ".",
            "..",
            "a.b.c",
            "e30.e30.",
            "e30=.e30.",
            &extended,
            &twice,
            &long,
            &dots,
        ] {
            assert!(
                matches!(Unverified::parse(text), Err(Error::Malformed)),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(header in "\\PC{0,40}", claims in "\\PC{0,200}") {
            let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
            for token in [format!("{header}.{claims}.x"), format!("{}.{}.", part(&header), part(&claims)),
                format!("{}.{}.", part(r#"{"alg":"x"}"#), part(&claims))] {
                if let Ok(parsed) = Unverified::parse(&token) {
                    let _ = parsed.verify(|_, _| true, &Expected::default(), Timestamp::MAX);
                }
            }
        }
    }
}
