//! Redis Cluster on the read path: a cache and nothing else. Whatever goes wrong
//! with it is a miss.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::Histogram;
use redis::Cmd;
use waypost_domain::{Link, LinkKey, signature::KeyRing};
use waypost_proto::cache;
use waypost_runtime::redis::{Redis, slot};
use waypost_runtime::traces::{Kind, Span};

use crate::breaker::{Breakers, Leave};
use crate::metrics::Metrics;
use crate::shared_cache::Held;
use crate::workers::PerThread;

/// How long a link is kept, give or take a tenth so that links that came together
/// do not leave together.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// How long after the primary was asked its word that there is no such link is
/// repeated. A create writes through; where that fails, this and the time to answer
/// stay below the 2 s within which a new link is to be found everywhere.
const ABSENT_TTL: Duration = Duration::from_millis(1_500);

/// An answer that is older may have been overtaken by a change that Redis has
/// already forgotten; it is not put there.
const FILL_WITHIN: Duration = Duration::from_millis(500);

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct RedisTier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Its answers come back to the thread that asked, and wake no other.
    redis: PerThread<Redis>,
    generation: u32,
    keys: Arc<KeyRing>,
    breakers: Breakers,
    metrics: Metrics,
}

impl RedisTier {
    pub(crate) fn new(
        redis: PerThread<Redis>,
        generation: u32,
        keys: Arc<KeyRing>,
        metrics: Metrics,
    ) -> Self {
        Self(Arc::new(Inner {
            redis,
            generation,
            keys,
            breakers: Breakers::new(metrics.clone()),
            metrics,
        }))
    }

    /// What Redis holds. A link counts only if it is whole, of this slug and signed
    /// by a shard.
    pub(crate) async fn get(&self, key: &LinkKey) -> Held {
        let span = asking("GET");
        let (result, held) = self.0.get(key).await;
        span.set("waypost.result", result);
        if result == "error" {
            span.failed(result);
        }
        match held {
            Held::Link(_) => self.0.metrics.redis_hit(),
            _ => self.0.metrics.cache("redis", result),
        }
        held
    }

    /// Puts a link there unless Redis holds a newer version, or the primary was
    /// asked too long ago. Not waited for by any redirect.
    pub(crate) async fn put(&self, link: &Link, bad: Option<Vec<u8>>, asked: Instant) {
        let value = cache::encode_link(link);
        let result = self.0.put(&link.key, value, ttl(), bad, asked).await;
        self.0.metrics.redis_put(result);
    }

    /// Puts there that there is no such link, unless Redis holds one.
    pub(crate) async fn put_absent(&self, key: &LinkKey, bad: Option<Vec<u8>>, asked: Instant) {
        let ttl = ABSENT_TTL.saturating_sub(asked.elapsed());
        let value = cache::encode_absent(key);
        let result = self.0.put(key, value, ttl, bad, asked).await;
        self.0.metrics.redis_put(result);
    }
}

impl Inner {
    async fn get(&self, key: &LinkKey) -> (&'static str, Held) {
        let name = cache::key(self.generation, key);
        let Some(leave) = self.breakers.leave(slot(&name)) else {
            return ("paused", Held::Nothing);
        };
        let found = self
            .run::<Option<Vec<u8>>>(leave, &Cmd::get(name), &self.metrics.redis_gets)
            .await;
        let value = match found {
            Ok(Some(value)) => value,
            Ok(None) => return ("miss", Held::Nothing),
            Err(failure) => return (failure, Held::Nothing),
        };
        match self.read(key, &value) {
            Ok(cache::Entry::Link(link)) => ("hit", Held::Link(link)),
            Ok(cache::Entry::Absent) => ("absent", Held::Absent),
            Err(problem) => {
                tracing::debug!(error = problem, slug = %key.slug, "cached value is no link");
                (problem, Held::Bad(value))
            }
        }
    }

    /// The entry, or what is wrong with it.
    fn read(&self, key: &LinkKey, value: &[u8]) -> Result<cache::Entry, &'static str> {
        let entry = cache::decode(key, value).map_err(|error| match error {
            cache::Error::Format => "other_format",
            cache::Error::Damaged => "damaged",
            cache::Error::Foreign => "foreign",
        })?;
        if let cache::Entry::Link(link) = &entry
            && !self.keys.verify(link)
        {
            self.metrics.bad_signature("redis");
            tracing::warn!(slug = %key.slug, "cached link with a wrong signature");
            return Err("bad_signature");
        }
        Ok(entry)
    }

    /// Most often Redis holds nothing yet: then a plain `SET NX` does what the script
    /// would, and costs Redis a third less. What it meets, the script compares.
    async fn put(
        &self,
        key: &LinkKey,
        value: Vec<u8>,
        ttl: Duration,
        bad: Option<Vec<u8>>,
        asked: Instant,
    ) -> &'static str {
        if asked.elapsed() > FILL_WITHIN {
            return "late";
        }
        let name = cache::key(self.generation, key);
        let (slot, ttl) = (slot(&name), ttl.as_millis() as u64);
        if bad.is_none() {
            let mut command = Cmd::new();
            command
                .arg("SET")
                .arg(&name)
                .arg(&value)
                .arg("PX")
                .arg(ttl)
                .arg("NX");
            match self.write("SET", slot, &command).await {
                Ok(true) => return "stored",
                Ok(false) => {}
                Err(failure) => return failure,
            }
        }
        let mut command = Cmd::new();
        command
            .arg("EVAL")
            .arg(cache::PUT_UNLESS_NEWER)
            .arg(1)
            .arg(name)
            .arg(value)
            .arg(ttl);
        if let Some(bad) = bad {
            command.arg(bad);
        }
        match self.write("EVAL", slot, &command).await {
            Ok(true) => "stored",
            Ok(false) => "outdated",
            Err(failure) => failure,
        }
    }

    /// Whether the command wrote.
    async fn write(
        &self,
        name: &'static str,
        slot: u16,
        command: &Cmd,
    ) -> Result<bool, &'static str> {
        let leave = self.breakers.leave(slot).ok_or("paused")?;
        let span = asking(name);
        let wrote = self.run(leave, command, &self.metrics.redis_writes).await;
        if let Err(failure) = wrote {
            span.failed(failure);
        }
        wrote
    }

    async fn run<T: redis::FromRedisValue>(
        &self,
        leave: Leave<'_>,
        command: &Cmd,
        times: &Histogram,
    ) -> Result<T, &'static str> {
        let started = Instant::now();
        let answer = self.redis.here().run(command).await;
        times.observe(started.elapsed().as_secs_f64());
        match answer {
            Ok(value) => {
                leave.answered();
                Ok(value)
            }
            Err(error) if error.is_refusal() => {
                leave.answered();
                tracing::debug!(%error, "redis refused a command");
                Err("refused")
            }
            Err(error) => {
                leave.failed();
                tracing::debug!(%error, "redis gave no answer");
                Err("error")
            }
        }
    }
}

/// The span of a command, if the request that it is for is traced.
fn asking(command: &'static str) -> Span {
    let span = Span::child(Kind::Client, command);
    span.set("db.system.name", "redis");
    span.set("db.operation.name", command);
    span
}

fn ttl() -> Duration {
    TTL - TTL / 10 + TTL.mul_f64(0.2 * fastrand::f64())
}
