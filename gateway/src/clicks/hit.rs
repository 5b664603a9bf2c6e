//! What a click is made of: taken from the request in passing, worked out later.

use std::borrow::Cow;
use std::net::IpAddr;

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName};
use prost::encoding::{WireType, encode_key, encode_varint};
use sha2::Sha256;
use uuid::Uuid;
use waypost_domain::{SlugRef, Timestamp};
use waypost_runtime::traces::Place;

use super::country::Countries;

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
    /// The span that made it, if the request is traced.
    pub trace: Option<Place>,
}

/// What a click says about its link.
#[derive(Debug, Clone, Copy)]
pub struct ClickedLink<'a> {
    pub domain: u32,
    pub slug: SlugRef<'a>,
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
    /// Boxed, since nearly no click has it.
    trace: Option<Box<Place>>,
}

impl Hit<'_> {
    /// Copies what the click needs. The only part of all this that is on the
    /// redirect's time.
    pub(super) fn take(&self, country_header: Option<&HeaderName>) -> Taken {
        let told = Told::by(self.headers, country_header);
        let cut = |value: &'_ [u8], limit: usize| value.len().min(limit);
        let parts = [
            self.link.slug.as_str().as_bytes(),
            self.link.tenant.as_bytes(),
            &told.user_agent[..cut(told.user_agent, MAX_USER_AGENT)],
            &told.referrer[..cut(told.referrer, MAX_REFERRER)],
            &told.language[..cut(told.language, MAX_LANGUAGE)],
        ];
        let mut text = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        let ends = parts.map(|part| {
            text.extend_from_slice(part);
            u16::try_from(text.len()).unwrap_or(u16::MAX)
        });
        let country = <[u8; 2]>::try_from(told.country)
            .ok()
            .filter(|code| code.iter().all(u8::is_ascii_alphabetic));
        Taken {
            at: self.at,
            domain: self.link.domain,
            link_id: self.link.id,
            status: self.status,
            country: country.map(|code| code.map(|letter| letter.to_ascii_uppercase())),
            prefetch: told.prefetch,
            client: self.client,
            text: text.into_boxed_slice(),
            ends,
            trace: self.trace.map(Box::new),
        }
    }
}

impl Taken {
    /// The slug that was followed.
    pub(super) fn slug(&self) -> &[u8] {
        self.part(0)
    }

    /// Appends the click as it is stored: a [`Click`](waypost_proto::click::Click), field
    /// by field, since a message of eight texts would be made only to be read once. The
    /// client's address ends here.
    pub(super) fn encode(&self, visitors: &mut Visitors, into: &mut Vec<u8>) {
        let [slug, tenant, user_agent, referrer, language] = [0, 1, 2, 3, 4].map(|n| self.part(n));
        let mut fields = Fields(into);
        fields.number(1, self.at.millis().cast_unsigned());
        fields.number(2, self.domain.into());
        fields.bytes(3, slug);
        fields.bytes(4, self.link_id.as_bytes());
        fields.bytes(5, tenant);
        fields.number(6, self.status.into());
        fields.bytes(7, referrer_host(&lossy(referrer)).as_bytes());
        fields.bytes(8, cut(&lossy(user_agent), MAX_USER_AGENT).as_bytes());
        fields.bytes(9, first_language(&lossy(language)).as_bytes());
        let country = self.country.or_else(|| visitors.country(self.client));
        fields.bytes(10, country.as_ref().map_or(&[], |code| &code[..]));
        fields.fixed(11, visitors.hash(self.at, self.client, user_agent));
        fields.number(12, self.prefetch.into());
        fields.bytes(13, self.trace().map_or(&[], |place| place));
    }

    /// The span that made it, if the request is traced.
    pub(super) fn trace(&self) -> Option<&Place> {
        self.trace.as_deref()
    }

    fn part(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        let part = self.text.get(start.into()..self.ends[index].into());
        part.unwrap_or_default()
    }
}

