//! The limit that the gateways of a region hold together, in Redis.
//!
//! A gateway takes a small allotment at a time, so that most creates ask nobody. What
//! it does not use lapses: together the gateways grant a little less than the limit,
//! and never more. Where Redis does not answer, each gateway's own limit decides alone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use redis::Cmd;
use sha2::Sha256;
use waypost_runtime::redis::Redis;

use super::rate::{Pace, Taken};
use crate::metrics::Metrics;

/// How long Redis is left alone after it gave no answer, in microseconds: it must not
/// cost every create its deadline.
const PAUSE_US: u64 = 1_000_000;

/// See [`super::rate`]; the time is Redis's own, one for all gateways. A value that is
/// no time counts as none.
const TAKE: &str = "\
local interval, tolerance, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local paid = tonumber(redis.call('GET', KEYS[1]) or 0) or 0
paid = math.max(now, math.min(paid, now + tolerance))
local count = math.min(wanted, math.floor((now + tolerance - paid) / interval))
if count > 0 then
  paid = paid + count * interval
  redis.call('SET', KEYS[1], string.format('%.0f', paid), 'PX', math.ceil((paid - now) / 1000))
end
return {count, math.max(0, paid + interval - now - tolerance)}";

#[derive(Debug)]
pub(super) struct SharedLimit {
    redis: Redis,
    /// Hides whom a key in Redis is about.
    names: Hmac<Sha256>,
    /// In microseconds since the process began.
    paused_until: AtomicU64,
    metrics: Metrics,
}

impl SharedLimit {
    pub(super) fn new(redis: Redis, secret: &[u8; 32], metrics: Metrics) -> Self {
        let mut names =
            Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
        names.update(b"waypost limits ");
        Self {
            redis,
            names,
            paused_until: AtomicU64::new(0),
            metrics,
        }
    }

    /// Takes up to so many; `None` if Redis does not say.
    pub(super) async fn take(
        &self,
        subject: &[u8],
        pace: Pace,
        now: u64,
        wanted: u32,
    ) -> Option<Taken> {
        if now < self.paused_until.load(Ordering::Relaxed) {
            self.metrics.shared_limit("paused");
            return None;
        }
        let mut command = Cmd::new();
        command
            .arg("EVAL")
            .arg(TAKE)
            .arg(1)
            .arg(self.name(subject))
            .arg(pace.interval)
            .arg(pace.tolerance)
            .arg(wanted);
        // Within the few milliseconds that any question to Redis may take.
        match self.redis.run::<(u32, u64)>(&command).await {
            Ok((count, wait)) => {
                let result = if count > 0 { "granted" } else { "refused" };
                self.metrics.shared_limit(result);
                Some(Taken {
                    count: count.min(wanted),
                    wait: Duration::from_micros(wait.min(pace.tolerance + pace.interval)),
                })
            }
            Err(error) => {
                self.metrics.shared_limit("error");
                tracing::debug!(%error, "the shared limit could not be asked");
                self.paused_until.store(now + PAUSE_US, Ordering::Relaxed);
                None
            }
        }
    }

    /// One key a subject, told apart by 96 bits.
    fn name(&self, subject: &[u8]) -> String {
        let digest = self.names.clone().chain_update(subject).finalize();
        let hex: String = digest.into_bytes()[..12]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("wp:limit:{{{hex}}}")
    }
}
