//! How a cluster is put together.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ground::Ground;
use super::launch::{self, Launch};
use super::{Certificates, Cluster, Secrets};
use crate::error::{Error, Result, write};
use crate::mount::Mount;
use crate::sandbox::Sandbox;
use crate::service::{Kind, Service, programs_folder};

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
/// consumer and 2 gateways in one region, without replicas and limits.
#[derive(Debug, Clone)]
pub struct Builder {
    pub(super) shards: usize,
    pub(super) empty_shards: usize,
    pub(super) nodes_per_shard: usize,
    pub(super) replicas: usize,
    pub(super) keygens: usize,
    pub(super) consumers: usize,
    pub(super) gateways: usize,
    regions: Vec<String>,
    pub(super) has_limits: bool,
    has_tls: bool,
    proxied: Vec<Link>,
    pub(super) settings: Vec<(Kind, String, String)>,
    pub(super) are_nodes_named: bool,
    programs: Option<PathBuf>,
    secrets: Option<PathBuf>,
    sandbox: Option<Arc<Sandbox>>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            shards: 2,
            empty_shards: 0,
            nodes_per_shard: 2,
            replicas: 0,
            keygens: 2,
            consumers: 1,
            gateways: 2,
            regions: vec![launch::REGION.to_owned()],
            has_limits: false,
            has_tls: false,
            proxied: Vec::new(),
            settings: Vec::new(),
            are_nodes_named: false,
            programs: None,
            secrets: None,
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

    /// So many of the shards, the last ones, begin without prefixes, as one that is added
    /// to a cluster does.
    #[must_use]
    pub fn empty_shards(mut self, count: usize) -> Self {
        self.empty_shards = count;
        self
    }

    #[must_use]
    pub fn nodes_per_shard(mut self, count: usize) -> Self {
        self.nodes_per_shard = count;
        self
    }

    /// Streaming standbys of each shard's database, one of which each commit waits
    /// for.
    #[must_use]
    pub fn replicas(mut self, count: usize) -> Self {
        self.replicas = count;
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

    /// Whether the gateways limit connections; off, load tests measure the system.
    #[must_use]
    pub fn limits(mut self, are_on: bool) -> Self {
        self.has_limits = are_on;
        self
    }

    /// Encrypts what is said between our processes, and to Postgres, Redis and the broker
    /// (one of our own, without a proxy), with certificates that both sides show.
    #[must_use]
    pub fn tls(mut self, is_on: bool) -> Self {
        self.has_tls = is_on;
        self
    }

    /// Puts a [`Proxy`] into each connection of this sort.
    #[must_use]
    pub fn proxied(mut self, link: Link) -> Self {
        self.proxied.push(link);
        self
    }

    /// Where shards are at home and gateways are: the first of each in the first region, the
    /// second in the second, and so on in turn. They share all else.
    #[must_use]
    pub fn regions(mut self, names: &[&str]) -> Self {
        self.regions = names.iter().map(|name| (*name).to_owned()).collect();
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

    /// Calls the shards' nodes by names in the map instead of addresses.
    #[must_use]
    pub fn named_nodes(mut self) -> Self {
        self.are_nodes_named = true;
        self
    }

    /// Runs the programs of this folder.
    #[must_use]
    pub fn programs(mut self, folder: &Path) -> Self {
        self.programs = Some(folder.to_owned());
        self
    }

    /// Takes the secrets that are in this folder, as for a cluster that an instance moves
    /// into; the others are new.
    #[must_use]
    pub fn secrets(mut self, folder: &Path) -> Self {
        self.secrets = Some(folder.to_owned());
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
        if self.has_tls && self.is_proxied(Link::Broker) {
            let reason = "a proxy before the broker knows no TLS".to_owned();
            return Err(Error::Refused(reason));
        }
        if self.shards <= self.empty_shards
            || self.nodes_per_shard == 0
            || self.gateways == 0
            || self.regions.is_empty()
        {
            let reason = "a cluster has a shard, a node in each, a gateway and a region".to_owned();
            return Err(Error::Refused(reason));
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
        let secrets = Secrets::create(sandbox, self.secrets.as_deref())?;
        let certificates = if self.has_tls {
            Some(Certificates::create(sandbox)?)
        } else {
            None
        };
        let mount = certificates
            .as_ref()
            .map(|certificates| &certificates.mount);
        let ground = Ground::start(self, sandbox, mount)?;
        let seats = Launch::seats(self)?;
        let map = launch::map(self, &seats)?.to_json();
        let map = Mount::create(
            &sandbox.folder().join("shard-map"),
            &[Cluster::SHARD_MAP],
            |folder| write(&folder.join(Cluster::SHARD_MAP), map),
        )?;
        let launch = Launch {
            builder: self,
            sandbox,
            programs,
            secrets_folder: secrets.folder.display().to_string(),
            map: map.file(Cluster::SHARD_MAP),
            redis: ground.redis.addresses().join(","),
            kafka: ground.kafka(),
            topic: ground.broker.topic().to_owned(),
            certificates: certificates.as_ref(),
        };
        let shards = launch.shards(ground.shards, seats)?;
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
            certificates,
            map,
            sandbox: Arc::clone(sandbox),
        })
    }

    pub(super) fn region(&self, index: usize) -> String {
        self.regions[index % self.regions.len()].clone()
    }

    pub(super) fn is_proxied(&self, link: Link) -> bool {
        self.proxied.contains(&link)
    }
}
