//! Where counting of each assigned partition goes on: the database's word, read
//! when the partition is assigned and when another consumer was faster.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tokio::runtime::Handle;
use waypost_runtime::Shutdown;

use crate::store::RollupStore;

/// Between two tries to read an offset.
const RETRY: Duration = Duration::from_millis(500);

/// A broker that is there answers faster; and meanwhile no message is taken.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// The positions, and what Kafka's client calls when they change.
pub(super) struct Positions<S> {
    store: Arc<S>,
    topic: String,
    runtime: Handle,
    shutdown: Shutdown,
    assigned: Mutex<Assigned>,
}

#[derive(Debug)]
struct Assigned {
    partitions: HashMap<i32, Position>,
    /// The broker was out of sight since the last assignment.
    away: bool,
    /// It may have come back without its log (see [`Positions::check_ends`]).
    doubtful: bool,
    /// Of the next assignment or seek: messages from before it are of no use.
    next_generation: u64,
}

#[derive(Debug)]
struct Position {
    generation: u64,
    /// The stored offset; none: there is none.
    expected: Option<i64>,
    /// Where the client is to be moved; until then its messages are of no use.
    seek: Option<Offset>,
}

impl<S: RollupStore> Positions<S> {
    pub(super) fn new(store: Arc<S>, topic: String, runtime: Handle, shutdown: Shutdown) -> Self {
        Self {
            store,
            topic,
            runtime,
            shutdown,
            assigned: Mutex::new(Assigned {
                partitions: HashMap::new(),
                // Nobody watched before this process did.
                away: true,
                doubtful: false,
                next_generation: 0,
            }),
        }
    }

    /// The generation and the stored offset of a partition whose messages are to be
    /// counted.
    pub(super) fn expected(&self, partition: i32) -> Option<(u64, Option<i64>)> {
        let assigned = self.assigned();
        let position = assigned.partitions.get(&partition)?;
        position
            .seek
            .is_none()
            .then_some((position.generation, position.expected))
    }

    pub(super) fn generation(&self, partition: i32) -> Option<u64> {
        let assigned = self.assigned();
        let position = assigned.partitions.get(&partition)?;
        Some(position.generation)
    }

    pub(super) fn counted(&self, partition: i32, next: i64) {
        if let Some(position) = self.assigned().partitions.get_mut(&partition) {
            position.expected = Some(next);
        }
    }

    /// The broker cannot be reached, or says that something is wrong.
    pub(super) fn lost_sight(&self) {
        let mut assigned = self.assigned();
        (assigned.away, assigned.doubtful) = (true, true);
    }

    /// The stored offset is not what it was thought to be.
    pub(super) fn read_again(&self, partition: i32) {
        let Some(expected) = self.stored(partition) else {
            return;
        };
        let mut assigned = self.assigned();
        let generation = assigned.next();
        if let Some(position) = assigned.partitions.get_mut(&partition) {
            *position = Position {
                generation,
                expected,
                seek: Some(offset(expected)),
            };
        }
    }

    /// Moves the client to where counting goes on; tries again in the next round.
    pub(super) fn seek_pending(&self, consumer: &BaseConsumer<Self>) {
        let pending: Vec<(i32, Offset)> = self
            .assigned()
            .partitions
            .iter()
            .filter_map(|(partition, position)| Some((*partition, position.seek?)))
            .collect();
        for (partition, offset) in pending {
            match consumer.seek(&self.topic, partition, offset, ANSWER_DEADLINE) {
                Ok(()) => {
                    if let Some(position) = self.assigned().partitions.get_mut(&partition) {
                        position.seek = None;
                    }
                }
                Err(error) => tracing::debug!(%error, partition, "not moved yet"),
            }
        }
    }

