//! What a create that may be repeated is found by: the same request derives the same
//! [`Source`], and from it the same slugs, at every gateway and for ever.

use std::fmt;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::{
    DomainId, LongUrl, Prefix, RedirectStatus, Slug, Source, Timestamp, base62, mint::SUFFIX_LEN,
};

/// When a link is to end, as far as its create says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Never,
    At(Timestamp),
    /// So long after its creation.
    After(Duration),
}

impl End {
    /// The instant, for a link that is created now.
    #[must_use]
    pub fn instant(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Never => None,
            Self::At(at) => Some(at),
            Self::After(span) => Some(now.after(span)),
        }
    }
}

/// A create as it was asked for, checked and in canonical form.
///
/// It holds what is asked and not what follows: a span and not its end, a password and
/// not its salted hash, or no repetition would be recognised.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub domain: DomainId,
    pub tenant: &'a str,
    pub long_url: &'a LongUrl,
    pub redirect_status: RedirectStatus,
    pub valid_since: Option<Timestamp>,
    pub end: End,
    pub max_visits: Option<u64>,
    pub forward_query: bool,
    pub password: Option<&'a str>,
    pub alias: Option<&'a Slug>,
    pub title: Option<&'a str>,
    pub tags: &'a [String],
    pub find_if_exists: bool,
}

/// The secret that sources derive from. It is never changed: under another one, no
/// earlier create would be recognised. Without it nobody can tell from a source what was
/// asked for.
#[derive(Clone)]
pub struct SourceKey(Hmac<Sha256>);

/// The first byte of everything that is hashed here.
const FORMAT: u8 = 1;

/// What a hash is of; the second byte.
#[derive(Clone, Copy)]
enum Kind {
    Destination = 1,
    Key = 2,
    Request = 3,
}

impl SourceKey {
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("HMAC takes keys of any length"))
    }

    /// For `findIfExists`: of everything that decides what a visitor gets.
    #[must_use]
    pub fn of_destination(&self, asked: &Asked<'_>) -> Source {
        let mut text = Text::of(Kind::Destination, asked);
        text.deciding(asked);
        Source {
            id: self.mac(&text),
            digest: None,
        }
    }

    /// For an `Idempotency-Key`, and of a batch for the item with this index: of the key
    /// alone, with a digest of everything that is asked for.
    #[must_use]
    pub fn of_key(&self, key: &str, item: Option<u32>, asked: &Asked<'_>) -> Source {
        let mut named = Text::of(Kind::Key, asked);
        named.field(1, key.as_bytes());
        if let Some(item) = item {
            named.field(2, &item.to_be_bytes());
        }
        let mut request = Text::of(Kind::Request, asked);
        request.deciding(asked);
        request.describing(asked);
        Source {
            id: self.mac(&named),
            digest: Some(self.mac(&request)),
        }
    }

    fn mac(&self, text: &Text) -> [u8; 16] {
        let mut hmac = self.0.clone();
        hmac.update(&text.0);
        *hmac
            .finalize()
            .into_bytes()
            .first_chunk()
            .expect("SHA-256 has 32 bytes")
    }
}

/// Shows nothing of the secret.
impl fmt::Debug for SourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SourceKey")
    }
}

/// What is hashed. Each field has its number and length before it, so that no two
/// requests share a text; one that is as if it were not sent is left out, so that a new
/// field changes no source of a request without it.
struct Text(Vec<u8>);

impl Text {
    fn of(kind: Kind, asked: &Asked<'_>) -> Self {
        let mut text = Self(vec![FORMAT, kind as u8]);
        text.0.extend(asked.domain.0.to_be_bytes());
        text.field(0, asked.tenant.as_bytes());
        text
    }

    fn field(&mut self, number: u8, bytes: &[u8]) {
        self.0.push(number);
        self.0.extend((bytes.len() as u32).to_be_bytes());
        self.0.extend(bytes);
    }

