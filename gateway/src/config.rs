//! The options of the gateway.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use waypost_domain::LongUrl;
use waypost_runtime::config::{Invalid, Options, Page, ProcessOptions, milliseconds, seconds};
use waypost_runtime::kafka::KafkaOptions;
use waypost_runtime::metrics::{self, Registry};
#[cfg(feature = "cluster")]
use waypost_runtime::{redis::RedisOptions, tls::TlsOptions};

use crate::api::{Origin, table_of_codes};
use crate::clicks::Countries;
use crate::client::TrustedHops;
use crate::limits::LimitOptions;
use crate::protection::ProtectionOptions;
use crate::redirect::Elsewhere;

/// The gateway of a Waypost cluster: answers redirects and the API over HTTP.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "waypost-gateway", version)]
pub struct Config {
    /// Where the public port listens
    #[arg(
        long,
        env = "WAYPOST_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "HOST:PORT"
    )]
    pub listen: SocketAddr,

    /// Where /live, /ready and /metrics are; never to be reachable from outside
    #[arg(
        long,
        env = "WAYPOST_ADMIN_LISTEN",
        default_value = "127.0.0.1:8081",
        value_name = "HOST:PORT"
    )]
    pub admin_listen: SocketAddr,

    #[command(flatten)]
    pub public: PublicOptions,

    #[command(flatten)]
    pub auth: AuthOptions,

    /// Folder with one file per secret: service-token, link-mac, source-key,
    /// visitor-key, and for tokens of the API api-key-mac and jwt-hs256, as far as there
    /// are such tokens
    #[arg(long, env = "WAYPOST_SECRETS_DIR", value_name = "FOLDER")]
    pub secrets_dir: PathBuf,

    /// File that lists the shards, their homes, their nodes and, as a seed, their prefixes.
    /// Read again when it changes; one that takes prefixes from a shard is refused
    #[arg(long, env = "WAYPOST_SHARD_MAP", value_name = "FILE")]
    pub shard_map: PathBuf,

    /// keygen processes, separated by commas
    #[arg(
        long,
        env = "WAYPOST_KEYGEN",
        value_delimiter = ',',
        value_name = "HOST:PORT,.."
    )]
    pub keygen: Vec<String>,

    /// analytics-consumer processes, separated by commas
    #[arg(
        long,
        env = "WAYPOST_ANALYTICS",
        value_delimiter = ',',
        value_name = "HOST:PORT,.."
    )]
    pub analytics: Vec<String>,

    /// Nodes of the Redis Cluster, separated by commas; none: no Redis
    #[arg(
        long,
        env = "WAYPOST_REDIS",
        value_delimiter = ',',
        value_name = "HOST:PORT,.."
    )]
    pub redis: Vec<String>,

    /// Longest wait for Redis, in milliseconds
    #[arg(long = "redis-timeout-ms", env = "WAYPOST_REDIS_TIMEOUT_MS", default_value = "10",
          value_name = "MS", value_parser = milliseconds)]
    pub redis_timeout: Duration,

    /// Generation of the cached values; raised after a restore or a region failover
    #[arg(
        long,
        env = "WAYPOST_CACHE_GENERATION",
        default_value = "1",
        value_name = "N"
    )]
    pub cache_generation: u32,

    /// Kafka brokers that clicks are sent to, separated by commas
    #[arg(long, env = "WAYPOST_KAFKA", value_name = "HOST:PORT,..")]
    pub kafka: String,

    #[command(flatten)]
    pub kafka_options: KafkaOptions,

    /// Kafka topic for clicks
    #[arg(
        long,
        env = "WAYPOST_KAFKA_TOPIC",
        default_value = "clicks",
        value_name = "NAME"
    )]
    pub kafka_topic: String,

    /// Copies of each partition, where the topic is made by the gateway; -1: as many as
    /// the brokers make by default
    #[arg(long, env = "WAYPOST_KAFKA_REPLICATION", default_value = "-1", value_name = "N",
          allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-1..=16))]
    pub kafka_replication: i32,

    /// This gateway's name, the same after a restart and of no other gateway
    #[arg(long, env = "WAYPOST_GATEWAY_ID", value_name = "NAME")]
    pub gateway_id: String,

    /// Folder for clicks that are not in Kafka yet
    #[arg(long, env = "WAYPOST_SPOOL_DIR", value_name = "FOLDER")]
    pub spool_dir: PathBuf,

    /// This gateway's region: links are created on shards that are at home there
    #[arg(
        long,
        env = "WAYPOST_REGION",
        default_value = "local",
        value_name = "NAME"
    )]
    pub region: String,

    /// Whether links may be created and statistics read without a token
    #[arg(long, env = "WAYPOST_ANONYMOUS", default_value = "false",
          action = clap::ArgAction::Set, value_name = "BOOL")]
    pub anonymous: bool,

    /// How long new connections are taken after SIGTERM, until load balancers have
    /// noticed, in milliseconds
    #[arg(long = "lame-duck-ms", env = "WAYPOST_LAME_DUCK_MS", default_value = "3000",
          value_name = "MS", value_parser = milliseconds)]
    pub lame_duck: Duration,

    #[cfg(feature = "cluster")]
    #[command(flatten)]
    pub redis_access: RedisOptions,

    #[cfg(feature = "cluster")]
    #[command(flatten)]
    pub tls: TlsOptions,

    #[command(flatten)]
    pub process: ProcessOptions,
}

