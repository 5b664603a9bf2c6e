//! From a topic of a real broker into a real Postgres.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use prost::Message as _;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::Endpoint;
use uuid::Uuid;
use waypost_analytics_consumer::Options;
use waypost_proto::analytics::LinkStatsRequest;
use waypost_proto::analytics::analytics_service_client::AnalyticsServiceClient;
use waypost_proto::auth::ServiceToken;
use waypost_proto::click::Batch;
use waypost_proto::transport::{Transport, over};
use waypost_runtime::admin::Readiness;
use waypost_runtime::metrics::Registry;
use waypost_runtime::traces::Sampler;
use waypost_runtime::watched::Watcher;
use waypost_runtime::{Error, Process, Shutdown};
use waypost_testbed::{Broker, Postgres};

use crate::rollups::{batch, click, link};

const TOKEN: &str = "a-token-for-these-tests";

/// A group's join alone takes some seconds on some brokers.
const PATIENCE: Duration = Duration::from_secs(60);

struct Running {
    address: SocketAddr,
    process: Process,
    task: JoinHandle<Result<(), Error>>,
    _secrets: tempfile::TempDir,
}

impl Running {
    async fn start(postgres_url: &str, broker: &Broker) -> Self {
        let secrets = tempfile::tempdir().unwrap();
        std::fs::write(secrets.path().join("service-token"), TOKEN).unwrap();
        let options = Options::parse_from([
            "waypost-analytics-consumer",
            "--postgres-url",
            postgres_url,
            "--kafka",
            broker.servers(),
            "--kafka-topic",
            broker.topic(),
            "--kafka-session-timeout-ms",
            "6000",
            "--secrets-dir",
            secrets.path().to_str().unwrap(),
        ]);
        let registry = Registry::new();
        let process = Process {
            shutdown: Shutdown::new(Duration::from_secs(5)),
            readiness: Readiness::default(),
            watcher: Watcher::register(&registry).unwrap(),
            registry,
            sampler: Sampler::OFF,
            threads: 1,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            process: process.clone(),
            task: tokio::spawn(waypost_analytics_consumer::serve_on(
                listener, options, process,
            )),
            _secrets: secrets,
        }
    }

    fn client(&self) -> AnalyticsServiceClient<Transport> {
        let channel = Endpoint::from_shared(format!("http://{}", self.address))
            .unwrap()
            .connect_lazy();
        AnalyticsServiceClient::new(over(channel, &ServiceToken::parse(TOKEN).unwrap()))
    }

    async fn clicks(&self, link: Uuid) -> Option<u64> {
        let request = LinkStatsRequest {
            link_id: link.as_bytes().to_vec(),
            ..LinkStatsRequest::default()
        };
        let stats = self.client().link_stats(request).await;
        stats.ok().map(|stats| stats.into_inner().clicks)
    }

