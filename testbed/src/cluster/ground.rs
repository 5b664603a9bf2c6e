//! The servers that our processes stand on.

use std::sync::Arc;
use std::thread;

use super::{Builder, Cluster, Link, Shard};
use crate::broker::Broker;
use crate::certificates::Mount;
use crate::error::Result;
use crate::postgres::Postgres;
use crate::proxy::Proxy;
use crate::redis_cluster::RedisCluster;
use crate::sandbox::Sandbox;

/// Databases by shard, the other databases, the cache and the log.
pub(super) struct Ground {
    pub(super) shards: Vec<Database>,
    pub(super) postgres: Postgres,
    pub(super) redis: RedisCluster,
    pub(super) broker: Broker,
    pub(super) broker_proxy: Option<Proxy>,
}

/// A shard's database and its standbys.
pub(super) struct Database {
    pub(super) postgres: Postgres,
    pub(super) replicas: Vec<Postgres>,
}

impl Ground {
    /// Starts all of it at the same time: each waits mostly for a disk or a timer.
    pub(super) fn start(
        builder: &Builder,
        sandbox: &Arc<Sandbox>,
        mount: Option<&Mount>,
    ) -> Result<Self> {
        let start_postgres = |name: &str| match mount {
            None => Postgres::start_in(sandbox, name),
            Some(mount) => Postgres::start_secured_in(sandbox, name, mount),
        };
        let start_postgres = &start_postgres;
        thread::scope(|scope| {
            let shards: Vec<_> = (0..builder.shards)
                .map(|index| {
                    scope.spawn(move || {
                        let name = format!("postgres-s{index}");
                        let postgres = start_postgres(&name)?;
                        postgres.create_database(Shard::DATABASE)?;
                        let replicas = postgres.start_standbys(builder.replicas)?;
                        Ok(Database { postgres, replicas })
                    })
                })
                .collect();
            let redis = scope.spawn(move || match mount {
                None => RedisCluster::start_in(sandbox),
                Some(mount) => RedisCluster::start_secured_in(sandbox, mount),
            });
            let broker = scope.spawn(move || start_broker(builder, sandbox, mount));
            let postgres = start_postgres("postgres-other").and_then(|postgres| {
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
    pub(super) fn kafka(&self) -> String {
        match &self.broker_proxy {
            Some(proxy) => proxy.address(),
            None => {
                let secured = self.broker.secured();
                secured.unwrap_or_else(|| self.broker.servers().to_owned())
            }
        }
    }
}

fn start_broker(
    builder: &Builder,
    sandbox: &Arc<Sandbox>,
    mount: Option<&Mount>,
) -> Result<(Broker, Option<Proxy>)> {
    if builder.is_proxied(Link::Broker) {
        let (broker, proxy) = Broker::start_proxied_in(sandbox)?;
        return Ok((broker, Some(proxy)));
    }
    let broker = match mount {
        None => Broker::start_in(sandbox),
        Some(mount) => Broker::start_secured_in(sandbox, mount),
    };
    Ok((broker?, None))
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
