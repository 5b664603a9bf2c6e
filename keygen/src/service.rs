//! `LeaseSlugs`: check the request, move the counters, mint what they passed. And
//! `RaiseCounters`, which passes what another instance has minted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use waypost_domain::mint::{Mint, SUFFIXES, counter_range};
use waypost_domain::{Epoch, Prefix};
use waypost_proto::keygen::keygen_service_server::KeygenService;
use waypost_proto::keygen::{
    Counter, LeaseSlugsRequest, LeaseSlugsResponse, PrefixLease, RaiseCountersRequest,
    RaiseCountersResponse,
};
use waypost_runtime::Error;
use waypost_runtime::metrics::Registry;

use crate::metrics::Metrics;
use crate::store::{self, CounterStore, Want};

/// One transaction locks a row per prefix; more would hold other callers up.
const MAX_PREFIXES: usize = 256;

/// A prefix is leased again before long: larger leases burn more at a restart.
const MAX_COUNT: u32 = 1_024;

/// Over all prefixes of a request: 0.2 s of one core to mint.
const MAX_SLUGS: u64 = 16_384;

/// A transaction that takes longer than this waits for a dead database. The caller
/// holds a minute of slugs and asks another keygen.
const STORE_DEADLINE: Duration = Duration::from_secs(5);

/// The service, over any store. Cheap to clone.
pub struct Keygen<S> {
    store: Arc<S>,
    mint: Arc<Mint>,
    /// Minting is work for the processor alone: more at once than there are cores
    /// would only make each of them slower.
    minting: Arc<Semaphore>,
    metrics: Metrics,
}

impl<S: CounterStore> Keygen<S> {
    /// # Errors
    /// If the registry has a keygen already.
    pub fn new(store: S, mint: Mint, registry: &Registry) -> Result<Self, Error> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            store: Arc::new(store),
            mint: Arc::new(mint),
            minting: Arc::new(Semaphore::new(cores)),
            metrics: Metrics::register(registry)
                .map_err(|error| Error::failed("register the metrics of keygen", error))?,
        })
    }

    async fn lease(&self, request: &LeaseSlugsRequest) -> Result<Vec<String>, Failure> {
        let wants = wants(&request.prefixes).map_err(Failure::Refused)?;
        let ranges = tokio::time::timeout(STORE_DEADLINE, self.store.take(&wants))
            .await
            .map_err(|_| Failure::Deadline)??;
        let taken: Vec<(Prefix, Range<u64>)> =
            wants.iter().map(|want| want.prefix).zip(ranges).collect();
        let asked: u64 = wants.iter().map(|want| want.count).sum();
        let given: u64 = taken.iter().map(|(_, range)| range.end - range.start).sum();
        self.metrics.withheld.inc_by(asked.saturating_sub(given));

        let turn = Arc::clone(&self.minting).acquire_owned().await;
        let mint = Arc::clone(&self.mint);
        let slugs = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            taken
                .into_iter()
                .flat_map(|(prefix, range)| range.map(move |counter| (prefix, counter)))
                .map(|(prefix, counter)| mint.slug(prefix, counter).to_string())
                .collect::<Vec<_>>()
        })
        .await
        .map_err(|_| Failure::Stopping)?;
        self.metrics.slugs.inc_by(given);
        Ok(slugs)
    }

    async fn raise(&self, request: RaiseCountersRequest) -> Result<Vec<Counter>, Failure> {
        let raised = counters(&request.counters).map_err(Failure::Refused)?;
        if request.slug_key != self.mint.fingerprint() {
            return Err(Failure::OtherKey);
        }
        let stand = tokio::time::timeout(STORE_DEADLINE, self.store.raise(&raised))
            .await
            .map_err(|_| Failure::Deadline)??;
        let counters = request.counters.into_iter().zip(stand);
        Ok(counters
            .map(|(counter, next)| Counter { next, ..counter })
            .collect())
    }

    /// What the caller is told, and what the log is.
    fn failed(&self, failure: &Failure) -> Status {
        match failure {
            Failure::Refused(problem) => {
                self.metrics.refused.inc();
                Status::invalid_argument(*problem)
            }
            Failure::OtherKey => {
                self.metrics.refused.inc();
                Status::failed_precondition("the slugs were made with another slug-key")
            }
            Failure::Store(_) | Failure::Deadline | Failure::Stopping => {
                self.metrics.failed.inc();
                let source = std::error::Error::source(failure).map(ToString::to_string);
                tracing::warn!(error = %failure, source, "key counters not moved");
                // Safe to repeat: a range that was taken meanwhile is burned.
                Status::unavailable("the key counters cannot be moved")
            }
        }
    }
}

