//! The gateway of a cluster: its parts made from options.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tonic::transport::Endpoint;
use waypost_domain::shard_map::ShardMap;
use waypost_domain::signature::{KeyRing, parse_hex};
use waypost_domain::source::SourceKey;
use waypost_proto::auth::ServiceToken;
use waypost_proto::transport::{self, Transport};
use waypost_runtime::config::Invalid;
use waypost_runtime::redis::{Redis, Times};
use waypost_runtime::tls::Tls;
use waypost_runtime::watched::{Content, Source, Watched, Watcher};
use waypost_runtime::{Error, Process, grpc, secrets};

use crate::api::{Auth, Rules, auth};
use crate::clicks::{self, Clicks, KafkaLog, KafkaSettings};
use crate::config::Config;
use crate::protection::Protection;
use crate::routing::Routes;
use crate::server::{self, Drain};
use crate::shards::{NodeSource, Reach};
use crate::{Parts, SharedCache};

/// How long idle connections are kept once the end was asked for.
const IDLE_CLOSE: Duration = Duration::from_secs(10);

pub(crate) const MAP_OPTION: &str = "--shard-map";

/// What a ConfigMap can hold. A map takes some 12 KB, and 100 bytes a shard.
const MAX_MAP_BYTES: u64 = 1 << 20;

/// Runs a gateway until it is told to end and has drained.
///
/// # Errors
/// If an option cannot be worked with, or the port is taken.
pub async fn serve(config: Config, process: Process) -> Result<(), Error> {
    let listener = server::bind(config.listen).map_err(|error| Invalid {
        option: "--listen",
        problem: format!("cannot bind {}: {error}", config.listen),
    })?;
    tracing::info!(listen = %config.listen, admin = %config.admin_listen, "listening");
    let drain = Drain {
        lame_duck: config.lame_duck,
        idle_close: IDLE_CLOSE,
    };
    let parts = parts(&config, &process).await?;
    crate::run(listener, parts, drain, &process).await
}

async fn parts(config: &Config, process: &Process) -> Result<Parts, Error> {
    let secret = |name| secrets::read(&config.secrets_dir, name);
    let token = ServiceToken::parse(&secret("service-token")?).ok_or_else(|| {
        secrets::malformed("service-token", "expected 16 to 512 visible characters")
    })?;
    let link_keys = KeyRing::parse(&secret("link-mac")?)
        .map_err(|problem| secrets::malformed("link-mac", &problem))?;
    let optional = |name| secrets::read_if_there(&config.secrets_dir, name);
    let token_secrets = auth::Secrets {
        jwt_hs256: optional("jwt-hs256")?,
        api_key_mac: optional("api-key-mac")?,
    };
    let auth = Auth::new(
        &token_secrets,
        &config.auth,
        config.anonymous,
        &process.watcher,
    )?;
    let caller = Caller {
        token,
        tls: config.tls.open(process)?,
    };
    let (routes, map) = shard_map(config, &caller, &process.watcher)?;
    let shared_cache = if config.redis.is_empty() {
        SharedCache::None
    } else {
        let times = Times {
            response: config.redis_timeout,
            overall: config.redis_timeout,
        };
        let access = config
            .redis_access
            .open(&config.secrets_dir, &process.watcher)?;
        SharedCache::Redis {
            redis: Redis::connect(&config.redis, &access, times)?,
            generation: config.cache_generation,
            secret: key(config, "visitor-key")?,
        }
    };
    let base_url = config.public.base_url(config.listen)?;
    Ok(Parts {
        map,
        routes,
        region: config.region.clone(),
        keygens: caller.transports("--keygen", &config.keygen)?,
        analytics: caller.transports("--analytics", &config.analytics)?,
        nodes: NodeSource(Reach::Network(caller)),
        link_keys: Arc::new(link_keys),
        auth,
        source_key: SourceKey::new(&key(config, "source-key")?),
        clicks: clicks(config, process)?,
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
        shared_cache,
    })
}

