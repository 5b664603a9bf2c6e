//! How a cluster is put together.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use waypost_domain::ShardId;
use waypost_domain::shard_map::{self, ShardMap};

use super::{Cluster, Secrets, Shard};
use crate::broker::Broker;
use crate::error::{Error, Result, write};
use crate::postgres::Postgres;
use crate::proxy::Proxy;
use crate::redis_cluster::RedisCluster;
use crate::sandbox::Sandbox;
use crate::service::{Kind, Seat, Service, programs_folder};

const REGION: &str = "local";

/// The shortest that a broker allows by default: a dead consumer's partitions go
/// to another after so long.
const SESSION_TIMEOUT_MS: &str = "6000";

/// A place where the cluster may be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// From outside to the gateways.
    Gateways,
    /// From the gateways to the shard nodes.
    ShardNodes,
    /// From the gateways to the keygens.
    Keygens,
    /// From the gateways to the consumers' statistics.
    Consumers,
    /// From the shard nodes to their databases.
    ShardPostgres,
    /// From the gateways and the consumers to the broker.
    Broker,
}

/// What the cluster is to be; by default 2 shards with 2 nodes each, 2 keygens, 1
/// consumer and 2 gateways, without limits.
#[derive(Debug, Clone)]
pub struct Builder {
    shards: usize,
    nodes_per_shard: usize,
    keygens: usize,
    consumers: usize,
    gateways: usize,
    has_limits: bool,
    proxied: Vec<Link>,
    settings: Vec<(Kind, String, String)>,
    programs: Option<PathBuf>,
    sandbox: Option<Arc<Sandbox>>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            shards: 2,
            nodes_per_shard: 2,
            keygens: 2,
            consumers: 1,
            gateways: 2,
            has_limits: false,
            proxied: Vec::new(),
            settings: Vec::new(),
            programs: None,
            sandbox: None,
        }
    }
}

impl Builder {
    #[must_use]
    pub fn shards(mut self, count: usize) -> Self {
        self.shards = count;
        self
    }

    #[must_use]
    pub fn nodes_per_shard(mut self, count: usize) -> Self {
        self.nodes_per_shard = count;
        self
    }

    #[must_use]
    pub fn keygens(mut self, count: usize) -> Self {
        self.keygens = count;
        self
    }

    #[must_use]
    pub fn consumers(mut self, count: usize) -> Self {
        self.consumers = count;
        self
    }

    #[must_use]
    pub fn gateways(mut self, count: usize) -> Self {
        self.gateways = count;
        self
    }

    /// Whether the gateways limit rates and connections; off, load tests measure
    /// the system.
    #[must_use]
    pub fn limits(mut self, are_on: bool) -> Self {
        self.has_limits = are_on;
        self
    }

    /// Puts a [`Proxy`] into each connection of this sort.
    #[must_use]
    pub fn proxied(mut self, link: Link) -> Self {
        self.proxied.push(link);
        self
    }

    /// Sets an option of every process of a kind by its name in the environment
    /// (`WAYPOST_..`), over what the cluster sets itself.
    #[must_use]
    pub fn set(mut self, kind: Kind, name: &str, value: &str) -> Self {
        self.settings
            .push((kind, name.to_owned(), value.to_owned()));
        self
    }

    /// Runs the programs of this folder.
    #[must_use]
    pub fn programs(mut self, folder: &Path) -> Self {
        self.programs = Some(folder.to_owned());
        self
    }

    /// Runs in this sandbox, which somebody may end before the cluster has started.
    #[must_use]
    pub fn sandbox(mut self, sandbox: &Arc<Sandbox>) -> Self {
        self.sandbox = Some(Arc::clone(sandbox));
        self
    }

    /// Starts everything; returns when every process is ready.
    ///
    /// # Errors
    /// With what did not start, and the end of its log.
    pub fn start(self) -> Result<Cluster> {
        if self.shards == 0 || self.nodes_per_shard == 0 || self.gateways == 0 {
            let reason = "a cluster has a shard, a node in each and a gateway".to_owned();
            return Err(Error::Specification(reason));
        }
        let sandbox = match &self.sandbox {
            Some(sandbox) => Arc::clone(sandbox),
            None => Sandbox::create()?,
        };
        let started = self.start_in(&sandbox);
        if started.is_err() {
            // The error holds what is worth keeping.
            sandbox.end();
        }
        started
    }

