//! The task of a producer: takes batches from the accumulator, sends what the queues allow, and hands out outcomes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use flotilla_proto::v1;
use flotilla_records::ProducerStamp;
use tokio::sync::{mpsc, oneshot};

use super::accumulator::Accumulator;
use super::batch::{Attempt, Batch, Correlation, StreamId};
use super::delivery::Outcome;
use super::queue::{Next, Queue, Resolved};
use super::stream::{Requests, Streams};
use crate::client::Client;
use crate::error::Error;
use crate::metadata::TopicView;
use crate::retry::Backoff;

/// How long a server waits for a leader before it refuses a request of a stream, if it is not told otherwise.
const LEADER_WAIT: Duration = Duration::from_secs(2);

/// What happens to a producer.
#[derive(Debug)]
pub(super) enum Event {
    /// Answer when everything handed over so far is resolved.
    Flush(oneshot::Sender<()>),
    /// A stream is open, to the node at this address.
    Opened(StreamId, String, Requests),
    Answer(StreamId, v1::ProduceResponse),
    Broken(StreamId, Error),
    ProducerId(Result<ProducerStamp, Error>),
}

pub(super) struct Sender {
    client: Client,
    topic: String,
    /// The topic as metadata showed it last.
    view: Arc<TopicView>,
    accumulator: Arc<Accumulator>,
    events: mpsc::Receiver<Event>,
    events_in: mpsc::Sender<Event>,
    /// By partition.
    queues: Vec<Queue>,
    /// Partitions that have anything.
    active: BTreeSet<u32>,
    streams: Streams,
    attempts: HashMap<Correlation, u32>,
    next_id: u64,
    /// Waiting for all batches with smaller ids.
    flushes: Vec<(u64, oneshot::Sender<()>)>,
    producer_id: ProducerId,
    id_backoff: Backoff,
    last_error: String,
}

/// Whether a producer id is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProducerId {
    NotAsked,
    Asked,
    AskAgainAt(Instant),
}

impl Sender {
    pub fn new(
        client: Client,
        (topic, view): (&str, Arc<TopicView>),
        accumulator: Arc<Accumulator>,
        events_in: mpsc::Sender<Event>,
        events: mpsc::Receiver<Event>,
    ) -> Self {
        let options = &accumulator.options;
        let queue = || Queue::new(options.idempotence, options.in_flight_max, client.retry_backoff());
        let queues = (0..accumulator.partition_count()).map(|_| queue()).collect();
        let streams = Streams::new(client.clone(), events_in.clone());
        let id_backoff = client.backoff();
        Self {
            client,
            topic: topic.to_owned(),
            view,
            accumulator,
            events,
            events_in,
            queues,
            active: BTreeSet::new(),
            streams,
            attempts: HashMap::new(),
            next_id: 0,
            flushes: Vec::new(),
            producer_id: ProducerId::NotAsked,
            id_backoff,
            last_error: String::new(),
        }
    }

