//! Every `code` of a problem document: the one list of what the API may refuse with.
//!
//! A code is a promise: it keeps its name and its meaning for ever.

use http::StatusCode;
use serde::{Serialize, Serializer};

macro_rules! codes {
    ($($variant:ident = $name:literal, $status:ident, $meaning:literal, $remedy:literal;)+) => {
        /// What is wrong, for programs to tell apart.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $meaning] $variant,)+
        }

        impl Code {
            /// In the order of their statuses.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// As it stands in a problem document.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self {
                    $(Self::$variant => StatusCode::$status,)+
                }
            }

            /// What has happened, in general; a problem's `detail` says it in particular.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => $meaning,)+
                }
            }

            /// What whoever made the request can do.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self {
                    $(Self::$variant => $remedy,)+
                }
            }
        }
    };
}

// Sorted by status, so that the pages made of it read well.
codes! {
    JsonMalformed = "json_malformed", BAD_REQUEST,
        "The body is no JSON.",
        "Send one JSON value in UTF-8; the detail names the place of the error.";
    BodyInvalid = "body_invalid", BAD_REQUEST,
        "The body is JSON, but a field is unknown, missing, repeated, or of a wrong type.",
        "Compare the body with the schema; the detail names the field.";
    FormInvalid = "form_invalid", BAD_REQUEST,
        "The form has no field `password`, or several, or one that is too long.",
        "Send one field `password` of 1 to 128 bytes.";
    BodyIncomplete = "body_incomplete", BAD_REQUEST,
        "The connection ended before the body was complete.",
        "Send the request again.";
    TokenInQuery = "token_in_query", BAD_REQUEST,
        "The URL holds a token, which it must not: URLs are kept in histories and logs.",
        "Send `Authorization: Bearer <token>`, and revoke the token that was in the URL.";
    TokenRepeated = "token_repeated", BAD_REQUEST,
        "There are several `Authorization` headers.",
        "Send one.";
    TokenMissing = "token_missing", UNAUTHORIZED,
        "The request needs a token and has none.",
        "Send `Authorization: Bearer <token>`.";
    TokenInvalid = "token_invalid", UNAUTHORIZED,
        "The token is malformed, forged, not valid yet, or meant for another server.",
        "Get a token from the operator of this server.";
    TokenExpired = "token_expired", UNAUTHORIZED,
        "The token was valid until a time that has passed.",
        "Get a new token.";
    TokenRevoked = "token_revoked", UNAUTHORIZED,
        "The operator of this server has revoked the token.",
        "Get a new token.";
    PasswordRequired = "password_required", UNAUTHORIZED,
        "The link asks for a password.",
        "Send it by `POST` to the same address, as the form field `password`.";
    PasswordWrong = "password_wrong", FORBIDDEN,
        "That is not the password of the link.",
        "Ask whoever gave you the link.";
    ScopeMissing = "scope_missing", FORBIDDEN,
        "The token does not allow this.",
        "Use a token with the scope that the detail names.";
    LinkNotFound = "link_not_found", NOT_FOUND,
        "There is no such link, or it belongs to somebody else.",
        "Check the slug (capitals and small letters differ) and whose token it is.";
    RouteNotFound = "route_not_found", NOT_FOUND,
        "There is nothing at this path.",
        "Compare the path with the ones in this document.";
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED,
        "The path does not take this method.",
        "Use one of the methods that the header `Allow` names.";
    BodyTimeout = "body_timeout", REQUEST_TIMEOUT,
        "The body did not come in time.",
        "Send the request again, over a better connection.";
    AliasTaken = "alias_taken", CONFLICT,
        "The alias belongs to another link, or did until lately.",
        "Choose another alias.";
    LinkGone = "link_gone", GONE,
        "The link was deleted or has expired.",
        "Nothing brings it back; its owner may create it anew.";
    VersionMismatch = "version_mismatch", PRECONDITION_FAILED,
        "The link is not in the version that `If-Match` names.",
        "Read the link again, then repeat the edit with its new `ETag`.";
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE,
        "The body has more bytes than this route takes.",
        "Send less at a time; the detail names the limit.";
    TargetTooLong = "target_too_long", URI_TOO_LONG,
        "The path and query of the request have more than 8192 bytes.",
        "Send less of them; a long URL to be shortened belongs into the body.";
    NotJson = "not_json", UNSUPPORTED_MEDIA_TYPE,
        "The body is not declared as JSON.",
        "Send `Content-Type: application/json`.";
    NotAForm = "not_a_form", UNSUPPORTED_MEDIA_TYPE,
        "The body is not declared as a form.",
        "Send `Content-Type: application/x-www-form-urlencoded`.";
    UrlTooLong = "url_too_long", UNPROCESSABLE_ENTITY,
        "The URL has more than 8192 bytes.",
        "Use a shorter URL.";
    UrlMalformed = "url_malformed", UNPROCESSABLE_ENTITY,
        "The text is not an absolute URL.",
        "Send a URL that starts with `https://` or `http://`.";
    UrlSchemeRefused = "url_scheme_refused", UNPROCESSABLE_ENTITY,
        "The URL is neither http nor https.",
        "Use an http or https URL.";
    UrlWithoutHost = "url_without_host", UNPROCESSABLE_ENTITY,
        "The URL names no host.",
        "Name the host after `//`.";
    UrlWithCredentials = "url_with_credentials", UNPROCESSABLE_ENTITY,
        "The URL holds a user name or a password.",
        "Leave them out: everybody who follows the link would see them.";
    UrlWithControlCharacters = "url_with_control_characters", UNPROCESSABLE_ENTITY,
        "The URL holds control characters, or blanks around it.",
        "Leave them out, or write them as `%09` and the like.";
    UrlHostInvalid = "url_host_invalid", UNPROCESSABLE_ENTITY,
        "The URL's host name cannot exist: a part of it is empty, or it is too long.",
        "Check the host: at most 253 bytes, each part between dots 1 to 63.";
    UrlPortInvalid = "url_port_invalid", UNPROCESSABLE_ENTITY,
        "The URL's port is 0 or no port at all.",
        "Leave the port out, or use one from 1 to 65535.";
    UrlOwnDomain = "url_own_domain", UNPROCESSABLE_ENTITY,
        "The URL leads back to this service: visitors would go round in circles.",
        "Use the URL that the short link itself leads to.";
    UrlNotPublic = "url_not_public", UNPROCESSABLE_ENTITY,
        "The URL's host is not on the public internet: visitors cannot reach it, or \
         reach something of their own.",
        "Use a public host name. The operator can allow private ones.";
    UrlMixedScripts = "url_mixed_scripts", UNPROCESSABLE_ENTITY,
        "The URL's host mixes alphabets, as hosts do that imitate others.",
        "Check each letter of the host. The operator can allow such hosts.";
    UrlBlocked = "url_blocked", UNPROCESSABLE_ENTITY,
        "The operator has blocked the URL's host, or this part of it.",
        "Use another destination, or ask the operator if you think this is a mistake.";
    AliasInvalid = "alias_invalid", UNPROCESSABLE_ENTITY,
        "The alias is too short, too long, or has characters that a slug cannot have.",
        "Use 3 to 64 characters of `0-9A-Za-z_-`, the first two without `_` and `-`.";
    AliasReserved = "alias_reserved", UNPROCESSABLE_ENTITY,
        "The alias is a word that this server keeps for itself.",
        "Choose another alias.";
    RedirectStatusInvalid = "redirect_status_invalid", UNPROCESSABLE_ENTITY,
        "`redirectStatus` is no status of a redirect.",
        "Use 301, 302, 307 or 308.";
    TimeInvalid = "time_invalid", UNPROCESSABLE_ENTITY,
        "A text is no instant, or one before 1970.",
        "Write times as in `2026-11-22T10:00:00Z` (RFC 3339).";
    ValidityAmbiguous = "validity_ambiguous", UNPROCESSABLE_ENTITY,
        "Both `validUntil` and `ttlSeconds` were sent.",
        "Send one of them.";
    ValidityInvalid = "validity_invalid", UNPROCESSABLE_ENTITY,
        "The link would end before it begins, or has ended already.",
        "Send a `validUntil` in the future and after `validSince`.";
    TtlInvalid = "ttl_invalid", UNPROCESSABLE_ENTITY,
        "`ttlSeconds` is 0.",
        "Send at least 1.";
    TitleTooLong = "title_too_long", UNPROCESSABLE_ENTITY,
        "The title has more than 512 bytes.",
        "Use a shorter title.";
    TitleInvalid = "title_invalid", UNPROCESSABLE_ENTITY,
        "The title holds the character U+0000.",
        "Leave it out.";
    TagsInvalid = "tags_invalid", UNPROCESSABLE_ENTITY,
        "There are too many tags, or one is empty, too long, or holds control characters.",
        "Send at most 20 tags of 1 to 64 bytes each.";
    MaxVisitsInvalid = "max_visits_invalid", UNPROCESSABLE_ENTITY,
        "`maxVisits` is 0, or more than 2^53 - 1.",
        "Send a number within these, or leave the field out: then there is no limit.";
    PasswordInvalid = "password_invalid", UNPROCESSABLE_ENTITY,
        "The password is empty, or has more than 128 bytes.",
        "Choose one of 1 to 128 bytes.";
    BatchTooLarge = "batch_too_large", UNPROCESSABLE_ENTITY,
        "The batch has more than 1000 links.",
        "Send several batches.";
    QueryInvalid = "query_invalid", UNPROCESSABLE_ENTITY,
        "A parameter of the query is unknown, repeated, or out of range.",
        "Compare the query with what the path takes; the detail names the parameter.";
    CursorInvalid = "cursor_invalid", UNPROCESSABLE_ENTITY,
        "The cursor is none that a list of this server gave.",
        "Send the `nextCursor` of the page before, or none to begin anew.";
    RangeInvalid = "range_invalid", UNPROCESSABLE_ENTITY,
        "A span of time ends before it begins.",
        "Send a `from` before `to`, or in the past if there is no `to`.";
    RangeTooLong = "range_too_long", UNPROCESSABLE_ENTITY,
        "A span of time is longer than 31 days told by the hour, or than 1096 days.",
        "Ask for a shorter span, or for `interval=day`.";
    IdempotencyKeyInvalid = "idempotency_key_invalid", UNPROCESSABLE_ENTITY,
        "The `Idempotency-Key` is empty, too long, holds other than visible ASCII, or is sent twice.",
        "Send one of 1 to 255 visible ASCII characters, such as a UUID.";
    IdempotencyKeyReused = "idempotency_key_reused", UNPROCESSABLE_ENTITY,
        "The `Idempotency-Key` was used for another request. Nothing was created.",
        "Use a new key for each request, the same only to repeat it.";
    TooManyAttempts = "too_many_attempts", TOO_MANY_REQUESTS,
        "Too many passwords were tried, of this link or from this address.",
        "Try again after the seconds of `Retry-After`.";
    RateLimited = "rate_limited", TOO_MANY_REQUESTS,
        "A limit on one client is reached; the detail names it. Nothing was done.",
        "Try again after the seconds of `Retry-After`.";
    LinkBlocked = "link_blocked", UNAVAILABLE_FOR_LEGAL_REASONS,
        "The operator of this server has taken the link down.",
        "Ask the operator.";
    Internal = "internal", INTERNAL_SERVER_ERROR,
        "Something that should not happen did.",
        "Tell the operator, who finds the reason in the log.";
    KeysUnavailable = "keys_unavailable", SERVICE_UNAVAILABLE,
        "No slug is free at the moment. Nothing was created.",
        "Try again after the seconds of `Retry-After`.";
    Overloaded = "overloaded", SERVICE_UNAVAILABLE,
        "Too many requests wait already. Nothing was done.",
        "Try again after the seconds of `Retry-After`.";
    ShardUnavailable = "shard_unavailable", SERVICE_UNAVAILABLE,
        "The part of the links that this one belongs to cannot be reached. A change may or may \
         not have been made.",
        "Try again after the seconds of `Retry-After`.";
    StatisticsUnavailable = "statistics_unavailable", SERVICE_UNAVAILABLE,
        "Statistics cannot be read at the moment. Clicks are counted all the same.",
        "Try again after the seconds of `Retry-After`.";
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_code_has_a_name_of_its_own_and_a_status_of_an_error() {
        let names: BTreeSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            let name = code.name();
            let is_plain = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(name.chars().all(is_plain), "{name}");
            let status = code.status();
            assert!(
                status.is_client_error() || status.is_server_error(),
                "{name}"
            );
        }
    }

    /// The pages made of the list tell codes by their statuses.
    #[test]
    fn client_errors_come_first_and_statuses_stay_together() {
        let statuses: Vec<u16> = Code::ALL.iter().map(|c| c.status().as_u16()).collect();
        assert!(statuses.is_sorted(), "{statuses:?}");
    }

    #[test]
    fn each_code_says_what_it_means_and_what_to_do() {
        for code in Code::ALL {
            for text in [code.meaning(), code.remedy()] {
                assert!(text.ends_with('.'), "{}: {text}", code.name());
            }
        }
    }
}
