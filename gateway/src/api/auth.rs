//! Who asks, and what they may do: bearer tokens with scopes.

use axum::extract::FromRequestParts;
use http::header;
use http::request::Parts;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

use super::{Api, Code, Problem, charge};

/// A token is a JWT of a few hundred bytes.
const MAX_TOKEN_LEN: usize = 4_096;

/// What a request may meet that needs a token.
pub(super) const PROBLEMS: &[Code] = &[Code::TokenMissing, Code::TokenInvalid, Code::ScopeMissing];

/// What a token may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    WriteLinks,
    ReadLinks,
    ReadStats,
    TakeDown,
}

impl Scope {
    const fn name(self) -> &'static str {
        match self {
            Self::WriteLinks => "links:write",
            Self::ReadLinks => "links:read",
            Self::ReadStats => "stats:read",
            Self::TakeDown => "links:takedown",
        }
    }
}

/// How tokens are checked, and what may be done without one.
pub struct Auth {
    key: DecodingKey,
    validation: Validation,
    /// The tenant that anonymous requests act for; `None`: they may do nothing.
    anonymous: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    tenant: String,
    #[serde(default)]
    scope: String,
}

impl Auth {
    /// Believes HS256 tokens signed with this secret. With `anonymous`, creates and
    /// statistics need no token and act for that tenant.
    ///
    /// # Errors
    /// If the secret has less than 32 bytes.
    pub fn hs256(secret: &str, anonymous: Option<String>) -> Result<Self, &'static str> {
        if secret.len() < 32 {
            return Err("it has less than 32 bytes");
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_required_spec_claims(&["exp"]);
        validation.validate_nbf = true;
        validation.validate_aud = false;
        validation.leeway = 5;
        Ok(Self {
            key: DecodingKey::from_secret(secret.as_bytes()),
            validation,
            anonymous,
        })
    }

    fn tenant(&self, parts: &Parts, scope: Scope, anonymously: bool) -> Result<Tenant, Problem> {
        let Some(given) = parts.headers.get(header::AUTHORIZATION) else {
            return match &self.anonymous {
                Some(tenant) if anonymously => Ok(Tenant(tenant.clone())),
                _ => Err(Problem::new(
                    Code::TokenMissing,
                    "Send a token: Authorization: Bearer <token>.",
                )),
            };
        };
        let invalid = || {
            Problem::new(
                Code::TokenInvalid,
                "The token is not valid, or has expired.",
            )
        };
        let token = given
            .to_str()
            .ok()
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .filter(|token| token.len() <= MAX_TOKEN_LEN)
            .ok_or_else(invalid)?;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation)
            .map_err(|_| invalid())?
            .claims;
        if claims.tenant.is_empty() || claims.tenant.len() > 64 {
            return Err(invalid());
        }
        if !claims.scope.split(' ').any(|held| held == scope.name()) {
            return Err(Problem::new(
                Code::ScopeMissing,
                format!("The token lacks the scope {}.", scope.name()),
            ));
        }
        Ok(Tenant(claims.tenant))
    }
}

/// Shows nothing of the secret.
impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").finish_non_exhaustive()
    }
}

/// The tenant that a request acts for.
#[derive(Debug)]
struct Tenant(String);

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

/// May take any tenant's links down.
#[derive(Debug)]
pub(super) struct Operator(pub(super) String);

macro_rules! extracted {
    ($name:ident, $scope:expr, $anonymously:expr $(, $charged:expr)?) => {
        impl FromRequestParts<Api> for $name {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
                let Tenant(tenant) = api.0.auth.tenant(parts, $scope, $anonymously)?;
                $($charged(api, parts, &tenant).await?;)?
                Ok(Self(tenant))
            }
        }
    };
}

extracted!(Creator, Scope::WriteLinks, true, charge::create);
extracted!(Editor, Scope::WriteLinks, false);
extracted!(Reader, Scope::ReadLinks, false, charge::read);
extracted!(Analyst, Scope::ReadStats, true, charge::read);
extracted!(Operator, Scope::TakeDown, false);
