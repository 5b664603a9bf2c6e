//! The cache in process: links that this gateway has seen, bounded by bytes.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};
use waypost_domain::{DomainId, SlugRef};
use xxhash_rust::xxh3::xxh3_64;

use crate::freshness::Stamp;
use crate::target::Target;

/// The average weight that the cache is laid out for; others fit as well.
const EXPECTED_ENTRY_BYTES: u64 = 250;

/// What an entry takes beside its target: two counts of the `Arc`, what the allocator
/// puts around two allocations, a slot of 48 bytes, and one in a table that is half full.
const ENTRY_OVERHEAD: usize = 16 + 2 * 12 + 48 + 10;

/// Writers of different slugs seldom meet on one of these.
const STRIPES: usize = 64;

/// A target by which it is found: by its slug, which stands nowhere else.
#[derive(Debug, Clone)]
struct Key(Arc<Target>);

/// What a [`Key`] is looked for by.
#[derive(Hash, PartialEq, Eq)]
struct Wanted<'a> {
    domain: DomainId,
    slug: &'a str,
}

impl Key {
    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            domain: self.0.domain,
            slug: self.0.slug_text(),
        }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.wanted().hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.wanted() == other.wanted()
    }
}

impl Eq for Key {}

impl Equivalent<Key> for Wanted<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self == key.wanted()
    }
}

/// The target again, since a cache gives out values and not keys.
#[derive(Debug, Clone)]
struct Entry {
    target: Arc<Target>,
    stamp: Stamp,
}

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<Key, Entry> for Bytes {
    fn weight(&self, _: &Key, entry: &Entry) -> u64 {
        (ENTRY_OVERHEAD + entry.target.bytes()) as u64
    }
}

/// Links by key. Holds no absences: probing unknown slugs must not push links out.
#[derive(Debug)]
pub struct L1 {
    cache: Cache<Key, Entry, Bytes>,
    /// Makes "compare versions, then write" one step per slug.
    writers: [Mutex<()>; STRIPES],
}

impl L1 {
    /// A cache of at most this many bytes; 0 keeps nothing.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let entries = usize::try_from(bytes / EXPECTED_ENTRY_BYTES).unwrap_or(usize::MAX);
        Self {
            cache: Cache::with_weighter(entries.max(1), bytes, Bytes),
            writers: std::array::from_fn(|_| Mutex::new(())),
        }
    }

    /// The link and when it was believed last; whether it still is, is the
    /// caller's to judge.
    #[must_use]
    pub fn get(&self, domain: DomainId, slug: SlugRef<'_>) -> Option<(Arc<Target>, Stamp)> {
        let slug = slug.as_str();
        let entry = self.cache.get(&Wanted { domain, slug })?;
        Some((entry.target, entry.stamp))
    }

    /// Keeps a link unless a newer version is there, and answers the newest of
    /// the two. A reader that took long cannot put an old value back: the change
    /// that overtook it is already here.
    pub fn put(&self, target: Arc<Target>, stamp: Stamp) -> Arc<Target> {
        let stripe = xxh3_64(target.slug_text().as_bytes()) as usize % STRIPES;
        let _one_writer = self.writers[stripe]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let key = Key(Arc::clone(&target));
        if let Some(held) = self.cache.peek(&key)
            && held.target.version > target.version
        {
            return held.target;
        }
        let entry = Entry {
            target: Arc::clone(&target),
            stamp,
        };
        // The key, too, is replaced: the former one holds the former target.
        self.cache.insert(key, entry);
        target
    }

    /// Bytes in use.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.cache.weight()
    }

    /// Links held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use waypost_domain::Version;

    use super::*;
    use crate::freshness::Freshness;
    use crate::routing::ShardIndex;
    use crate::target::tests::target;

    fn held(l1: &L1, slug: &str) -> Option<(Version, String)> {
        let (target, _) = l1.get(DomainId::MAIN, SlugRef::parse(slug).unwrap())?;
        Some((target.version, target.long_url().to_owned()))
    }

    #[test]
    fn a_newer_version_takes_the_place_of_an_older_one_and_never_the_reverse() {
        let l1 = L1::new(1 << 20);
        let stamp = Freshness::of(ShardIndex(0)).stamp();
        let put = |slug, url, version| l1.put(Arc::new(target(slug, url, version)), stamp).version;
        put("abcdefgh", "https://example.com/1", 1);
        put("abcdefgi", "https://example.com/other", 1);
        let newest = put("abcdefgh", "https://example.com/3", 3);
        assert_eq!(put("abcdefgh", "https://example.com/2", 2), newest);
        let expected = Some((newest, "https://example.com/3".to_owned()));
        assert_eq!(held(&l1, "abcdefgh"), expected);
        assert_eq!(
            held(&l1, "abcdefgi").unwrap().1,
            "https://example.com/other"
        );
        assert_eq!(held(&l1, "abcdefgj"), None);
        assert_eq!(l1.len(), 2);
    }

    #[test]
    fn what_is_held_stays_within_the_bytes_that_it_may_take() {
        let l1 = L1::new(1 << 16);
        let stamp = Freshness::of(ShardIndex(0)).stamp();
        for n in 0..10_000 {
            let target = target(&format!("ab{n:06}"), "https://example.com/page", 1);
            l1.put(Arc::new(target), stamp);
        }
        assert!(l1.weight() <= 1 << 16);
        assert!((100..1_000).contains(&l1.len()), "{} held", l1.len());
        let none = L1::new(0);
        none.put(
            Arc::new(target("abcdefgh", "https://example.com/", 1)),
            stamp,
        );
        assert!(none.is_empty());
    }
}
