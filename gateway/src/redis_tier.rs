//! Redis Cluster on the read path: a cache and nothing else. Whatever goes wrong
//! with it is a miss.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::Cmd;
use waypost_domain::{Link, LinkKey, signature::KeyRing};
use waypost_proto::cache;
use waypost_runtime::redis::Redis;

use crate::metrics::Metrics;

/// How long a link is kept, give or take a tenth so that links that came together
/// do not leave together.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// After an error Redis is left alone for this long: a dead cache must not cost
/// every miss its deadline.
const PAUSE: Duration = Duration::from_millis(250);

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct RedisTier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    redis: Redis,
    generation: u32,
    keys: Arc<KeyRing>,
    metrics: Metrics,
    started: Instant,
    /// Milliseconds since `started` until which Redis is left alone.
    paused_until_ms: AtomicU64,
}

impl RedisTier {
    pub(crate) fn new(redis: Redis, generation: u32, keys: Arc<KeyRing>, metrics: Metrics) -> Self {
        Self(Arc::new(Inner {
            redis,
            generation,
            keys,
            metrics,
            started: Instant::now(),
            paused_until_ms: AtomicU64::new(0),
        }))
    }

    /// The link that Redis holds, if it holds one that is whole, of this slug and
    /// signed by a shard.
    pub(crate) async fn get(&self, key: &LinkKey) -> Option<Link> {
        let inner = &self.0;
        if self.is_paused() {
            inner.metrics.cache("redis", "paused");
            return None;
        }
        let command = Cmd::get(cache::key(inner.generation, key));
        let value = match inner.redis.run::<Option<Vec<u8>>>(&command).await {
            Ok(value) => value,
            Err(error) => {
                self.failed(&error);
                inner.metrics.cache("redis", "error");
                return None;
            }
        };
        let Some(value) = value else {
            inner.metrics.cache("redis", "miss");
            return None;
        };
        match cache::decode(key, &value) {
            Ok(cache::Entry::Link(link)) if inner.keys.verify(&link) => {
                inner.metrics.cache("redis", "hit");
                Some(*link)
            }
            Ok(cache::Entry::Link(_)) => {
                inner.metrics.bad_signature("redis");
                tracing::warn!(slug = %key.slug, "cached link with a wrong signature");
                None
            }
            Ok(cache::Entry::Absent) => {
                inner.metrics.cache("redis", "miss");
                None
            }
            Err(error) => {
                inner.metrics.cache("redis", "damaged");
                tracing::debug!(%error, slug = %key.slug, "cached value is no link");
                None
            }
        }
    }

    /// Puts a link there unless Redis holds a newer version. Not waited for by
    /// any redirect.
    pub(crate) async fn put(&self, link: &Link) {
        if self.is_paused() {
            return;
        }
        let mut command = Cmd::new();
        command
            .arg("EVAL")
            .arg(cache::PUT_UNLESS_NEWER)
            .arg(1)
            .arg(cache::key(self.0.generation, &link.key))
            .arg(cache::encode_link(link))
            .arg(ttl_ms());
        if let Err(error) = self.0.redis.run::<i64>(&command).await {
            self.failed(&error);
        }
    }

    fn is_paused(&self) -> bool {
        self.now_ms() < self.0.paused_until_ms.load(Ordering::Relaxed)
    }

    fn failed(&self, error: &waypost_runtime::redis::Error) {
        let until = self.now_ms() + PAUSE.as_millis() as u64;
        let before = self.0.paused_until_ms.swap(until, Ordering::Relaxed);
        self.0.metrics.redis_error();
        // Once at the beginning of an outage, not once a request.
        if self.now_ms().saturating_sub(before) > 10_000 {
            tracing::warn!(%error, "redis fails, reading from the shards");
        }
    }

    fn now_ms(&self) -> u64 {
        self.0.started.elapsed().as_millis() as u64 + 10_001
    }
}

fn ttl_ms() -> u64 {
    let ttl = TTL.as_millis() as u64;
    ttl - ttl / 10 + fastrand::u64(0..ttl / 5)
}
