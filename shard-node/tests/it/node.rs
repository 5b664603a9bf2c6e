//! A node of a shard within the test, reached over the network.

use std::ffi::OsString;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use waypost_domain::NewLink;
use waypost_proto::auth::ServiceToken;
use waypost_proto::link::link_service_client::LinkServiceClient;
use waypost_proto::link::{self as message, watch_event};
use waypost_proto::transport::{Transport, over};
use waypost_runtime::admin::Readiness;
use waypost_runtime::metrics::Registry;
use waypost_runtime::traces::Sampler;
use waypost_runtime::watched::Watcher;
use waypost_runtime::{Error, Process, Shutdown, config};
use waypost_shard_node::config::Options;

use crate::fixture::*;

const TOKEN: &str = "a token for tests only";

pub(crate) type Client = LinkServiceClient<Transport>;

pub(crate) struct Node {
    pub(crate) client: Client,
    pub(crate) process: Process,
    channel: Channel,
    task: JoinHandle<Result<(), Error>>,
    _files: TempDir,
}

impl Node {
    /// Starts a node; it is not necessarily ready.
    pub(crate) async fn start(postgres: &str, redis: &[String]) -> Self {
        Self::start_with(postgres, &[], redis).await
    }

    /// The same, with replicas of the database.
    pub(crate) async fn start_with(postgres: &str, replicas: &[String], redis: &[String]) -> Self {
        let files = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(files.path().join(name), text).unwrap();
        write("service-token", &TOKEN.replace(' ', "-"));
        write("link-mac", &format!("1:{}", "5a".repeat(32)));
        write("map.json", &map().to_json());
        let folder = files.path().display();
        let mut flags = vec![
            "--shard-id=s0".to_owned(),
            format!("--postgres-url={postgres}"),
            format!("--redis={}", redis.join(",")),
            format!("--shard-map={folder}/map.json"),
            format!("--secrets-dir={folder}"),
        ];
        if !replicas.is_empty() {
            flags.push(format!("--postgres-replica-urls={}", replicas.join(",")));
        }
        let options: Options = config::parse(flags.into_iter().map(OsString::from)).unwrap();
        let registry = Registry::new();
        let process = Process {
            shutdown: Shutdown::new(Duration::from_secs(10)),
            readiness: Readiness::default(),
            watcher: Watcher::register(&registry).unwrap(),
            registry,
            sampler: Sampler::OFF,
            threads: 1,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let serving = waypost_shard_node::serve_on(listener, options, process.clone());
        let task = tokio::spawn(serving);
        let channel = Endpoint::from_shared(address).unwrap().connect_lazy();
        let token = ServiceToken::parse(&TOKEN.replace(' ', "-")).unwrap();
        Self {
            client: LinkServiceClient::new(over(channel.clone(), &token)),
            process,
            channel,
            task,
            _files: files,
        }
    }

    pub(crate) async fn ready(postgres: &str, redis: &[String]) -> Self {
        let node = Self::start(postgres, redis).await;
        node.wait_ready().await;
        node
    }

    pub(crate) async fn wait_ready(&self) {
        eventually("the node is ready", async || {
            self.resolve(&["anything"]).await.is_ok() && self.process.readiness.missing().is_empty()
        })
        .await;
    }

    /// A client that does not know the token.
    pub(crate) fn stranger(&self) -> LinkServiceClient<Channel> {
        LinkServiceClient::new(self.channel.clone())
    }

    /// Asks the node to drain, and waits until it has.
    pub(crate) async fn stop(self) {
        self.process.shutdown.request();
        self.task.await.unwrap().unwrap();
    }

    /// Sum or value of a metric over all its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let families = self.process.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        family.map_or(0.0, |family| {
            let values = family.get_metric().iter();
            values
                .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
                .sum()
        })
    }

    /// Statements and items of an operation so far.
    pub(crate) fn batches(&self, operation: &str) -> (u64, f64) {
        let families = self.process.registry.gather();
        let batches = families
            .iter()
            .find(|family| family.name() == "waypost_shard_batch_items")
            .unwrap();
        let of_operation = batches
            .get_metric()
            .iter()
            .find(|metric| metric.get_label()[0].value() == operation);
        of_operation.map_or((0, 0.0), |metric| {
            let histogram = metric.get_histogram();
            (histogram.get_sample_count(), histogram.get_sample_sum())
        })
    }

    pub(crate) async fn create(
        &self,
        links: &[NewLink],
    ) -> Result<Vec<message::CreateOutcome>, tonic::Status> {
        let request = message::CreateBatchRequest {
            links: links.iter().map(Into::into).collect(),
        };
        let response = self.client.clone().create_batch(request).await?;
        Ok(response.into_inner().outcomes)
    }

    pub(crate) async fn resolve(
        &self,
        slugs: &[&str],
    ) -> Result<Vec<message::ResolveOutcome>, tonic::Status> {
        Ok(self.look_up(slugs).await?.outcomes)
    }

    pub(crate) async fn look_up(
        &self,
        slugs: &[&str],
    ) -> Result<message::ResolveBatchResponse, tonic::Status> {
        let request = message::ResolveBatchRequest {
            keys: slugs.iter().map(|slug| (&key(slug)).into()).collect(),
        };
        let response = self.client.clone().resolve_batch(request).await?;
        Ok(response.into_inner())
    }

    pub(crate) async fn edit(
        &self,
        slug: &str,
        to: &str,
    ) -> Result<message::WriteResponse, tonic::Status> {
        let request = message::UpdateRequest {
            key: Some((&key(slug)).into()),
            tenant: "acme".to_owned(),
            if_version: None,
            patch: Some(message::Patch {
                long_url: Some(to.as_bytes().to_vec()),
                ..message::Patch::default()
            }),
            by_operator: false,
            change_id: uuid::Uuid::new_v4().as_bytes().to_vec(),
        };
        Ok(self.client.clone().update(request).await?.into_inner())
    }

    /// The stream of changes, after the ownership that it begins with; `None` if
    /// the node is not the relay.
    pub(crate) async fn watch(&self) -> Option<Watch> {
        let opened = self.client.clone().watch(message::WatchRequest {}).await;
        let mut stream = match opened {
            Ok(response) => response.into_inner(),
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status}");
                return None;
            }
        };
        let first = stream.message().await.ok()??.event?;
        assert!(
            matches!(first, watch_event::Event::Ownership(_)),
            "{first:?}"
        );
        Some(Watch(stream))
    }
}

pub(crate) struct Watch(tonic::Streaming<message::WatchEvent>);

impl Watch {
    /// The next event; `None` when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<watch_event::Event> {
        let next = tokio::time::timeout(Duration::from_secs(30), self.0.message());
        next.await.expect("an event or an end").ok()??.event
    }

    pub(crate) async fn change(&mut self) -> message::Link {
        // Heartbeats come for ever, so the wait as a whole has an end, too.
        let wait = async {
            loop {
                if let watch_event::Event::Changed(link) = self.next().await.expect("a change") {
                    return link;
                }
            }
        };
        let change = tokio::time::timeout(Duration::from_secs(30), wait);
        change.await.expect("a change in time")
    }

    pub(crate) async fn heartbeat(&mut self) -> message::Heartbeat {
        loop {
            if let watch_event::Event::Heartbeat(beat) = self.next().await.expect("a heartbeat") {
                return beat;
            }
        }
    }
}
