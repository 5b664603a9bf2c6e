//! Applies changes to Redis, where the gateways of the region look first.

use std::time::Duration;

use crate::store::{Change, Place};

/// How long a change that Redis has acknowledged is kept, to be applied again to a
/// replica that never got it: many times what one may lag behind and still be
/// promoted.
#[cfg(feature = "cluster")]
const KEEP: Duration = Duration::from_mins(10);

/// The epoch of the cache's nodes could not be had. Nothing can be done about it
/// but to ask again.
#[derive(Debug, thiserror::Error)]
#[error("failed to see the epoch: {0}")]
pub struct Unseen(String);

/// Where the changes of the outbox are applied.
#[derive(Debug, Clone)]
pub enum Cache {
    /// Nothing to apply to: the all-in-one binary, or a cluster without Redis.
    None,
    #[cfg(feature = "cluster")]
    Redis(redis::Cluster),
}

impl Cache {
    /// Applies the changes; gives the places of those that were acknowledged.
    pub async fn put(&self, changes: Vec<Change>) -> Vec<Place> {
        match self {
            Self::None => changes.iter().map(|change| change.place).collect(),
            #[cfg(feature = "cluster")]
            Self::Redis(cluster) => cluster.put(changes).await,
        }
    }

    #[must_use]
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// How long changes are kept after they were acknowledged.
    #[must_use]
    pub fn keeps(&self) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            #[cfg(feature = "cluster")]
            Self::Redis(_) => KEEP,
        }
    }

    /// The epoch of the cache's nodes, which rises whenever one takes another's
    /// place.
    ///
    /// # Errors
    /// If no node says.
    pub async fn epoch(&self) -> Result<u64, Unseen> {
        match self {
            Self::None => Ok(0),
            #[cfg(feature = "cluster")]
            Self::Redis(cluster) => cluster.epoch().await,
        }
    }
}

#[cfg(feature = "cluster")]
pub mod redis {
    //! The cache in a Redis Cluster.

    use std::time::Duration;

    use futures_util::{StreamExt as _, stream};
    use redis::Cmd;
    use waypost_proto::cache;
    use waypost_runtime::redis::{Error, Redis};

    use super::Unseen;
    use crate::lane::cause;
    use crate::store::{Change, Place};

    /// How long a value lives if nothing renews it, give or take a tenth: values
    /// that were written together must not all vanish together.
    const LIFETIME: Duration = Duration::from_hours(24);

    /// Commands on their way at a time; the connection pipelines them.
    const IN_FLIGHT: usize = 32;

    /// A Redis Cluster and the generation of keys in use. Cheap to clone.
    #[derive(Debug, Clone)]
    pub struct Cluster {
        redis: Redis,
        generation: u32,
    }

    impl Cluster {
        #[must_use]
        pub fn new(redis: Redis, generation: u32) -> Self {
            Self { redis, generation }
        }

        pub(super) async fn put(&self, changes: Vec<Change>) -> Vec<Place> {
            let mut done = Vec::with_capacity(changes.len());
            let mut failure = None;
            let mut puts = stream::iter(changes)
                .map(|change| async move { (change.place, self.put_one(&change).await) })
                .buffer_unordered(IN_FLIGHT);
            while let Some((place, outcome)) = puts.next().await {
                match outcome {
                    Ok(()) => done.push(place),
                    Err(error) => failure = Some(error),
                }
            }
            if let Some(error) = failure {
                let error = cause(&error);
                tracing::warn!(error, "redis did not take a change");
            }
            done
        }

        /// As one of the nodes knows it.
        pub(super) async fn epoch(&self) -> Result<u64, Unseen> {
            let mut command = Cmd::new();
            command.arg("CLUSTER").arg("INFO");
            let info: String = self
                .redis
                .run(&command)
                .await
                .map_err(|error| Unseen(error.to_string()))?;
            info.lines()
                .find_map(|line| line.strip_prefix("cluster_current_epoch:"))
                .and_then(|epoch| epoch.trim().parse().ok())
                .ok_or_else(|| Unseen("CLUSTER INFO names none".to_owned()))
        }

        async fn put_one(&self, change: &Change) -> Result<(), Error> {
            // Nothing can be said of a damaged row, now or later.
            let Some(link) = &change.link else {
                return Ok(());
            };
            let mut command = Cmd::new();
            command
                .arg("EVAL")
                .arg(cache::PUT_UNLESS_NEWER)
                .arg(1)
                .arg(cache::key(self.generation, &link.key))
                .arg(cache::encode_link(link))
                .arg(lifetime(change.place.id));
            self.redis.run::<i64>(&command).await.map(drop)
        }
    }

    /// The lifetime in milliseconds, spread by a number that differs from change
    /// to change.
    fn lifetime(id: i64) -> u64 {
        let full = LIFETIME.as_millis() as u64;
        let spread = id.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        full - full / 10 + spread % (full / 5)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn lifetimes_are_a_day_give_or_take_a_tenth_and_differ() {
            let all: Vec<u64> = (0..100).map(lifetime).collect();
            let hours = |ms: &u64| *ms as f64 / 3_600_000.0;
            assert!(all.iter().all(|ms| (21.6..=26.4).contains(&hours(ms))));
            let spread: std::collections::BTreeSet<_> = all.iter().collect();
            assert!(spread.len() > 90);
        }
    }
}