    async fn until_counted(&self, link: Uuid, clicks: u64) {
        let mut last = None;
        let wait = async {
            while last != Some(clicks) {
                tokio::time::sleep(Duration::from_millis(50)).await;
                last = self.clicks(link).await;
                assert!(last.is_none_or(|last| last <= clicks), "{last:?}");
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        assert!(waited.is_ok(), "{last:?} of {clicks} in time");
    }

    async fn stop(mut self) {
        self.process.shutdown.request();
        (&mut self.task).await.unwrap().unwrap();
    }
}

/// A test that fails must not wait for the consumer's thread for ever.
impl Drop for Running {
    fn drop(&mut self) {
        self.process.shutdown.request();
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

async fn start_all() -> (Arc<Broker>, String) {
    blocking(|| {
        let broker = Broker::start().unwrap();
        let postgres = Postgres::shared().unwrap();
        (Arc::new(broker), postgres.fresh_database().unwrap())
    })
    .await
}

async fn send(broker: &Arc<Broker>, batches: Vec<Batch>) {
    let messages: Vec<(u32, Vec<u8>)> = batches
        .into_iter()
        .map(|batch| (batch.partition, batch.encode_to_vec()))
        .collect();
    send_raw(broker, messages).await;
}

async fn send_raw(broker: &Arc<Broker>, messages: Vec<(u32, Vec<u8>)>) {
    let broker = Arc::clone(broker);
    blocking(move || {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", broker.servers())
            .set("enable.idempotence", "true")
            .create()
            .unwrap();
        for (partition, payload) in &messages {
            let record = BaseRecord::<(), [u8]>::to(broker.topic())
                .partition(partition.cast_signed())
                .payload(payload);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
    })
    .await;
}

/// Batches of all partitions, with one click each.
fn batches(boot: u64, sequences: std::ops::Range<u64>) -> Vec<Batch> {
    sequences
        .flat_map(|sequence| (0..12).map(move |partition| (partition, sequence)))
        .map(|(partition, sequence)| batch(boot, partition, sequence, vec![click(link(1), 5, "x")]))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn clicks_from_before_the_first_start_and_after_a_restart_count_once() {
    let (broker, url) = start_all().await;
    send(&broker, batches(1, 0..10)).await;
    let first = Running::start(&url, &broker).await;
    first.until_counted(link(1), 120).await;
    first.stop().await;
    // Redelivered ones among new ones, while nobody listens.
    send(&broker, batches(1, 5..15)).await;
    let second = Running::start(&url, &broker).await;
    second.until_counted(link(1), 180).await;
    assert_eq!(second.process.readiness.missing(), Vec::<&str>::new());
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_group_share_the_work_and_take_over_from_each_other() {
    let (broker, url) = start_all().await;
    let first = Running::start(&url, &broker).await;
    send(&broker, batches(1, 0..20)).await;
    first.until_counted(link(1), 240).await;
    let second = Running::start(&url, &broker).await;
    for round in 1..=10 {
        send(&broker, batches(1, round * 20..(round + 1) * 20)).await;
        first.until_counted(link(1), (round + 1) * 240).await;
    }
    first.stop().await;
    send(&broker, batches(2, 0..20)).await;
    second.until_counted(link(1), 12 * 240).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_no_batches_are_put_aside() {
    let (broker, url) = start_all().await;
    let mut messages: Vec<(u32, Vec<u8>)> = vec![(0, vec![0xff; 40]), (0, Vec::new())];
    // Right, but in the wrong partition.
    messages.push((0, batches(1, 0..1)[5].encode_to_vec()));
    send_raw(&broker, messages).await;
    send(&broker, batches(1, 0..3)).await;
    let consumer = Running::start(&url, &broker).await;
    consumer.until_counted(link(1), 36).await;
    let letters = move || {
        let postgres = Postgres::shared().unwrap();
        let database = url.rsplit('/').next().unwrap();
        postgres
            .query(database, "SELECT count(*) FROM dead_letter")
            .unwrap()
    };
    assert_eq!(blocking(letters).await, "3");
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_outage_costs_nothing() {
    let (broker, _) = start_all().await;
    let (server, url) = blocking(|| {
        let server = Postgres::start().unwrap();
        let url = server.fresh_database().unwrap();
        server.stop().unwrap();
        (server, url)
    })
    .await;
    let server = Arc::new(server);
    let consumer = Running::start(&url, &broker).await;
    send(&broker, batches(1, 0..10)).await;
    assert_eq!(consumer.process.readiness.missing(), ["database reached"]);
    for round in 1..=2 {
        let restarted = Arc::clone(&server);
        blocking(move || restarted.restart().unwrap()).await;
        consumer.until_counted(link(1), round * 120).await;
        send(&broker, batches(1, round * 10..(round + 1) * 10)).await;
        let killed = Arc::clone(&server);
        blocking(move || killed.kill().unwrap()).await;
    }
    let restarted = Arc::clone(&server);
    blocking(move || restarted.restart().unwrap()).await;
    consumer.until_counted(link(1), 360).await;
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_begins_anew_is_read_from_its_beginning() {
    let (broker, url) = start_all().await;
    if broker.pid().is_none() {
        // Somebody else's broker is not ours to kill.
        return;
    }
    let mut consumer = Running::start(&url, &broker).await;
    send(&broker, batches(1, 0..30)).await;
    consumer.until_counted(link(1), 360).await;
    let restarted = Arc::clone(&broker);
    if broker.is_stand_in() {
        consumer.stop().await;
        blocking(move || restarted.restart().unwrap()).await;
        consumer = Running::start(&url, &broker).await;
    } else {
        blocking(move || restarted.restart().unwrap()).await;
    }
    // Partly what was counted before, partly new.
    send(&broker, batches(1, 25..35)).await;
    consumer.until_counted(link(1), 420).await;
    consumer.stop().await;
}
