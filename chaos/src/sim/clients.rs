//! The clients of a simulation: idempotent producers that retry, readers, an observer that asks for ends. They reach every
//! node, also those that nodes do not reach: whoever believes to lead is asked.
//!
//! Each call travels for a while to the node and back, and ends with the node's process.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use flotilla_broker::{
    Broker, Codec, ConfigChange, CreateTopic, FetchError, NewRecord, NotServing, PartitionReader, Payload, Position, Produce,
    ProduceError, ProducedRecord, ProducerStamp, Room, Stop,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::node::Node;
use super::plan::Shape;
use crate::history::{Clock, History, Id, Outcome, Poll, Seen, Sender, Watermark, value};
use crate::random::Random;

/// The topic that is written and read.
pub const TOPIC: &str = "simulated";
/// The same with one replica; its partitions are counted on behind those.
pub const SINGLE: &str = "single";
/// A topic that is written all the time, and of which little stays: its logs are purged, and who was away gets a snapshot.
pub const PASSING: &str = "passing";
/// Between two attempts.
pub(super) const AGAIN: Duration = Duration::from_millis(50);
/// How long a call may take.
const CALL_PATIENCE: Duration = Duration::from_secs(3);
/// How long a producer tries before it gives a batch up.
const DELIVERY_PATIENCE: Duration = Duration::from_secs(8);
/// A message's way between a client and a node, at most.
const WAY_MICROS_MAX: u64 = 3_000;
/// Of each partition, where there are so many nodes.
const REPLICAS: usize = 3;
/// Bytes that stay of the topic whose records pass.
const RETENTION_BYTES: u64 = 64 << 10;
/// Times that records may come with: none of 1970 and before, a wrong clock's, one far ahead.
const STRANGE_TIMES_MS: [i64; 3] = [-1, 1_000, 1_767_225_600_000 + 365 * 86_400_000];
const OBSERVE_INTERVAL: Duration = Duration::from_millis(250);
const READ_BYTES: usize = 64 << 10;
const DECOMPRESSED_BYTES_MAX: usize = 1 << 20;

/// What clients share. Cheap to clone.
#[derive(Clone)]
pub struct Clients {
    pub(super) nodes: Arc<[Node]>,
    history: Arc<Mutex<History>>,
    clock: Clock,
    shape: Shape,
    /// Whether producers are to stop.
    pub(super) stop: watch::Receiver<bool>,
}

/// One client.
pub struct Client {
    pub(super) shared: Clients,
    number: u32,
    pub(super) random: Random,
    /// Index of the node that is asked next.
    target: usize,
}

/// A producer's identity and place.
struct Session {
    number: u32,
    stamp: ProducerStamp,
}

impl Clients {
    /// Clients of `nodes`; the clock is the one of the runtime that this is called on.
    #[must_use]
    pub fn new(nodes: Arc<[Node]>, history: Arc<Mutex<History>>, shape: Shape, stop: watch::Receiver<bool>) -> Self {
        Self { nodes, history, clock: Clock::start(), shape, stop }
    }

