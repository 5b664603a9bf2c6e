//! Slugs in stock: leased from keygen ahead of time, so that a create waits for
//! nobody, and keygen may be away for a minute.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};
use waypost_domain::{Epoch, Prefix, Slug};
use waypost_proto::keygen::keygen_service_client::KeygenServiceClient;
use waypost_proto::keygen::{LeaseSlugsRequest, PrefixLease};
use waypost_proto::transport::Transport;

use crate::metrics::{Metrics, call_result};
use crate::routing::Routes;
use crate::shards::Shards;

/// Keys in stock when nothing has been created for a while.
const MIN_STOCK: usize = 4_096;

/// No more than this is asked for, however busy the gateway: what is in stock is
/// burned when the process ends.
const MAX_STOCK: usize = 1 << 20;

/// The stock covers creates at the present rate for this long without keygen.
const COVER: Duration = Duration::from_secs(60);

/// Prefixes of one lease: enough that the creates that follow spread over all
/// shards.
const PREFIXES_PER_LEASE: usize = 128;

/// Keys of one lease.
const MAX_LEASE: usize = 8_192;

/// Keys of a lease while there are none: somebody may be waiting.
const FIRST_LEASE: usize = 512;

/// FF1 costs about 11 us a key, and the largest lease has 8,192.
const LEASE_DEADLINE: Duration = Duration::from_secs(2);

/// How long a create waits for keys when there are none.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long the first lease waits for all shards at home here to be heard: the stock would
/// be of the prefixes of the first of them.
const HEARING: Duration = Duration::from_secs(1);
const HEARING_PAUSE: Duration = Duration::from_millis(10);

/// Between tries while keygen cannot be reached.
const RETRY: Duration = Duration::from_millis(200);

/// How often the rate of creates is looked at.
const TICK: Duration = Duration::from_secs(1);

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Keys(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    stock: Mutex<Stock>,
    /// Somebody took a key.
    taken: Notify,
    /// Keys have arrived.
    arrived: Notify,
    routes: Routes,
    metrics: Metrics,
}

/// A slug that keygen gave under an epoch of its prefix.
#[derive(Debug)]
struct Key {
    slug: Slug,
    epoch: Epoch,
}

#[derive(Debug)]
struct Stock {
    keys: VecDeque<Key>,
    /// Keys taken since the last look.
    taken: usize,
    /// What is to be kept in stock.
    target: usize,
}

impl Keys {
    /// Starts to stock keys of prefixes whose shards are at home in this region.
    #[must_use]
    pub fn start(
        keygens: Vec<Transport>,
        shards: Shards,
        metrics: Metrics,
        end: CancellationToken,
    ) -> Self {
        let keys = Self::none(shards.routes().clone(), metrics);
        let refill = Refill {
            keys: keys.clone(),
            keygens,
            shards,
        };
        tokio::spawn(async move {
            tokio::select! {
                () = end.cancelled() => {}
                () = refill.run() => {}
            }
        });
        keys
    }

    fn none(routes: Routes, metrics: Metrics) -> Self {
        let stock = Stock {
            keys: VecDeque::new(),
            taken: 0,
            target: MIN_STOCK,
        };
        Self(Arc::new(Inner {
            stock: Mutex::new(stock),
            taken: Notify::new(),
            arrived: Notify::new(),
            routes,
            metrics,
        }))
    }

