//! What the redirect path answers, which has no handlers to be documented at.
#![expect(dead_code, reason = "they carry documentation alone")]

use super::super::link::InPath;
use super::super::problem::Code;

super::super::problem::problems!(pub(super) Problems:
    &[Code::PasswordRequired, Code::LinkNotFound, Code::LinkGone, Code::LinkBlocked,
        Code::ShardUnavailable]);

/// Follow a link.
///
/// Who accepts `text/html` by name, as browsers do, is told what is wrong on a page
/// instead of in a problem document. The visit is counted.
#[utoipa::path(
    get,
    path = "/{slug}",
    operation_id = "followLink",
    tag = "visits",
    params(InPath),
    responses(
        (status = 200, description = "For browsers: a page that asks for the link's password. For \
            all, where the operator has it so: a page that shows where the link leads, since its \
            host mixes alphabets.",
            body = String, content_type = "text/html"),
        (status = 301, description = "Moved permanently, as the link's owner wishes.", headers(
            ("Location" = String, description = "Where the link leads."),
            ("Cache-Control" = String, description = "At most 90 seconds: links change."))),
        (status = 302, description = "Found: what links answer unless told otherwise.", headers(
            ("Location" = String, description = "Where the link leads."),
            ("Cache-Control" = String, description = "Not to be kept: visits are counted."))),
        (status = 307, description = "Like 302, with the method kept.", headers(
            ("Location" = String, description = "Where the link leads."),
            ("Cache-Control" = String, description = "Not to be kept: visits are counted."))),
        (status = 308, description = "Like 301, with the method kept.", headers(
            ("Location" = String, description = "Where the link leads."),
            ("Cache-Control" = String, description = "At most 90 seconds: links change."))),
        Problems,
    ),
)]
pub(super) fn follow() {}

/// See where a link leads without following it.
///
/// Answers like `GET`, and is not counted.
#[utoipa::path(
    head,
    path = "/{slug}",
    operation_id = "askLink",
    tag = "visits",
    params(InPath),
    responses(
        (status = 200, description = "See `GET`."),
        (status = 301, description = "See `GET`."),
        (status = 302, description = "See `GET`."),
        (status = 307, description = "See `GET`."),
        (status = 308, description = "See `GET`."),
        Problems,
    ),
)]
pub(super) fn ask() {}
