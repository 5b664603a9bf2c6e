//! What a click is made of: taken from the request in passing, worked out later.

use std::net::IpAddr;

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName, header};
use sha2::Sha256;
use uuid::Uuid;
use waypost_domain::{Slug, Timestamp};
use waypost_proto::click::Click;

/// Longer user agents are cut; so says the schema.
const MAX_USER_AGENT: usize = 256;

/// Enough for every host that is one (253), with scheme and port.
const MAX_REFERRER: usize = 300;

/// The longest language tag that is in use is far shorter.
const MAX_LANGUAGE: usize = 35;

const DAY_MS: i64 = 86_400_000;

/// A redirect that counts as a click.
#[derive(Debug, Clone, Copy)]
pub struct Hit<'a> {
    pub link: ClickedLink<'a>,
    /// As answered.
    pub status: u16,
    /// Of the request.
    pub headers: &'a HeaderMap,
    /// The client's address, behind whatever proxies are trusted.
    pub client: IpAddr,
    pub at: Timestamp,
}

/// What a click says about its link.
#[derive(Debug, Clone, Copy)]
pub struct ClickedLink<'a> {
    pub domain: u32,
    pub slug: &'a Slug,
    pub id: Uuid,
    pub tenant: &'a str,
}

/// A click as it waits for the next commit. Its texts are copied into one
/// allocation: keeping the request's own would keep its whole buffer.
#[derive(Debug)]
pub(super) struct Taken {
    at: Timestamp,
    domain: u32,
    link_id: Uuid,
    status: u16,
    country: Option<[u8; 2]>,
    prefetch: bool,
    client: IpAddr,
    /// Slug, tenant, user agent, referrer and language, one after another.
    text: Box<[u8]>,
    ends: [u16; 5],
}

impl Hit<'_> {
    /// Copies what the click needs. The only part of all this that is on the
    /// redirect's time.
    pub(super) fn take(&self, country_header: Option<&HeaderName>) -> Taken {
        let header = |name: &HeaderName, limit: usize| {
            let value = self.headers.get(name).map_or(&[][..], |v| v.as_bytes());
            &value[..value.len().min(limit)]
        };
        let parts = [
            self.link.slug.as_str().as_bytes(),
            self.link.tenant.as_bytes(),
            header(&header::USER_AGENT, MAX_USER_AGENT),
            header(&header::REFERER, MAX_REFERRER),
            header(&header::ACCEPT_LANGUAGE, MAX_LANGUAGE),
        ];
        let mut text = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        let ends = parts.map(|part| {
            text.extend_from_slice(part);
            u16::try_from(text.len()).unwrap_or(u16::MAX)
        });
        let country = country_header
            .and_then(|name| <[u8; 2]>::try_from(self.headers.get(name)?.as_bytes()).ok())
            .filter(|code| code.iter().all(u8::is_ascii_alphabetic));
        Taken {
            at: self.at,
            domain: self.link.domain,
            link_id: self.link.id,
            status: self.status,
            country: country.map(|code| code.map(|letter| letter.to_ascii_uppercase())),
            prefetch: is_prefetch(self.headers),
            client: self.client,
            text: text.into_boxed_slice(),
            ends,
        }
    }
}

impl Taken {
    /// The click as it is stored. The client's address ends here.
    pub(super) fn into_click(self, visitors: &mut Visitors) -> Click {
        let part = |index: usize| {
            let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
            let part = self.text.get(start.into()..self.ends[index].into());
            part.unwrap_or_default()
        };
        let [slug, tenant, user_agent, referrer, language] = [0, 1, 2, 3, 4].map(part);
        Click {
            time_ms: self.at.millis(),
            domain: self.domain,
            slug: lossy(slug),
            link_id: self.link_id.as_bytes().to_vec(),
            tenant: lossy(tenant),
            status: self.status.into(),
            referrer_host: referrer_host(&lossy(referrer)),
            user_agent: cut(lossy(user_agent), MAX_USER_AGENT),
            language: first_language(&lossy(language)),
            country: self.country.map_or_else(String::new, |code| lossy(&code)),
            visitor: visitors.hash(self.at, self.client, user_agent),
            prefetch: self.prefetch,
        }
    }
}

/// Tells visitors apart within a day and not beyond: each day has a key of its own,
/// derived from a secret, so that no table of addresses leads back.
pub(super) struct Visitors {
    secret: [u8; 32],
    day: i64,
    of_day: Hmac<Sha256>,
}

impl Visitors {
    pub(super) fn new(secret: [u8; 32]) -> Self {
        Self {
            secret,
            day: 0,
            of_day: key_of_day(&secret, 0),
        }
    }

