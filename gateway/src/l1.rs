//! The cache in process: links that this gateway has seen, bounded by bytes.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};
use waypost_domain::{DomainId, SlugRef};
use xxhash_rust::xxh3::xxh3_64;

use crate::freshness::Stamp;
use crate::protection::{Bar, Protection};
use crate::target::Target;

/// The average weight that the cache is laid out for; others fit as well.
const EXPECTED_ENTRY_BYTES: u64 = 250;

/// What an entry takes beside its target: two counts of the `Arc`, what the allocator
/// puts around two allocations, a slot of 48 bytes, and one in a table that is half full.
const ENTRY_OVERHEAD: usize = 16 + 2 * 12 + 48 + 10;

/// Writers of different slugs seldom meet on one of these.
const STRIPES: usize = 64;

/// How long a change is remembered even if the cache has let go of it: longer than
/// Redis may lag behind (1 s, and 1.5 s until that is noticed) or a shard's answer take.
const REMEMBERED: Duration = Duration::from_secs(4);

/// Changes that one stripe remembers; with more than 16,000 edits a second the oldest
/// are forgotten early.
const REMEMBERED_MAX: usize = 1_024;

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

/// How many links were judged, and how many of them lead nowhere.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    pub(crate) links: u64,
    pub(crate) barred: u64,
}

/// Links by key. Holds no absences: probing unknown slugs must not push links out.
#[derive(Debug)]
pub struct L1 {
    cache: Cache<Key, Entry, Bytes>,
    /// Judges what enters.
    protection: Protection,
    /// Makes "compare versions, then write" one step per slug.
    writers: [Mutex<Recent>; STRIPES],
}

/// The last changes that were told. The cache may let go of a link at any time, and an
/// older version that is still on its way would then be taken for the newest.
#[derive(Debug, Default)]
struct Recent(VecDeque<Told>);

#[derive(Debug)]
struct Told {
    at: Instant,
    /// Of the slug: most that are looked through are told apart by it.
    hash: u64,
    target: Arc<Target>,
}

impl Recent {
    fn remember(&mut self, target: Arc<Target>, at: Instant) {
        let is_over = |told: &Told| at.duration_since(told.at) > REMEMBERED;
        while self.0.front().is_some_and(is_over) || self.0.len() >= REMEMBERED_MAX {
            self.0.pop_front();
        }
        let hash = hash(&target);
        self.0.push_back(Told { at, hash, target });
    }

    /// What has been told of this link that is newer than what is known of it.
    fn newer_than(&self, key: &Key) -> Option<Arc<Target>> {
        let hash = hash(&key.0);
        let told = self.0.iter().rev().filter(|told| told.hash == hash);
        told.map(|told| &told.target)
            .find(|told| told.version > key.0.version && Key(Arc::clone(told)) == *key)
            .cloned()
    }
}

fn hash(target: &Target) -> u64 {
    xxh3_64(target.slug_text().as_bytes())
}

impl L1 {
    /// A cache of at most this many bytes; 0 keeps nothing.
    #[must_use]
    pub fn new(bytes: u64, protection: Protection) -> Self {
        let entries = usize::try_from(bytes / EXPECTED_ENTRY_BYTES).unwrap_or(usize::MAX);
        Self {
            cache: Cache::with_weighter(entries.max(1), bytes, Bytes),
            protection,
            writers: std::array::from_fn(|_| Mutex::default()),
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

    /// Keeps a link that has just been changed, as [`L1::put`] does.
    pub fn change(&self, target: Arc<Target>, stamp: Stamp) {
        self.judged(&target.clone(), || {
            let mut recent = self.writer(&target);
            recent.remember(Arc::clone(&target), Instant::now());
            self.replace(&recent, target, stamp)
        });
    }

    /// Keeps a link unless a newer version is known, and answers the newest of
    /// the two. A reader that took long cannot put an old value back: the change
    /// that overtook it is in the cache, or remembered.
    pub fn put(&self, target: Arc<Target>, stamp: Stamp) -> Arc<Target> {
        self.judged(&target.clone(), || {
            let recent = self.writer(&target);
            self.replace(&recent, target, stamp)
        })
    }

    /// Judges a link before others can see it, and once more what is answered, unless
    /// it is certain that whoever judges all that is here has met it: the list may have
    /// changed between, and what is only remembered is not met.
    fn judged(&self, target: &Arc<Target>, keep: impl FnOnce() -> Arc<Target>) -> Arc<Target> {
        let by = self.protection.judge(target);
        let kept = keep();
        if !Arc::ptr_eq(&kept, target) || !self.protection.still_holds(&by) {
            self.protection.judge(&kept);
        }
        kept
    }

    /// Judges every link that is here by the list in force, with a lock held for no more
    /// than one of them.
    pub(crate) fn judge_all(&self) -> Judged {
        let mut judged = Judged::default();
        for (_, entry) in self.cache.iter() {
            self.protection.judge(&entry.target);
            judged.links += 1;
            judged.barred += u64::from(entry.target.bar().is_some_and(Bar::is_closed));
        }
        judged
    }

    fn writer(&self, target: &Target) -> MutexGuard<'_, Recent> {
        self.writers[hash(target) as usize % STRIPES]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, recent: &Recent, target: Arc<Target>, stamp: Stamp) -> Arc<Target> {
        let key = Key(Arc::clone(&target));
        if let Some(newer) = recent.newer_than(&key) {
            return newer;
        }
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
        let l1 = L1::new(1 << 20, Protection::none());
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
    fn an_old_version_does_not_come_back_when_the_cache_has_let_go_of_the_change() {
        // Keeps nothing: whatever is put is let go at once.
        let l1 = L1::new(0, Protection::none());
        let stamp = Freshness::of(ShardIndex(0)).stamp();
        let at = |slug, version| Arc::new(target(slug, "https://example.com/", version));
        l1.change(at("abcdefgh", 2), stamp);
        let answered = |slug, version| l1.put(at(slug, version), stamp).version;
        assert_eq!(answered("abcdefgh", 1), at("abcdefgh", 2).version);
        assert_eq!(answered("abcdefgh", 3), at("abcdefgh", 3).version);
        assert_eq!(answered("abcdefgi", 1), at("abcdefgi", 1).version);
    }

    #[test]
    fn what_is_remembered_is_bounded_in_time_and_number() {
        let mut recent = Recent::default();
        let began = Instant::now();
        for n in 0..REMEMBERED_MAX + 10 {
            let target = target(&format!("ab{n:06}"), "https://example.com/", 1);
            recent.remember(Arc::new(target), began);
        }
        assert_eq!(recent.0.len(), REMEMBERED_MAX);
        let last = Arc::new(target("abcdefgh", "https://example.com/", 1));
        recent.remember(last, began + REMEMBERED + Duration::from_millis(1));
        assert_eq!(recent.0.len(), 1);
    }

    #[test]
    fn what_is_held_stays_within_the_bytes_that_it_may_take() {
        let l1 = L1::new(1 << 16, Protection::none());
        let stamp = Freshness::of(ShardIndex(0)).stamp();
        for n in 0..10_000 {
            let target = target(&format!("ab{n:06}"), "https://example.com/page", 1);
            l1.put(Arc::new(target), stamp);
        }
        assert!(l1.weight() <= 1 << 16);
        assert!((100..1_000).contains(&l1.len()), "{} held", l1.len());
        let none = L1::new(0, Protection::none());
        none.put(
            Arc::new(target("abcdefgh", "https://example.com/", 1)),
            stamp,
        );
        assert!(none.is_empty());
    }
}
