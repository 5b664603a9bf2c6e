//! Starts our processes, each with the options that wire it to the others.

use std::path::PathBuf;
use std::sync::Arc;

use waypost_domain::ShardId;
use waypost_domain::shard_map::{self, ShardMap};

use super::ground::Database;
use super::{Builder, Certificates, Cluster, Link, Shard};
use crate::error::{Error, Result};
use crate::postgres::Postgres;
use crate::proxy::Proxy;
use crate::sandbox::Sandbox;
use crate::service::{Kind, Seat, Service};

/// Where everything is, unless regions are asked for.
pub(super) const REGION: &str = "local";

/// The shortest that a broker allows by default: a dead consumer's partitions go
/// to another after so long.
const SESSION_TIMEOUT_MS: &str = "6000";

/// What it takes to start processes of ours.
pub(super) struct Launch<'a> {
    pub(super) builder: &'a Builder,
    pub(super) sandbox: &'a Arc<Sandbox>,
    pub(super) programs: PathBuf,
    pub(super) secrets_folder: String,
    /// Where the shard map is to be found.
    pub(super) map: PathBuf,
    pub(super) redis: String,
    pub(super) kafka: String,
    pub(super) topic: String,
    /// What everybody has, where the cluster speaks TLS.
    pub(super) certificates: Option<&'a Certificates>,
}

impl Launch<'_> {
    /// Ports of the nodes of each shard.
    pub(super) fn seats(builder: &Builder) -> Result<Vec<Vec<Seat>>> {
        let is_proxied = builder.is_proxied(Link::ShardNodes);
        let of_one = |_| {
            (0..builder.nodes_per_shard)
                .map(|_| Seat::reserve(is_proxied))
                .collect()
        };
        (0..builder.shards).map(of_one).collect()
    }

    pub(super) fn shards(
        &self,
        databases: Vec<Database>,
        seats: Vec<Vec<Seat>>,
    ) -> Result<Vec<Shard>> {
        databases
            .into_iter()
            .zip(seats)
            .enumerate()
            .map(|(index, (database, seats))| self.shard(shard_id(index), database, seats))
            .collect()
    }

    fn shard(&self, id: ShardId, database: Database, seats: Vec<Seat>) -> Result<Shard> {
        let Database { postgres, replicas } = database;
        let is_proxied = self.builder.is_proxied(Link::ShardPostgres);
        let postgres_proxy = is_proxied
            .then(|| Proxy::start(&postgres.address()))
            .transpose()?;
        let url = match &postgres_proxy {
            Some(proxy) => postgres.url_through(&proxy.address(), Shard::DATABASE),
            None => postgres.url(Shard::DATABASE),
        };
        let replica_urls: Vec<String> = replicas
            .iter()
            .map(|replica| replica.url(Shard::DATABASE))
            .collect();
        let start = |(index, seat)| {
            let settings = [
                ("WAYPOST_SHARD_ID", id.to_string()),
                ("WAYPOST_POSTGRES_URL", url.clone()),
                ("WAYPOST_POSTGRES_REPLICA_URLS", replica_urls.join(",")),
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
            replicas,
            postgres_proxy,
        })
    }

    pub(super) fn keygens(&self, postgres: &Postgres) -> Result<Vec<Service>> {
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

    pub(super) fn consumers(&self, postgres: &Postgres) -> Result<Vec<Service>> {
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

    pub(super) fn gateways(
        &self,
        keygens: &[Service],
        consumers: &[Service],
    ) -> Result<Vec<Service>> {
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
                ("WAYPOST_REGION", self.builder.region(index)),
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
        environment.extend(
            self.certificates
                .map(|own| tls(kind, own))
                .unwrap_or_default(),
        );
        let asked = self.builder.settings.iter();
        environment.extend(
            asked
                .filter(|(of, _, _)| *of == kind)
                .map(|(_, name, value)| (name.clone(), value.clone())),
        );
        Service::start(self.sandbox, &self.programs, kind, name, seat, environment)
    }
}

/// A shard map of shards with these nodes.
pub(super) fn map(builder: &Builder, seats: &[Vec<Seat>]) -> Result<ShardMap> {
    // As the map calls it.
    let node = |seat: &Seat| {
        let address = seat.address();
        if builder.are_nodes_named {
            address.replace("127.0.0.1", "localhost")
        } else {
            address
        }
    };
    let shards = seats
        .iter()
        .enumerate()
        .map(|(index, seats)| shard_map::Shard {
            id: shard_id(index),
            region: builder.region(index),
            nodes: seats.iter().map(node).collect(),
        });
    let mut shards: Vec<_> = shards.collect();
    let empty = shards.split_off(shards.len() - builder.empty_shards);
    let refused = |error: shard_map::Error| Error::Refused(error.to_string());
    let mut map = ShardMap::seed(shards).map_err(refused)?;
    for shard in empty {
        map = map.with_empty(shard).map_err(refused)?;
    }
    Ok(map)
}

/// What a kind of process is told of its certificates.
fn tls(kind: Kind, Certificates { mount, kafka, .. }: &Certificates) -> Vec<(String, String)> {
    let files = |prefix: &str| {
        let files = [
            ("CERT", mount.certificate()),
            ("KEY", mount.key()),
            ("CA", mount.authorities()),
        ];
        files.map(|(name, file)| (format!("{prefix}_{name}"), file.display().to_string()))
    };
    let mut settings = files("WAYPOST_TLS").to_vec();
    if matches!(kind, Kind::Gateway | Kind::ShardNode) {
        settings.extend(files("WAYPOST_REDIS_TLS"));
    }
    if matches!(kind, Kind::Gateway | Kind::AnalyticsConsumer) {
        let file = kafka.display().to_string();
        settings.push(("WAYPOST_KAFKA_SETTINGS".to_owned(), file));
    }
    settings
}

fn shard_id(index: usize) -> ShardId {
    ShardId::parse(&format!("s{index}")).expect("s and a number are an id")
}