    /// A slug that nobody else has. Waits a moment if there is none in stock;
    /// `None` if none came.
    pub async fn take(&self) -> Option<Slug> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let arrived = self.0.arrived.notified();
            if let Some(slug) = self.try_take() {
                return Some(slug);
            }
            tokio::time::timeout_at(deadline, arrived).await.ok()?;
        }
    }

    fn try_take(&self) -> Option<Slug> {
        let (slug, left) = {
            let mut stock = self.lock();
            let slug = self.pop(&mut stock);
            stock.taken += usize::from(slug.is_some());
            (slug, stock.keys.len())
        };
        self.0.metrics.keys_in_stock(left);
        self.0.taken.notify_one();
        slug
    }

    /// The next of them. Those of an epoch that is over are burned: of a shard that was
    /// promoted in another region nobody knows which of them were in use.
    fn pop(&self, stock: &mut Stock) -> Option<Slug> {
        let is_over = |key: &Key| key.epoch < self.0.routes.owner(key.slug.prefix()).1;
        let key = std::iter::from_fn(|| stock.keys.pop_front()).find(|key| !is_over(key))?;
        Some(key.slug)
    }

    fn add(&self, mut keys: Vec<Key>) {
        // Neighbours in the stock must not meet at one shard.
        fastrand::shuffle(&mut keys);
        let left = {
            let mut stock = self.lock();
            stock.keys.extend(keys);
            stock.keys.len()
        };
        self.0.metrics.keys_in_stock(left);
        self.0.arrived.notify_waiters();
    }

    /// How many keys are to be leased now; 0 while the stock is above three
    /// quarters of its target.
    fn wanted(&self) -> usize {
        let stock = self.lock();
        let missing = stock.target.saturating_sub(stock.keys.len());
        if missing * 4 < stock.target {
            0
        } else if stock.keys.is_empty() {
            FIRST_LEASE
        } else {
            missing.min(MAX_LEASE)
        }
    }

    /// Adjusts the target to the rate of creates: up at once, down slowly.
    fn look(&self, since: Duration) {
        let mut stock = self.lock();
        let rate = stock.taken as f64 / since.as_secs_f64().max(0.001);
        stock.taken = 0;
        let needed = ((rate * COVER.as_secs_f64()) as usize).clamp(MIN_STOCK, MAX_STOCK);
        stock.target = needed.max(stock.target - stock.target / 64);
        self.0.metrics.keys_wanted(stock.target);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Stock> {
        self.0.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Refill {
    keys: Keys,
    keygens: Vec<Transport>,
    shards: Shards,
}

impl Refill {
    async fn run(self) {
        let all_heard = async {
            while !self.shards.are_home_told() {
                tokio::time::sleep(HEARING_PAUSE).await;
            }
        };
        let _ = tokio::time::timeout(HEARING, all_heard).await;
        let mut looked = Instant::now();
        let mut failures = 0_u32;
        for turn in 0_usize.. {
            if looked.elapsed() >= TICK {
                self.keys.look(looked.elapsed());
                looked = Instant::now();
            }
            let wanted = self.keys.wanted();
            if wanted == 0 {
                let _ = tokio::time::timeout(TICK, self.keys.0.taken.notified()).await;
                continue;
            }
            let prefixes = self.prefixes();
            if prefixes.is_empty() {
                // No shard at home here is heard; that has alerts of its own.
                tokio::time::sleep(RETRY).await;
                continue;
            }
            match self.lease(turn, wanted, &prefixes).await {
                Ok(keys) => {
                    failures = 0;
                    self.keys.add(keys);
                }
                Err(status) => {
                    self.keys.0.metrics.lease_failed();
                    failures = failures.saturating_add(1);
                    if failures == 2 {
                        tracing::warn!(code = ?status.code(), error = status.message(),
                            "no keys from keygen, living on the stock");
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn lease(
        &self,
        turn: usize,
        wanted: usize,
        prefixes: &HashMap<Prefix, Epoch>,
    ) -> Result<Vec<Key>, Status> {
        let keygen = self
            .keygens
            .get(turn % self.keygens.len().max(1))
            .ok_or_else(|| Status::unavailable("there is no keygen"))?;
        let count = wanted.div_ceil(prefixes.len().max(1)).clamp(1, 1_024) as u32;
        let lease = |(prefix, epoch): (&Prefix, &Epoch)| PrefixLease {
            prefix: prefix.to_string(),
            epoch: epoch.get(),
            count,
        };
        let leases = prefixes.iter().map(lease).collect();
        let mut request = Request::new(LeaseSlugsRequest { prefixes: leases });
        request.set_timeout(LEASE_DEADLINE);
        let mut client = KeygenServiceClient::new(keygen.clone());
        let started = Instant::now();
        let response = tokio::time::timeout(LEASE_DEADLINE, client.lease_slugs(request))
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("keygen did not answer in time")));
        let result = response
            .as_ref()
            .map_or_else(|status| call_result(status.code()), |_| "ok");
        self.keys.0.metrics.lease_ended(result, started);
        let response = response?;
        let key = |text: &String| {
            let slug = Slug::parse(text).ok()?;
            let epoch = *prefixes.get(&slug.prefix())?;
            Some(Key { slug, epoch })
        };
        let slugs = response.into_inner().slugs;
        let keys: Vec<Key> = slugs.iter().filter_map(key).collect();
        if keys.is_empty() {
            return Err(Status::resource_exhausted(
                "keygen had no key for any prefix",
            ));
        }
        Ok(keys)
    }

    /// A random choice among the prefixes at home here, and their epochs.
    fn prefixes(&self) -> HashMap<Prefix, Epoch> {
        let mut home: Vec<(Prefix, Epoch)> = Prefix::all()
            .filter_map(|prefix| Some((prefix, self.shards.minting_epoch(prefix)?)))
            .collect();
        fastrand::shuffle(&mut home);
        home.truncate(PREFIXES_PER_LEASE);
        home.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use waypost_domain::ShardId;
    use waypost_domain::shard_map::{Shard, ShardMap};
    use waypost_runtime::metrics::Registry;

    use super::*;

    #[test]
    fn slugs_of_an_epoch_that_is_over_are_burned() {
        let id = ShardId::parse("s0").unwrap();
        let shard = Shard {
            id: id.clone(),
            region: "here".to_owned(),
            nodes: Vec::new(),
        };
        let routes = Routes::seeded_by(&ShardMap::seed(vec![shard]).unwrap());
        let epoch = |number| Epoch::new(number).unwrap();
        let begins = |prefix, number| {
            let prefix = Prefix::parse(prefix).unwrap();
            routes.learn(&[(prefix, id.clone(), epoch(number))]);
        };
        let key = |slug, number| Key {
            slug: Slug::parse(slug).unwrap(),
            epoch: epoch(number),
        };
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let keys = Keys::none(routes.clone(), metrics);
        begins("aa", 1);
        begins("bb", 1);
        keys.add(vec![
            key("aa000001", 1),
            key("bb000001", 1),
            key("aa000002", 1),
        ]);
        begins("aa", 2);
        assert_eq!(keys.try_take(), Some(key("bb000001", 1).slug));
        assert_eq!(keys.try_take(), None);
        keys.add(vec![key("aa000003", 2)]);
        assert_eq!(keys.try_take(), Some(key("aa000003", 2).slug));
    }
}
