//! Past the gateways: what Redis holds, and changes that no gateway made.

use std::time::Duration;

use redis::Cmd;
use tokio::runtime::Runtime;
use tonic::transport::Endpoint;
use uuid::Uuid;
use waypost_domain::{DomainId, Link, LinkKey, LongUrl, Patch, Slug, State};
use waypost_proto::auth::ServiceToken;
use waypost_proto::cache::{self, Entry};
use waypost_proto::link::link_service_client::LinkServiceClient;
use waypost_proto::link::{UpdateRequest, write_response::Outcome};
use waypost_proto::transport::over;
use waypost_runtime::redis::{Access, Redis, Times};
use waypost_testbed::{Cluster, Service};

/// The generation of keys that the programs use unless they are told otherwise.
const GENERATION: u32 = 1;

pub(super) struct Inside {
    runtime: Runtime,
    redis: Redis,
    token: ServiceToken,
}

impl Inside {
    pub(super) fn of(cluster: &Cluster) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let times = Times {
            response: Duration::from_secs(2),
            overall: Duration::from_secs(5),
        };
        let connecting = async {
            Redis::connect(&cluster.redis.addresses(), &Access::default(), times).unwrap()
        };
        Self {
            redis: runtime.block_on(connecting),
            runtime,
            token: ServiceToken::parse(&cluster.secrets.service_token).unwrap(),
        }
    }

    /// The bytes that Redis holds for a slug; `None` also while it cannot be asked.
    pub(super) fn held(&self, slug: &str) -> Option<Vec<u8>> {
        let get = Cmd::get(name(slug));
        self.runtime.block_on(self.redis.run(&get)).ok()?
    }

    /// The link that Redis holds for a slug.
    pub(super) fn held_link(&self, slug: &str) -> Option<Link> {
        match cache::decode(&key(slug), &self.held(slug)?) {
            Ok(Entry::Link(link)) => Some(*link),
            _ => None,
        }
    }

    /// Milliseconds that the value of a slug has left; negative if there is none.
    pub(super) fn ttl(&self, slug: &str) -> i64 {
        self.command("PTTL", slug, &[])
    }

    pub(super) fn set(&self, slug: &str, value: &[u8]) {
        self.command::<()>("SET", slug, &[value]);
    }

    pub(super) fn remove(&self, slug: &str) {
        self.command::<u64>("DEL", slug, &[]);
    }

    fn command<T: redis::FromRedisValue>(&self, command: &str, slug: &str, values: &[&[u8]]) -> T {
        let mut all = Cmd::new();
        all.arg(command).arg(name(slug)).arg(values);
        self.runtime.block_on(self.redis.run(&all)).unwrap()
    }

    /// What a reader does that brings this value; whether it was taken.
    pub(super) fn put(&self, slug: &str, value: &[u8]) -> bool {
        self.script::<u8>(cache::PUT_UNLESS_NEWER, slug, &[value, b"60000"]) == 1
    }

    /// Puts a list where a value belongs.
    pub(super) fn put_list(&self, slug: &str) {
        let script = "redis.call('DEL', KEYS[1]) return redis.call('LPUSH', KEYS[1], 'x')";
        self.script::<u8>(script, slug, &[]);
    }

    fn script<T: redis::FromRedisValue>(&self, script: &str, slug: &str, values: &[&[u8]]) -> T {
        let mut eval = Cmd::new();
        eval.arg("EVAL")
            .arg(script)
            .arg(1)
            .arg(name(slug))
            .arg(values);
        self.runtime.block_on(self.redis.run(&eval)).unwrap()
    }

    /// Changes a link at a shard-node, so that no gateway knows of it by itself.
    pub(super) fn change(&self, node: &Service, slug: &str, patch: &Patch) -> Link {
        let request = UpdateRequest {
            key: Some((&key(slug)).into()),
            tenant: "default".to_owned(),
            if_version: None,
            patch: Some(patch.into()),
            by_operator: false,
            change_id: Uuid::new_v4().as_bytes().to_vec(),
        };
        let changing = async {
            let endpoint = Endpoint::from_shared(format!("http://{}", node.address())).unwrap();
            let channel = endpoint.connect().await.unwrap();
            let mut client = LinkServiceClient::new(over(channel, &self.token));
            client.update(request).await.unwrap().into_inner().outcome
        };
        match self.runtime.block_on(changing) {
            Some(Outcome::Written(link)) => link.try_into().unwrap(),
            other => panic!("not written: {other:?}"),
        }
    }
}

pub(super) fn key(slug: &str) -> LinkKey {
    LinkKey {
        domain: DomainId::MAIN,
        slug: Slug::parse(slug).unwrap(),
    }
}

/// The key of a slug in Redis.
pub(super) fn name(slug: &str) -> String {
    cache::key(GENERATION, &key(slug))
}

pub(super) fn edit(to: &str) -> Patch {
    Patch {
        long_url: Some(LongUrl::parse(to).unwrap()),
        ..Patch::default()
    }
}

pub(super) fn disable() -> Patch {
    Patch {
        state: Some(State::Disabled),
        ..Patch::default()
    }
}
