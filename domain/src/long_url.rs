//! Where a link leads: checked and brought into one form, once, at the edge.

use std::fmt;

use url::{Host, Url};

/// Why a text is no destination. Each has a stable `code` for API answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the URL is longer than {} bytes", LongUrl::MAX_LEN)]
    TooLong,
    #[error("the URL is not absolute, or not a URL at all")]
    Malformed,
    #[error("the URL's scheme is not http or https")]
    Scheme,
    #[error("the URL has no host")]
    NoHost,
    #[error("the URL holds a user name or a password")]
    UserInfo,
    #[error("the URL holds control characters or spaces around it")]
    ControlCharacter,
}

impl Error {
    /// The `code` of the API's answer.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLong => "url_too_long",
            Self::Malformed => "url_malformed",
            Self::Scheme => "url_scheme_refused",
            Self::NoHost => "url_without_host",
            Self::UserInfo => "url_with_credentials",
            Self::ControlCharacter => "url_with_control_characters",
        }
    }
}

/// An absolute http or https URL in the form of the WHATWG URL standard, hosts in
/// punycode, at most 8 KiB, without user name and password.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LongUrl(Box<str>);

impl LongUrl {
    /// Bytes, before and after it is brought into its canonical form.
    pub const MAX_LEN: usize = 8 * 1024;

    /// Checks a text from outside and brings it into its canonical form.
    ///
    /// # Errors
    /// Says which of the rules the text breaks.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > Self::MAX_LEN {
            return Err(Error::TooLong);
        }
        // A browser drops tabs and line breaks; what a person reads is then not
        // what is visited, so they are refused instead.
        let trimmed = text.trim_matches(|c: char| c.is_ascii_control() || c == ' ');
        if trimmed.len() != text.len() || text.bytes().any(|b| b.is_ascii_control()) {
            return Err(Error::ControlCharacter);
        }
        let url = Url::parse(text).map_err(|error| match error {
            url::ParseError::EmptyHost => Error::NoHost,
            _ => Error::Malformed,
        })?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Error::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::UserInfo);
        }
        match url.host() {
            None => return Err(Error::NoHost),
            Some(Host::Domain(name)) if name.trim_matches('.').is_empty() => {
                return Err(Error::NoHost);
            }
            Some(_) => {}
        }
        let canonical = String::from(url);
        if canonical.len() > Self::MAX_LEN {
            return Err(Error::TooLong);
        }
        Ok(Self(canonical.into_boxed_str()))
    }

    /// Takes what [`LongUrl::parse`] once made, out of a row, a message or a cache; `None`
    /// if the text cannot be that. Parsing it again would find the same at many times the
    /// cost: that it is a shard's word is for the link's signature to say.
    #[must_use]
    pub fn from_canonical(text: String) -> Option<Self> {
        let is_web = text.starts_with("https://") || text.starts_with("http://");
        let is_sendable = text.bytes().all(|byte| byte.is_ascii_graphic());
        (is_web && is_sendable && text.len() <= Self::MAX_LEN).then(|| Self(text.into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<LongUrl> for String {
    fn from(url: LongUrl) -> Self {
        url.0.into()
    }
}

impl fmt::Display for LongUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Shows scheme and host alone: queries hold secrets, and logs are kept.
impl fmt::Debug for LongUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self
            .0
            .match_indices('/')
            .nth(2)
            .map_or(self.0.len(), |(at, _)| at);
        write!(f, "LongUrl({}/..)", &self.0[..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_brought_into_one_form() {
        let canonical = |text| LongUrl::parse(text).map(|url| url.to_string());
        assert_eq!(
            canonical("HTTP://Example.COM:80/a/../b").as_deref(),
            Ok("http://example.com/b")
        );
        assert_eq!(
            canonical("https://bücher.example").as_deref(),
            Ok("https://xn--bcher-kva.example/")
        );
        let once = canonical("https://example.com/ä?q=ö#ü").unwrap();
        assert_eq!(canonical(&once).unwrap(), once);
    }

    #[test]
    fn what_is_no_destination_is_refused_by_name() {
        let refused = |text: &str| LongUrl::parse(text).unwrap_err().code();
        assert_eq!(refused("javascript:alert(1)"), "url_scheme_refused");
        assert_eq!(refused("data:text/html,hi"), "url_scheme_refused");
        assert_eq!(refused("example.com"), "url_malformed");
        assert_eq!(refused("http://"), "url_without_host");
        assert_eq!(
            refused("https://me:pw@example.com/"),
            "url_with_credentials"
        );
        assert_eq!(
            refused("java\tscript:alert(1)"),
            "url_with_control_characters"
        );
        assert_eq!(
            refused(" https://example.com"),
            "url_with_control_characters"
        );
        let long = format!("https://example.com/{}", "a".repeat(9 * 1024));
        assert_eq!(refused(&long), "url_too_long");
        // Grows beyond the limit only when it is percent-encoded.
        let wide = format!("https://example.com/{}", "ä".repeat(4 * 1024 - 20));
        assert_eq!(refused(&wide), "url_too_long");
    }

    #[test]
    fn what_was_parsed_once_is_taken_as_it_is_and_what_cannot_have_been_is_not() {
        for text in [
            "https://example.com/ä?q=ö#ü",
            "http://b\u{fc}cher.example",
            "http://[::1]:8080/a b'\"<>\\^`{|}",
        ] {
            let parsed = LongUrl::parse(text).unwrap();
            let again = LongUrl::from_canonical(parsed.to_string());
            assert_eq!(again, Some(parsed));
        }
        let long = format!("https://example.com/{}", "a".repeat(LongUrl::MAX_LEN));
        for text in [
            "javascript:alert(1)",
            "ftp://example.com/",
            "https://example.com/\r\nSet-Cookie: a=b",
            "https://example.com/\u{e4}",
            "https://example.com/a b",
            &long,
        ] {
            assert_eq!(LongUrl::from_canonical(text.to_owned()), None, "{text}");
        }
    }

    #[test]
    fn a_debug_print_shows_no_path_and_no_query() {
        let url = LongUrl::parse("https://example.com/reset?token=secret").unwrap();
        assert_eq!(format!("{url:?}"), "LongUrl(https://example.com/..)");
    }
}
