//! The consumer: takes messages of its partitions and has them counted.
//!
//! It lives on a thread of its own: Kafka's client calls back into whoever polls
//! it, and a call back may wait for the database.

mod positions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Message as _, config::RDKafkaLogLevel};
use tokio::runtime::Handle;
use waypost_proto::click::Batch;
use waypost_runtime::Shutdown;
use waypost_runtime::config::Invalid as Unusable;

use crate::batch::{Invalid, decode};
use crate::metrics::Metrics;
use crate::store::{
    Applied, DeadLetter, Error, Keep, LOOK, ON_ITS_WAY, Portion, RollupStore, Span, age, now_ms,
};
use crate::trace;
use positions::Positions;

/// How long an idle consumer waits for a message, and so how fast it ends.
const POLL: Duration = Duration::from_millis(100);

/// How long messages are taken before they are counted together. The longer, the fewer
/// rows and transactions a click costs, and the later it shows.
const GATHER: Duration = Duration::from_millis(250);

/// Messages that are counted together, and their bytes: so that memory is bounded, and
/// each transaction short.
const MAX_MESSAGES: usize = 10_000;
const MAX_BYTES: usize = 48 << 20;

/// For one transaction. A database that has vanished behind a cut cable never answers.
const APPLY: Duration = Duration::from_secs(10);

/// Between two tries of a transaction: doubles from the first to the last.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(2);

/// Between two warnings about the same trouble.
const WARN_EVERY: Duration = Duration::from_secs(30);

/// What the consumer needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) servers: String,
    /// How they are reached: settings of librdkafka.
    pub(crate) connections: Vec<(String, String)>,
    pub(crate) topic: String,
    pub(crate) group: String,
    pub(crate) session_timeout: Duration,
    pub(crate) keep: Keep,
}

/// Starts the thread. It ends soon after shutdown is asked for, and leaves the
/// group. Must be called on a tokio runtime, which must outlive the thread.
pub(crate) fn start<S: RollupStore>(
    settings: Settings,
    store: Arc<S>,
    metrics: Metrics,
    shutdown: Shutdown,
) -> Result<JoinHandle<()>, waypost_runtime::Error> {
    let runtime = Handle::current();
    let positions = Positions::new(
        Arc::clone(&store),
        settings.topic.clone(),
        runtime.clone(),
        shutdown.clone(),
    );
    let consumer: BaseConsumer<Positions<S>> = config(&settings)
        .create_with_context(positions)
        .map_err(|error| Unusable {
            option: "--kafka",
            problem: error.to_string(),
        })?;
    consumer
        .subscribe(&[&settings.topic])
        .map_err(|error| waypost_runtime::Error::failed("subscribe to the clicks", error))?;
    let counting = Counting {
        consumer,
        transactions: Transactions {
            store,
            metrics,
            shutdown,
        },
        topic: settings.topic,
        runtime,
        keep: settings.keep,
        warned: None,
        looked: None,
        pruned: None,
    };
    std::thread::Builder::new()
        .name("click-consumer".to_owned())
        .spawn(move || counting.run())
        .map_err(|error| waypost_runtime::Error::failed("start the consumer's thread", error))
}

fn config(settings: &Settings) -> ClientConfig {
    let session = settings.session_timeout.as_millis();
    let mut config = ClientConfig::new();
    config.extend(settings.connections.iter().cloned());
    config
        .set("bootstrap.servers", &settings.servers)
        .set("client.id", "waypost-analytics-consumer")
        .set("group.id", &settings.group)
        .set("session.timeout.ms", session.to_string())
        .set("heartbeat.interval.ms", (session / 3).max(1).to_string())
        // The older protocol is the one that brokers agree on. With one topic and few
        // members, that all of them stop for a moment costs nothing.
        .set("partition.assignment.strategy", "range")
        .set("group.protocol", "classic")
        // Offsets are in the database, in the transaction that counts.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // Where a stored offset is out of the log's range, the log was cut or begins
        // anew: what it still has is read, and identities tell what is counted.
        .set("auto.offset.reset", "earliest")
        // A topic that is created later is found soon.
        .set("topic.metadata.refresh.interval.ms", "5000")
        .set("allow.auto.create.topics", "false")
        .set("reconnect.backoff.max.ms", "2000")
        // Answered as soon as there is something.
        .set("fetch.min.bytes", "1")
        // Some brokers wait for each partition of a request in turn: what comes for one
        // of a dozen would be told after six seconds of the default.
        .set("fetch.wait.max.ms", "50")
        // What comes while a portion is counted.
        .set("queued.max.messages.kbytes", "65536")
        .set_log_level(RDKafkaLogLevel::Critical);
    config
}

