//! Who asks, and what they may do: bearer tokens with scopes.
//!
//! A token is an API key of ours ([`waypost_domain::api_key`]) or a JWT of an issuer
//! that the operator believes. Either says itself whose it is and what it allows, so
//! that no request waits for anybody; what is revoked stands in a list that is watched.

mod jwks;
mod query;
mod revoked;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, header};
use jsonwebtoken::{Algorithm, DecodingKey};
use waypost_domain::jwt::{self, Unverified};
use waypost_domain::{Scope, Scopes, Tenant, Timestamp, api_key};
use waypost_runtime::config::Invalid;
use waypost_runtime::secrets;
use waypost_runtime::watched::{Watched, Watcher};

pub(super) use query::refuse_tokens_in_queries;

use self::jwks::Jwks;
use self::revoked::Revoked;
pub use self::revoked::is_revocable;
use super::{Api, Code, Problem, charge};
use crate::config::AuthOptions;

/// The tenant that requests without a token act for, where they are allowed. It has
/// nothing in common with any other, so that nobody's links are anybody's.
pub const ANONYMOUS_TENANT: &str = "anonymous";

/// What a request may meet that needs a token.
pub(super) const PROBLEMS: &[Code] = &[
    Code::TokenInQuery,
    Code::TokenRepeated,
    Code::TokenMissing,
    Code::TokenInvalid,
    Code::TokenExpired,
    Code::TokenRevoked,
    Code::ScopeMissing,
];

/// As the standard asks of the hash's own length (RFC 7518, section 3.2).
const MIN_HS256_SECRET: usize = 32;

/// How tokens are checked, and what may be done without one.
pub struct Auth {
    hs256: Option<DecodingKey>,
    jwks: Watched<Jwks>,
    expected: jwt::Expected,
    api_keys: Option<api_key::Secrets>,
    revoked: Watched<Revoked>,
    is_anonymous_allowed: bool,
}

/// What tokens are signed with, as the files of the secrets hold it.
#[derive(Default)]
pub struct Secrets {
    /// Of HS256 tokens; `None`: there are no such tokens.
    pub jwt_hs256: Option<String>,
    /// Of API keys; `None`: there are none.
    pub api_key_mac: Option<String>,
}

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is malformed, forged, not valid yet, or for somebody else.
    Invalid,
    Expired,
    Revoked,
}

/// What a token allows, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    pub tenant: Tenant,
    pub scopes: Scopes,
    /// What tells its holder from others of the tenant, however often it is issued anew:
    /// the id of an API key, the subject of a JWT.
    pub holder: Option<String>,
}

/// Whoever a request comes from, who may do what it asks for.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) tenant: String,
    /// As a limit counts it; `None`: there is no token.
    pub(super) key: Option<String>,
}

impl Auth {
    /// Believes what the secrets and the options say. With `is_anonymous_allowed`,
    /// creates and statistics need no token.
    ///
    /// # Errors
    /// If a secret is malformed, a file cannot be read, or nobody could have a token.
    pub fn new(
        given: &Secrets,
        options: &AuthOptions,
        is_anonymous_allowed: bool,
        watcher: &Watcher,
    ) -> Result<Self, Invalid> {
        if given.jwt_hs256.is_none() && given.api_key_mac.is_none() && options.jwks.is_none() {
            return Err(Invalid {
                option: "--secrets-dir",
                problem: "holds neither jwt-hs256 nor api-key-mac, and there is no --jwks: \
                          no token could be checked"
                    .to_owned(),
            });
        }
        let hs256 = given.jwt_hs256.as_deref().map(hs256).transpose()?;
        let api_keys = given.api_key_mac.as_deref().map(api_key::Secrets::parse);
        Ok(Self {
            hs256,
            jwks: match &options.jwks {
                Some(file) => jwks::watch(file, watcher)?,
                None => Watched::fixed(Jwks::default()),
            },
            expected: jwt::Expected {
                issuer: options.jwt_issuer.clone(),
                audience: options.jwt_audience.clone(),
            },
            api_keys: api_keys
                .transpose()
                .map_err(|problem| secrets::malformed("api-key-mac", problem))?,
            revoked: match &options.revoked_keys {
                Some(file) => revoked::watch(file, watcher)?,
                None => Watched::fixed(Revoked::default()),
            },
            is_anonymous_allowed,
        })
    }