/// Fields of a protobuf message, of which those with a default value are left out.
struct Fields<'a>(&'a mut Vec<u8>);

impl Fields<'_> {
    fn number(&mut self, tag: u32, value: u64) {
        if value != 0 {
            encode_key(tag, WireType::Varint, self.0);
            encode_varint(value, self.0);
        }
    }

    fn fixed(&mut self, tag: u32, value: u64) {
        if value != 0 {
            encode_key(tag, WireType::SixtyFourBit, self.0);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    fn bytes(&mut self, tag: u32, value: &[u8]) {
        if !value.is_empty() {
            encode_key(tag, WireType::LengthDelimited, self.0);
            encode_varint(value.len() as u64, self.0);
            self.0.extend_from_slice(value);
        }
    }
}

/// What an address tells, before it is gone. Tells visitors apart within a day and not beyond: each day has a key of its own,
/// derived from a secret, so that no table of addresses leads back.
pub(super) struct Visitors {
    secret: [u8; 32],
    day: i64,
    of_day: Hmac<Sha256>,
    countries: Option<Countries>,
}

impl Visitors {
    pub(super) fn new(secret: [u8; 32]) -> Self {
        Self {
            secret,
            day: 0,
            of_day: key_of_day(&secret, 0),
            countries: None,
        }
    }

    /// Who also knows where their addresses are.
    pub(super) fn with_countries(self, countries: Option<Countries>) -> Self {
        Self { countries, ..self }
    }

    fn country(&self, client: IpAddr) -> Option<[u8; 2]> {
        self.countries.as_ref()?.of(client)
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

/// What a request's headers tell about a click; of a header that comes twice, the
/// first counts.
#[derive(Default)]
struct Told<'a> {
    user_agent: &'a [u8],
    referrer: &'a [u8],
    language: &'a [u8],
    country: &'a [u8],
    /// The browser fetched ahead; nobody has clicked yet.
    prefetch: bool,
}

impl<'a> Told<'a> {
    /// Reads the headers in one pass: eight look-ups would hash eight names.
    fn by(headers: &'a HeaderMap, country_header: Option<&HeaderName>) -> Self {
        let mut told = Self::default();
        for (name, value) in headers {
            let value = value.as_bytes();
            let part = match name.as_str() {
                "user-agent" => &mut told.user_agent,
                "referer" => &mut told.referrer,
                "accept-language" => &mut told.language,
                "sec-purpose" | "purpose" | "x-purpose" | "x-moz" => {
                    told.prefetch |= is_ahead(value);
                    continue;
                }
                _ if country_header == Some(name) => &mut told.country,
                _ => continue,
            };
            if part.is_empty() {
                *part = value;
            }
        }
        told
    }
}

fn is_ahead(purpose: &[u8]) -> bool {
    let holds = |word: &[u8]| purpose.windows(word.len()).any(|part| part == word);
    holds(b"prefetch") || holds(b"prerender")
}

/// The host of a referrer, without port, in lower case; empty if there is none.
fn referrer_host(referrer: &str) -> Cow<'_, str> {
    let Some((_, rest)) = referrer.split_once("://") else {
        return Cow::Borrowed("");
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
    match shape {
        true if host.bytes().any(|b| b.is_ascii_uppercase()) => host.to_ascii_lowercase().into(),
        true => host.into(),
        false => Cow::Borrowed(""),
    }
}

/// The language that is named first, as in `de-CH` of `de-CH,de;q=0.9`.
fn first_language(accept: &str) -> &str {
    let first = accept.split([',', ';']).next().unwrap_or_default().trim();
    let shape = first
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if shape { first } else { "" }
}

fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Cuts to so many bytes at a character's edge: replacing what is no UTF-8 makes a
/// text longer.
fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
pub(super) mod tests {
    use http::{HeaderValue, header};
    use prost::Message as _;
    use waypost_proto::click::Click;

    use super::*;
    use crate::clicks::country::tests::countries;

    /// The click as whoever reads the log finds it.
    fn read(taken: &Taken, visitors: &mut Visitors) -> Click {
        let mut bytes = Vec::new();
        taken.encode(visitors, &mut bytes);
        let click = Click::decode(&*bytes).unwrap();
        assert_eq!(click.encode_to_vec(), bytes, "as prost writes it");
        click
    }

    fn take(headers: &HeaderMap, client: &str, at: i64) -> Taken {
        let slug = SlugRef::parse("abcdefgh").unwrap();
        let hit = Hit {
            link: ClickedLink {
                domain: 0,
                slug,
                id: Uuid::from_u128(7),
                tenant: "acme",
            },
            status: 302,
            headers,
            client: client.parse().unwrap(),
            at: Timestamp::from_millis(at).unwrap(),
            trace: None,
        };
        hit.take(Some(&HeaderName::from_static("x-country")))
    }

    pub(in crate::clicks) fn taken(slug: &str) -> Taken {
        taken_by(slug, "")
    }

    pub(in crate::clicks) fn taken_by(slug: &str, user_agent: &str) -> Taken {
        let slug = SlugRef::parse(slug).unwrap();
        let agent = HeaderValue::from_str(user_agent).unwrap();
        let hit = Hit {
            link: ClickedLink {
                domain: 0,
                slug,
                id: Uuid::nil(),
                tenant: "",
            },
            status: 302,
            headers: &HeaderMap::from_iter([(header::USER_AGENT, agent)]),
            client: IpAddr::from([127, 0, 0, 1]),
            at: Timestamp::from_millis(0).unwrap(),
            trace: None,
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
        let click = read(&take(&headers, "192.0.2.1", 5), &mut Visitors::new([1; 32]));
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
            trace: Vec::new(),
        };
        assert_eq!(click, expected);
    }

    #[test]
    fn a_country_comes_from_the_header_or_else_from_the_address() {
        let mut visitors = Visitors::new([1; 32]).with_countries(Some(countries()));
        let mut country = |headers: &HeaderMap| {
            let click = read(&take(headers, "192.0.2.1", 5), &mut visitors);
            assert!(
                !format!("{click:?}").contains("192.0.2"),
                "no address is told"
            );
            click.country
        };
        let mut headers = HeaderMap::new();
        assert_eq!(country(&headers), "CH");
        headers.insert("x-country", HeaderValue::from_static("de"));
        assert_eq!(country(&headers), "DE");
        headers.insert("x-country", HeaderValue::from_static("unknown"));
        assert_eq!(country(&headers), "CH");
    }

    #[test]
    fn hostile_headers_are_cut_or_dropped() {
        let mut headers = HeaderMap::new();
        let long = HeaderValue::from_bytes(&[0xe4; 4_000]).unwrap();
        for name in ["user-agent", "referer", "accept-language", "x-country"] {
            headers.insert(name, long.clone());
        }
        let click = read(&take(&headers, "::1", 0), &mut Visitors::new([1; 32]));
        assert!(click.user_agent.len() <= MAX_USER_AGENT);
        assert_eq!(
            (click.referrer_host, click.language, click.country),
            Default::default()
        );
    }

    #[test]
    fn visitors_are_told_apart_within_a_day_only() {
        let mut visitors = Visitors::new([1; 32]);
        let mut hash =
            |client, at| read(&take(&HeaderMap::new(), client, at), &mut visitors).visitor;
        let noon = hash("192.0.2.1", DAY_MS / 2);
        assert_eq!(noon, hash("192.0.2.1", 0));
        assert_eq!(noon, hash("::ffff:192.0.2.1", 0));
        assert_ne!(noon, hash("192.0.2.2", 0));
        assert_ne!(noon, hash("192.0.2.1", DAY_MS));
        assert_eq!(noon, hash("192.0.2.1", DAY_MS - 1));
        let click = take(&HeaderMap::new(), "192.0.2.1", 0);
        assert_ne!(noon, read(&click, &mut Visitors::new([2; 32])).visitor);
    }
}
