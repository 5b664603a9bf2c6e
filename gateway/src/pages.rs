//! What people see: small pages of one stylesheet, of which only the home page and that
//! of statistics have a script. A program gets a problem document in their place.

use bytes::Bytes;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;

use crate::api::Problem;

/// The whole of an answer that did not have to be waited for.
pub(crate) type Answer = Response<Full<Bytes>>;

/// The policy of a page: the stylesheet of all, one of its own if it has one, what is
/// added, and nothing else.
macro_rules! policy {
    (style $style:literal; $($more:literal)*) => {
        concat!(
            "default-src 'none'; style-src 'sha256-",
            "oc6PUUL5u52ExI3/vyjCCP9ZP7nDKBum9wTTddDM0O0=",
            "' ", $style, "; base-uri 'none'; frame-ancestors 'none'",
            $($more),*
        )
    };
    ($($more:literal)*) => { $crate::pages::policy!(style ""; $($more)*) };
}
pub(crate) use policy;

/// A page as one text: its title, and what stands in its `<main>`. It may have a
/// stylesheet of its own beside that of all.
macro_rules! page {
    (style $style:expr; $title:expr, $($body:expr),+ $(,)?) => {
        $crate::pages::page!(styled concat!("<style>", $style, "</style>"); $title, $($body),+)
    };
    (styled $styled:expr; $title:expr, $($body:expr),+) => {
        concat!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">",
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">",
            "<meta name=\"robots\" content=\"noindex\"><title>", $title, "</title><style>",
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/pages/style.css")),
            "</style>", $styled, "</head><body><main>", $($body),+, "</main></body></html>\n"
        )
    };
    ($title:expr, $($body:expr),+ $(,)?) => {
        $crate::pages::page!(styled ""; $title, $($body),+)
    };
}
pub(crate) use page;

/// A page of a title and a sentence.
macro_rules! notice {
    ($title:literal, $text:literal) => {
        page!($title, "<h1>", $title, "</h1><p>", $text, "</p>")
    };
}

/// The page that asks for a password. It goes to where it came from, query included.
macro_rules! password {
    ($problem:literal) => {
        page!(
            "This link asks for a password",
            "<h1>This link asks for a password</h1>",
            "<p>Whoever gave you the link knows it.</p><form method=\"post\">",
            $problem,
            "<label for=\"password\">Password</label>",
            "<input id=\"password\" name=\"password\" type=\"password\" required autofocus ",
            "maxlength=\"128\" autocomplete=\"off\"><button type=\"submit\">Go on</button></form>"
        )
    };
}

/// Pages that send nothing anywhere.
const POLICY: HeaderValue = HeaderValue::from_static(policy!("; form-action 'none'"));

/// The page with the form. Browsers hold where a form's answer redirects to against
/// this as well, and that is wherever the link leads.
const FORM_POLICY: HeaderValue = HeaderValue::from_static(policy!("; form-action http: https:"));

/// What is no page loads and runs nothing at all.
const NO_PAGE: HeaderValue =
    HeaderValue::from_static("default-src 'none'; base-uri 'none'; frame-ancestors 'none'");

/// Clicks are counted, and an edit or a takedown is honoured at once.
pub(crate) const NOT_KEPT: HeaderValue = HeaderValue::from_static("private, no-store");

/// What holds for every answer that is no redirect, unless it says otherwise itself: it
/// is what its type says, nobody keeps it, nobody frames it, and where it leads is not
/// told whence.
pub(crate) fn guard(headers: &mut HeaderMap) {
    for (name, value) in [
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (CACHE_CONTROL, NOT_KEPT),
        (CONTENT_SECURITY_POLICY, NO_PAGE),
    ] {
        headers.entry(name).or_insert(value);
    }
}

/// Why a visitor who was asked for a password sees the form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    First,
    Wrong,
    /// Too often; with the seconds after which another try is heard.
    TooOften(u32),
}

/// The form for a password, or the problem that there is one.
pub(crate) fn password(asked: Asked, headers: &HeaderMap) -> Answer {
    let problem = match asked {
        Asked::First => Problem::password_required(),
        Asked::Wrong => Problem::password_wrong(),
        Asked::TooOften(seconds) => Problem::too_many_attempts(seconds),
    };
    if !accepts_html(headers) {
        return program(&problem);
    }
    let (status, page) = match asked {
        // 401 would have to name a scheme that a browser knows.
        Asked::First => (StatusCode::OK, password!("")),
        Asked::Wrong => (
            problem.status(),
            password!("<p class=\"problem\" role=\"alert\">That is not the password.</p>"),
        ),
        Asked::TooOften(_) => (
            problem.status(),
            password!(
                "<p class=\"problem\" role=\"alert\">Too many attempts. Wait a minute, \
                 then try again.</p>"
            ),
        ),
    };
    let mut answer = html(status, FORM_POLICY, Bytes::from_static(page.as_bytes()));
    problem.say_when(answer.headers_mut());
    answer
}

