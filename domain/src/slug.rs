//! Slugs and their prefixes: the names that links and shards are found by.

use std::borrow::Borrow;
use std::fmt;

use crate::base62;

/// The first two characters of a slug, both base62: what routing looks at.
/// A number from 0 to 3,843.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(u16);

impl Prefix {
    /// How many prefixes there are: 62 x 62.
    pub const COUNT: usize = 3_844;

    /// Parses exactly two base62 characters.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let [a, b] = text.as_bytes() else { return None };
        Some(Self(
            base62::value(*a)? * base62::RADIX + base62::value(*b)?,
        ))
    }

    /// The prefix with this index, if it is below [`Prefix::COUNT`].
    #[must_use]
    pub fn from_index(index: usize) -> Option<Self> {
        u16::try_from(index)
            .ok()
            .filter(|_| index < Self::COUNT)
            .map(Self)
    }

    /// All prefixes, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..3_844).map(Self)
    }

    /// The place of this prefix in a table of all of them.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The two characters, as ASCII bytes.
    #[must_use]
    pub const fn bytes(self) -> [u8; 2] {
        [
            base62::digit(self.0 / base62::RADIX),
            base62::digit(self.0 % base62::RADIX),
        ]
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = self.bytes();
        write!(f, "{}{}", char::from(a), char::from(b))
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({self})")
    }
}

/// Why a text is no slug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("a slug has {min} to {max} characters", min = Slug::MIN_LEN, max = Slug::MAX_LEN)]
    Length,
    #[error("a slug consists of 0-9, A-Z, a-z, '-' and '_'")]
    Character,
    #[error("a slug starts with two characters of 0-9, A-Z, a-z")]
    Prefix,
}

/// The last part of a short link: 3 to 64 characters of `[0-9A-Za-z_-]`,
/// case-sensitive, the first two base62.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slug(Box<str>);

impl Slug {
    pub const MIN_LEN: usize = 3;
    pub const MAX_LEN: usize = 64;
    /// A minted slug: its prefix and [`crate::mint::SUFFIX_LEN`] more.
    pub const MINTED_LEN: usize = 8;

    /// Checks a text and takes it.
    ///
    /// # Errors
    /// Says which of the rules the text breaks.
    pub fn parse(text: &str) -> Result<Self, Error> {
        SlugRef::parse(text).map(Self::from)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn borrowed(&self) -> SlugRef<'_> {
        SlugRef(&self.0)
    }

    /// What routing looks at.
    #[must_use]
    pub fn prefix(&self) -> Prefix {
        self.borrowed().prefix()
    }
}

/// A [`Slug`] that somebody else owns: a redirect finds its link without a copy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlugRef<'a>(&'a str);

impl<'a> SlugRef<'a> {
    /// Checks a text.
    ///
    /// # Errors
    /// Says which of the rules the text breaks.
    pub fn parse(text: &'a str) -> Result<Self, Error> {
        if !(Slug::MIN_LEN..=Slug::MAX_LEN).contains(&text.len()) {
            return Err(Error::Length);
        }
        if !text.bytes().all(|byte| CHARACTERS[usize::from(byte)]) {
            return Err(Error::Character);
        }
        // All bytes are ASCII by now, so that the cut is at a character.
        Prefix::parse(&text[..2]).ok_or(Error::Prefix)?;
        Ok(Self(text))
    }

    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// What routing looks at.
    #[must_use]
    pub fn prefix(self) -> Prefix {
        Prefix::parse(&self.0[..2]).expect("a slug starts with two base62 characters")
    }
}

impl From<Slug> for String {
    fn from(slug: Slug) -> Self {
        slug.0.into()
    }
}

impl From<SlugRef<'_>> for Slug {
    fn from(slug: SlugRef<'_>) -> Self {
        Self(slug.0.into())
    }
}

impl fmt::Debug for SlugRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slug({})", self.0)
    }
}

