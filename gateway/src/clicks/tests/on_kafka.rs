//! The pipeline with a real broker.

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use waypost_domain::click::PARTITIONS;
use waypost_testbed::Broker;

use super::*;

fn log(servers: &str, topic: &str) -> KafkaLog {
    let settings = KafkaSettings {
        connections: Vec::new(),
        servers: servers.to_owned(),
        topic: topic.to_owned(),
        replication: 1,
    };
    KafkaLog::new(&settings).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_tells_a_batch_that_it_never_takes_from_others() {
    let broker = tokio::task::spawn_blocking(|| Broker::start().unwrap());
    let broker = broker.await.unwrap();
    let log = log(broker.servers(), broker.topic());
    let of = |bytes: usize| Payload {
        partition: 0,
        batch: vec![0; bytes].into(),
    };
    let refused = log.publish(of(1_100_000)).await;
    assert!(
        matches!(refused, Err(PublishError::Refused(_))),
        "{refused:?}"
    );
    log.publish(of(10)).await.unwrap();
}

/// Reads until the topic holds so many clicks in distinct batches.
fn read(servers: &str, topic: &str, clicks: usize) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", "reader")
        .create()
        .unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(topic, partition.cast_signed(), Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&all).unwrap();
    let started = std::time::Instant::now();
    let mut batches = HashMap::new();
    while batches.values().sum::<usize>() < clicks {
        assert!(started.elapsed() < PATIENCE, "{batches:?}");
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let message = message.unwrap();
        let batch = Batch::decode(message.payload().unwrap()).unwrap();
        assert_eq!(message.partition(), batch.partition.cast_signed());
        batches.insert(identity(&batch), batch.clicks.len());
    }
    assert_eq!(batches.values().sum::<usize>(), clicks);
}

#[tokio::test(flavor = "multi_thread")]
async fn clicks_of_an_outage_arrive_after_it() {
    let broker = tokio::task::spawn_blocking(|| Broker::start().unwrap());
    let broker = broker.await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    // A topic of its own, so that the pipeline has to create it.
    let topic = "clicks-of-an-outage";
    let clicks = start(&settings(folder.path()), log(broker.servers(), topic));
    record(&clicks, 1_000);
    assert_eq!(flush(&clicks).await, Flushed::All);

    broker.pause().unwrap();
    record(&clicks, 1_000);
    until_spooled(&clicks, 2_000).await;
    let left = clicks
        .flush(Instant::now() + Duration::from_millis(500))
        .await;
    assert!(matches!(left, Flushed::Remainder { .. }));
    broker.resume().unwrap();
    assert_eq!(flush(&clicks).await, Flushed::All);
    let read = tokio::task::spawn_blocking(move || read(broker.servers(), topic, 2_000));
    read.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pipeline_starts_without_a_broker() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap().to_string();
    let clicks = start(&settings(folder.path()), log(&address, "clicks"));
    record(&clicks, 100);
    until_spooled(&clicks, 100).await;
    drop(clicks);
    assert_eq!(segments(folder.path()).len(), 1);
}
