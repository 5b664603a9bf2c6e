//! The servers that our processes stand on.

use std::sync::Arc;
use std::thread;

use super::{Builder, Cluster, Link, Shard};
use crate::broker::Broker;
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
    pub(super) fn start(builder: &Builder, sandbox: &Arc<Sandbox>) -> Result<Self> {
        thread::scope(|scope| {
            let shards: Vec<_> = (0..builder.shards)
                .map(|index| {
                    scope.spawn(move || {
                        let name = format!("postgres-s{index}");
                        let postgres = Postgres::start_in(sandbox, &name)?;
                        postgres.create_database(Shard::DATABASE)?;
                        let replicas = postgres.start_standbys(builder.replicas)?;
                        Ok(Database { postgres, replicas })
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
    pub(super) fn kafka(&self) -> String {
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