    /// Numbers from 1.
    fn deciding(&mut self, asked: &Asked<'_>) {
        self.field(1, asked.long_url.as_str().as_bytes());
        if asked.redirect_status != RedirectStatus::Found {
            self.field(2, &asked.redirect_status.code().to_be_bytes());
        }
        if let Some(since) = asked.valid_since {
            self.field(3, &since.millis().to_be_bytes());
        }
        match asked.end {
            End::Never => {}
            End::At(at) => self.field(4, &at.millis().to_be_bytes()),
            End::After(span) => self.field(5, &span.as_secs().to_be_bytes()),
        }
        if let Some(visits) = asked.max_visits {
            self.field(6, &visits.to_be_bytes());
        }
        if asked.forward_query {
            self.field(7, &[]);
        }
        if let Some(password) = asked.password {
            self.field(8, password.as_bytes());
        }
    }

    /// Numbers from 64.
    fn describing(&mut self, asked: &Asked<'_>) {
        if let Some(alias) = asked.alias {
            self.field(64, alias.as_str().as_bytes());
        }
        if let Some(title) = asked.title {
            self.field(65, title.as_bytes());
        }
        for tag in asked.tags {
            self.field(66, tag.as_bytes());
        }
        if asked.find_if_exists {
            self.field(67, &[]);
        }
    }
}

impl Source {
    /// A slug of the series that follows from this source. All have the same prefix, so
    /// that one shard decides about them.
    #[must_use]
    pub fn slug(&self, number: u32) -> Slug {
        let prefix = self.hashed(0, 0) % Prefix::COUNT as u64;
        let prefix = Prefix::from_index(prefix as usize).expect("a remainder is below it");
        let mut text = prefix.to_string();
        let mut rest = self.hashed(1, number);
        for _ in 0..SUFFIX_LEN {
            let radix = u64::from(base62::RADIX);
            text.push(char::from(base62::digit((rest % radix) as u16)));
            rest /= radix;
        }
        Slug::parse(&text).expect("base62 digits make a slug")
    }

