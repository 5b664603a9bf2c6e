//! `Idempotency-Key`: the name that a client gives to one create, so that it may be sent
//! again when the answer was lost.

use axum::extract::FromRequestParts;
use http::request::Parts;
use waypost_domain::Source;
use waypost_domain::source::{Asked, SourceKey};

use super::{Api, Code, Problem};

const NAME: &str = "idempotency-key";

/// Bytes of a key; a UUID, which most are, has 36.
const MAX_LEN: usize = 255;

/// What may be wrong with a key.
pub(super) const PROBLEMS: &[Code] = &[
    Code::IdempotencyKeyInvalid,
    Code::IdempotencyKeyReused,
    Code::LinkGone,
];

/// The header in the API's document.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it carries documentation alone")]
pub(super) struct Header {
    /// Names this create, so that it may be sent again: the same request with the same key
    /// is answered by the link that it made, another request with it is refused. Once that
    /// link was deleted or has expired, the key is answered 410 for a week.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        max_length = 255,
        pattern = "^[!-~]+$",
        example = "2f1c7c1e-6c5b-4d0e-9f43-5a1b6c7d8e9f"
    )]
    idempotency_key: Option<String>,
}

/// The key of a request, if it has one.
#[derive(Debug)]
pub(super) struct IdempotencyKey(Option<String>);

/// The key of one link that is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct ItemKey<'a> {
    text: &'a str,
    /// Its place in a batch.
    item: Option<u32>,
}

impl IdempotencyKey {
    /// For a request that asks for one link.
    pub(super) fn alone(&self) -> Option<ItemKey<'_>> {
        let text = self.0.as_deref()?;
        Some(ItemKey { text, item: None })
    }

    /// For a link of a batch: each of them is repeated on its own.
    pub(super) fn item(&self, index: usize) -> Option<ItemKey<'_>> {
        let (text, item) = (self.0.as_deref()?, Some(index as u32));
        Some(ItemKey { text, item })
    }
}

impl ItemKey<'_> {
    pub(super) fn source(self, sources: &SourceKey, asked: &Asked<'_>) -> Source {
        sources.of_key(self.text, self.item, asked)
    }
}

impl FromRequestParts<Api> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        let mut given = parts.headers.get_all(NAME).iter();
        let Some(value) = given.next() else {
            return Ok(Self(None));
        };
        let bytes = value.as_bytes();
        let fits = (1..=MAX_LEN).contains(&bytes.len());
        // A second one makes it unclear which of them names the request.
        if !fits || !bytes.iter().all(u8::is_ascii_graphic) || given.next().is_some() {
            return Err(Problem::new(
                Code::IdempotencyKeyInvalid,
                format!(
                    "An Idempotency-Key has 1 to {MAX_LEN} visible ASCII characters, and there is one."
                ),
            ));
        }
        let text = String::from_utf8_lossy(bytes).into_owned();
        Ok(Self(Some(text)))
    }
}