    /// How they write, and what to.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    fn partitions(&self) -> u32 {
        self.shape.partitions + self.shape.singles
    }

    /// Topic and number of a partition, as they are counted here.
    #[must_use]
    pub fn place(shape: &Shape, partition: u32) -> (&'static str, u32) {
        partition.checked_sub(shape.partitions).map_or((TOPIC, partition), |single| (SINGLE, single))
    }

    /// A client with a number. Those of the same number are one client with several hands.
    #[must_use]
    pub fn client(&self, number: u32, seed: u64) -> Client {
        let random = Random::new(seed ^ u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Client { shared: self.clone(), number, random, target: number as usize % self.nodes.len().max(1) }
    }

    /// How many records were acknowledged.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.history().counts().ok
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Calls the node that is asked next; `None` if it does not run, ends, or does not answer.
    pub(super) async fn call<T, F: Future<Output = T>>(&mut self, call: impl FnOnce(Broker) -> F) -> Option<T> {
        sleep(self.way()).await;
        let (broker, life) = self.shared.nodes.get(self.target)?.broker()?;
        let answer = tokio::select! {
            biased;
            () = life.cancelled() => None,
            answer = timeout(CALL_PATIENCE, call(broker)) => answer.ok(),
        };
        sleep(self.way()).await;
        answer
    }

    fn way(&mut self) -> Duration {
        Duration::from_micros(self.random.next_u64() % WAY_MICROS_MAX)
    }

    /// Another node: who leads, if that is known, or any.
    pub(super) fn turn_to(&mut self, leader: Option<u64>) {
        let known = leader.and_then(|leader| self.shared.nodes.iter().position(|node| node.id() == leader));
        self.target = match known {
            Some(index) if index != self.target => index,
            _ => self.random.below(self.shared.nodes.len()),
        };
    }

    fn node(&self) -> u64 {
        self.shared.nodes.get(self.target).map_or(0, Node::id)
    }

    /// Creates the topics, however long it takes.
    pub async fn create_topics(&mut self) {
        let replication_factor = Some(self.shared.nodes.len().min(REPLICAS) as u32);
        // It can always move.
        let passing_factor = Some(self.shared.nodes.len().saturating_sub(1).clamp(1, REPLICAS) as u32);
        let name = TOPIC.to_owned();
        let partitions = Some(self.shared.shape.partitions);
        let lasting = CreateTopic { name, partitions, replication_factor, if_not_exists: true, ..CreateTopic::default() };
        let singles = Some(self.shared.shape.singles).filter(|singles| *singles > 0);
        let single = singles.map(|singles| CreateTopic {
            name: SINGLE.to_owned(),
            partitions: Some(singles),
            replication_factor: Some(1),
            ..lasting.clone()
        });
        let config = ConfigChange { retention_bytes: Some(RETENTION_BYTES), ..ConfigChange::default() };
        let name = PASSING.to_owned();
        let passing = CreateTopic { name, partitions: Some(1), replication_factor: passing_factor, config, ..lasting.clone() };
        for topic in [lasting, passing].into_iter().chain(single) {
            self.create(topic).await;
        }
    }

    async fn create(&mut self, topic: CreateTopic) {
        loop {
            let topic = topic.clone();
            match self.call(|broker| async move { broker.create_topic(topic).await }).await {
                Some(Ok(_)) => return,
                Some(Err(error)) => tracing::info!(%error, node = self.node(), "no topic yet"),
                None => {}
            }
            self.turn_to(None);
            sleep(AGAIN).await;
        }
    }

    /// Writes until told to stop.
    pub async fn produce(mut self) {
        let partition = self.number % self.shared.partitions();
        let shape = self.shared.shape.clone();
        let mut session = None;
        let mut sessions = 0;
        while !*self.shared.stop.borrow() {
            let Some(current) = &mut session else {
                session = self.session(sessions).await;
                sessions += 1;
                continue;
            };
            let count = 1 + self.random.below(shape.batch_records_max);
            let ids = self.invoke(current.number, partition, count);
            match self.deliver(partition, &ids, current.stamp).await {
                Outcome::Ok(first) => {
                    let now = self.shared.clock.now();
                    for (id, offset) in ids.iter().zip(first..) {
                        self.shared.history().resolve(*id, Outcome::Ok(offset), now);
                    }
                    tracing::info!(producer = self.number, partition, first, count, "acknowledged");
                    current.stamp.base_sequence = current.stamp.sequence_after(count as u32);
                }
                outcome => {
                    let now = self.shared.clock.now();
                    ids.iter().for_each(|id| self.shared.history().resolve(*id, outcome, now));
                    tracing::info!(producer = self.number, partition, count, ?outcome, "given up");
                    session = None;
                }
            }
            sleep(Duration::from_millis(self.random.next_u64() % shape.batch_pause_ms_max.max(1))).await;
        }
    }

    fn invoke(&self, session: u32, partition: u32, count: usize) -> Vec<Id> {
        let by = Sender { producer: self.number, session, node: self.node() };
        self.shared.history().invoke_together(by, partition, count, self.shared.clock.now())
    }

    async fn session(&mut self, number: u32) -> Option<Session> {
        let given = self.call(|broker| async move { broker.init_producer().await }).await;
        match given {
            Some(Ok(id)) => {
                let id = i64::try_from(id).unwrap_or(i64::MAX);
                Some(Session { number, stamp: ProducerStamp { id, epoch: 0, base_sequence: 0 } })
            }
            _ => {
                self.turn_to(None);
                sleep(AGAIN).await;
                None
            }
        }
    }

    /// Tries to write a batch until it is acknowledged or its time is over.
    async fn deliver(&mut self, partition: u32, ids: &[Id], stamp: ProducerStamp) -> Outcome {
        let until = Instant::now() + DELIVERY_PATIENCE;
        let strange = self.shared.shape.strange_times;
        let timestamp_ms = (strange > 0 && self.random.below(strange as usize) == 0)
            .then(|| self.random.pick(&STRANGE_TIMES_MS).copied())
            .flatten();
        let records: Vec<NewRecord> = ids.iter().map(|id| self.record(*id, timestamp_ms)).collect();
        let (topic, number) = Clients::place(&self.shared.shape, partition);
        // It was certainly not written only if no attempt may have written it.
        let mut certain = true;
        while Instant::now() < until {
            let request = Produce {
                topic: topic.to_owned(),
                partition: Some(number),
                payload: Payload::Records { records: records.clone(), codec: Codec::None, producer: Some(stamp) },
            };
            match self.call(|broker| async move { write(&broker, request).await }).await {
                Some(Ok(written)) => return Outcome::Ok(written.offset),
                Some(Err(ProduceError::NotServing(NotServing::NotLeader { leader, .. }))) => {
                    self.turn_to(leader.map(|(node, _)| node));
                }
                Some(Err(ProduceError::NotServing(_) | ProduceError::Missing(_))) => self.turn_to(None),
                Some(Err(ProduceError::Unknown { .. })) | None => {
                    certain = false;
                    self.turn_to(None);
                }
                Some(Err(refused)) => {
                    tracing::info!(producer = self.number, partition, %refused, "refused");
                    break;
                }
            }
            sleep(AGAIN).await;
        }
        if certain { Outcome::Fail } else { Outcome::Info }
    }

    fn record(&mut self, id: Id, timestamp_ms: Option<i64>) -> NewRecord {
        let bytes = self.random.below(self.shared.shape.value_bytes_max);
        NewRecord { value: Some(Bytes::from(value::encode(id, bytes))), timestamp_ms, ..NewRecord::default() }
    }

    /// Follows a partition from its start until told the end and there.
    pub async fn read(mut self, partition: u32, mut end: watch::Receiver<Option<Vec<u64>>>) {
        let mut next = 0;
        loop {
            let known = end.borrow_and_update().as_ref().and_then(|ends| ends.get(partition as usize).copied());
            if known.is_some_and(|end| next >= end) {
                return;
            }
            let invoked = self.shared.clock.now();
            let place = Clients::place(&self.shared.shape, partition);
            let read = self.call(|broker| async move { read(&broker, place, next).await }).await;
            match read {
                Some(Ok(lot)) => {
                    let empty = lot.records.is_empty();
                    if !empty {
                        next = lot.next;
                        self.note_poll(invoked, partition, lot);
                    }
                    sleep(if empty { AGAIN } else { Duration::from_millis(1) }).await;
                }
                Some(Err(FetchError::NotServing(NotServing::NotLeader { leader, .. }))) => {
                    self.turn_to(leader.map(|(node, _)| node));
                    sleep(AGAIN).await;
                }
                _ => {
                    self.turn_to(None);
                    sleep(AGAIN).await;
                }
            }
        }
    }

    fn note_poll(&self, invoked: u64, partition: u32, lot: Lot) {
        let (reader, node, completed) = (self.number, self.node(), self.shared.clock.now());
        let Lot { high_watermark, end_is_certain, records, .. } = lot;
        let poll = Poll { reader, session: 0, node, invoked, completed, partition, high_watermark, end_is_certain, records };
        self.shared.history().polls.push(poll);
    }

    /// Asks where partitions end until told to stop.
    pub async fn observe(mut self) {
        for partition in (0..self.shared.partitions()).cycle() {
            if *self.shared.stop.borrow() {
                return;
            }
            if let Some((invoked, high_watermark)) = self.end(partition).await {
                let completed = self.shared.clock.now();
                let told = Watermark { observer: self.number, invoked, completed, partition, high_watermark };
                self.shared.history().watermarks.push(told);
            }
            sleep(OBSERVE_INTERVAL / self.shared.partitions()).await;
        }
    }

    /// Where a partition ends, as its leader confirms; and when it was asked.
    pub async fn end(&mut self, partition: u32) -> Option<(u64, u64)> {
        let invoked = self.shared.clock.now();
        let (topic, number) = Clients::place(&self.shared.shape, partition);
        let told = self.call(|broker| async move { broker.list_offsets(topic, &[number], Position::Latest).await }).await;
        match told {
            Some(Ok(told)) => told.first().map(|told| (invoked, told.ends.high_watermark)),
            Some(Err(FetchError::NotServing(NotServing::NotLeader { leader, .. }))) => {
                self.turn_to(leader.map(|(node, _)| node));
                None
            }
            _ => {
                self.turn_to(None);
                None
            }
        }
    }
}