    fn start_in(&self, sandbox: &Arc<Sandbox>) -> Result<Cluster> {
        let programs = match &self.programs {
            Some(folder) => folder.clone(),
            None => programs_folder()?,
        };
        let secrets = Secrets::create(sandbox)?;
        let ground = Ground::start(self, sandbox)?;
        let launch = Launch {
            builder: self,
            sandbox,
            programs,
            secrets_folder: secrets.folder.display().to_string(),
            map: sandbox.folder().join("shard-map.json"),
            redis: ground.redis.addresses().join(","),
            kafka: ground.kafka(),
            topic: ground.broker.topic().to_owned(),
        };
        let shards = launch.shards(ground.shards)?;
        let keygens = launch.keygens(&ground.postgres)?;
        let consumers = launch.consumers(&ground.postgres)?;
        let nodes = shards.iter().flat_map(|shard| &shard.nodes);
        nodes
            .chain(&keygens)
            .chain(&consumers)
            .try_for_each(Service::wait_ready)?;
        // Now, so that their first calls find everybody.
        let gateways = launch.gateways(&keygens, &consumers)?;
        gateways.iter().try_for_each(Service::wait_ready)?;
        Ok(Cluster {
            gateways,
            consumers,
            keygens,
            shards,
            redis: ground.redis,
            broker: ground.broker,
            broker_proxy: ground.broker_proxy,
            postgres: ground.postgres,
            secrets,
            sandbox: Arc::clone(sandbox),
        })
    }

    fn is_proxied(&self, link: Link) -> bool {
        self.proxied.contains(&link)
    }
}

/// What our processes stand on.
struct Ground {
    shards: Vec<Postgres>,
    postgres: Postgres,
    redis: RedisCluster,
    broker: Broker,
    broker_proxy: Option<Proxy>,
}

impl Ground {
    /// Starts all of it at the same time: each waits mostly for a disk or a timer.
    fn start(builder: &Builder, sandbox: &Arc<Sandbox>) -> Result<Self> {
        thread::scope(|scope| {
            let shards: Vec<_> = (0..builder.shards)
                .map(|index| {
                    scope.spawn(move || {
                        let name = format!("postgres-s{index}");
                        let postgres = Postgres::start_in(sandbox, &name)?;
                        postgres.create_database(Shard::DATABASE)?;
                        Ok(postgres)
                    })
                })
                .collect();
            let redis = scope.spawn(|| RedisCluster::start_in(sandbox));
            let broker = scope.spawn(|| start_broker(builder, sandbox));
            let postgres = Postgres::start_in(sandbox, "postgres-other").and_then(|postgres| {
                postgres.create_database(Cluster::KEYGEN_DATABASE)?;
                postgres.create_database(Cluster::ANALYTICS_DATABASE)?;
                Ok(postgres)
            });
            let (broker, broker_proxy) = join(broker)?;
            Ok(Self {
                shards: shards.into_iter().map(join).collect::<Result<_>>()?,
                postgres: postgres?,
                redis: join(redis)?,
                broker,
                broker_proxy,
            })
        })
    }

    /// What clients of the broker start from.
    fn kafka(&self) -> String {
        match &self.broker_proxy {
            Some(proxy) => proxy.address(),
            None => self.broker.servers().to_owned(),
        }
    }
}

fn start_broker(builder: &Builder, sandbox: &Arc<Sandbox>) -> Result<(Broker, Option<Proxy>)> {
    if !builder.is_proxied(Link::Broker) {
        return Ok((Broker::start_in(sandbox)?, None));
    }
    let (broker, proxy) = Broker::start_proxied_in(sandbox)?;
    Ok((broker, Some(proxy)))
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// What it takes to start processes of ours.
struct Launch<'a> {
    builder: &'a Builder,
    sandbox: &'a Arc<Sandbox>,
    programs: PathBuf,
    secrets_folder: String,
    map: PathBuf,
    redis: String,
    kafka: String,
    topic: String,
}

