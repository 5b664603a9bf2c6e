//! What may happen to a log and to those who count it: each batch is counted once.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner};
use tokio::runtime::Handle;
use uuid::Uuid;
use waypost_analytics_consumer::store::{Applied, Error, RollupStore};
use waypost_proto::analytics::{Dimension, Interval, LinkStatsRequest};
use waypost_proto::click::{Batch, Click};

use crate::rollups::{Database, asked, batch, click, portion, span, suite, suites};

suites!(histories_count_each_batch_once);

/// Each takes some dozen transactions, of which SQLite writes each to the disk.
const CASES: u32 = 24;

const CONSUMERS: usize = 2;
const PARTITIONS: usize = 2;
const DAY_MS: i64 = 86_400_000;

/// A batch, as a gateway's start sends it, again and again and in any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Sent {
    partition: usize,
    boot: u64,
    sequence: u64,
}

#[derive(Debug, Clone)]
enum Event {
    /// It comes to lie at the end of the log.
    Sent(Sent),
    /// A consumer goes on where it believes to be, whether or not that is so. It dies
    /// when it has waited for the database so many times.
    Counts {
        consumer: usize,
        partition: usize,
        messages: usize,
        dies_after: Option<u8>,
    },
    /// A partition is assigned to a consumer; the other does not hear of it.
    Assigned { consumer: usize, partition: usize },
    /// A consumer reads the log from its beginning.
    Replays {
        consumer: usize,
        partition: usize,
        messages: usize,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let consumer = || 0..CONSUMERS;
    let partition = || 0..PARTITIONS;
    prop_oneof![
        6 => (partition(), 0..3_u64, 0..8_u64)
            .prop_map(|(partition, boot, sequence)| Event::Sent(Sent { partition, boot, sequence })),
        6 => (consumer(), partition(), 1..6_usize, prop::option::of(0..14_u8)).prop_map(
            |(consumer, partition, messages, dies_after)| Event::Counts {
                consumer,
                partition,
                messages,
                dies_after,
            }
        ),
        2 => (consumer(), partition())
            .prop_map(|(consumer, partition)| Event::Assigned { consumer, partition }),
        1 => (consumer(), partition(), 1..12_usize).prop_map(
            |(consumer, partition, messages)| Event::Replays { consumer, partition, messages }
        ),
    ]
}

async fn histories_count_each_batch_once(database: &impl Database) {
    let store = database.open().await;
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    let seed = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, seed);
    let histories = AtomicU64::new(1);
    let outcome = runner.run(&proptest::collection::vec(event(), 1..70), |events| {
        // All of them share a database, and nothing in it.
        let number = histories.fetch_add(1, Ordering::Relaxed);
        let history = History::new(&store, number);
        tokio::task::block_in_place(|| Handle::current().block_on(history.play(&events)))
    });
    outcome.unwrap();
}

struct History<'a, S> {
    store: &'a S,
    number: u64,
    log: [Vec<Sent>; PARTITIONS],
    /// Where each consumer believes each partition to be; none: it never looked.
    believed: [[Option<Option<i64>>; PARTITIONS]; CONSUMERS],
}

impl<'a, S: RollupStore + Clone> History<'a, S> {
    fn new(store: &'a S, number: u64) -> Self {
        Self {
            store,
            number,
            log: Default::default(),
            believed: Default::default(),
        }
    }

    async fn play(mut self, events: &[Event]) -> TestCaseResult {
        for event in events {
            match *event {
                Event::Sent(sent) => self.log[sent.partition].push(sent),
                Event::Counts {
                    consumer,
                    partition,
                    messages,
                    dies_after,
                } => {
                    let believed = self.believe(consumer, partition).await;
                    let from = believed.unwrap_or(0) as usize;
                    self.count(consumer, partition, from, messages, dies_after)
                        .await;
                }
                Event::Assigned {
                    consumer,
                    partition,
                } => {
                    self.believed[consumer][partition] = None;
                    self.believe(consumer, partition).await;
                }
                Event::Replays {
                    consumer,
                    partition,
                    messages,
                } => {
                    self.believe(consumer, partition).await;
                    self.count(consumer, partition, 0, messages, None).await;
                }
            }
        }
        // In the end somebody counts what there is. Who died while it committed may be
        // committing still, so that what is read here is old: then it is fenced.
        for partition in 0..PARTITIONS {
            self.believed[0][partition] = None;
            loop {
                let from = self.believe(0, partition).await.unwrap_or(0) as usize;
                if from == self.log[partition].len() {
                    break;
                }
                self.count(0, partition, from, usize::MAX, None).await;
            }
        }
        self.check().await
    }

    async fn believe(&mut self, consumer: usize, partition: usize) -> Option<i64> {
        if let Some(believed) = self.believed[consumer][partition] {
            return believed;
        }
        let stored = self
            .store
            .next_offset(&self.topic(), partition as i32)
            .await;
        let stored = stored.unwrap();
        self.believed[consumer][partition] = Some(stored);
        stored
    }

