//! Slugs, as paths name them.

use waypost_domain::{Slug, SlugRef};

/// What is taken is what the rules say, word for word, and stays what it was.
///
/// # Panics
/// If it is not so.
pub fn slug(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let is_base62 = |byte: &u8| byte.is_ascii_alphanumeric();
    let is_slug = (3..=64).contains(&bytes.len())
        && bytes[..2].iter().all(is_base62)
        && bytes[2..]
            .iter()
            .all(|byte| is_base62(byte) || matches!(byte, b'-' | b'_'));
    let taken = Slug::parse(text);
    assert_eq!(taken.is_ok(), is_slug, "{text:?}");
    assert_eq!(SlugRef::parse(text).is_ok(), is_slug, "{text:?}");
    if let Ok(slug) = taken {
        assert_eq!(slug.as_str(), text);
        assert_eq!(slug.borrowed().as_str(), text);
        assert_eq!(slug.to_string(), text);
    }
    // Takes any text.
    let _ = Slug::is_reserved(text);
}
