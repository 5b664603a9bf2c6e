//! Putting the services together, each behind its generated server, without a
//! socket between them.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use waypost_analytics_consumer::InProcess;
use waypost_domain::ShardId;
use waypost_domain::mint::Mint;
use waypost_domain::shard_map::{Shard, ShardMap};
use waypost_domain::signature::{KeyRing, parse_hex};
use waypost_domain::source::SourceKey;
use waypost_gateway::api::{Auth, Rules, auth};
use waypost_gateway::clicks::{self, ClickLog, Clicks, Payload, PublishError};
use waypost_gateway::protection::Protection;
use waypost_gateway::routing::Routes;
use waypost_gateway::server::{self, Drain};
use waypost_gateway::{NodeSource, Parts, SharedCache};
use waypost_proto::analytics::analytics_service_server::AnalyticsServiceServer;
use waypost_proto::keygen::keygen_service_server::KeygenServiceServer;
use waypost_proto::link::link_service_server::LinkServiceServer;
use waypost_proto::transport::in_process;
use waypost_runtime::config::Invalid;
use waypost_runtime::watched::Watched;
use waypost_runtime::{Error, Process, secrets};

use crate::backup;
use crate::config::Config;
use crate::keys::{self, Registry};
use crate::secrets::Secrets;

/// There is one region and one shard.
const REGION: &str = "local";
const SHARD: &str = "s0";

/// The name of the one gateway, by which its clicks are told from those of others.
pub(crate) const GATEWAY: &str = "waypost";

/// Nobody balances load over a single process, so that it can end at once.
const LAME_DUCK: Duration = Duration::ZERO;
const IDLE_CLOSE: Duration = Duration::from_millis(500);

/// Runs everything until it is told to end and has drained.
pub(crate) async fn serve(config: Config, process: Process) -> Result<(), Error> {
    let listener = server::bind(config.listen).map_err(|error| Invalid {
        option: "--listen",
        problem: format!("cannot bind {}: {error}", config.listen),
    })?;
    refuse_half_a_restore(&config.data_dir)?;
    let secrets = Secrets::open(&config.data_dir)?;
    let _only_one = lock(&config.data_dir)?;
    // The shard ends after the gateway, whose last requests it answers.
    let stopped = CancellationToken::new();
    let _stopped_last = stopped.clone().drop_guard();
    let parts = parts(&config, &secrets, &process, &stopped).await?;
    let keys = Registry::in_folder(secrets.folder()).records();
    announce(
        &config,
        &parts.rules.base_url,
        keys.is_ok_and(|keys| !keys.is_empty()),
    );
    let drain = Drain {
        lame_duck: LAME_DUCK,
        idle_close: IDLE_CLOSE,
    };
    waypost_gateway::run(listener, parts, drain, &process).await
}

/// A restore that was cut off may have left anything there, or nothing.
pub(crate) fn refuse_half_a_restore(data: &Path) -> Result<(), Invalid> {
    let unfinished = data.join(backup::UNFINISHED);
    if !unfinished.exists() {
        return Ok(());
    }
    Err(Invalid {
        option: "--data-dir",
        problem: format!(
            "a restore did not come to its end, or still runs, as {} is there: once it is over, \
             empty {} and restore again",
            unfinished.display(),
            data.display()
        ),
    })
}

/// Two processes on one folder would both believe that they alone issue slugs.
pub(crate) fn lock(data: &Path) -> Result<File, Invalid> {
    let invalid = |problem: String| Invalid {
        option: "--data-dir",
        problem,
    };
    let path = data.join("lock");
    let file = File::create(&path)
        .map_err(|error| invalid(format!("cannot write {}: {error}", path.display())))?;
    file.try_lock()
        .map_err(|_| invalid(format!("another process uses {}", data.display())))?;
    Ok(file)
}