    fn hash(&mut self, at: Timestamp, client: IpAddr, user_agent: &[u8]) -> u64 {
        let day = at.millis() / DAY_MS;
        if day != self.day {
            (self.day, self.of_day) = (day, key_of_day(&self.secret, day));
        }
        let mut mac = self.of_day.clone();
        match client.to_canonical() {
            IpAddr::V4(address) => mac.update(&address.octets()),
            IpAddr::V6(address) => mac.update(&address.octets()),
        }
        // An address has 4 or 16 bytes and the rest is the user agent: where one
        // ends is told by this byte.
        mac.update(&[u8::from(client.to_canonical().is_ipv4())]);
        mac.update(user_agent);
        let digest = mac.finalize().into_bytes();
        digest
            .iter()
            .take(8)
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

fn key_of_day(secret: &[u8; 32], day: i64) -> Hmac<Sha256> {
    let mut derive = hmac(secret);
    derive.update(b"waypost visitors of day ");
    derive.update(&day.to_be_bytes());
    hmac(&derive.finalize().into_bytes())
}

fn hmac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// The browser fetched ahead; nobody has clicked yet.
fn is_prefetch(headers: &HeaderMap) -> bool {
    ["sec-purpose", "purpose", "x-purpose", "x-moz"]
        .iter()
        .filter_map(|name| headers.get(*name)?.to_str().ok())
        .any(|purpose| purpose.contains("prefetch") || purpose.contains("prerender"))
}

/// The host of a referrer, without port, in lower case; empty if there is none.
fn referrer_host(referrer: &str) -> String {
    let Some((_, rest)) = referrer.split_once("://") else {
        return String::new();
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let shape = host.len() <= 253
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b));
    if shape {
        host.to_ascii_lowercase()
    } else {
        String::new()
    }
}

/// The language that is named first, as in `de-CH` of `de-CH,de;q=0.9`.
fn first_language(accept: &str) -> String {
    let first = accept.split([',', ';']).next().unwrap_or_default().trim();
    let shape = first
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if shape {
        first.to_owned()
    } else {
        String::new()
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Cuts to so many bytes at a character's edge: replacing what is no UTF-8 makes a
/// text longer.
fn cut(mut text: String, limit: usize) -> String {
    text.truncate(text.floor_char_boundary(limit));
    text
}

#[cfg(test)]
pub(super) mod tests {
    use http::HeaderValue;

    use super::*;

    fn take(headers: &HeaderMap, client: &str, at: i64) -> Taken {
        let slug = Slug::parse("abcdefgh").unwrap();
        let hit = Hit {
            link: ClickedLink {
                domain: 0,
                slug: &slug,
                id: Uuid::from_u128(7),
                tenant: "acme",
            },
            status: 302,
            headers,
            client: client.parse().unwrap(),
            at: Timestamp::from_millis(at).unwrap(),
        };
        hit.take(Some(&HeaderName::from_static("x-country")))
    }

    pub(in crate::clicks) fn taken(slug: &str) -> Taken {
        let slug = Slug::parse(slug).unwrap();
        let hit = Hit {
            link: ClickedLink {
                domain: 0,
                slug: &slug,
                id: Uuid::nil(),
                tenant: "",
            },
            status: 302,
            headers: &HeaderMap::new(),
            client: IpAddr::from([127, 0, 0, 1]),
            at: Timestamp::from_millis(0).unwrap(),
        };
        hit.take(None)
    }

    #[test]
    fn a_click_holds_what_the_request_said() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("user-agent", "Mozilla/5.0"),
            ("referer", "https://me@News.Example.com:8443/a?b#c"),
            ("accept-language", "de-CH,de;q=0.9"),
            ("x-country", "ch"),
            ("sec-purpose", "prefetch;anonymous-client-ip"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let click = take(&headers, "192.0.2.1", 5).into_click(&mut Visitors::new([1; 32]));
        let visitor = click.visitor;
        let expected = Click {
            time_ms: 5,
            domain: 0,
            slug: "abcdefgh".to_owned(),
            link_id: Uuid::from_u128(7).as_bytes().to_vec(),
            tenant: "acme".to_owned(),
            status: 302,
            referrer_host: "news.example.com".to_owned(),
            user_agent: "Mozilla/5.0".to_owned(),
            language: "de-CH".to_owned(),
            country: "CH".to_owned(),
            visitor,
            prefetch: true,
        };
        assert_eq!(click, expected);
    }

    #[test]
    fn hostile_headers_are_cut_or_dropped() {
        let mut headers = HeaderMap::new();
        let long = HeaderValue::from_bytes(&[0xe4; 4_000]).unwrap();
        for name in ["user-agent", "referer", "accept-language", "x-country"] {
            headers.insert(name, long.clone());
        }
        let click = take(&headers, "::1", 0).into_click(&mut Visitors::new([1; 32]));
        assert!(click.user_agent.len() <= MAX_USER_AGENT);
        assert_eq!(
            (click.referrer_host, click.language, click.country),
            Default::default()
        );
    }

    #[test]
    fn visitors_are_told_apart_within_a_day_only() {
        let mut visitors = Visitors::new([1; 32]);
        let mut hash = |client, at| {
            let click = take(&HeaderMap::new(), client, at).into_click(&mut visitors);
            click.visitor
        };
        let noon = hash("192.0.2.1", DAY_MS / 2);
        assert_eq!(noon, hash("192.0.2.1", 0));
        assert_eq!(noon, hash("::ffff:192.0.2.1", 0));
        assert_ne!(noon, hash("192.0.2.2", 0));
        assert_ne!(noon, hash("192.0.2.1", DAY_MS));
        assert_eq!(noon, hash("192.0.2.1", DAY_MS - 1));
        let click = take(&HeaderMap::new(), "192.0.2.1", 0);
        assert_ne!(noon, click.into_click(&mut Visitors::new([2; 32])).visitor);
    }
}
