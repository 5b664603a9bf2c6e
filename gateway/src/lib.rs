//! The HTTP edge of Waypost: redirects, the API, the caches, the click spool.
//!
//! The walk of a redirect: [`server`] takes the request, [`redirect`] answers it
//! with what [`lookup`] finds in [`l1`], Redis or a shard, and [`clicks`] keeps the
//! click. The walk of a create: [`api`], then [`keys`] for a slug, then [`shards`].

pub mod api;
mod attempts;
pub mod batch;
#[cfg(feature = "cluster")]
mod breaker;
pub mod clicks;
pub mod client;
#[cfg(feature = "cluster")]
mod cluster;
pub mod config;
mod fetch;
mod flights;
pub mod freshness;
pub mod keys;
pub mod l1;
mod lanes;
pub mod limits;
pub mod lookup;
mod map;
pub mod metrics;
#[cfg(feature = "cluster")]
mod names;
mod pages;
mod passwords;
pub mod protection;
mod readings;
pub mod redirect;
#[cfg(feature = "cluster")]
mod redis_tier;
mod retry;
pub mod routing;
pub mod server;
pub mod shards;
mod shared_cache;
pub mod target;
pub mod trace;
mod visits;
mod watch;
mod workers;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use waypost_domain::shard_map::ShardMap;
use waypost_domain::signature::KeyRing;
use waypost_domain::source::SourceKey;
use waypost_proto::transport::Transport;
#[cfg(feature = "cluster")]
use waypost_runtime::redis::Redis;
use waypost_runtime::watched::Watched;
use waypost_runtime::{Error, Process};

use crate::api::{Api, Auth, Bounds, Origin, Rules};
use crate::attempts::Attempts;
use crate::clicks::{Clicks, Flushed};
use crate::client::TrustedHops;
use crate::fetch::Fetcher;
use crate::flights::Flights;
use crate::keys::Keys;
use crate::l1::L1;
use crate::lanes::Lanes;
use crate::limits::{LimitOptions, Limits};
use crate::lookup::Lookup;
use crate::metrics::Metrics;
use crate::passwords::Passwords;
use crate::readings::{Readings, Sources};
use crate::redirect::{Elsewhere, Redirects};
use crate::routing::Routes;
use crate::shards::Shards;
use crate::shared_cache::Tier;
use crate::visits::Visits;
use crate::workers::Workers;

#[cfg(feature = "cluster")]
pub use cluster::serve;
pub use shards::NodeSource;
pub use shared_cache::SharedCache;

/// Registers all metrics of this service, for those who want to know which there are.
///
/// # Errors
/// If the registry has metrics of these names already.
pub fn register_metrics(
    registry: &waypost_runtime::metrics::Registry,
) -> waypost_runtime::metrics::Result<()> {
    Metrics::register(registry)?;
    Readings::register(registry)?;
    protection::metrics(registry)?;
    clicks::register_metrics(registry)
}

/// What a gateway is put together from; the same in a cluster and in one process.
#[derive(Debug)]
pub struct Parts {
    /// Each change of it was judged by `routes`.
    pub map: Watched<ShardMap>,
    /// Seeded by what the map said first.
    pub routes: Routes,
    /// Links are created on shards that are at home here.
    pub region: String,
    pub nodes: NodeSource,
    pub keygens: Vec<Transport>,
    pub analytics: Vec<Transport>,
    /// The keys of the shards' signatures.
    pub link_keys: Arc<KeyRing>,
    pub auth: Auth,
    /// What repeated creates are recognised by.
    pub source_key: SourceKey,
    pub clicks: Clicks,
    /// The proxies in front that say whom they were asked by.
    pub trusted_hops: TrustedHops,
    pub limits: LimitOptions,
    /// Whose pages may use the API.
    pub cors_origins: Vec<Origin>,
    /// Where visitors are sent who ask for none of the links.
    pub elsewhere: Elsewhere,
    pub rules: Rules,
    pub l1_bytes: u64,
    pub shared_cache: SharedCache,
}