    /// Whether statistics of this tenant's links need no token.
    pub(super) fn tells_everybody_of(&self, tenant: &str) -> bool {
        self.is_anonymous_allowed && tenant == ANONYMOUS_TENANT
    }

    /// What a token allows at this time.
    ///
    /// # Errors
    /// If it is none of ours, or is no longer.
    pub fn check(&self, token: &str, now: Timestamp) -> Result<Granted, Refusal> {
        if token.starts_with(api_key::PREFIX) {
            self.check_api_key(token, now)
        } else {
            self.check_jwt(token, now)
        }
    }

    fn check_api_key(&self, token: &str, now: Timestamp) -> Result<Granted, Refusal> {
        let secrets = self.api_keys.as_ref().ok_or(Refusal::Invalid)?;
        let key = secrets.open(token).map_err(|_| Refusal::Invalid)?;
        if key.expires <= now {
            return Err(Refusal::Expired);
        }
        if self.revoked.load().contains(key.id.text().as_str()) {
            return Err(Refusal::Revoked);
        }
        Ok(Granted {
            tenant: key.tenant,
            scopes: key.scopes,
            holder: Some(key.id.to_string()),
        })
    }

    fn check_jwt(&self, token: &str, now: Timestamp) -> Result<Granted, Refusal> {
        let unverified = Unverified::parse(token).map_err(|_| Refusal::Invalid)?;
        let jwks = self.jwks.load();
        let (key, algorithm) = self
            .key_for(unverified.header(), &jwks)
            .ok_or(Refusal::Invalid)?;
        let is_signed = |signed: &[u8], signature: &str| {
            jsonwebtoken::crypto::verify(signature, signed, key, algorithm).unwrap_or(false)
        };
        let verified = unverified.verify(is_signed, &self.expected, now);
        let bearer = verified.map_err(|error| match error {
            jwt::Error::Expired => Refusal::Expired,
            _ => Refusal::Invalid,
        })?;
        // An issuer that hands out this name, or lets people choose it, would give all
        // anonymous links to one of them. Our operator's own keys may name it.
        if bearer.tenant.as_str() == ANONYMOUS_TENANT {
            return Err(Refusal::Invalid);
        }
        let revoked = self.revoked.load();
        if bearer.id.is_some_and(|id| revoked.contains(&id)) {
            return Err(Refusal::Revoked);
        }
        Ok(Granted {
            tenant: bearer.tenant,
            scopes: bearer.scopes,
            holder: bearer.subject,
        })
    }

    /// The key that a token's header asks for, with the one algorithm that this key is
    /// for. The header's own word on the algorithm is compared and never followed: a
    /// public key is no HMAC secret, and `none` is no algorithm.
    fn key_for<'a>(
        &'a self,
        header: &jwt::Header,
        jwks: &'a Jwks,
    ) -> Option<(&'a DecodingKey, Algorithm)> {
        let public = jwks.find(header.kid.as_deref());
        let secret = self.hs256.as_ref().map(|key| (key, Algorithm::HS256));
        let claimed: Algorithm = header.alg.parse().ok()?;
        [public, secret]
            .into_iter()
            .flatten()
            .find(|(_, algorithm)| *algorithm == claimed)
    }

    fn asker(
        &self,
        headers: &HeaderMap,
        scope: Scope,
        anonymously: bool,
    ) -> Result<Asker, Problem> {
        let Some(token) = bearer_token(headers)? else {
            return if anonymously && self.is_anonymous_allowed {
                Ok(Asker {
                    tenant: ANONYMOUS_TENANT.to_owned(),
                    key: None,
                })
            } else {
                Err(Problem::new(
                    Code::TokenMissing,
                    "Send a token: Authorization: Bearer <token>.",
                )
                .challenge("Bearer realm=\"waypost\""))
            };
        };
        let now = Timestamp::from(std::time::SystemTime::now());
        let granted = self.check(token, now).map_err(Problem::from)?;
        if !granted.scopes.allow(scope) {
            let name = scope.name();
            return Err(Problem::new(
                Code::ScopeMissing,
                format!("The token lacks the scope {name}."),
            )
            .challenge(format!(
                "Bearer realm=\"waypost\", error=\"insufficient_scope\", scope=\"{name}\""
            )));
        }
        let tenant = String::from(granted.tenant);
        // No tenant has a control character, so that no two holders are counted as one.
        let key = format!("{tenant}\n{}", granted.holder.unwrap_or_default());
        Ok(Asker {
            tenant,
            key: Some(key),
        })
    }
}

