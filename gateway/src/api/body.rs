//! Bodies: bounded and of the right type; JSON without unknown or repeated fields.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use bytes::BytesMut;
use http::{HeaderMap, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize as _, Deserializer};
use serde_json::Number;

use super::{Api, Code, Problem};
use crate::lanes::{Lane, Room};

/// Bytes of a body that is one request.
pub(super) const ONE: usize = 16 * 1024;

/// Bytes of a body that is many.
pub(super) const MANY: usize = 1024 * 1024;

/// How long a client may take to send a body: one that trickles must not hold a
/// connection for ever.
const DEADLINE: Duration = Duration::from_secs(10);

/// What may be wrong with a body.
pub(super) const PROBLEMS: &[Code] = &[
    Code::JsonMalformed,
    Code::BodyInvalid,
    Code::BodyIncomplete,
    Code::BodyTimeout,
    Code::BodyTooLarge,
    Code::NotJson,
];

/// A JSON body of at most this many bytes.
#[derive(Debug)]
pub(super) struct Json<T, const LIMIT: usize = ONE>(pub(super) T);

impl<T: DeserializeOwned, const LIMIT: usize> FromRequest<Api> for Json<T, LIMIT> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        if !is_of_type(&parts.headers, "application/json") {
            return Err(Problem::new(
                Code::NotJson,
                "Send the body as Content-Type: application/json.",
            ));
        }
        let lane = if LIMIT > ONE {
            Lane::Batches
        } else {
            Lane::Single
        };
        let mut room = api.0.lanes.room(lane);
        let bytes = read(body, LIMIT, &mut room).await?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| malformed(&error))
    }
}

/// An HTML form's body of at most this many bytes, as it was sent.
#[derive(Debug)]
pub(super) struct Form<const LIMIT: usize>(pub(super) Bytes);

impl<const LIMIT: usize> FromRequest<Api> for Form<LIMIT> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        if !is_of_type(&parts.headers, "application/x-www-form-urlencoded") {
            return Err(Problem::new(
                Code::NotAForm,
                "Send the body as Content-Type: application/x-www-form-urlencoded.",
            ));
        }
        let mut room = api.0.lanes.room(Lane::Single);
        read(body, LIMIT, &mut room).await.map(Self)
    }
}

/// A whole number, or none for `null`. As JSON Schema has it, 7.0 is one, too, and that is
/// how languages write it that know no other numbers.
pub(super) fn whole<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    /// Above it, not every whole number has a floating one.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let Some(number) = Option::<Number>::deserialize(from)? else {
        return Ok(None);
    };
    let is_exact = |value: &f64| value.fract() == 0.0 && (0.0..=EXACT).contains(value);
    let whole = number
        .as_u64()
        .or_else(|| number.as_f64().filter(is_exact).map(|value| value as u64));
    whole
        .and_then(|value| T::try_from(value).ok())
        .map(Some)
        .ok_or_else(|| D::Error::custom(format!("{number} is no whole number in range")))
}

fn is_of_type(headers: &HeaderMap, wanted: &str) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case(wanted))
}

async fn read(body: Body, limit: usize, room: &mut Room<'_>) -> Result<Bytes, Problem> {
    let whole = tokio::time::timeout(DEADLINE, collect(body, limit, room));
    whole.await.unwrap_or_else(|_| {
        Err(Problem::new(
            Code::BodyTimeout,
            format!(
                "The body did not come within {} seconds.",
                DEADLINE.as_secs()
            ),
        ))
    })
}

async fn collect(body: Body, limit: usize, room: &mut Room<'_>) -> Result<Bytes, Problem> {
    let (mut body, mut bytes) = (Limited::new(body, limit), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            if error.is::<LengthLimitError>() {
                let detail = format!("The body has more than {limit} bytes.");
                return Problem::new(Code::BodyTooLarge, detail);
            }
            let detail = "The body ended before it was complete.";
            Problem::new(Code::BodyIncomplete, detail)
        })?;
        // All else are trailers.
        if let Ok(data) = frame.into_data() {
            room.take(data.len())?;
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes.freeze())
}

fn malformed(error: &serde_json::Error) -> Problem {
    use serde_json::error::Category;
    let code = match error.classify() {
        Category::Data => Code::BodyInvalid,
        Category::Io | Category::Syntax | Category::Eof => Code::JsonMalformed,
    };
    Problem::new(code, format!("The body: {error}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_taken_however_they_are_written() {
        let read = |text: &str| whole::<_, u64>(&mut serde_json::Deserializer::from_str(text)).ok();
        assert_eq!(read("7"), Some(Some(7)));
        assert_eq!(read("7.0"), Some(Some(7)));
        assert_eq!(read("2.5e3"), Some(Some(2_500)));
        assert_eq!(read("18446744073709551615"), Some(Some(u64::MAX)));
        assert_eq!(read("null"), Some(None));
        for text in ["7.5", "-1", "-1.0", "1e300", "\"7\"", "true"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