struct Counting<S: RollupStore> {
    consumer: BaseConsumer<Positions<S>>,
    transactions: Transactions<S>,
    topic: String,
    runtime: Handle,
    keep: Keep,
    warned: Option<Instant>,
    looked: Option<Instant>,
    pruned: Option<Instant>,
}

/// What came of one partition, of one assignment.
struct Gathered {
    /// Of the assignment (see [`Positions`]).
    generation: u64,
    expected: Option<i64>,
    next: Option<i64>,
    batches: Vec<Batch>,
    dead: Vec<DeadLetter>,
}

impl<S: RollupStore> Counting<S> {
    fn run(mut self) {
        while !self.transactions.shutdown.is_requested() {
            let positions = self.consumer.context();
            positions.check_ends(&self.consumer);
            positions.seek_pending(&self.consumer);
            let gathered = self.gather();
            if !gathered.is_empty() {
                self.count(gathered);
            }
            if self.looked.is_none_or(|at| at.elapsed() > LOOK) {
                self.look();
                self.looked = Some(Instant::now());
            }
            if self.pruned.is_none_or(|at| at.elapsed() > Keep::EVERY) {
                self.prune();
                self.pruned = Some(Instant::now());
            }
        }
    }

    /// Sees how far counting is, when all that was gathered is counted.
    fn look(&self) {
        let at_ms = now_ms() - ON_ITS_WAY.as_millis() as i64;
        let Some(behind) = self.consumer.context().behind(&self.consumer) else {
            return;
        };
        self.transactions.metrics.behind(behind.values().sum());
        let caught_up: Vec<i32> = behind
            .into_iter()
            .filter_map(|(partition, records)| (records == 0).then_some(partition))
            .collect();
        let told = async {
            if !caught_up.is_empty() {
                self.transactions.store.caught_up(&caught_up, at_ms).await?;
            }
            self.transactions.store.counted_up_to().await
        };
        let told = async { tokio::time::timeout(APPLY, told).await };
        match self.runtime.block_on(told) {
            Ok(Ok(Some(time))) => self.transactions.metrics.counted_up_to(age(time)),
            // A database that does not answer is told of where it is counted.
            other => tracing::debug!(?other, "no word on how far counting is"),
        }
    }

    fn prune(&self) {
        let pruned =
            async { tokio::time::timeout(APPLY, self.transactions.store.prune(self.keep)).await };
        match self.runtime.block_on(pruned) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "what is too old could not be removed"),
            Err(_) => tracing::warn!("what is too old could not be removed in time"),
        }
    }

    /// Waits for a message, and takes what comes within a moment.
    fn gather(&mut self) -> BTreeMap<i32, Gathered> {
        let mut gathered = BTreeMap::new();
        let (mut messages, mut bytes) = (0, 0);
        let mut ends: Option<Instant> = None;
        while messages < MAX_MESSAGES && bytes < MAX_BYTES {
            let wait = match ends {
                Some(at) => at.saturating_duration_since(Instant::now()),
                None => POLL,
            };
            if wait.is_zero() {
                break;
            }
            let Some(message) = self.consumer.poll(wait) else {
                break;
            };
            match message {
                Ok(message) => {
                    let payload = message.payload().unwrap_or_default();
                    (messages, bytes) = (messages + 1, bytes + payload.len());
                    ends.get_or_insert_with(|| Instant::now() + GATHER);
                    let context = self.consumer.context();
                    take(
                        context,
                        &self.transactions.metrics,
                        &mut gathered,
                        message.partition(),
                        message.offset(),
                        payload,
                    );
                }
                Err(error) => {
                    self.consumer.context().lost_sight();
                    warn_at_times(&mut self.warned, &error);
                    break;
                }
            }
        }
        gathered
    }

    /// Has each partition counted in a transaction of its own, all at once.
    fn count(&self, gathered: BTreeMap<i32, Gathered>) {
        let context = self.consumer.context();
        let stretches = gathered.into_iter().filter_map(|(partition, gathered)| {
            // Of an assignment that ended while this was gathered: whoever has the
            // partition now reads it again.
            let current = context.generation(partition) == Some(gathered.generation);
            let next = gathered.next.filter(|_| current)?;
            let portion = Portion {
                span: Some(Span {
                    topic: self.topic.clone(),
                    partition,
                    expected: gathered.expected,
                    next,
                }),
                batches: gathered.batches,
                dead: gathered.dead,
            };
            let transactions = self.transactions.clone();
            // On the runtime's threads, since adding up takes as long as storing.
            Some(self.runtime.spawn(async move {
                let counting = trace::Counting::begin(&portion);
                let outcome = transactions.apply(&portion).await;
                match &outcome {
                    Some(Ok(applied)) => counting.counted(applied),
                    Some(Err(Fenced)) => counting.failed("fenced"),
                    None => counting.failed("ending"),
                }
                (partition, next, outcome)
            }))
        });
        let tasks: Vec<_> = stretches.collect();
        for ended in self.runtime.block_on(join_all(tasks)) {
            let (partition, next, outcome) = match ended {
                Ok(ended) => ended,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => return,
                },
            };
            match outcome {
                Some(Ok(applied)) => {
                    self.transactions.metrics.applied(&applied);
                    context.counted(partition, next);
                }
                Some(Err(Fenced)) => {
                    self.transactions.metrics.fenced.inc();
                    tracing::info!(partition, "partition was counted elsewhere, reading again");
                    context.read_again(partition);
                }
                None => return,
            }
        }
    }
}

