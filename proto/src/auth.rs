//! Calls between services carry a shared token, checked in constant time.

use http::HeaderValue;
use subtle::ConstantTimeEq as _;
use tonic::{Request, Status};

/// The token that our services know each other by: 16 to 512 visible ASCII
/// characters.
#[derive(Clone)]
pub struct ServiceToken(HeaderValue);

impl ServiceToken {
    /// The secret that it is read from.
    pub const SECRET: &str = "service-token";

    /// What to tell whoever gives another.
    pub const EXPECTED: &str = "16 to 512 visible ASCII characters";

    /// Checks a token and takes it; `None` if it is not of the shape above.
    #[must_use]
    pub fn parse(token: &str) -> Option<Self> {
        let token = token.trim();
        let shape =
            (16..=512).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic());
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
        value.set_sensitive(true);
        shape.then_some(Self(value))
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }

    /// A check to put before a generated server (`with_interceptor`).
    pub fn required(
        &self,
    ) -> impl FnMut(Request<()>) -> Result<Request<()>, Status> + Clone + use<> {
        let expected = self.0.clone();
        move |request| {
            let given = request.metadata().get("authorization");
            let matches = given.is_some_and(|given| {
                bool::from(given.as_encoded_bytes().ct_eq(expected.as_bytes()))
            });
            if matches {
                Ok(request)
            } else {
                Err(Status::unauthenticated(
                    "the service token is missing or not the one of this cluster",
                ))
            }
        }
    }
}

/// Shows nothing of the token.
impl std::fmt::Debug for ServiceToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServiceToken")
    }
}