/// Whether a byte is one of `[0-9A-Za-z_-]`.
const CHARACTERS: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let character = byte as u8;
        table[byte] = character.is_ascii_alphanumeric() || matches!(character, b'-' | b'_');
        byte += 1;
    }
    table
};

/// First parts of paths that are the product's own, now or likely one day, and words
/// that would make a stranger's link look like the operator's. None of them may become
/// an alias, and none is looked up. By length: a redirect compares its slug with the few
/// words of the same length.
const RESERVED: [&[&str]; 14] = [
    &[],
    &[],
    &["qr"],
    &["api", "app", "tos", "www"],
    &[
        "auth", "docs", "help", "jwks", "keys", "live", "null", "ping", "root", "user",
    ],
    &[
        "about", "abuse", "admin", "debug", "error", "hooks", "legal", "links", "livez", "login",
        "oauth", "pprof", "ready", "redoc", "setup", "stats", "terms", "token", "users",
    ],
    &[
        "assets", "config", "export", "health", "import", "logout", "policy", "readyz", "robots",
        "signin", "signup", "static", "status", "system", "upload", "verify",
    ],
    &[
        "account", "favicon", "graphql", "healthz", "imprint", "metrics", "openapi", "preview",
        "privacy", "shorten", "signout", "sitemap", "support", "swagger", "uploads", "version",
        "webhook",
    ],
    &[
        "accounts", "callback", "internal", "manifest", "password", "register", "security",
        "sessions", "settings", "webhooks",
    ],
    &[
        "dashboard",
        "localhost",
        "superuser",
        "undefined",
        "webmaster",
    ],
    &["hostmaster", "javascript", "postmaster", "well-known"],
    &[],
    &[],
    &["administrator"],
];

impl Slug {
    /// Whether the text, in whatever case, is a word that no alias may be.
    #[must_use]
    pub fn is_reserved(text: &str) -> bool {
        RESERVED
            .get(text.len())
            .is_some_and(|words| words.iter().any(|word| word.eq_ignore_ascii_case(text)))
    }
}

impl Borrow<str> for Slug {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slug({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_indices_map_one_to_one() {
        for (index, prefix) in Prefix::all().enumerate() {
            assert_eq!(prefix.index(), index);
            assert_eq!(Prefix::parse(&prefix.to_string()), Some(prefix));
        }
        assert_eq!(Prefix::all().count(), Prefix::COUNT);
        assert_eq!(Prefix::from_index(Prefix::COUNT), None);
        assert_eq!(Prefix::parse("00").map(Prefix::index), Some(0));
        assert_eq!(Prefix::parse("zz").map(Prefix::index), Some(3_843));
    }

    #[test]
    fn reserved_words_are_found_in_any_case() {
        for (length, words) in RESERVED.iter().enumerate() {
            assert!(words.iter().all(|word| word.len() == length), "{words:?}");
            assert!(words.iter().all(|word| Slug::is_reserved(word)));
        }
        for word in [
            "API",
            "Docs",
            "ADMIN",
            "login",
            "Static",
            "well-known",
            "health",
            "metrics",
            "robots",
            "favicon",
            "openapi",
        ] {
            assert!(Slug::is_reserved(word), "{word}");
        }
        for word in ["apix", "ap", "", "my-docs"] {
            assert!(!Slug::is_reserved(word), "{word}");
        }
        assert!(!Slug::is_reserved(&"a".repeat(100)));
    }

    #[test]
    fn slugs_of_the_wrong_shape_are_refused() {
        assert_eq!(Slug::parse("ab"), Err(Error::Length));
        assert_eq!(Slug::parse(&"a".repeat(65)), Err(Error::Length));
        assert_eq!(Slug::parse("ab c"), Err(Error::Character));
        assert_eq!(Slug::parse("abé"), Err(Error::Character));
        assert_eq!(Slug::parse("-abc"), Err(Error::Prefix));
        assert_eq!(Slug::parse("a_bc"), Err(Error::Prefix));
        assert!(Slug::parse("ab-_").is_ok());
        assert!(Slug::parse(&"a".repeat(64)).is_ok());
    }
}
