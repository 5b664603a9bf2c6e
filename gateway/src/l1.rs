//! The cache in process: links that this gateway has seen, bounded by bytes.

use std::sync::{Arc, Mutex, PoisonError};

use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};
use waypost_domain::{DomainId, LinkKey, SlugRef};
use xxhash_rust::xxh3::xxh3_64;

use crate::freshness::Stamp;
use crate::target::Target;

/// The average weight that the cache is laid out for; others fit as well.
const EXPECTED_ENTRY_BYTES: u64 = 300;

/// What the cache itself takes per entry: the table's slot, the key and the two
/// counts of the `Arc`.
const ENTRY_OVERHEAD: usize = 80;

/// Writers of different slugs seldom meet on one of these.
const STRIPES: usize = 64;

#[derive(Debug, Clone)]
struct Entry {
    target: Arc<Target>,
    stamp: Stamp,
}

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<LinkKey, Entry> for Bytes {
    fn weight(&self, key: &LinkKey, entry: &Entry) -> u64 {
        (ENTRY_OVERHEAD + key.slug.as_str().len() + entry.target.bytes()) as u64
    }
}

/// A [`LinkKey`] to look for, without a copy of its slug. Hashes like one.
#[derive(Hash)]
struct Wanted<'a> {
    domain: DomainId,
    slug: SlugRef<'a>,
}

impl Equivalent<LinkKey> for Wanted<'_> {
    fn equivalent(&self, key: &LinkKey) -> bool {
        self.domain == key.domain && self.slug == key.slug.borrowed()
    }
}

/// Links by key. Holds no absences: probing unknown slugs must not push links out.
#[derive(Debug)]
pub struct L1 {
    cache: Cache<LinkKey, Entry, Bytes>,
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
        let entry = self.cache.get(&Wanted { domain, slug })?;
        Some((entry.target, entry.stamp))
    }

    /// Keeps a link unless a newer version is there, and answers the newest of
    /// the two. A reader that took long cannot put an old value back: the change
    /// that overtook it is already here.
    pub fn put(&self, target: Arc<Target>, stamp: Stamp) -> Arc<Target> {
        let stripe = xxh3_64(target.key.slug.as_str().as_bytes()) as usize % STRIPES;
        let _one_writer = self.writers[stripe]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = self.cache.peek(&target.key)
            && held.target.version > target.version
        {
            return held.target;
        }
        let entry = Entry {
            target: Arc::clone(&target),
            stamp,
        };
        self.cache.insert(target.key.clone(), entry);
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
