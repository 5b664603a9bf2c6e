//! The parts of a cluster, each asked until it answers: a part that restarts is waited
//! for, and one process of several is enough.

use std::path::Path;
use std::time::{Duration, Instant};

use tonic::transport::Endpoint;
use tonic::{Code, Response, Status};
use waypost_domain::shard_map::ShardMap;
use waypost_domain::{Prefix, ShardId};
use waypost_proto::auth::ServiceToken;
use waypost_proto::transport::{self, Transport};
use waypost_runtime::config::Invalid;
use waypost_runtime::grpc;
use waypost_runtime::tls::Tls;
use waypost_runtime::with_causes;

use super::Stop;

/// One request: more than the longest that a part gives itself.
const DEADLINE: Duration = Duration::from_secs(15);

/// How long one request is repeated while nobody answers it: the time of a restart.
const PATIENCE: Duration = Duration::from_secs(60);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

const PAUSE: Duration = Duration::from_millis(200);

/// Processes that are one as good as the other.
#[derive(Debug)]
pub(super) struct Peers {
    name: String,
    transports: Vec<Transport>,
}

/// How a cluster's processes are called.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) token: ServiceToken,
    pub(super) tls: Option<Tls>,
}

/// Where everything of a cluster is.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) shards: Vec<Shard>,
    pub(super) keygens: Peers,
    pub(super) consumers: Peers,
    map: ShardMap,
}

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) id: ShardId,
    pub(super) nodes: Peers,
}

impl Cluster {
    /// Reads the map; connections are made when they are used.
    pub(super) fn connect(
        map: &Path,
        keygens: &[String],
        consumers: &[String],
        caller: &Caller,
    ) -> Result<Self, Invalid> {
        let invalid = |problem: String| Invalid {
            option: "--shard-map",
            problem: format!("{}: {problem}", map.display()),
        };
        let text = std::fs::read_to_string(map).map_err(|error| invalid(error.to_string()))?;
        let map = ShardMap::parse(&text).map_err(|error| invalid(error.to_string()))?;
        let shard = |shard: &waypost_domain::shard_map::Shard| {
            let name = format!("shard {}", shard.id);
            Ok(Shard {
                id: shard.id.clone(),
                nodes: caller.peers(name, "--shard-map", &shard.nodes)?,
            })
        };
        Ok(Self {
            shards: map.shards().iter().map(shard).collect::<Result<_, _>>()?,
            keygens: caller.peers("keygen".to_owned(), "--keygen", keygens)?,
            consumers: caller.peers("analytics".to_owned(), "--analytics", consumers)?,
            map,
        })
    }

    /// The shard that has each prefix by the map, which the shards know better.
    pub(super) fn owners(&self) -> Vec<usize> {
        Prefix::all()
            .map(|prefix| self.map.owner_index(prefix))
            .collect()
    }
}

impl Caller {
    fn peers(
        &self,
        name: String,
        option: &'static str,
        addresses: &[String],
    ) -> Result<Peers, Invalid> {
        let connect = |address: &String| {
            // With TLS as well: it is put under the connection that this names.
            let endpoint = Endpoint::from_shared(format!("http://{address}"));
            let endpoint = endpoint.map_err(|_| Invalid {
                option,
                problem: format!("\"{address}\" is not host:port"),
            })?;
            let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT);
            let channel = grpc::channel(&endpoint, self.tls.as_ref());
            Ok(transport::over(channel, &self.token))
        };
        Ok(Peers {
            name,
            transports: addresses.iter().map(connect).collect::<Result<_, _>>()?,
        })
    }
}

impl Peers {
    /// Asks one after the other until one answers. Whatever is asked may be repeated.
    pub(super) async fn ask<R, T>(
        &self,
        request: &R,
        call: impl AsyncFn(Transport, R) -> Result<Response<T>, Status>,
    ) -> Result<T, Stop>
    where
        R: Clone,
    {
        let started = Instant::now();
        let mut problem = "it has no processes".to_owned();
        for transport in self.transports.iter().cycle() {
            let answer = call(transport.clone(), request.clone());
            let status = match tokio::time::timeout(DEADLINE, answer).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer in time"),
            };
            let may_change = transport::is_broken(&status)
                || matches!(
                    status.code(),
                    Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted
                );
            if !may_change {
                let peer = self.name.clone();
                return Err(Stop::Refused { peer, status });
            }
            // Of a broken connection the status says no more than that it is broken.
            problem = match std::error::Error::source(&status) {
                Some(source) => with_causes(source),
                None => status.message().to_owned(),
            };
            if started.elapsed() > PATIENCE {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(Stop::Unreachable {
            peer: self.name.clone(),
            problem,
        })
    }
}
