//! The whole cluster, wired up.

mod builder;
mod ground;
mod launch;
mod logs;
mod secrets;

use std::path::PathBuf;
use std::sync::Arc;

pub use builder::{Builder, Link};
pub use logs::Line;
pub use secrets::Secrets;
use waypost_domain::ShardId;

use crate::broker::Broker;
use crate::certificates::{self, Authority, Life};
use crate::error::{Error, Result, write};
use crate::mount::Mount;
use crate::postgres::Postgres;
use crate::prometheus::{Observation, Prometheus, Targets};
use crate::proxy::Proxy;
use crate::redis_cluster::RedisCluster;
use crate::sandbox::Sandbox;
use crate::service::Service;
use crate::token;

/// A running cluster; stopped and removed when dropped.
#[derive(Debug)]
pub struct Cluster {
    pub gateways: Vec<Service>,
    pub consumers: Vec<Service>,
    pub keygens: Vec<Service>,
    pub shards: Vec<Shard>,
    pub redis: RedisCluster,
    pub broker: Broker,
    /// Between the broker and its clients, if asked for.
    pub broker_proxy: Option<Proxy>,
    /// With the databases `keygen` and `analytics`.
    pub postgres: Postgres,
    pub secrets: Secrets,
    /// If the cluster was asked to speak TLS.
    pub certificates: Option<Certificates>,
    map: Mount,
    sandbox: Arc<Sandbox>,
}

/// What all parts of a cluster show each other.
#[derive(Debug)]
pub struct Certificates {
    pub authority: Authority,
    pub mount: certificates::Mount,
    /// Settings that have clients of the broker use them.
    kafka: PathBuf,
}

impl Certificates {
    fn create(sandbox: &Sandbox) -> Result<Self> {
        let authority = Authority::create(&sandbox.folder().join("authority"))?;
        let mount =
            certificates::Mount::create(&sandbox.folder().join("certificates"), &authority)?;
        let kafka = sandbox.folder().join("kafka.properties");
        let settings = format!(
            "security.protocol=ssl\nssl.ca.location={}\nssl.certificate.location={}\nssl.key.location={}\n",
            mount.authorities().display(),
            mount.certificate().display(),
            mount.key().display(),
        );
        write(&kafka, settings)?;
        Ok(Self {
            authority,
            mount,
            kafka,
        })
    }
}

/// One shard: its database and the processes in front of it.
#[derive(Debug)]
pub struct Shard {
    pub id: ShardId,
    pub nodes: Vec<Service>,
    /// With the database [`Shard::DATABASE`].
    pub postgres: Postgres,
    /// Its standbys; a commit waits for one of them.
    pub replicas: Vec<Postgres>,
    /// Between the database and the nodes, if asked for.
    pub postgres_proxy: Option<Proxy>,
}

impl Shard {
    pub const DATABASE: &str = "shard";

    /// The URL of its database, past any proxy.
    #[must_use]
    pub fn url(&self) -> String {
        self.postgres.url(Self::DATABASE)
    }

    /// The URL of the database at a standby.
    #[must_use]
    pub fn replica_url(&self, replica: usize) -> String {
        self.replicas[replica].url(Self::DATABASE)
    }
}

impl Cluster {
    pub const KEYGEN_DATABASE: &str = "keygen";
    pub const ANALYTICS_DATABASE: &str = "analytics";
    const SHARD_MAP: &str = "shard-map.json";

    /// A small cluster, to be changed before it starts.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// `http://host:port` of a gateway.
    #[must_use]
    pub fn url(&self, gateway: usize) -> String {
        format!("http://{}", self.gateways[gateway].address())
    }

    /// A bearer token of tenant `default` with every scope.
    #[must_use]
    pub fn token(&self) -> String {
        self.token_for("default", token::ALL_SCOPES)
    }

    /// A bearer token of this tenant with these scopes, separated by spaces.
    #[must_use]
    pub fn token_for(&self, tenant: &str, scopes: &str) -> String {
        token::sign(self.secrets.jwt.as_bytes(), tenant, scopes)
    }

    /// The shard map that the processes were given.
    #[must_use]
    pub fn shard_map(&self) -> PathBuf {
        self.map.file(Self::SHARD_MAP)
    }

    /// Puts another text in the place of the shard map, as Kubernetes updates a mounted
    /// ConfigMap.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn replace_shard_map(&self, text: &str) -> Result<()> {
        self.map
            .replace(|folder| write(&folder.join(Self::SHARD_MAP), text))
    }

    /// The URL of the rollups' database.
    #[must_use]
    pub fn analytics_url(&self) -> String {
        self.postgres.url(Self::ANALYTICS_DATABASE)
    }

    /// Puts a new certificate of this authority, and trust in these, in the place of what
    /// all parts have; Postgres and Redis are told, our processes must see it.
    ///
    /// # Errors
    /// If the cluster has no certificates, or a server does not take the new ones.
    pub fn replace_certificates(
        &self,
        authority: &Authority,
        trusted: &[&Authority],
    ) -> Result<()> {
        let Some(Certificates { mount, .. }) = &self.certificates else {
            return Err(Error::Refused("the cluster has no certificates".to_owned()));
        };
        mount.replace(authority, Life::Day, trusted)?;
        let shards = self.shards.iter();
        shards
            .flat_map(|shard| shard.replicas.iter().chain([&shard.postgres]))
            .chain([&self.postgres])
            .try_for_each(|postgres| postgres.renew(mount))?;
        self.redis.renew(mount)
    }

    /// The sandbox that everything runs in.
    #[must_use]
    pub fn sandbox(&self) -> &Arc<Sandbox> {
        &self.sandbox
    }

    /// Every process of ours.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        let nodes = self.shards.iter().flat_map(|shard| &shard.nodes);
        self.gateways
            .iter()
            .chain(&self.consumers)
            .chain(&self.keygens)
            .chain(nodes)
    }

    /// Starts a Prometheus that reads the metrics of all processes of ours, in the
    /// cluster's sandbox.
    ///
    /// # Errors
    /// If it is not installed or does not come up.
    pub fn observe(&self, observation: &Observation) -> Result<Prometheus> {
        let admins = |services: &[Service]| services.iter().map(Service::admin).collect();
        let of = |job, services: &[Service]| Targets {
            job,
            addresses: admins(services),
            shard: None,
        };
        let mut targets = vec![
            of("gateway", &self.gateways),
            of("keygen", &self.keygens),
            of("analytics-consumer", &self.consumers),
        ];
        targets.extend(self.shards.iter().map(|shard| Targets {
            shard: Some(shard.id.to_string()),
            ..of("shard-node", &shard.nodes)
        }));
        Prometheus::start(&self.sandbox, launch::REGION, &targets, observation)
    }

    /// Starts every process of ours again that has ended, and does not wait for it;
    /// answers their names.
    ///
    /// # Errors
    /// If one cannot be started.
    pub fn revive(&self) -> Result<Vec<&str>> {
        let dead = self.services().filter(|service| !service.is_running());
        dead.map(|service| service.start_again().map(|()| service.name()))
            .collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // All at once instead of one after the other by the fields.
        self.sandbox.end();
    }
}