    /// The id is a secret already: without the key nobody foresees it.
    fn hashed(&self, kind: u8, number: u32) -> u64 {
        let mut hash = Sha256::new();
        hash.update([FORMAT, kind]);
        hash.update(self.id);
        hash.update(number.to_be_bytes());
        let hash = hash.finalize();
        u64::from_be_bytes(*hash.first_chunk().expect("SHA-256 has 32 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn key() -> SourceKey {
        SourceKey::new(&[7; 32])
    }

    fn asked(url: &LongUrl) -> Asked<'_> {
        Asked {
            domain: DomainId::MAIN,
            tenant: "default",
            long_url: url,
            redirect_status: RedirectStatus::Found,
            valid_since: None,
            end: End::Never,
            max_visits: None,
            forward_query: false,
            password: None,
            alias: None,
            title: None,
            tags: &[],
            find_if_exists: false,
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis).unwrap()
    }

    /// Stored links are found by these: they must never change.
    #[test]
    fn sources_and_slugs_are_the_ones_that_were_released() {
        let url = LongUrl::parse("https://example.com/a?b=c").unwrap();
        let alias = Slug::parse("an-alias").unwrap();
        let tags = ["x".to_owned(), "y".to_owned()];
        let plain = asked(&url);
        let full = Asked {
            redirect_status: RedirectStatus::PermanentRedirect,
            valid_since: Some(at(1_000)),
            end: End::After(Duration::from_secs(60)),
            max_visits: Some(5),
            forward_query: true,
            password: Some("open sesame"),
            alias: Some(&alias),
            title: Some("A title"),
            tags: &tags,
            find_if_exists: true,
            ..plain
        };
        let released = |source: Source| {
            let digest = source.digest.map(|digest| hex(&digest));
            let [first, second] = [0, 1].map(|number| source.slug(number).to_string());
            (hex(&source.id), digest, first, second)
        };
        let expected = |id: &str, digest: Option<&str>, first: &str, second: &str| {
            let digest = digest.map(str::to_owned);
            (id.to_owned(), digest, first.to_owned(), second.to_owned())
        };
        assert_eq!(
            released(key().of_destination(&plain)),
            expected(
                "d6f661b1ab58ab398bdceea7f2b2d239",
                None,
                "TBj6XSEW",
                "TBDEQCZC"
            )
        );
        assert_eq!(
            released(key().of_destination(&full)),
            expected(
                "8075fb2548b66a6e436ff26ad99260b1",
                None,
                "hDQ61kqz",
                "hDeHUfT8"
            )
        );
        assert_eq!(
            released(key().of_key("a-key", None, &plain)),
            expected(
                "803c33c60732a65e171781abbbff4a45",
                Some("b55801117eb088ad490cd851cad20c0f"),
                "MQp7vnZ1",
                "MQ1zVmY8"
            )
        );
        assert_eq!(
            released(key().of_key("a-key", Some(3), &full)),
            expected(
                "83369696ec693fc1aab33e41255cf387",
                Some("d13e4a4e1a532a16f7d7a831bd95434b"),
                "Cb8ROEmz",
                "CbvuV3a2"
            )
        );
    }

    #[test]
    fn whatever_decides_the_answer_makes_another_destination_and_the_rest_does_not() {
        let url = LongUrl::parse("https://example.com/").unwrap();
        let other = LongUrl::parse("https://example.com/?").unwrap();
        let alias = Slug::parse("alias").unwrap();
        let tags = ["tag".to_owned()];
        let plain = asked(&url);
        let deciding = [
            Asked {
                tenant: "other",
                ..plain
            },
            Asked {
                domain: DomainId(1),
                ..plain
            },
            Asked {
                long_url: &other,
                ..plain
            },
            Asked {
                redirect_status: RedirectStatus::MovedPermanently,
                ..plain
            },
            Asked {
                valid_since: Some(at(0)),
                ..plain
            },
            Asked {
                end: End::At(at(5_000)),
                ..plain
            },
            Asked {
                end: End::After(Duration::from_secs(5_000)),
                ..plain
            },
            Asked {
                max_visits: Some(0),
                ..plain
            },
            Asked {
                forward_query: true,
                ..plain
            },
            Asked {
                password: Some(""),
                ..plain
            },
        ];
        let describing = [
            Asked {
                alias: Some(&alias),
                ..plain
            },
            Asked {
                title: Some(""),
                ..plain
            },
            Asked {
                tags: &tags,
                ..plain
            },
            Asked {
                find_if_exists: true,
                ..plain
            },
        ];
        let key = key();
        let all = || [plain].into_iter().chain(deciding);
        let ids: HashSet<_> = all().map(|asked| key.of_destination(&asked).id).collect();
        assert_eq!(ids.len(), 1 + deciding.len());
        for asked in describing {
            assert_eq!(key.of_destination(&asked), key.of_destination(&plain));
        }
        let digests: HashSet<_> = all()
            .chain(describing)
            .map(|asked| key.of_key("k", None, &asked).digest)
            .collect();
        assert_eq!(digests.len(), 1 + deciding.len() + describing.len());
    }

    #[test]
    fn a_key_names_one_create_of_one_tenant_and_of_one_item_of_a_batch() {
        let url = LongUrl::parse("https://example.com/").unwrap();
        let other = LongUrl::parse("https://example.org/").unwrap();
        let (plain, secret) = (asked(&url), key());
        let id = |key: &str, item, asked: &Asked<'_>| secret.of_key(key, item, asked).id;
        assert_eq!(id("k", None, &plain), id("k", None, &asked(&other)));
        let stranger = Asked {
            tenant: "other",
            ..plain
        };
        let ids = [
            id("k", None, &plain),
            id("K", None, &plain),
            id("k", None, &stranger),
            id("k", Some(0), &plain),
            id("k", Some(1), &plain),
            secret.of_destination(&plain).id,
        ];
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    }

    #[test]
    fn the_slugs_of_a_source_share_their_prefix_and_those_of_many_are_spread() {
        let mut prefixes = HashSet::new();
        for n in 0..1_000 {
            let url = LongUrl::parse(&format!("https://example.com/{n}")).unwrap();
            let source = key().of_destination(&asked(&url));
            let slugs: HashSet<Slug> = (0..16).map(|number| source.slug(number)).collect();
            assert_eq!(slugs.len(), 16);
            assert!(
                slugs
                    .iter()
                    .all(|slug| slug.prefix() == source.slug(0).prefix())
            );
            assert!(
                slugs
                    .iter()
                    .all(|slug| slug.as_str().len() == Slug::MINTED_LEN)
            );
            prefixes.insert(source.slug(0).prefix());
        }
        // 1,000 draws out of 3,844 leave some 880 different ones.
        assert!(prefixes.len() > 800, "{} prefixes", prefixes.len());
    }
}