/// Reads the map, which seeds who owns what, and goes on watching it: a change is judged
/// by what is known of owners then.
fn shard_map(
    config: &Config,
    caller: &Caller,
    watcher: &Watcher,
) -> Result<(Routes, Watched<ShardMap>), Invalid> {
    let source = Source {
        option: MAP_OPTION,
        name: "shard-map",
        files: vec![config.shard_map.clone()],
        max_bytes: MAX_MAP_BYTES,
    };
    let seeded = Arc::new(OnceLock::new());
    let (caller, routes, mut before) = (caller.clone(), Arc::clone(&seeded), None);
    let map = watcher.watch(source, move |contents| {
        let map = caller.read_map(contents)?;
        let routes = routes.get_or_init(|| Routes::seeded_by(&map));
        routes
            .judge(before.as_ref().unwrap_or(&map), &map)
            .map_err(|refused| refused.to_string())?;
        before = Some(map.clone());
        Ok(map)
    })?;
    let routes = seeded.get().expect("the first reading has seeded them");
    Ok((routes.clone(), map))
}

/// How this gateway calls other services. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    token: ServiceToken,
    tls: Option<Tls>,
}

impl Caller {
    #[cfg(test)]
    pub(crate) fn plain(token: ServiceToken) -> Self {
        Self { token, tls: None }
    }

    /// A map whose nodes can all be called.
    fn read_map(&self, contents: &[Content]) -> Result<ShardMap, String> {
        let [content] = contents else {
            return Err("expected one file".to_owned());
        };
        let file = content.file.display();
        let text =
            std::str::from_utf8(&content.bytes).map_err(|_| format!("{file} is not in UTF-8"))?;
        let map = ShardMap::parse(text).map_err(|error| {
            let place = std::error::Error::source(&error);
            let place = place.map(|place| format!(": {place}")).unwrap_or_default();
            format!("{file}: {error}{place}")
        })?;
        for node in map.shards().iter().flat_map(|shard| &shard.nodes) {
            let invalid = |Invalid { problem, .. }| format!("{file}: {problem}");
            self.endpoint(MAP_OPTION, node).map_err(invalid)?;
        }
        Ok(map)
    }

    fn transports(
        &self,
        option: &'static str,
        nodes: &[String],
    ) -> Result<Vec<Transport>, Invalid> {
        let to = |node: &String| Ok(self.to(&self.endpoint(option, node)?));
        nodes.iter().map(to).collect()
    }

    /// A connection that is made when it is first used, and again when it breaks.
    pub(crate) fn to(&self, endpoint: &Endpoint) -> Transport {
        transport::over(grpc::channel(endpoint, self.tls.as_ref()), &self.token)
    }

    /// The same to one address of a host that has several.
    pub(crate) fn to_address(&self, endpoint: &Endpoint, address: SocketAddr) -> Transport {
        let channel = grpc::channel_to(endpoint, address, self.tls.as_ref());
        transport::over(channel, &self.token)
    }

    pub(crate) fn endpoint(&self, option: &'static str, node: &str) -> Result<Endpoint, Invalid> {
        // With TLS as well: it is put under the connection that this names.
        let endpoint = Endpoint::from_shared(format!("http://{node}")).map_err(|_| Invalid {
            option,
            problem: format!("\"{node}\" is not host:port"),
        })?;
        // A handshake is one more round trip, and a signature on each side.
        let connect_ms = if self.tls.is_some() { 400 } else { 200 };
        Ok(endpoint
            .connect_timeout(Duration::from_millis(connect_ms))
            .tcp_nodelay(true)
            // A peer behind a cut cable is noticed within 13 s.
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(3))
            .keep_alive_while_idle(true)
            // Room for a batch of links without a round trip for more.
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(1 << 22))
    }
}

fn key(config: &Config, name: &str) -> Result<[u8; 32], Invalid> {
    secrets::parse(&config.secrets_dir, name, "64 hex digits", parse_hex)
}

fn clicks(config: &Config, process: &Process) -> Result<Clicks, Error> {
    let log = KafkaLog::new(&KafkaSettings {
        servers: config.kafka.clone(),
        topic: config.kafka_topic.clone(),
        replication: config.kafka_replication,
        connections: config.kafka_options.read()?,
    })
    .map_err(|error| Invalid {
        option: "--kafka",
        problem: error.to_string(),
    })?;
    let settings = clicks::Settings {
        gateway: config.gateway_id.clone(),
        threads: process.threads,
        folder: config.spool_dir.clone(),
        max_bytes: config.public.spool_max_mib << 20,
        visitor_key: key(config, "visitor-key")?,
        country_header: config.public.country_header.clone(),
        countries: config.public.countries()?,
    };
    Clicks::start(&settings, log, &process.registry).map_err(|error| {
        Error::Config(Invalid {
            option: "--spool-dir",
            problem: format!("cannot {error}"),
        })
    })
}