async fn parts(
    config: &Config,
    secrets: &Secrets,
    process: &Process,
    stopped: &CancellationToken,
) -> Result<Parts, Error> {
    let link_keys = KeyRing::parse(&secrets.read("link-mac")?)
        .map_err(|problem| secrets::malformed("link-mac", &problem))?;
    let map = map()?;
    let data = &config.data_dir;
    let links = waypost_shard_node::open_sqlite(
        &data.join("links.db"),
        shard(),
        &map,
        link_keys.clone(),
        config.purge_after,
        stopped,
        &process.registry,
    )
    .await
    .map_err(|error| Error::failed("open the links", error))?;
    let mint = Mint::new(&key(secrets, "slug-key")?);
    let keygen =
        waypost_keygen::open_sqlite(&data.join("keys.db"), mint, &process.registry).await?;
    let analytics =
        waypost_analytics_consumer::open_sqlite(&data.join("clicks.db"), &process.registry).await?;
    let settings = clicks::Settings {
        gateway: GATEWAY.to_owned(),
        threads: process.threads,
        folder: data.join("spool"),
        max_bytes: config.public.spool_max_mib << 20,
        visitor_key: key(secrets, "visitor-key")?,
        country_header: config.public.country_header.clone(),
        countries: config.public.countries()?,
    };
    let log = CountedHere(analytics.clone());
    let clicks = Clicks::start(&settings, log, &process.registry)
        .map_err(|error| Error::failed("open the spool of clicks", error))?;
    let base_url = config.public.base_url(config.listen)?;
    Ok(Parts {
        routes: Routes::seeded_by(&map),
        map: Watched::fixed(map),
        region: REGION.to_owned(),
        nodes: NodeSource::here(in_process(LinkServiceServer::new(links))),
        keygens: vec![in_process(KeygenServiceServer::new(keygen))],
        analytics: vec![in_process(AnalyticsServiceServer::new(analytics.service()))],
        link_keys: Arc::new(link_keys),
        auth: auth(config, secrets, process)?,
        source_key: SourceKey::new(&key(secrets, "source-key")?),
        clicks,
        limits: config.public.limits.clone(),
        cors_origins: config.public.cors_origins.clone(),
        trusted_hops: config.public.trusted_hops(),
        elsewhere: config.public.elsewhere()?,
        rules: Rules {
            protection: Protection::open(&config.public.protection, &base_url, process)?,
            base_url,
            default_ttl: config.public.default_ttl,
        },
        l1_bytes: config.public.l1_mib << 20,
        shared_cache: SharedCache::None,
    })
}

fn auth(config: &Config, secrets: &Secrets, process: &Process) -> Result<Auth, Invalid> {
    let given = auth::Secrets {
        jwt_hs256: Some(secrets.read("jwt-hs256")?),
        api_key_mac: Some(secrets.read(keys::SECRET)?),
    };
    let mut options = config.auth.clone();
    options
        .revoked_keys
        .get_or_insert_with(|| secrets.folder().join(keys::REVOKED_LIST));
    Auth::new(&given, &options, config.anonymous, &process.watcher)
}

/// The one shard, which has all prefixes.
pub(crate) fn map() -> Result<ShardMap, Error> {
    let shard = Shard {
        id: shard(),
        region: REGION.to_owned(),
        nodes: Vec::new(),
    };
    ShardMap::seed(vec![shard]).map_err(|error| Error::failed("place the prefixes", error))
}

pub(crate) fn shard() -> ShardId {
    ShardId::parse(SHARD).expect("the name is one of a shard")
}

pub(crate) fn key(secrets: &Secrets, name: &str) -> Result<[u8; 32], Invalid> {
    parse_hex(&secrets.read(name)?)
        .ok_or_else(|| secrets::malformed(name, "expected 64 hex digits"))
}

/// The click log of one process: a batch is in the log when it is counted.
pub(crate) struct CountedHere(pub(crate) InProcess);

impl ClickLog for CountedHere {
    async fn publish(&self, payload: Payload) -> Result<(), PublishError> {
        let batch = waypost_analytics_consumer::decode(&payload.batch)
            .map_err(|error| PublishError::Failed(error.into()))?;
        let applied = self.0.apply(batch).await;
        applied.map_err(|error| PublishError::Failed(error.into()))
    }
}

/// Tells the person who started this where to go, and, until there is a key, how to
/// get one: there is no page to set things up.
fn announce(config: &Config, base_url: &str, has_keys: bool) {
    println!(
        "Waypost serves.\n\
         \n\
         Shorten a URL   {base_url}/\n\
         API             {base_url}/api/v1/links\n\
         Metrics         http://{admin}/metrics\n\
         Data            {data}",
        admin = config.admin_listen,
        data = config.data_dir.display(),
    );
    if !has_keys {
        let program = std::env::args().next();
        println!(
            "First key       {program} keys create --admin --data-dir {data}",
            program = program.as_deref().unwrap_or("waypost"),
            data = config.data_dir.display(),
        );
    }
    println!();
}
