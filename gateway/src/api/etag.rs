//! Whether a client has already what it asks for.

use http::{HeaderMap, HeaderValue, header};

/// Whether `If-None-Match` names what this tag is of.
pub(super) fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let given = headers.get_all(header::IF_NONE_MATCH).iter();
    given
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        // Weak and strong ones are compared alike here (RFC 9110, 13.1.2).
        .map(|known| known.strip_prefix(b"W/").unwrap_or(known))
        .any(|known| known == b"*" || known == tag.as_bytes())
}

/// The header in the API's document.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it carries documentation alone")]
pub(super) struct IfNoneMatch {
    /// The `ETag` of what the client has.
    #[param(rename = "If-None-Match", example = "\"4294967297\"")]
    if_none_match: Option<String>,
}