impl Launch<'_> {
    fn shards(&self, databases: Vec<Postgres>) -> Result<Vec<Shard>> {
        let is_proxied = self.builder.is_proxied(Link::ShardNodes);
        let seats = databases
            .iter()
            .map(|_| {
                (0..self.builder.nodes_per_shard)
                    .map(|_| Seat::reserve(is_proxied))
                    .collect()
            })
            .collect::<Result<Vec<Vec<Seat>>>>()?;
        self.write_map(&seats)?;
        databases
            .into_iter()
            .zip(seats)
            .enumerate()
            .map(|(index, (postgres, seats))| self.shard(shard_id(index), postgres, seats))
            .collect()
    }

    fn write_map(&self, seats: &[Vec<Seat>]) -> Result<()> {
        let shards = seats
            .iter()
            .enumerate()
            .map(|(index, seats)| shard_map::Shard {
                id: shard_id(index),
                region: REGION.to_owned(),
                nodes: seats.iter().map(Seat::address).collect(),
            });
        let map = ShardMap::seed(shards.collect())
            .map_err(|error| Error::Specification(error.to_string()))?;
        write(&self.map, map.to_json())
    }

    fn shard(&self, id: ShardId, postgres: Postgres, seats: Vec<Seat>) -> Result<Shard> {
        let is_proxied = self.builder.is_proxied(Link::ShardPostgres);
        let postgres_proxy = is_proxied
            .then(|| Proxy::start(&postgres.address()))
            .transpose()?;
        let url = match &postgres_proxy {
            Some(proxy) => postgres.url_through(&proxy.address(), Shard::DATABASE),
            None => postgres.url(Shard::DATABASE),
        };
        let start = |(index, seat)| {
            let settings = [
                ("WAYPOST_SHARD_ID", id.to_string()),
                ("WAYPOST_POSTGRES_URL", url.clone()),
                ("WAYPOST_REDIS", self.redis.clone()),
                ("WAYPOST_SHARD_MAP", self.map.display().to_string()),
            ];
            let name = format!("shard-node-{id}-{index}");
            self.service(Kind::ShardNode, name, seat, &settings)
        };
        Ok(Shard {
            nodes: seats
                .into_iter()
                .enumerate()
                .map(start)
                .collect::<Result<_>>()?,
            id,
            postgres,
            postgres_proxy,
        })
    }

    fn keygens(&self, postgres: &Postgres) -> Result<Vec<Service>> {
        let settings = [(
            "WAYPOST_POSTGRES_URL",
            postgres.url(Cluster::KEYGEN_DATABASE),
        )];
        (0..self.builder.keygens)
            .map(|index| {
                let seat = Seat::reserve(self.builder.is_proxied(Link::Keygens))?;
                self.service(Kind::Keygen, format!("keygen-{index}"), seat, &settings)
            })
            .collect()
    }

    fn consumers(&self, postgres: &Postgres) -> Result<Vec<Service>> {
        let settings = [
            (
                "WAYPOST_POSTGRES_URL",
                postgres.url(Cluster::ANALYTICS_DATABASE),
            ),
            ("WAYPOST_KAFKA", self.kafka.clone()),
            ("WAYPOST_KAFKA_TOPIC", self.topic.clone()),
            // A broker that others use, too, knows no other cluster's group.
            (
                "WAYPOST_KAFKA_GROUP",
                format!("waypost-analytics-{}", self.topic),
            ),
            (
                "WAYPOST_KAFKA_SESSION_TIMEOUT_MS",
                SESSION_TIMEOUT_MS.to_owned(),
            ),
        ];
        (0..self.builder.consumers)
            .map(|index| {
                let seat = Seat::reserve(self.builder.is_proxied(Link::Consumers))?;
                let name = format!("analytics-consumer-{index}");
                self.service(Kind::AnalyticsConsumer, name, seat, &settings)
            })
            .collect()
    }

    fn gateways(&self, keygens: &[Service], consumers: &[Service]) -> Result<Vec<Service>> {
        let addresses = |services: &[Service]| {
            let addresses: Vec<String> = services.iter().map(Service::address).collect();
            addresses.join(",")
        };
        let is_proxied = self.builder.is_proxied(Link::Gateways);
        let seats = (0..self.builder.gateways)
            .map(|_| Seat::reserve(is_proxied))
            .collect::<Result<Vec<_>>>()?;
        // All of them give out the same short links, as behind one name.
        let base_url = format!("http://{}", seats[0].address());
        let start = |(index, seat)| {
            let name = format!("gateway-{index}");
            let spool = self.sandbox.folder().join(format!("spool-{index}"));
            let settings = [
                ("WAYPOST_SHARD_MAP", self.map.display().to_string()),
                ("WAYPOST_KEYGEN", addresses(keygens)),
                ("WAYPOST_ANALYTICS", addresses(consumers)),
                ("WAYPOST_REDIS", self.redis.clone()),
                ("WAYPOST_KAFKA", self.kafka.clone()),
                ("WAYPOST_KAFKA_TOPIC", self.topic.clone()),
                ("WAYPOST_BASE_URL", base_url.clone()),
                ("WAYPOST_REGION", REGION.to_owned()),
                ("WAYPOST_GATEWAY_ID", name.clone()),
                ("WAYPOST_SPOOL_DIR", spool.display().to_string()),
                ("WAYPOST_ANONYMOUS", "false".to_owned()),
                ("WAYPOST_LIMITS", self.builder.has_limits.to_string()),
            ];
            self.service(Kind::Gateway, name, seat, &settings)
        };
        seats.into_iter().enumerate().map(start).collect()
    }

    fn service(
        &self,
        kind: Kind,
        name: String,
        seat: Seat,
        settings: &[(&str, String)],
    ) -> Result<Service> {
        let own = |(name, value): &(&str, String)| ((*name).to_owned(), value.clone());
        let mut environment: Vec<_> = settings.iter().map(own).collect();
        environment.push((
            "WAYPOST_SECRETS_DIR".to_owned(),
            self.secrets_folder.clone(),
        ));
        let asked = self.builder.settings.iter();
        environment.extend(
            asked
                .filter(|(of, _, _)| *of == kind)
                .map(|(_, name, value)| (name.clone(), value.clone())),
        );
        Service::start(self.sandbox, &self.programs, kind, name, seat, environment)
    }
}

fn shard_id(index: usize) -> ShardId {
    ShardId::parse(&format!("s{index}")).expect("s and a number are an id")
}