/// The options of the public port, which the all-in-one binary has as well.
#[derive(Debug, Clone, clap::Args)]
pub struct PublicOptions {
    /// What short URLs begin with; by default http:// and the listening address
    #[arg(long, env = "WAYPOST_BASE_URL", value_name = "URL")]
    pub base_url: Option<String>,

    /// Life of links whose create names no end, in seconds; none: they never end
    #[arg(long = "default-ttl-s", env = "WAYPOST_DEFAULT_TTL_S", value_name = "SECONDS",
          value_parser = seconds)]
    pub default_ttl: Option<Duration>,

    /// Where visitors are sent (302) instead of a 404 when there is no such link, or it is
    /// not yet valid or disabled; none: they are told so
    #[arg(long, env = "WAYPOST_UNKNOWN_SLUG_REDIRECT", value_name = "URL")]
    pub unknown_slug_redirect: Option<String>,

    /// Where visitors of the home page are sent (302); none: they see it
    #[arg(long, env = "WAYPOST_HOME_REDIRECT", value_name = "URL")]
    pub home_redirect: Option<String>,

    /// Proxies in front, one behind the other, that append to X-Forwarded-For whom they
    /// were asked by; the client is the entry so far from the right. 0: the peer. Too
    /// high a number lets clients choose their address
    #[arg(long, env = "WAYPOST_TRUSTED_HOPS", default_value = "0", value_name = "N",
          value_parser = clap::value_parser!(u8).range(0..=16))]
    pub trusted_hops: u8,

    /// Origins whose pages may use the API from a browser, as in https://app.example,
    /// separated by commas; none: no page but our own
    #[arg(
        long,
        env = "WAYPOST_CORS_ORIGINS",
        value_delimiter = ',',
        value_name = "ORIGIN,.."
    )]
    pub cors_origins: Vec<Origin>,

    #[command(flatten)]
    pub limits: LimitOptions,

    /// Bytes of memory for links, in MiB; 0: none are kept
    #[arg(long = "l1-mib", env = "WAYPOST_L1_MIB", default_value = "64", value_name = "MIB",
          value_parser = clap::value_parser!(u64).range(0..=1_048_576))]
    pub l1_mib: u64,

    /// Most disk that clicks may take that are not counted yet, in MiB; then the
    /// oldest are dropped, and counted as lost
    #[arg(long = "spool-max-mib", env = "WAYPOST_SPOOL_MAX_MIB", default_value = "1024",
          value_name = "MIB", value_parser = clap::value_parser!(u64).range(8..=1_048_576))]
    pub spool_max_mib: u64,

    /// Request header with the visitor's country as a two-letter code, for statistics, as a
    /// CDN or proxy in front sets it: cf-ipcountry, cloudfront-viewer-country. It must set or
    /// remove it on every request, or visitors choose their country. none: see --country-db
    #[arg(long, env = "WAYPOST_COUNTRY_HEADER", value_name = "NAME", value_parser = header_name)]
    pub country_header: Option<http::HeaderName>,

    /// File in MaxMind's format, as GeoLite2 Country, that says where visitors are whose
    /// country that header does not name. Read at the start, into memory
    #[arg(long, env = "WAYPOST_COUNTRY_DB", value_name = "FILE")]
    pub country_db: Option<PathBuf>,

    #[command(flatten)]
    pub protection: ProtectionOptions,
}