/// An answer that leads nowhere.
pub(crate) fn refusal(status: StatusCode, headers: &HeaderMap) -> Answer {
    let problem = match status {
        StatusCode::GONE => Problem::gone(),
        StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => Problem::blocked(),
        StatusCode::SERVICE_UNAVAILABLE => Problem::cannot_be_found_out(),
        _ => Problem::no_such_link(),
    };
    refused(&problem, headers)
}

/// A problem, for whoever asked.
pub(crate) fn refused(problem: &Problem, headers: &HeaderMap) -> Answer {
    if !accepts_html(headers) {
        return program(problem);
    }
    let status = problem.status();
    let page = Bytes::from_static(notice(status).as_bytes());
    let mut answer = html(status, POLICY, page);
    problem.say_when(answer.headers_mut());
    answer
}

fn notice(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => notice!(
            "There is no such link",
            "Check the address: capitals and small letters differ."
        ),
        StatusCode::GONE => notice!(
            "This link is gone",
            "It was deleted, its time is over, or it has been followed as often as it may be."
        ),
        StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => notice!(
            "This link was taken down",
            "The operator of this service has blocked it."
        ),
        StatusCode::TOO_MANY_REQUESTS => notice!(
            "Too many attempts",
            "Too many links that do not exist were asked for. Try again in a minute."
        ),
        StatusCode::SERVICE_UNAVAILABLE => notice!(
            "Try again in a moment",
            "Where this link leads cannot be found out right now."
        ),
        _ => notice!(
            "That did not work",
            "Go back, and follow the link once more."
        ),
    }
}

/// A page that shows one link. Its texts are its owner's: none of them is markup, nor a
/// heading, which would speak for the operator.
pub(crate) fn preview(body: &str) -> Answer {
    let (head, foot) = page!(
        "Where this link leads",
        "<h1>Where this link leads</h1>",
        "\0"
    )
    .split_once('\0')
    .expect("the page has a place for its body");
    html(StatusCode::OK, POLICY, [head, body, foot].concat().into())
}

/// A page in the place of a redirect to a host that may imitate another. The host is shown
/// as machines write it, in which no letter looks like another.
pub(crate) fn suspect(destination: &str) -> Answer {
    let destination = escape(destination);
    preview(&format!(
        "<p>Its address mixes letters of several alphabets, as addresses do that imitate \
         others. Go on only if you know it.</p><dl><dt>It leads to</dt>\
         <dd class=\"target\">{destination}</dd></dl><p><a class=\"button\" \
         href=\"{destination}\" rel=\"noreferrer nofollow\">Go on</a></p>"
    ))
}

/// A text as it may stand between tags and within quotes.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// Whether the client accepts HTML by name, as browsers do.
pub(crate) fn accepts_html(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("text/html"))
}

fn html(status: StatusCode, policy: HeaderValue, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    guard(headers);
    answer
}

fn program(problem: &Problem) -> Answer {
    let mut answer = problem.answer();
    guard(answer.headers_mut());
    answer
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// A browser applies the stylesheet only if the policy names its hash.
    #[test]
    fn the_policy_names_the_stylesheet_of_the_pages() {
        let (_, rest) = notice(StatusCode::GONE).split_once("<style>").unwrap();
        let (style, _) = rest.split_once("</style>").unwrap();
        let hash = STANDARD.encode(Sha256::digest(style));
        for policy in [POLICY, FORM_POLICY] {
            let policy = policy.to_str().unwrap();
            assert!(policy.contains(&format!("'sha256-{hash}'")), "{hash}");
        }
    }

    #[test]
    fn nothing_that_an_owner_writes_is_markup() {
        let text = r#"<script>alert("&'")</script>"#;
        assert_eq!(
            escape(text),
            "&lt;script&gt;alert(&quot;&amp;&#39;&quot;)&lt;/script&gt;"
        );
        assert_eq!(escape("Grüße, 世界"), "Grüße, 世界");
    }
}