/// Shows nothing of the secrets.
impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").finish_non_exhaustive()
    }
}

/// Shows nothing secret.
impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

fn hs256(secret: &str) -> Result<DecodingKey, Invalid> {
    if secret.len() < MIN_HS256_SECRET {
        return Err(secrets::malformed("jwt-hs256", "it has less than 32 bytes"));
    }
    Ok(DecodingKey::from_secret(secret.as_bytes()))
}

/// The one token of a request; `None`: it has none.
///
/// Two headers are refused: whoever stands between could read the one and we the other.
fn bearer_token(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let Some(first) = given.next() else {
        return Ok(None);
    };
    if given.next().is_some() {
        return Err(
            Problem::new(Code::TokenRepeated, "Send one Authorization header.")
                .challenge("Bearer realm=\"waypost\", error=\"invalid_request\""),
        );
    }
    first
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| Some(token.trim()))
        .ok_or_else(|| Problem::from(Refusal::Invalid))
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (code, detail) = match refusal {
            Refusal::Invalid => (Code::TokenInvalid, "The token is not valid here."),
            Refusal::Expired => (Code::TokenExpired, "The token has expired."),
            Refusal::Revoked => (Code::TokenRevoked, "The token was revoked."),
        };
        Self::new(code, detail).challenge(format!(
            "Bearer realm=\"waypost\", error=\"invalid_token\", error_description=\"{detail}\""
        ))
    }
}

/// May create links: a token's scope, or anonymously where that is allowed.
#[derive(Debug)]
pub(super) struct Creator(pub(super) String);

/// May change and delete links.
#[derive(Debug)]
pub(super) struct Editor(pub(super) String);

/// May read links.
#[derive(Debug)]
pub(super) struct Reader(pub(super) String);

/// May read statistics: a token's scope, or anonymously where that is allowed.
#[derive(Debug)]
pub(super) struct Analyst(pub(super) String);

/// May read statistics of all of a tenant's links, which name them: never without a token.
#[derive(Debug)]
pub(super) struct TenantAnalyst(pub(super) String);

/// May take any tenant's links down.
#[derive(Debug)]
pub(super) struct Operator(pub(super) String);

macro_rules! extracted {
    ($name:ident, $scope:expr, $anonymously:expr $(, $charged:expr)?) => {
        impl FromRequestParts<Api> for $name {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
                let asker = api
                    .0
                    .auth
                    .asker(&parts.headers, $scope, $anonymously)
                    .inspect_err(|problem| {
                        api.lookup().metrics.token_refused(problem.code().name());
                    })?;
                $($charged(api, parts, &asker).await?;)?
                Ok(Self(asker.tenant))
            }
        }
    };
}

extracted!(Creator, Scope::WriteLinks, true, charge::create);
extracted!(Editor, Scope::WriteLinks, false, charge::edit);
extracted!(Reader, Scope::ReadLinks, false, charge::read);
extracted!(Analyst, Scope::ReadStats, true, charge::read);
extracted!(TenantAnalyst, Scope::ReadStats, false, charge::read);
extracted!(Operator, Scope::TakeDownLinks, false);

#[cfg(test)]
mod tests;