    pub async fn run(mut self) {
        while !self.accumulator.stopped.load(Ordering::Acquire) {
            let now = Instant::now();
            let wake_at = self.step(now);
            let alarm = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.accumulator.wake.notified() => {}
                Some(event) = self.events.recv() => self.handle_all(event),
                () = alarm => {}
            }
        }
        self.collect(Instant::now(), true);
        for partition in std::mem::take(&mut self.active) {
            self.resolve_while(partition, Queue::abandon);
        }
    }

    fn handle_all(&mut self, first: Event) {
        let mut next = Some(first);
        while let Some(event) = next {
            self.handle(event);
            next = self.events.try_recv().ok();
        }
    }

    fn handle(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Flush(done) => {
                self.collect(now, true);
                self.flushes.push((self.next_id, done));
            }
            Event::Opened(id, address, requests) => self.streams.opened(id, &address, requests),
            Event::Answer(id, answer) => self.answered(id, answer, now),
            Event::Broken(id, error) => self.stream_broken(id, &error, now),
            Event::ProducerId(Ok(stamp)) => {
                self.producer_id = ProducerId::NotAsked;
                self.id_backoff.reset();
                self.client.outages().over();
                self.queues.iter_mut().for_each(|queue| queue.offer_producer(stamp));
            }
            Event::ProducerId(Err(error)) => self.no_producer_id(error, now),
        }
    }

    /// Everything that can be done now; when something is to be done next.
    fn step(&mut self, now: Instant) -> Option<Instant> {
        self.look_who_leads();
        self.break_silent_streams(now);
        let (timeout, last_error) = (self.accumulator.options.delivery_timeout, self.last_error.clone());
        for partition in self.active.clone() {
            self.resolve_while(partition, |queue| queue.expire(now, timeout, &last_error));
        }
        // Behind that: what waited for batches that are given up leaves now, as nothing else would wake us for it.
        let mut wake_at = self.collect(now, false);
        if let Some(cause) = self.accumulator.lost() {
            self.collect(now, true);
            let stopped = Error::Stopped { cause: Box::new(cause) };
            for partition in self.active.clone() {
                self.resolve_while(partition, |queue| queue.stop(&stopped));
            }
        }
        for partition in self.active.clone() {
            wake_at = earlier(wake_at, self.transmit(partition, now));
            wake_at = earlier(wake_at, self.next_timeout(partition));
        }
        self.finish_flushes();
        wake_at
    }

    /// Keyless records go where somebody leads, and also to the others as soon as somebody does.
    fn look_who_leads(&mut self) {
        if let Some(view) = self.client.known_topic(&self.topic, &self.view.id)
            && !Arc::ptr_eq(&view, &self.view)
        {
            self.accumulator.keep_to_led(&view);
            self.view = view;
        }
        if self.accumulator.avoids_some() {
            self.client.refresh_topic_if_old(&self.topic);
        }
    }

    /// Takes batches out of the accumulator; when the next has lingered long enough.
    fn collect(&mut self, now: Instant, everything: bool) -> Option<Instant> {
        let linger = self.accumulator.options.linger;
        self.active.extend(self.accumulator.take_touched());
        let mut wake_at = None;
        let mut idle = Vec::new();
        for &partition in &self.active {
            let Some(queue) = self.queues.get_mut(partition as usize) else { continue };
            let ready = queue.is_ready_for_more();
            let (full, stays) = self.accumulator.take(partition, |age| everything || ready && age >= linger, now);
            for open in full {
                let deadline = open.opened_at + self.accumulator.options.delivery_timeout;
                queue.push(Batch::new(self.next_id, open, deadline));
                self.next_id += 1;
            }
            match stays {
                // Otherwise an answer wakes us, and it may grow until then.
                Some(opened_at) if ready => wake_at = earlier(wake_at, Some(opened_at + linger)),
                Some(_) => {}
                None if queue.is_empty() => idle.push(partition),
                None => {}
            }
        }
        for partition in idle {
            self.active.remove(&partition);
        }
        wake_at
    }

    /// Sends what the partition's queue allows; when to try again if it must wait.
    fn transmit(&mut self, partition: u32, now: Instant) -> Option<Instant> {
        let stopped = self.accumulator.lost().is_some();
        loop {
            let queue = self.queues.get_mut(partition as usize)?;
            let index = match queue.next(now) {
                Next::Nothing => return None,
                Next::At(at) => return Some(at),
                Next::ProducerId => return self.ask_for_producer_id(now),
                Next::Send(index) => index,
            };
            let leader = self.client.known_leader(&self.topic, partition);
            let (stream, requests, direct) = match self.streams.get(leader, now) {
                Ok(open) => open,
                Err(retry_at) => return retry_at,
            };
            if !direct {
                // It works, but there is a shorter way once the leader is known.
                self.client.refresh_topic_if_old(&self.topic);
            }
            if queue.oldest_attempt().is_some_and(|attempt| attempt.stream != stream) {
                // The leader has moved: order holds only if the old stream's attempts end first.
                return None;
            }
            if requests.capacity() == 0 {
                return None;
            }
            self.send(partition, index, stream, &requests, now);
            if self.accumulator.lost().is_some() != stopped {
                // It could not be encoded: nothing behind it may go out.
                return Some(now);
            }
        }
    }

    fn send(&mut self, partition: u32, index: usize, stream: StreamId, requests: &Requests, now: Instant) {
        let correlation = self.next_id;
        self.next_id += 1;
        let codec = self.accumulator.options.codec;
        let Some(queue) = self.queues.get_mut(partition as usize) else { return };
        let attempt = Attempt { stream, correlation, since: now };
        let Some(batch) = queue.start(index, attempt) else { return };
        let leader_wait_max = leader_wait_max(batch.deadline.saturating_duration_since(now));
        let bytes = match batch.encoded(codec) {
            Ok((bytes, spare)) => {
                spare.into_iter().for_each(|builder| self.accumulator.recycle(builder));
                bytes
            }
            Err(error) => {
                let resolved = queue.give_up(index, error.into());
                return self.resolve(resolved);
            }
        };
        self.attempts.insert(correlation, partition);
        // If the stream has just broken, its event is on the way and ends this attempt.
        let _ = requests.try_send(v1::ProduceRequest {
            topic: self.topic.clone(),
            partition: Some(partition),
            payload: Some(v1::produce_request::Payload::Batch(bytes)),
            codec: v1::Codec::Unspecified.into(),
            producer: None,
            correlation_id: correlation,
            topic_id: Some(self.view.id.to_string()),
            leader_wait_max,
        });
    }

    fn answered(&mut self, stream: StreamId, answer: v1::ProduceResponse, now: Instant) {
        let Some(partition) = self.attempts.remove(&answer.correlation_id) else {
            return;
        };
        let mut results = answer.results.into_iter();
        let outcome: Outcome = match (results.next(), results.next()) {
            (Some(v1::ProduceResult { error: Some(error), .. }), None) => Err(Error::from(error)),
            (Some(result), None) => Ok(result.offset),
            _ => {
                let error = Error::Protocol("an encoded batch has exactly one result".to_owned());
                return self.stream_broken(stream, &error, now);
            }
        };
        match &outcome {
            Err(error) if error.is_retriable() => {
                self.last_error = error.to_string();
                self.accumulator.counters().retried(1);
                self.client.outages().failed(error);
                self.client.learn_leader(&self.topic, [partition], error);
                self.client.refresh_topic_soon(&self.topic);
            }
            _ => self.client.outages().over(),
        }
        let queue = self.queues.get_mut(partition as usize);
        let resolved = queue.and_then(|queue| queue.answer(answer.correlation_id, outcome, now));
        self.resolve(resolved);
    }

    fn stream_broken(&mut self, id: StreamId, error: &Error, now: Instant) {
        let in_use = self.streams.remove(id, now);
        let ended: usize = self.queues.iter_mut().map(|queue| queue.broken(id, now)).sum();
        if !in_use && ended == 0 {
            // One that was left for a shorter way has answered everything.
            return;
        }
        tracing::debug!(topic = self.topic, %error, "produce stream broke");
        self.last_error = error.to_string();
        self.client.outages().failed(error);
        let on_their_way = |partition: &u32, correlation: Correlation| {
            (self.queues.get(*partition as usize)).is_some_and(|queue| queue.awaits(correlation))
        };
        self.attempts.retain(|correlation, partition| on_their_way(partition, *correlation));
        self.accumulator.counters().retried(ended);
        self.client.refresh_topic_soon(&self.topic);
    }

    /// A stream that has not answered for the request timeout is treated as broken.
    fn break_silent_streams(&mut self, now: Instant) {
        let timeout = self.client.options().request_timeout;
        let oldest = self.active.iter().filter_map(|partition| self.queues.get(*partition as usize)?.oldest_attempt());
        let silent: BTreeSet<StreamId> =
            oldest.filter(|attempt| attempt.since + timeout <= now).map(|attempt| attempt.stream).collect();
        for id in silent {
            self.stream_broken(id, &Error::Timeout(timeout), now);
        }
    }

    fn next_timeout(&self, partition: u32) -> Option<Instant> {
        let queue = self.queues.get(partition as usize)?;
        let answer_by = queue.oldest_attempt().map(|attempt| attempt.since + self.client.options().request_timeout);
        earlier(answer_by, queue.gives_up_at())
    }

    fn ask_for_producer_id(&mut self, now: Instant) -> Option<Instant> {
        match self.producer_id {
            ProducerId::Asked => return None,
            ProducerId::AskAgainAt(at) if now < at => return Some(at),
            ProducerId::AskAgainAt(_) | ProducerId::NotAsked => {}
        }
        self.producer_id = ProducerId::Asked;
        let (client, events) = (self.client.clone(), self.events_in.clone());
        tokio::spawn(async move {
            let id = new_producer_id(&client).await;
            // If the sender has ended meanwhile, nobody needs the id.
            let _ = events.send(Event::ProducerId(id)).await;
        });
        None
    }

    fn no_producer_id(&mut self, error: Error, now: Instant) {
        self.last_error = error.to_string();
        self.producer_id = ProducerId::AskAgainAt(now + self.id_backoff.next());
        self.client.outages().failed(&error);
        if !error.is_retriable() {
            for partition in self.active.clone() {
                self.resolve_while(partition, |queue| queue.refuse_unstamped(&error));
            }
        }
    }

    fn resolve_while(&mut self, partition: u32, mut next: impl FnMut(&mut Queue) -> Option<Resolved>) {
        while let Some(resolved) = self.queues.get_mut(partition as usize).and_then(&mut next) {
            self.resolve(Some(resolved));
        }
    }

    fn resolve(&self, resolved: Option<Resolved>) {
        let Some(Resolved { batch, outcome }) = resolved else { return };
        let counters = self.accumulator.counters();
        match &outcome {
            Ok(_) => counters.acked(batch.records, batch.payload_bytes, batch.sent_bytes()),
            Err(error) => {
                counters.given_up(batch.records, error);
                if self.accumulator.options.stop_at_loss {
                    self.accumulator.stop_at_loss(error);
                }
                if batch.unwatched {
                    counters.unwatched_failure(error);
                }
            }
        }
        self.accumulator.release(batch.reserved_bytes);
        // Nobody may wait for it.
        let _ = batch.outcome.send(outcome);
    }

    fn finish_flushes(&mut self) {
        if self.flushes.is_empty() {
            return;
        }
        let first_open = self.queues.iter().filter_map(Queue::first_id).min().unwrap_or(u64::MAX);
        for (_, done) in self.flushes.extract_if(.., |(before, _)| *before <= first_open) {
            // The caller may have given up waiting.
            let _ = done.send(());
        }
    }
}

/// How long the server may wait for a leader, where it would wait for longer than the batch has time.
fn leader_wait_max(left: Duration) -> Option<prost_types::Duration> {
    (left < LEADER_WAIT).then(|| left.try_into().ok()).flatten()
}

async fn new_producer_id(client: &Client) -> Result<ProducerStamp, Error> {
    let answer = client.init_producer(v1::InitProducerRequest {}).await?;
    let out_of_range = || Error::Protocol("producer id or epoch out of range".to_owned());
    Ok(ProducerStamp {
        id: i64::try_from(answer.producer_id).map_err(|_| out_of_range())?,
        epoch: i16::try_from(answer.epoch).map_err(|_| out_of_range())?,
        base_sequence: 0,
    })
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}