/// The options of the API's tokens, which the all-in-one binary has as well.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AuthOptions {
    /// JWK set with the public keys (Ed25519, P-256, P-384, RSA) of those whose JWTs are
    /// believed; read again when it changes; none: only JWTs signed with the secret
    /// jwt-hs256
    #[arg(long, env = "WAYPOST_JWKS", value_name = "FILE")]
    pub jwks: Option<PathBuf>,

    /// What a JWT must have as its iss; none: anything
    #[arg(long, env = "WAYPOST_JWT_ISSUER", value_name = "NAME")]
    pub jwt_issuer: Option<String>,

    /// What a JWT must have in its aud; none: anything
    #[arg(long, env = "WAYPOST_JWT_AUDIENCE", value_name = "NAME")]
    pub jwt_audience: Option<String>,

    /// List of revoked API keys by their ids, and of JWTs by their jti, one a line; read
    /// again when it changes
    #[arg(long, env = "WAYPOST_REVOKED_KEYS", value_name = "FILE")]
    pub revoked_keys: Option<PathBuf>,
}

/// A header's name, in lower case.
fn header_name(text: &str) -> Result<http::HeaderName, String> {
    text.parse()
        .map_err(|_| "expected the name of a header".to_owned())
}

/// A URL as a redirect sends it.
fn destination(option: &'static str, text: &str) -> Result<http::HeaderValue, Invalid> {
    let url = LongUrl::parse(text).map_err(|error| Invalid {
        option,
        problem: format!("\"{text}\": {error}"),
    })?;
    Ok(http::HeaderValue::from_str(url.as_str()).expect("a canonical URL is visible ASCII"))
}

impl PublicOptions {
    /// Reads the file of countries, if there is one.
    ///
    /// # Errors
    /// If it cannot be read or is no such file.
    pub fn countries(&self) -> Result<Option<Countries>, Invalid> {
        let open = |file: &PathBuf| {
            Countries::open(file).map_err(|error| Invalid {
                option: "--country-db",
                problem: format!("{}: {error}", file.display()),
            })
        };
        self.country_db.as_ref().map(open).transpose()
    }

    /// Where visitors are sent who ask for none of the links.
    ///
    /// # Errors
    /// If it is set to something that is no http or https URL.
    pub fn elsewhere(&self) -> Result<Elsewhere, Invalid> {
        let place = |option, text: &Option<String>| {
            let place = text.as_deref().map(|text| destination(option, text));
            place.transpose()
        };
        Ok(Elsewhere {
            unknown_slug: place("--unknown-slug-redirect", &self.unknown_slug_redirect)?,
            home: place("--home-redirect", &self.home_redirect)?,
        })
    }

    /// The proxies whose word on the client is taken.
    #[must_use]
    pub fn trusted_hops(&self) -> TrustedHops {
        TrustedHops::new(self.trusted_hops)
    }

    /// What short URLs begin with.
    ///
    /// # Errors
    /// If the option is set to something that is no http or https URL without query.
    pub fn base_url(&self, listen: SocketAddr) -> Result<String, Invalid> {
        let Some(text) = &self.base_url else {
            return Ok(format!("http://{listen}"));
        };
        let invalid = |problem: &str| Invalid {
            option: "--base-url",
            problem: format!("\"{text}\" {problem}"),
        };
        let url = url::Url::parse(text).map_err(|_| invalid("is not a URL"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid("does not begin with http:// or https://"));
        }
        if url.query().is_some() || url.fragment().is_some() || url.path() != "/" {
            return Err(invalid("has a path, a query or a fragment"));
        }
        Ok(text.trim_end_matches('/').to_owned())
    }
}

impl Options for Config {
    fn process(&self) -> &ProcessOptions {
        &self.process
    }

    fn admin_listen(&self) -> SocketAddr {
        self.admin_listen
    }

    fn register_metrics(registry: &Registry) -> metrics::Result<()> {
        #[cfg(feature = "cluster")]
        waypost_runtime::tls::register_metrics(registry)?;
        crate::register_metrics(registry)
    }

    fn pages() -> &'static [Page] {
        &[("--errors-as-markdown", table_of_codes)]
    }

    fn check(&self) -> Result<(), Invalid> {
        self.public.base_url(self.listen)?;
        self.public.elsewhere()?;
        if self.keygen.is_empty() {
            return Err(Invalid {
                option: "--keygen",
                problem: "names no keygen".to_owned(),
            });
        }
        Ok(())
    }
}
