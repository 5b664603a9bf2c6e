//! Destinations, as clients send them.

use std::net::{IpAddr, Ipv4Addr};

use url::{Host, Url};
use waypost_domain::LongUrl;
use waypost_domain::destination::{Place, Policy};

/// What is taken is in one form, can be sent as a header, is taken again as it is, and is
/// cut up into what a browser would make of it; addresses within a network are refused.
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
    assert_eq!(stored.as_ref(), Some(&taken), "not read back");
    let place = Place::of(canonical);
    let parsed = Url::parse(canonical).expect("it was taken");
    let host = parsed.host_str().expect("it has one");
    assert_eq!(place.host, host.strip_suffix('.').unwrap_or(host));
    assert_eq!(place.path, parsed.path(), "{canonical}");
    let address = match parsed.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        Some(Host::Domain(_)) | None => None,
    };
    assert_eq!(place.address(), address, "{canonical}");
    if address.is_some_and(is_within) {
        assert!(Policy::default().check(&taken).is_err(), "{canonical}");
    }
}

/// Whether an address leads into the network that the server is in, as far as the
/// standard library knows.
fn is_within(address: IpAddr) -> bool {
    let is_within = |v4: Ipv4Addr| v4.is_loopback() || v4.is_private() || v4.is_link_local();
    match address {
        IpAddr::V4(v4) => is_within(v4),
        IpAddr::V6(v6) => v6.is_loopback() || v6.to_ipv4_mapped().is_some_and(is_within),
    }
}