#[tonic::async_trait]
impl<S: CounterStore> KeygenService for Keygen<S> {
    async fn lease_slugs(
        &self,
        request: Request<LeaseSlugsRequest>,
    ) -> Result<Response<LeaseSlugsResponse>, Status> {
        let answer = async {
            let leased = self.lease(request.get_ref()).await;
            let slugs = leased.map_err(|failure| self.failed(&failure))?;
            self.metrics.leased.inc();
            Ok(LeaseSlugsResponse { slugs })
        };
        self.metrics.rpcs.timed("lease_slugs", answer).await
    }

    async fn raise_counters(
        &self,
        request: Request<RaiseCountersRequest>,
    ) -> Result<Response<RaiseCountersResponse>, Status> {
        let answer = async {
            let raised = self.raise(request.into_inner()).await;
            let counters = raised.map_err(|failure| self.failed(&failure))?;
            self.metrics.raised.inc();
            Ok(RaiseCountersResponse { counters })
        };
        self.metrics.rpcs.timed("raise_counters", answer).await
    }
}

/// Why a request moves nothing, or gets nothing for it.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Refused(&'static str),
    #[error("pass slugs of another key")]
    OtherKey,
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("move the key counters in time")]
    Deadline,
    #[error("mint, since the process ends")]
    Stopping,
}

/// Where counters are to stand.
fn counters(given: &[Counter]) -> Result<Vec<(Prefix, u64)>, &'static str> {
    if given.is_empty() || given.len() > MAX_PREFIXES {
        return Err("a request names 1 to 256 prefixes");
    }
    let mut named = BTreeSet::new();
    let mut counters = Vec::with_capacity(given.len());
    for counter in given {
        let prefix = prefix(&counter.prefix)?;
        if counter.next > SUFFIXES {
            return Err("a counter is at most 62^6");
        }
        if !named.insert(prefix) {
            return Err("a request names each prefix once");
        }
        counters.push((prefix, counter.next));
    }
    Ok(counters)
}

fn prefix(text: &str) -> Result<Prefix, &'static str> {
    Prefix::parse(text).ok_or("a prefix is two characters of 0-9, A-Z, a-z")
}

/// What the request wants, in the order of the prefixes.
fn wants(leases: &[PrefixLease]) -> Result<Vec<Want>, &'static str> {
    if leases.is_empty() || leases.len() > MAX_PREFIXES {
        return Err("a request names 1 to 256 prefixes");
    }
    let mut wants = BTreeMap::new();
    for lease in leases {
        let prefix = prefix(&lease.prefix)?;
        let within = Epoch::new(lease.epoch)
            .and_then(counter_range)
            .ok_or("the epoch has no counters")?;
        if !(1..=MAX_COUNT).contains(&lease.count) {
            return Err("a prefix is leased 1 to 1,024 slugs");
        }
        let count = lease.count.into();
        let want = Want {
            prefix,
            within,
            count,
        };
        if wants.insert(prefix, want).is_some() {
            return Err("a request names each prefix once");
        }
    }
    let wants: Vec<Want> = wants.into_values().collect();
    if wants.iter().map(|want| want.count).sum::<u64>() > MAX_SLUGS {
        return Err("a request is leased at most 16,384 slugs");
    }
    Ok(wants)
}

impl<S> Clone for Keygen<S> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            mint: Arc::clone(&self.mint),
            minting: Arc::clone(&self.minting),
            metrics: self.metrics.clone(),
        }
    }
}

impl<S> fmt::Debug for Keygen<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keygen")
    }
}
