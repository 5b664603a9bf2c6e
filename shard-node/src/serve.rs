//! The life of `waypost-shard-node`: bind, build, ready, serve, drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Status};
use waypost_domain::shard_map::ShardMap;
use waypost_domain::signature::KeyRing;
use waypost_proto::auth::ServiceToken;
use waypost_proto::handover::handover_service_server::HandoverServiceServer;
use waypost_proto::link::link_service_server::LinkServiceServer;
use waypost_runtime::config::Invalid;
use waypost_runtime::redis::{Redis, Times};
use waypost_runtime::watched::Watcher;
use waypost_runtime::{Error, Process, database, grpc, secrets};

use crate::cache::{Cache, redis::Cluster};
use crate::changes::Changes;
use crate::config::Options;
use crate::handover::Handover;
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::relay::Relay;
use crate::service::Service;
use crate::store::postgres::PostgresStore;
use crate::store::{self, LinkStore as _};

/// The relay can wait for Redis longer than a redirect can.
const REDIS_TIMES: Times = Times {
    response: Duration::from_millis(200),
    overall: Duration::from_millis(500),
};

/// Serves a shard until the process is to end.
///
/// # Errors
/// If an option does not work, or the database is not this shard's.
pub async fn serve(options: Options, process: Process) -> Result<(), Error> {
    let listener = waypost_runtime::bind("--listen", options.listen).await?;
    serve_on(listener, options, process).await
}

/// The same on a listener that is bound already.
///
/// # Errors
/// As [`serve`].
pub async fn serve_on(
    listener: TcpListener,
    options: Options,
    process: Process,
) -> Result<(), Error> {
    // First of all, so that the process is at no time ready by mistake.
    let reached = process.readiness.condition("database reached");
    let tls = options.tls.open(&process)?;
    let map = shard_map(&options)?;
    let (secret, expected) = (ServiceToken::SECRET, ServiceToken::EXPECTED);
    let token = secrets::parse(&options.secrets_dir, secret, expected, ServiceToken::parse)?;
    let (store, replicas) = stores(&options)?;
    if options.migrate_only {
        let prepare = || store.prepare(&map);
        let is_permanent = store::Error::is_permanent;
        return database::prepare_only(&process.shutdown, prepare, is_permanent).await;
    }
    let cache = cache(&options, &process.watcher)?;
    let metrics = Metrics::register(&process.registry)
        .map_err(|error| Error::failed("register metrics", error))?;

    let draining = process.shutdown.token();
    let stopped = CancellationToken::new();
    let _stop_workers = stopped.clone().drop_guard();
    let changes = Changes::default();
    let service = Service::start(
        store.clone(),
        &replicas,
        changes.clone(),
        metrics.clone(),
        &stopped,
    );
    let handover = Handover::new(
        options.shard_id.clone(),
        store.clone(),
        Peers::of(&map, &token, tls.as_ref())?,
        changes.clone(),
        metrics.clone(),
    );
    let relay = Relay {
        store: store.clone(),
        changes,
        cache,
        metrics,
        purge_after: options.purge_after,
        handover: Some(handover.clone()),
    };

    let prepared = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&prepared);
    let check = token.required();
    let checked = move |request: Request<()>| {
        let request = check.clone()(request)?;
        // Before that, nobody knows whether this is the shard's database at all.
        if gate.load(Ordering::Acquire) {
            Ok(request)
        } else {
            Err(Status::unavailable("the database was not reached yet"))
        }
    };
    let relaying = async {
        let prepare = || store.prepare(&map);
        // Ends with the drain, and the streams with it, for which the server waits.
        if database::prepare(&process.shutdown, prepare, store::Error::is_permanent).await? {
            prepared.store(true, Ordering::Release);
            reached.set(true);
            tracing::info!(shard = %options.shard_id, "ready");
        }
        relay.run(draining.clone()).await;
        Ok(())
    };
    let serving = async {
        let links = LinkServiceServer::with_interceptor(service, checked.clone());
        let handover = HandoverServiceServer::with_interceptor(handover, checked);
        let routes = Routes::new(links).add_service(handover);
        grpc::serve(routes, listener, tls, draining.cancelled())
            .await
            .map_err(|error| Error::failed("serve gRPC", error))
    };
    tokio::try_join!(serving, relaying).map(drop)
}

fn shard_map(options: &Options) -> Result<ShardMap, Invalid> {
    let file = options.shard_map.display();
    let problem = |problem| Invalid {
        option: "--shard-map",
        problem,
    };
    let text = std::fs::read_to_string(&options.shard_map)
        .map_err(|error| problem(format!("cannot read {file}: {error}")))?;
    let map = ShardMap::parse(&text).map_err(|error| problem(format!("{file}: {error}")))?;
    if !map
        .shards()
        .iter()
        .any(|shard| shard.id == options.shard_id)
    {
        let id = &options.shard_id;
        return Err(problem(format!("{file} does not name the shard {id}")));
    }
    Ok(map)
}

/// The shard's database and its standbys.
fn stores(options: &Options) -> Result<(PostgresStore, Vec<PostgresStore>), Invalid> {
    let name = "link-mac";
    let text = secrets::read(&options.secrets_dir, name)?;
    let key_ring = KeyRing::parse(&text).map_err(|problem| secrets::malformed(name, &problem))?;
    let shard = options.shard_id.clone();
    let application = format!("waypost-shard-{shard}");
    let primary = options.postgres.url()?;
    let replicas = options
        .postgres_replica_urls
        .iter()
        .map(|url| {
            let url = primary.at(url);
            let postgres = url.options("--postgres-replica-urls", &application)?;
            Ok(PostgresStore::replica(
                postgres,
                shard.clone(),
                key_ring.clone(),
            ))
        })
        .collect::<Result<_, Invalid>>()?;
    let postgres = primary.options("--postgres-url", &application)?;
    Ok((PostgresStore::new(postgres, shard, key_ring), replicas))
}

fn cache(options: &Options, watcher: &Watcher) -> Result<Cache, Invalid> {
    let nodes = options.redis_nodes();
    if nodes.is_empty() {
        return Ok(Cache::None);
    }
    let access = options.redis_access.open(&options.secrets_dir, watcher)?;
    let redis = Redis::connect(&nodes, &access, REDIS_TIMES)?;
    Ok(Cache::Redis(Cluster::new(redis, options.cache_generation)))
}