    /// Looks whether the log still reaches to where counting is. A broker that lost
    /// its log should say so when it is asked for an offset beyond the end, but not
    /// every one does. Some also name an end that is too low: then a partition is
    /// read again in vain, since identities tell what is counted. So this is
    /// done only when the broker was away, and again when it does not answer yet.
    pub(super) fn check_ends(&self, consumer: &BaseConsumer<Self>) {
        let assigned = self.assigned();
        if !assigned.doubtful {
            return;
        }
        let at: Vec<(i32, i64)> = assigned
            .partitions
            .iter()
            .filter_map(|(partition, position)| Some((*partition, position.expected?)))
            .collect();
        drop(assigned);
        for (partition, expected) in at {
            let ends = consumer.fetch_watermarks(&self.topic, partition, ANSWER_DEADLINE);
            let Ok((_, end)) = ends else { return };
            let mut assigned = self.assigned();
            let generation = assigned.next();
            if let Some(position) = assigned.partitions.get_mut(&partition)
                && end < expected
            {
                position.generation = generation;
                position.seek = Some(Offset::Beginning);
            }
        }
        self.assigned().doubtful = false;
    }

    /// How many messages of each partition are not counted yet; none if the broker
    /// does not say.
    pub(super) fn behind(&self, consumer: &BaseConsumer<Self>) -> Option<BTreeMap<i32, i64>> {
        let at: Vec<(i32, Option<i64>)> = self
            .assigned()
            .partitions
            .iter()
            .filter(|(_, position)| position.seek.is_none())
            .map(|(partition, position)| (*partition, position.expected))
            .collect();
        let of = |(partition, expected): (i32, Option<i64>)| {
            let ends = consumer.fetch_watermarks(&self.topic, partition, ANSWER_DEADLINE);
            let (start, end) = ends.ok()?;
            Some((partition, (end - expected.unwrap_or(start)).max(0)))
        };
        at.into_iter().map(of).collect()
    }

    /// Reads an offset, for as long as it takes: without it nothing can be counted.
    /// None if the process ends before.
    fn stored(&self, partition: i32) -> Option<Option<i64>> {
        let mut warned = false;
        while !self.shutdown.is_requested() {
            let read = self.store.next_offset(&self.topic, partition);
            match self.runtime.block_on(read) {
                Ok(expected) => return Some(expected),
                Err(error) if !warned => {
                    warned = true;
                    tracing::warn!(%error, partition, "offset could not be read, trying again");
                }
                Err(_) => {}
            }
            std::thread::sleep(RETRY);
        }
        None
    }

    fn assign(
        &self,
        consumer: &BaseConsumer<Self>,
        partitions: &mut TopicPartitionList,
    ) -> KafkaResult<()> {
        let numbers: Vec<i32> = partitions
            .elements()
            .iter()
            .map(TopicPartitionListElem::partition)
            .collect();
        for partition in &numbers {
            let Some(expected) = self.stored(*partition) else {
                break;
            };
            partitions.set_partition_offset(&self.topic, *partition, offset(expected))?;
            let mut assigned = self.assigned();
            let position = Position {
                generation: assigned.next(),
                expected,
                seek: None,
            };
            assigned.partitions.insert(*partition, position);
        }
        let mut assigned = self.assigned();
        assigned.doubtful |= std::mem::take(&mut assigned.away);
        drop(assigned);
        tracing::info!(partitions = ?numbers, "partitions assigned");
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(partitions),
            _ => consumer.assign(partitions),
        }
    }

    fn revoke(
        &self,
        consumer: &BaseConsumer<Self>,
        partitions: &TopicPartitionList,
    ) -> KafkaResult<()> {
        for partition in partitions.elements() {
            self.assigned().partitions.remove(&partition.partition());
        }
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(partitions),
            _ => consumer.unassign(),
        }
    }

    fn assigned(&self) -> MutexGuard<'_, Assigned> {
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Assigned {
    fn next(&mut self) -> u64 {
        self.next_generation += 1;
        self.next_generation
    }
}

fn offset(expected: Option<i64>) -> Offset {
    expected.map_or(Offset::Beginning, Offset::Offset)
}

impl<S: RollupStore> ClientContext for Positions<S> {
    fn error(&self, error: KafkaError, reason: &str) {
        // A broker that is down says so again and again.
        tracing::debug!(%error, reason, "kafka");
    }
}

impl<S: RollupStore> ConsumerContext for Positions<S> {
    /// Called within a poll, on the consumer's thread.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let done = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.assign(consumer, partitions)
            }
            _ => self.revoke(consumer, partitions),
        };
        if let Err(error) = done {
            // The group notices and assigns again.
            tracing::warn!(%error, "partitions could not be taken over");
        }
    }
}
