//! Whose links they are.

use std::fmt;

/// Bytes of a tenant's name: it stands in every row, cached value and click.
const MAX_LEN: usize = 64;

/// The name of a tenant: 1 to 64 bytes that can be read aloud and told apart. No
/// control characters and none that show nothing or turn the text around, and no
/// white space at either end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tenant(Box<str>);

impl Tenant {
    /// `None`: not a name of a tenant.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=MAX_LEN).contains(&text.len())
            && text.trim() == text
            && !text.chars().any(|c| c.is_control() || is_unseen(c));
        fits.then(|| Self(text.into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Tenant> for String {
    fn from(tenant: Tenant) -> Self {
        tenant.0.into()
    }
}

/// The format characters of Unicode that make two different names look alike.
fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_printable_and_of_bounded_length() {
        for good in ["a", "default", "Ärzte & Söhne", "team/42", &"x".repeat(64)] {
            assert_eq!(Tenant::parse(good).unwrap().as_str(), good);
        }
        let too_long = "x".repeat(65);
        for bad in [
            "",
            " a",
            "a ",
            "a\nb",
            "a\0",
            "\u{7f}",
            "a\u{202e}b",
            "a\u{200b}",
            "\u{85}",
            &too_long,
        ] {
            assert_eq!(Tenant::parse(bad), None, "{bad:?}");
        }
    }
}
