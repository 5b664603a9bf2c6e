//! Whose request it is: the address that limits and statistics go by.
//!
//! The peer's, unless proxies in front are trusted. Then it is the entry of
//! `X-Forwarded-For` that the outermost of them has written: the N-th from the right.
//! What stands further left came from the client, who may write there what it likes.
//! `Forwarded` (RFC 7239) is never read: a proxy that knows only the one header passes
//! the other on as the client wrote it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::HeaderMap;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// A client's address; one that IPv6 only wraps up is taken for what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddress(IpAddr);

impl ClientAddress {
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self(address.to_canonical())
    }

    #[must_use]
    pub fn ip(self) -> IpAddr {
        self.0
    }

    /// What a limit holds for: the address, or its /64 in IPv6, of which a single
    /// client commonly has all.
    #[must_use]
    pub fn network(self) -> IpAddr {
        match self.0 {
            IpAddr::V4(_) => self.0,
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        }
    }
}

/// How many proxies stand in front, each of which appends to `X-Forwarded-For` whom it
/// was asked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustedHops(u8);

impl TrustedHops {
    #[must_use]
    pub fn new(hops: u8) -> Self {
        Self(hops)
    }

    #[must_use]
    pub fn are_none(self) -> bool {
        self.0 == 0
    }

    /// The client of a request. Where the header has fewer entries than there are
    /// proxies, or its entry is no address, somebody came past them: then the peer,
    /// which is at least nobody's invention.
    #[must_use]
    pub fn client(self, peer: SocketAddr, headers: &HeaderMap) -> ClientAddress {
        let forwarded = usize::from(self.0)
            .checked_sub(1)
            .and_then(|proxy| address(entry(headers, proxy)?));
        ClientAddress::of(forwarded.unwrap_or(peer.ip()))
    }
}

/// The entry of `X-Forwarded-For` so far from the right. Several lines are one list.
fn entry(headers: &HeaderMap, from_the_right: usize) -> Option<&str> {
    headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .rev()
        // A line that is no text counts as one entry that is no address.
        .flat_map(|line| line.to_str().unwrap_or_default().rsplit(','))
        .nth(from_the_right)
        .map(str::trim)
}

/// `192.0.2.1`, `2001:db8::1` and `[2001:db8::1]`, each but the second also with a port.
fn address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    if let Ok(with_port) = text.parse::<SocketAddr>() {
        return Some(with_port.ip());
    }
    let inside = text.strip_prefix('[')?.strip_suffix(']')?;
    inside.parse().map(IpAddr::V6).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(hops: u8, lines: &[&[u8]]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert("forwarded", HeaderValue::from_static("for=203.0.113.99"));
        for line in lines {
            let line = HeaderValue::from_bytes(line).unwrap();
            headers.append(X_FORWARDED_FOR, line);
        }
        let peer = SocketAddr::from(([10, 0, 0, 9], 4_000));
        let client = TrustedHops::new(hops).client(peer, &headers);
        client.ip().to_string()
    }

    #[test]
    fn a_proxy_that_is_not_trusted_says_nothing_about_the_client() {
        assert_eq!(client(0, &[b"203.0.113.1"]), "10.0.0.9");
    }

    #[test]
    fn the_entry_of_the_outermost_trusted_proxy_counts_and_no_other() {
        let list: &[&[u8]] = &[b"1.1.1.1, 203.0.113.1 ,10.0.0.7"];
        assert_eq!(client(1, list), "10.0.0.7");
        assert_eq!(client(2, list), "203.0.113.1");
        let lines: &[&[u8]] = &[b"1.1.1.1", b"203.0.113.1,10.0.0.8", b"10.0.0.7"];
        assert_eq!(client(1, lines), "10.0.0.7");
        assert_eq!(client(2, lines), "10.0.0.8");
        assert_eq!(client(3, lines), "203.0.113.1");
    }

    #[test]
    fn who_comes_past_the_proxies_is_the_peer() {
        let cases: [&[&[u8]]; 8] = [
            &[],
            &[b"203.0.113.1"],
            &[b"unknown,10.0.0.7"],
            &[b",10.0.0.7"],
            &[b"203.0.113.1:x,10.0.0.7"],
            &[b"fe80::1%eth0,10.0.0.7"],
            &[b"_hidden,10.0.0.7"],
            &[b"203.0.113.1\xff", b"10.0.0.7"],
        ];
        for lines in cases {
            assert_eq!(client(2, lines), "10.0.0.9", "{lines:?}");
        }
    }

    #[test]
    fn addresses_are_read_in_all_their_notations() {
        for (text, address) in [
            ("203.0.113.1", "203.0.113.1"),
            ("203.0.113.1:443", "203.0.113.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("::ffff:203.0.113.1", "203.0.113.1"),
        ] {
            assert_eq!(client(1, &[text.as_bytes()]), address, "{text}");
        }
    }

    #[test]
    fn an_ipv6_client_is_its_whole_network() {
        let network = |text: &str| ClientAddress::of(text.parse().unwrap()).network();
        assert_eq!(network("2001:db8:1:2:3::1"), network("2001:db8:1:2::9"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_ne!(network("203.0.113.1"), network("203.0.113.2"));
        assert_eq!(network("::ffff:203.0.113.1"), network("203.0.113.1"));
    }
}