pub(super) async fn write(broker: &Broker, request: Produce) -> Result<ProducedRecord, ProduceError> {
    let prepared = broker.prepare(request)?;
    let part = prepared.parts.first().ok_or(ProduceError::Empty)?;
    broker.submit(part).await?.appended().await
}

/// What one read gave.
struct Lot {
    high_watermark: u64,
    end_is_certain: bool,
    records: Vec<Seen>,
    /// Where the next read goes on.
    next: u64,
}

async fn read(broker: &Broker, (topic, partition): (&str, u32), from: u64) -> Result<Lot, FetchError> {
    let mut reader = broker.reader(topic, partition, Position::Offset(from), Stop::Never).await?;
    take(&mut reader).await
}

async fn take(reader: &mut PartitionReader) -> Result<Lot, FetchError> {
    let fetched = reader.read(READ_BYTES).await?;
    let room = Room { records: usize::MAX, bytes: usize::MAX };
    let (records, next) = fetched.records(None, room, DECOMPRESSED_BYTES_MAX)?;
    let seen = |record: flotilla_broker::FetchedRecord| Seen {
        offset: record.offset,
        id: record.value.as_deref().and_then(value::decode),
    };
    let (high_watermark, end_is_certain) = (fetched.ends.high_watermark, reader.is_end_certain());
    Ok(Lot { high_watermark, end_is_certain, records: records.into_iter().map(seen).collect(), next })
}

/// Everything that a node has of a partition.
///
/// # Errors
/// In words, if it cannot be read.
pub async fn read_all(broker: &Broker, (topic, partition): (&str, u32)) -> Result<Vec<Seen>, String> {
    let mut reader = broker.replica_reader(topic, partition).map_err(|error| error.to_string())?;
    let mut all = Vec::new();
    loop {
        let lot = take(&mut reader).await.map_err(|error| error.to_string())?;
        all.extend(lot.records);
        reader.seek(lot.next);
        if lot.next >= lot.high_watermark {
            return Ok(all);
        }
    }
}
