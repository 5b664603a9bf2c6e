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
    #[error("the URL's host is none that could be looked up")]
    HostName,
    #[error("the URL's port is 0")]
    Port,
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
            Self::HostName => "url_host_invalid",
            Self::Port => "url_port_invalid",
        }
    }
}

/// What can be followed. Nothing else is safe to send a browser to: `javascript:` and
/// `data:` run in the page, others start programs.
const SCHEMES: [&str; 2] = ["http", "https"];

/// Bytes of a host's name (RFC 1035, without the dot at its end) and of each part of it.
const MAX_HOST_LEN: usize = 253;
const MAX_LABEL_LEN: usize = 63;

/// An absolute http or https URL in the form of the WHATWG URL standard: the host in
/// punycode and without a dot at its end, no port that is the scheme's own, `.` and `..`
/// resolved, at most 8 KiB, without user name and password.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LongUrl(Box<str>);

impl LongUrl {
    /// Bytes, before and after it is brought into its canonical form.
    pub const MAX_LEN: usize = 8 * 1024;

    /// Checks a text from outside and brings it into its canonical form. What it makes
    /// is its own canonical form.
    ///
    /// # Errors
    /// Says which of the rules the text breaks.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > Self::MAX_LEN {
            return Err(Error::TooLong);
        }
        if text.starts_with(' ') || text.ends_with(' ') || text.chars().any(is_invisible) {
            return Err(Error::ControlCharacter);
        }
        let mut url = Url::parse(text).map_err(|error| match error {
            url::ParseError::EmptyHost => Error::NoHost,
            url::ParseError::InvalidPort => Error::Port,
            _ => Error::Malformed,
        })?;
        if !SCHEMES.contains(&url.scheme()) {
            return Err(Error::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::UserInfo);
        }
        if url.port() == Some(0) {
            return Err(Error::Port);
        }
        if let Some(name) = rooted_name(&url)? {
            url.set_host(Some(&name)).map_err(|_| Error::HostName)?;
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

/// Whether a character is not seen, or moves what is seen: a browser drops tabs and line
/// breaks, and what a person reads is then not what is visited.
fn is_invisible(character: char) -> bool {
    let moves_text = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let breaks_line = matches!(character, '\u{2028}' | '\u{2029}');
    character.is_control() || moves_text || breaks_line
}

/// Checks the host's name, and answers it without the dot at its end if it has one: with
/// the dot it is the same host, but not the same text.
fn rooted_name(url: &Url) -> Result<Option<String>, Error> {
    let name = match url.host() {
        None => return Err(Error::NoHost),
        Some(Host::Ipv4(_) | Host::Ipv6(_)) => return Ok(None),
        Some(Host::Domain(name)) => name,
    };
    let bare = name.strip_suffix('.').unwrap_or(name);
    if bare.is_empty() {
        return Err(Error::NoHost);
    }
    let is_label = |label: &str| (1..=MAX_LABEL_LEN).contains(&label.len());
    if bare.len() > MAX_HOST_LEN || !bare.split('.').all(is_label) {
        return Err(Error::HostName);
    }
    Ok((bare.len() < name.len()).then(|| bare.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        for (text, expected) in [
            ("https://example.com.", "https://example.com/"),
            ("https://example.com.:8443/a", "https://example.com:8443/a"),
            (
                "https://b\u{fc}cher.example./",
                "https://xn--bcher-kva.example/",
            ),
            ("https://example.com:443", "https://example.com/"),
            ("http://example.com:00080/", "http://example.com/"),
            ("http://example.com:443/", "http://example.com:443/"),
            ("http://example.com:/", "http://example.com/"),
            (
                "https://example.com/a/%2e%2E/b/%2e/c",
                "https://example.com/b/c",
            ),
            ("https://example.com/a/.%2e/./b", "https://example.com/b"),
            ("https://example.com/../../x", "https://example.com/x"),
            ("https://example.com/a%2fb", "https://example.com/a%2fb"),
            ("https://example.com#part", "https://example.com/#part"),
            ("https://example.com/a?#", "https://example.com/a?#"),
            ("http:\\\\example.com\\a", "http://example.com/a"),
            ("https:///example.com/", "https://example.com/"),
            ("https:example.com", "https://example.com/"),
            ("http://example%2ecom/", "http://example.com/"),
            ("http://example\u{3002}com/", "http://example.com/"),
            ("http://\u{ff45}xample\u{ff0e}com/", "http://example.com/"),
            ("http://exam\u{ad}ple.com/", "http://example.com/"),
            ("http://0x7f.1/", "http://127.0.0.1/"),
            ("http://127.0.0.1./", "http://127.0.0.1/"),
            ("http://[0:0::0:1]/", "http://[::1]/"),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(expected), "{text}");
        }
        let once = canonical("https://example.com/ä?q=ö#ü").unwrap();
        assert_eq!(canonical(&once).unwrap(), once);
    }

    /// Texts that look like URLs, and are put together out of what makes trouble.
    fn texts() -> impl Strategy<Value = String> {
        let pieces = prop::sample::select(vec![
            "http:",
            "https:",
            "HTTP:",
            "ftp:",
            "//",
            "/",
            "\\",
            "@",
            ":",
            "?",
            "#",
            ".",
            "..",
            "%2e",
            "%2E",
            "%00",
            "%",
            "%25",
            "[",
            "]",
            "::1",
            "%25eth0",
            "0",
            "80",
            "443",
            "0x7f",
            "127.1",
            "example",
            "xn--",
            "xn--bcher-kva",
            "b\u{fc}cher",
            "\u{3002}",
            "\u{ff0e}",
            "\u{ff0f}",
            "\u{df}",
            "\u{200d}",
            "\u{ad}",
            "\u{202e}",
            "\u{85}",
            "\t",
            "\n",
            "\0",
            " ",
            "a b",
            "\u{1f4a9}",
            "\u{300}",
            "com",
            "-",
            "_",
            "*",
            "<",
            "'",
            "\"",
            "|",
            "^",
        ]);
        let joined = prop::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat());
        let web = joined.clone().prop_map(|rest| format!("https://{rest}"));
        prop_oneof![
            joined,
            web,
            any::<String>(),
            "https?://\\PC{0,20}/\\PC{0,20}"
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn a_canonical_url_is_its_own_canonical_form(text in texts()) {
            if let Ok(url) = LongUrl::parse(&text) {
                prop_assert_eq!(LongUrl::parse(url.as_str()), Ok(url.clone()));
                // What caches and rows hold is taken as the same.
                prop_assert_eq!(LongUrl::from_canonical(url.to_string()), Some(url.clone()));
                let scheme = url.as_str().split_once("://").map(|(scheme, _)| scheme);
                prop_assert!(SCHEMES.contains(&scheme.unwrap()));
                let host = crate::destination::Place::of(url.as_str()).host;
                let parsed = Url::parse(url.as_str()).unwrap();
                prop_assert_eq!(parsed.host_str(), Some(host));
                prop_assert!(!host.ends_with('.') && !url.as_str().contains('@')
                    || parsed.username().is_empty());
            }
        }

        #[test]
        fn what_a_browser_would_drop_is_refused_wherever_it_stands(
            text in texts(), at in any::<prop::sample::Index>(),
            invisible in prop::sample::select(vec!['\t', '\n', '\r', '\0', '\x7f', '\u{85}', '\u{202e}']),
        ) {
            let mut characters: Vec<char> = text.chars().collect();
            characters.insert(at.index(characters.len() + 1), invisible);
            let text: String = characters.into_iter().collect();
            prop_assert!(LongUrl::parse(&text).is_err());
        }
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
        for text in [
            "https://example.com/\u{202e}moc",
            "https://example.com/\u{85}",
            "https://example.com/a\r\nb",
            "https://example.com ",
            "https://example.com/\u{2028}",
        ] {
            assert_eq!(refused(text), "url_with_control_characters", "{text:?}");
        }
        for text in [
            "https://@example.com/x:@y",
            "https://a@b@example.com",
            "https://:@example.com/",
        ] {
            let outcome = LongUrl::parse(text);
            // An empty name is none.
            assert!(
                outcome.as_ref().map_or_else(
                    |e| *e == Error::UserInfo,
                    |url| url.as_str().starts_with("https://example.com/")
                ),
                "{text}: {outcome:?}"
            );
        }
        for text in ["https://.", "https://./", "https:///", "https://?", "http:"] {
            assert_eq!(refused(text), "url_without_host", "{text}");
        }
        let label = "a".repeat(64);
        let name = format!("{}.com", vec!["a".repeat(49); 6].join("."));
        for host in ["a..b", ".example.com", "example.com..", "..", &label, &name] {
            assert_eq!(
                refused(&format!("https://{host}/")),
                "url_host_invalid",
                "{host}"
            );
        }
        let fits = format!("{}.com", ["a".repeat(49), "b".repeat(49)].join("."));
        assert!(LongUrl::parse(&format!("https://{fits}/")).is_ok());
        for text in [
            "https://example.com:0/",
            "http://[::1]:0",
            "http://a.b:65536/",
            "http://a.b:x",
        ] {
            assert_eq!(refused(text), "url_port_invalid", "{text}");
        }
        for text in [
            "http://[fe80::1%25eth0]/",
            "http://[fe80::1%eth0]/",
            "http://[::1",
            "http://1.2.3.4.5/",
            "http://256.1.1.1/",
            "http://0x100000000/",
            "http://a%00b/",
            "http://a b/",
            "http://xn--a/",
            "http://a%2fb/",
            "//example.com/",
            "/path",
            "",
        ] {
            assert_eq!(refused(text), "url_malformed", "{text}");
        }
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