/// What it takes to count a portion.
struct Transactions<S> {
    store: Arc<S>,
    metrics: Metrics,
    shutdown: Shutdown,
}

impl<S> Clone for Transactions<S> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            metrics: self.metrics.clone(),
            shutdown: self.shutdown.clone(),
        }
    }
}

impl<S: RollupStore> Transactions<S> {
    /// Tries until it is counted or somebody else has done it; None if the process
    /// ends before.
    async fn apply(&self, portion: &Portion) -> Option<Result<Applied, Fenced>> {
        let mut wait = FIRST_RETRY;
        loop {
            let begun = Instant::now();
            let applied = tokio::time::timeout(APPLY, self.store.apply(portion)).await;
            self.metrics.tried(portion.batches.len(), begun.elapsed());
            let problem = match applied {
                Ok(Ok(applied)) => return Some(Ok(applied)),
                Ok(Err(Error::Fenced)) => return Some(Err(Fenced)),
                Ok(Err(Error::Database(error))) => error.to_string(),
                // It may have been committed: the offset's fence will tell.
                Err(_) => format!("the database did not answer within {APPLY:?}"),
            };
            self.metrics.retries.inc();
            if wait >= LAST_RETRY {
                tracing::warn!(error = problem, "clicks could not be counted, trying again");
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.shutdown.requested() => return None,
            }
            wait = (wait * 2).min(LAST_RETRY);
        }
    }
}

struct Fenced;

/// Puts a message to the others of its partition.
fn take<S: RollupStore>(
    positions: &Positions<S>,
    metrics: &Metrics,
    gathered: &mut BTreeMap<i32, Gathered>,
    partition: i32,
    offset: i64,
    payload: &[u8],
) {
    let Some((generation, expected)) = positions.expected(partition) else {
        return;
    };
    let fresh = Gathered {
        generation,
        expected,
        next: None,
        batches: Vec::new(),
        dead: Vec::new(),
    };
    let stretch = gathered.entry(partition).or_insert(fresh);
    if stretch.generation != generation {
        return;
    }
    if let Some(at) = stretch.next.or(expected).filter(|at| *at != offset) {
        metrics.log_gaps.inc();
        tracing::warn!(
            partition,
            expected = at,
            offset,
            "the log does not go on where it was"
        );
    }
    stretch.next = Some(offset + 1);
    let batch = decode(payload).and_then(|batch| {
        // Which batches of a producer are counted is decided under its partition's
        // offset.
        let here = batch.partition.cast_signed() == partition;
        here.then_some(batch).ok_or(Invalid::Identity)
    });
    match batch {
        Ok(batch) => stretch.batches.push(batch),
        Err(invalid) => {
            tracing::warn!(partition, offset, error = %invalid, "message put aside");
            stretch.dead.push(DeadLetter {
                offset,
                reason: invalid.to_string(),
                payload: payload.to_vec(),
            });
        }
    }
}

/// The client goes on by itself after an error; that it is told again and again
/// helps nobody.
fn warn_at_times(warned: &mut Option<Instant>, error: &KafkaError) {
    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownTopicOrPartition) {
        tracing::debug!("the topic of clicks is not there yet");
    } else if warned.is_none_or(|at| at.elapsed() > WARN_EVERY) {
        *warned = Some(Instant::now());
        tracing::warn!(%error, "kafka does not deliver");
    }
}
