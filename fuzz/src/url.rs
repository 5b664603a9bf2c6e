//! Destinations, as clients send them.

use waypost_domain::LongUrl;

/// What is taken is in one form, can be sent as a header, and is taken again as it is.
///
/// # Panics
/// If it is not so.
pub fn url(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(taken) = LongUrl::parse(text) else {
        return;
    };
    let canonical = taken.as_str();
    assert!(canonical.len() <= LongUrl::MAX_LEN, "{canonical}");
    assert!(canonical.bytes().all(|byte| byte.is_ascii_graphic()));
    let rest = canonical
        .strip_prefix("https://")
        .or_else(|| canonical.strip_prefix("http://"))
        .expect("it is of the web");
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    assert!(!authority.is_empty(), "{canonical}: no host");
    assert!(!authority.contains('@'), "{canonical}: credentials");
    let again = LongUrl::parse(canonical);
    assert_eq!(again.as_ref(), Ok(&taken), "{canonical}: not one form");
    let stored = LongUrl::from_canonical(canonical.to_owned());
    assert_eq!(stored, Some(taken), "not read back");
}