    async fn count(
        &mut self,
        consumer: usize,
        partition: usize,
        from: usize,
        messages: usize,
        dies_after: Option<u8>,
    ) {
        let end = from.saturating_add(messages).min(self.log[partition].len());
        if from >= end {
            return;
        }
        let batches: Vec<Batch> = self.log[partition][from..end]
            .iter()
            .map(|sent| self.batch(*sent))
            .collect();
        let expected = self.believed[consumer][partition].flatten();
        let mut portion = portion(Some(span(partition as i32, expected, end as i64)), &batches);
        portion.span.as_mut().unwrap().topic = self.topic();
        let outcome = until(self.store.apply(&portion), dies_after).await;
        self.believed[consumer][partition] = match outcome {
            Some(Ok(Applied { .. })) => Some(Some(end as i64)),
            // Where it is must be read again, and by who starts in its place, too.
            Some(Err(Error::Fenced)) | None => None,
            Some(Err(error)) => panic!("{error:?}"),
        };
    }

    async fn check(&self) -> TestCaseResult {
        let mut expected: BTreeMap<(Uuid, i64), (u64, u64)> = BTreeMap::new();
        let sent: BTreeSet<Sent> = self.log.iter().flatten().copied().collect();
        for sent in sent {
            for click in self.batch(sent).clicks {
                let link = Uuid::from_slice(&click.link_id).unwrap();
                let hour = click.time_ms / 3_600_000 * 3_600_000;
                let counts = expected.entry((link, hour)).or_default();
                counts.0 += 1;
                counts.1 += u64::from(click.prefetch);
            }
        }
        for link in (0..3).map(|n| self.link(n)) {
            let of_link = expected.iter().filter(|((of, _), _)| *of == link);
            let hours: Vec<(i64, u64, u64)> = of_link
                .map(|((_, hour), (clicks, bots))| (*hour, *clicks, *bots))
                .collect();
            let request = LinkStatsRequest {
                link_id: link.as_bytes().to_vec(),
                interval: Interval::Hour.into(),
                by: vec![Dimension::Os.into(), Dimension::Country.into()],
                ..LinkStatsRequest::default()
            };
            let answer = asked(self.store, request).await;
            let series: Vec<(i64, u64, u64)> = answer
                .series
                .iter()
                .map(|p| (p.start_ms, p.clicks, p.bots))
                .collect();
            prop_assert_eq!(&series, &hours);
            let clicks: u64 = hours.iter().map(|(_, clicks, _)| clicks).sum();
            let bots: u64 = hours.iter().map(|(.., bots)| bots).sum();
            prop_assert_eq!((answer.clicks, answer.bots), (clicks, bots));
            for breakdown in answer.breakdowns {
                let told: u64 = breakdown.values.iter().map(|value| value.clicks).sum();
                prop_assert_eq!((told, breakdown.other), (clicks - bots, 0));
            }
        }
        let days = self
            .store
            .tenant_days(&self.tenant(), 0..9, 0..999, false)
            .await;
        let all: i64 = days.unwrap().days.iter().map(|day| day.clicks).sum();
        let expected: u64 = expected.values().map(|(clicks, _)| clicks).sum();
        prop_assert_eq!(all as u64, expected);
        Ok(())
    }

    /// Always the same of the same, and of each other number.
    fn batch(&self, sent: Sent) -> Batch {
        let clicks = (0..=sent.sequence % 3).map(|n| Click {
            tenant: self.tenant(),
            prefetch: (sent.sequence + n).is_multiple_of(4),
            country: ["CH", "DE"][(sent.boot % 2) as usize].to_owned(),
            ..click(
                self.link(n),
                (sent.sequence % 2) as i64 * DAY_MS + (sent.boot as i64) * 3_600_000,
                "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
            )
        });
        let boot = self.number * 10 + sent.boot;
        batch(boot, sent.partition as u32, sent.sequence, clicks.collect())
    }

    fn link(&self, n: u64) -> Uuid {
        Uuid::from_u128(u128::from(self.number * 10 + n + 1_000))
    }

    fn tenant(&self) -> String {
        format!("tenant-{}", self.number)
    }

    fn topic(&self) -> String {
        format!("history-{}", self.number)
    }
}

/// Polls a future until it has waited so many times, and then drops it where it is, as
/// the end of a process would.
async fn until<T>(future: impl Future<Output = T>, waits: Option<u8>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = waits;
    std::future::poll_fn(move |context| match future.as_mut().poll(context) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending => match &mut left {
            Some(0) => Poll::Ready(None),
            Some(left) => {
                *left -= 1;
                Poll::Pending
            }
            None => Poll::Pending,
        },
    })
    .await
}
