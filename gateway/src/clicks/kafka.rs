//! The click log of a cluster: a topic of Kafka, one message per batch.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer,
};
use rdkafka::{ClientContext, config::RDKafkaLogLevel};
use tokio::sync::{oneshot, watch};
use tokio_util::task::AbortOnDropHandle;
use waypost_domain::click::PARTITIONS;

use super::{ClickLog, Payload, PublishError};

/// For one request to create or look at the topic.
const ADMIN_DEADLINE: Duration = Duration::from_secs(5);

/// Between two tries to find or create the topic.
const TOPIC_RETRY: Duration = Duration::from_secs(1);

/// How the log is reached.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    /// Bootstrap servers: host:port, separated by commas.
    pub servers: String,
    pub topic: String,
    /// Copies of each partition, if the topic is created here; -1: as many as the
    /// brokers make by default.
    pub replication: i32,
    /// How brokers are reached: settings of librdkafka.
    pub connections: Vec<(String, String)>,
}

/// The click log in Kafka. It starts, and accepts batches, without a broker.
pub struct KafkaLog {
    topic: Arc<str>,
    config: ClientConfig,
    /// Replaced after a fatal error. The lock is held for the moment of a clone.
    producer: Mutex<Arc<Producer>>,
    /// True once the topic is there: a message sent earlier could make the broker
    /// create it with a number of partitions of its own.
    topic_ready: watch::Receiver<bool>,
    _prepare: AbortOnDropHandle<()>,
}

type Producer = ThreadedProducer<Deliveries>;

impl KafkaLog {
    /// Must be called on a tokio runtime.
    ///
    /// # Errors
    /// If a setting is none that Kafka's client takes.
    pub fn new(settings: &KafkaSettings) -> Result<Self, KafkaError> {
        let mut config = ClientConfig::new();
        config.extend(settings.connections.iter().cloned());
        config
            .set("bootstrap.servers", &settings.servers)
            .set("client.id", "waypost-gateway")
            // Its own lines go to tracing as debug: what matters is in our metrics.
            .set_log_level(RDKafkaLogLevel::Critical)
            .set("reconnect.backoff.max.ms", "2000");
        let admin: AdminClient<DefaultClientContext> = config.create()?;
        config
            // Implies acks=all, and order within a partition.
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            // Batches were gathered for 40 ms already. With 0 its thread would not sleep
            // while more requests wait than an idempotent producer has in flight.
            .set("linger.ms", "5")
            // The spool outlives every outage, so a message need not give up.
            .set("message.timeout.ms", "0")
            // Twice what the sender has in flight; one batch is below 1 MiB.
            .set("queue.buffering.max.kbytes", "32768")
            .set("message.max.bytes", "1000000");
        let producer = producer(&config)?;
        let topic: Arc<str> = settings.topic.as_str().into();
        let (ready, topic_ready) = watch::channel(false);
        let prepare = prepare(admin, Arc::clone(&topic), settings.replication, ready);
        Ok(Self {
            topic,
            config,
            producer: Mutex::new(producer),
            topic_ready,
            _prepare: AbortOnDropHandle::new(tokio::spawn(prepare)),
        })
    }

    fn producer(&self) -> Arc<Producer> {
        let producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&producer)
    }

    /// A producer that lost its idempotence takes no more messages. The batches
    /// that it had come again with errors, and the sender sends them again.
    fn replace_if_dead(&self, dead: &Arc<Producer>) {
        let Some((code, reason)) = dead.client().fatal_error() else {
            return;
        };
        let mut current = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&current, dead) {
            return;
        }
        tracing::warn!(
            ?code,
            error = reason,
            "kafka producer is dead, starting another"
        );
        match producer(&self.config) {
            Ok(fresh) => {
                let dead = std::mem::replace(&mut *current, fresh);
                drop(current);
                // Its end waits for its thread, which may be in a callback.
                tokio::task::spawn_blocking(move || drop(dead));
            }
            Err(error) => tracing::error!(%error, "kafka producer could not be started"),
        }
    }
}