/// Puts a gateway together, serves until the end is asked for, and sees the
/// clicks off.
///
/// # Errors
/// If a metric cannot be registered.
pub async fn run(
    listener: TcpListener,
    parts: Parts,
    drain: server::Drain,
    process: &Process,
) -> Result<(), Error> {
    let metrics = Metrics::register(&process.registry)
        .map_err(|error| Error::failed("register metrics", error))?;
    let readings = Readings::register(&process.registry)
        .map_err(|error| Error::failed("register metrics", error))?;
    let workers = Workers::start(process.threads)
        .map_err(|error| Error::failed("start the threads that serve", error))?;
    let shards = Shards::new(parts.routes, Arc::clone(&parts.link_keys), metrics.clone());
    let l1 = Arc::new(L1::new(parts.l1_bytes, parts.rules.protection.clone()));
    // Until the last request is answered, also while the process drains.
    let serving = CancellationToken::new();
    let _ended_with_this = serving.clone().drop_guard();
    let mut follower = map::Follower::new(
        shards.clone(),
        parts.region,
        parts.nodes,
        Arc::clone(&l1),
        metrics.clone(),
        serving.clone(),
    );
    follower.apply(&parts.map.get()).await;
    tokio::spawn(follower.follow(parts.map));
    let visits = Visits::start(shards.clone(), metrics.clone(), serving.clone());
    tokio::spawn(protection::follow(
        parts.rules.protection.clone(),
        Arc::clone(&l1),
        serving.clone(),
    ));
    let keys = Keys::start(parts.keygens, shards.clone(), metrics.clone(), serving);
    let limits = Limits::new(&parts.limits, metrics.clone());
    #[cfg(feature = "cluster")]
    let limits = match &parts.shared_cache {
        SharedCache::None => limits,
        SharedCache::Redis { redis, secret, .. } => limits.shared_in(redis.clone(), secret),
    };
    let shared = match parts.shared_cache {
        SharedCache::None => Tier::None,
        #[cfg(feature = "cluster")]
        SharedCache::Redis {
            redis, generation, ..
        } => Tier::Redis(redis_tier::RedisTier::new(
            workers.each(redis, Redis::another),
            generation,
            parts.link_keys,
            metrics.clone(),
        )),
    };
    let fetcher = Fetcher::new(fetch::Parts {
        l1: Arc::clone(&l1),
        shards: shards.clone(),
        shared,
        flights: Flights::new(metrics.joined()),
    });
    let lookup = Lookup {
        l1,
        shards: shards.clone(),
        metrics: metrics.clone(),
        fetcher,
    };
    let redirects = Redirects {
        lookup,
        clicks: parts.clicks.clone(),
        trusted_hops: parts.trusted_hops,
        elsewhere: parts.elsewhere,
        visits: visits.clone(),
        passwords: Passwords::new(metrics.clone()),
        attempts: Arc::new(Attempts::new()),
        limits: limits.clone(),
    };
    let lanes = Lanes::new(metrics.clone());
    let sources = Sources {
        l1: Arc::clone(&redirects.lookup.l1),
        l1_max_bytes: parts.l1_bytes,
        shards,
        lanes: lanes.clone(),
    };
    readings.take_from(sources, &process.registry);
    let bounds = Bounds {
        limits,
        lanes,
        cors_origins: parts.cors_origins,
    };
    let api = Api::new(
        redirects.clone(),
        keys,
        parts.auth,
        parts.analytics,
        parts.source_key,
        bounds,
        parts.rules,
    );
    let router = api.router();

    process.readiness.condition("serving").set(true);
    let served = server::Served {
        redirects,
        router,
        trusted_hops: parts.trusted_hops,
        limits: parts.limits,
    };
    server::serve(listener, served, drain, &workers, metrics, process).await;
    visits.give_back(process.shutdown.deadline()).await;
    let flushed = parts.clicks.flush(process.shutdown.deadline()).await;
    if let Flushed::Remainder {
        bytes,
        clicks,
        lost,
    } = flushed
    {
        tracing::warn!(
            bytes,
            clicks,
            lost,
            "clicks remain in the spool, the next start sends them"
        );
    }
    Ok(())
}
