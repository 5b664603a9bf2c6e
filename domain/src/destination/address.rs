//! Which addresses are public: a link on a public service leads nowhere else.
//!
//! After the IANA registries of special-purpose addresses (RFC 6890 and what has been
//! added since). An IPv6 address that stands for an IPv4 one is judged as that one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is for, where that is not the public internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The visitor's own machine.
    Loopback,
    /// A network that others cannot reach: RFC 1918, unique local IPv6.
    Private,
    LinkLocal,
    /// Between a provider and its customers: 100.64.0.0/10.
    Shared,
    /// Where cloud providers hand a machine its credentials.
    Metadata,
    Unspecified,
    Multicast,
    /// Documentation, benchmarks, protocols, the future: no site is there.
    Reserved,
}

/// Metadata services with addresses that say nothing of it: Azure's is even public.
const METADATA_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
];

/// Of the same kind: Amazon's and Google's.
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// What the address is for; `None`: it is public.
#[must_use]
pub fn purpose(address: IpAddr) -> Option<Purpose> {
    match address {
        IpAddr::V4(address) => purpose_v4(address),
        IpAddr::V6(address) => purpose_v6(address),
    }
}

fn purpose_v4(address: Ipv4Addr) -> Option<Purpose> {
    if METADATA_V4.contains(&address) {
        return Some(Purpose::Metadata);
    }
    Some(match address.octets() {
        [0, 0, 0, 0] => Purpose::Unspecified,
        // Linux connects to itself by any address of this network.
        [0, ..] | [127, ..] => Purpose::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Purpose::Private,
        [169, 254, ..] => Purpose::LinkLocal,
        [100, 64..=127, ..] => Purpose::Shared,
        [224..=239, ..] => Purpose::Multicast,
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 18 | 19, ..] => Purpose::Reserved,
        [198, 51, 100, _] | [203, 0, 113, _] | [240..=255, ..] => Purpose::Reserved,
        _ => return None,
    })
}

fn purpose_v6(address: Ipv6Addr) -> Option<Purpose> {
    if METADATA_V6.contains(&address) {
        return Some(Purpose::Metadata);
    }
    if let Some(inner) = embedded(address) {
        return purpose_v4(inner);
    }
    Some(match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Purpose::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Purpose::Loopback,
        [0xfc00..=0xfdff, ..] => Purpose::Private,
        // Site-local addresses are what unique local ones once were.
        [0xfec0..=0xfeff, ..] => Purpose::Private,
        [0xfe80..=0xfebf, ..] => Purpose::LinkLocal,
        [0xff00..=0xffff, ..] => Purpose::Multicast,
        // Protocol assignments (Teredo is one), documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] => Purpose::Reserved,
        [0x3fff, 0..=0xfff, ..] => Purpose::Reserved,
        [0x2000..=0x3fff, ..] => return None,
        // Nothing else is given out.
        _ => Purpose::Reserved,
    })
}

/// The IPv4 address that this one stands for: mapped, compatible, translated (NAT64),
/// 6to4 or ISATAP.
pub(super) fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let [.., a, b] = segments;
    let last = || {
        let ([a, b], [c, d]) = (a.to_be_bytes(), b.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => Some(last()),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(last()),
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => Some(last()),
        [0x2002, a, b, ..] => {
            let ([a, b], [c, d]) = (a.to_be_bytes(), b.to_be_bytes());
            Some(Ipv4Addr::new(a, b, c, d))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_special_network_ends_where_the_registry_says() {
        use Purpose::*;
        let cases = [
            ("0.0.0.0", Some(Unspecified)),
            ("0.0.0.1", Some(Loopback)),
            ("1.0.0.0", None),
            ("9.255.255.255", None),
            ("10.0.0.0", Some(Private)),
            ("10.255.255.255", Some(Private)),
            ("11.0.0.0", None),
            ("100.63.255.255", None),
            ("100.64.0.0", Some(Shared)),
            ("100.127.255.255", Some(Shared)),
            ("100.128.0.0", None),
            ("100.100.100.200", Some(Metadata)),
            ("126.255.255.255", None),
            ("127.0.0.0", Some(Loopback)),
            ("127.255.255.255", Some(Loopback)),
            ("128.0.0.0", None),
            ("168.63.129.16", Some(Metadata)),
            ("169.253.255.255", None),
            ("169.254.0.0", Some(LinkLocal)),
            ("169.254.169.254", Some(Metadata)),
            ("169.255.0.0", None),
            ("172.15.255.255", None),
            ("172.16.0.0", Some(Private)),
            ("172.31.255.255", Some(Private)),
            ("172.32.0.0", None),
            ("192.0.0.192", Some(Reserved)),
            ("192.0.1.0", None),
            ("192.0.2.1", Some(Reserved)),
            ("192.88.99.1", Some(Reserved)),
            ("192.167.255.255", None),
            ("192.168.0.0", Some(Private)),
            ("192.169.0.0", None),
            ("198.17.255.255", None),
            ("198.18.0.0", Some(Reserved)),
            ("198.20.0.0", None),
            ("198.51.100.1", Some(Reserved)),
            ("203.0.113.1", Some(Reserved)),
            ("223.255.255.255", None),
            ("224.0.0.1", Some(Multicast)),
            ("240.0.0.1", Some(Reserved)),
            ("255.255.255.255", Some(Reserved)),
            ("::", Some(Unspecified)),
            ("::1", Some(Loopback)),
            ("::2", Some(Loopback)),
            ("::7f00:1", Some(Loopback)),
            ("::ffff:127.0.0.1", Some(Loopback)),
            ("::ffff:8.8.8.8", None),
            ("::ffff:0:10.0.0.1", Some(Private)),
            ("64:ff9b::a9fe:a9fe", Some(Metadata)),
            ("64:ff9b::8.8.8.8", None),
            ("64:ff9b:1::1", Some(Reserved)),
            ("100::1", Some(Reserved)),
            ("2001::1", Some(Reserved)),
            ("2001:db8::1", Some(Reserved)),
            ("2001:4860:4860::8888", None),
            ("2002:7f00:1::", Some(Loopback)),
            ("2002:808:808::1", None),
            ("2606:4700::1:5efe:a00:1", None),
            ("2606:4700::200:5efe:c0a8:1", Some(Private)),
            ("3fff::1", Some(Reserved)),
            ("3fff:1000::1", None),
            ("4000::1", Some(Reserved)),
            ("fc00::1", Some(Private)),
            ("fd00:ec2::254", Some(Metadata)),
            ("fd20:ce::254", Some(Metadata)),
            ("fdff::1", Some(Private)),
            ("fe80::1", Some(LinkLocal)),
            ("febf::1", Some(LinkLocal)),
            ("fec0::1", Some(Private)),
            ("ff02::1", Some(Multicast)),
        ];
        for (address, expected) in cases {
            assert_eq!(purpose(address.parse().unwrap()), expected, "{address}");
        }
    }
}