impl ClickLog for KafkaLog {
    fn system(&self) -> Option<&'static str> {
        Some("kafka")
    }

    async fn publish(&self, payload: Payload) -> Result<(), PublishError> {
        let mut ready = self.topic_ready.clone();
        ready.wait_for(|ready| *ready).await.map_err(failed)?;
        let producer = self.producer();
        let (delivered, delivery) = oneshot::channel();
        let partition = i32::try_from(payload.partition).map_err(failed)?;
        let record =
            BaseRecord::<(), [u8], _>::with_opaque_to(&self.topic, Box::new(Some(delivered)))
                .partition(partition)
                .payload(&payload.batch);
        let sent = match producer.send(record) {
            Ok(()) => delivery.await.unwrap_or(Err(KafkaError::Canceled)),
            Err((error, _)) => Err(error),
        };
        sent.map_err(|error| {
            self.replace_if_dead(&producer);
            match error.rdkafka_error_code() {
                // Never sent again as it is, but for a topic that has other bounds by
                // then. A message too large for it fails those that travel along, too:
                // alone it shows which one it was.
                Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidRecord) => {
                    PublishError::Refused(error.into())
                }
                _ => failed(error),
            }
        })
    }
}

fn producer(config: &ClientConfig) -> Result<Arc<Producer>, KafkaError> {
    ThreadedProducer::from_config_and_context(config, Deliveries).map(Arc::new)
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> PublishError {
    PublishError::Failed(error.into())
}

/// Makes sure of the topic, for as long as it takes.
async fn prepare(
    admin: AdminClient<DefaultClientContext>,
    topic: Arc<str>,
    replication: i32,
    ready: watch::Sender<bool>,
) {
    let admin = Arc::new(admin);
    let mut warned = false;
    loop {
        match ensure(&admin, &topic, replication).await {
            Ok(partitions) if partitions >= PARTITIONS as usize => {
                // Nobody listens any more: the log is gone.
                let _ = ready.send(true);
                return;
            }
            Ok(partitions) if !warned => {
                warned = true;
                tracing::error!(
                    topic = &*topic,
                    partitions,
                    expected = PARTITIONS,
                    "the topic of clicks has too few partitions, clicks stay in the spool"
                );
            }
            Err(error) if !warned => {
                warned = true;
                tracing::warn!(%error, topic = &*topic, "the topic of clicks is not reached yet");
            }
            _ => {}
        }
        tokio::time::sleep(TOPIC_RETRY).await;
    }
}

/// Creates the topic unless it is there, and answers its number of partitions.
async fn ensure(
    admin: &Arc<AdminClient<DefaultClientContext>>,
    topic: &Arc<str>,
    replication: i32,
) -> Result<usize, KafkaError> {
    let new = NewTopic::new(
        topic,
        PARTITIONS.cast_signed(),
        TopicReplication::Fixed(replication),
    );
    let options = AdminOptions::new()
        .request_timeout(Some(ADMIN_DEADLINE))
        .operation_timeout(Some(ADMIN_DEADLINE));
    let created = admin.create_topics([&new], &options).await?;
    for result in created {
        match result {
            // Refused because of its rights, say: it may be there nevertheless.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, error)) => tracing::debug!(%error, "the topic of clicks was not created"),
        }
    }
    let (admin, topic) = (Arc::clone(admin), Arc::clone(topic));
    let metadata = tokio::task::spawn_blocking(move || {
        let metadata = admin.inner().fetch_metadata(Some(&topic), ADMIN_DEADLINE)?;
        let topics = metadata.topics();
        Ok(topics.first().map_or(0, |topic| topic.partitions().len()))
    });
    metadata.await.unwrap_or(Err(KafkaError::Canceled))
}

/// Hands the fate of each message to who waits for it.
struct Deliveries;

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        // A broker that is down says so for each connection and each second; the
        // age of the oldest unsent click is what tells an operator.
        tracing::debug!(%error, reason, "kafka");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Option<oneshot::Sender<Result<(), KafkaError>>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, mut waiting: Self::DeliveryOpaque) {
        let result = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.clone()),
        };
        if let Some(waiting) = waiting.take() {
            // Nobody waits any more: the process ends.
            let _ = waiting.send(result);
        }
    }
}

impl std::fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaLog")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}
