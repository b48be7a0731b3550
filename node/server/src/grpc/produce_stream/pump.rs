//! The requests of one produce stream between arrival and answer.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::time::Instant;

use flotilla_broker::Part;
use flotilla_proto::v1;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::super::Shared;
use super::super::call::Call;
use super::super::convert;
use super::super::forward::Leader;
use super::super::load::Lot;
use super::super::problem::Problem;
use super::super::producer::{self, Asked, Outcome, Submission};
use super::lane::{Lane, RETRY_PAUSE, Settled, Ticket};
use super::upstream::{Event, Upstreams};

type Local<'a> = Pin<Box<dyn Future<Output = (Ticket, Outcome)> + Send + 'a>>;

/// See the module.
pub struct Pump<'a> {
    shared: &'a Shared,
    call: Call,
    /// Batches that are being appended here.
    pub local: FuturesUnordered<Local<'a>>,
    upstreams: Upstreams,
    /// By group: partitions that have anything.
    lanes: HashMap<u64, Lane>,
    /// Groups that may have something to send.
    touched: BTreeSet<u64>,
    /// Groups that have something to send and could not.
    held_up: BTreeSet<u64>,
    batches: HashMap<Ticket, Batch>,
    requests: HashMap<u64, Open>,
    next_ticket: Ticket,
    bytes: usize,
    answers: Vec<v1::ProduceResponse>,
}

/// A batch that is not answered yet.
struct Batch {
    part: Part,
    request: u64,
    index: usize,
}

/// A request that is not answered yet.
struct Open {
    asked: Asked,
    correlation_id: u64,
    partition: u32,
    bytes: usize,
    /// What the node holds for it.
    _lot: Lot,
}

impl<'a> Pump<'a> {
    /// With what comes from other nodes.
    pub fn new(shared: &'a Shared, call: Call) -> (Self, mpsc::Receiver<Event>) {
        let (upstreams, events) = Upstreams::new(shared.gateway.clone(), shared.limits.stream_in_flight_max);
        let pump = Self {
            shared,
            call,
            local: FuturesUnordered::new(),
            upstreams,
            lanes: HashMap::new(),
            touched: BTreeSet::new(),
            held_up: BTreeSet::new(),
            batches: HashMap::new(),
            requests: HashMap::new(),
            next_ticket: 0,
            bytes: 0,
            answers: Vec::new(),
        };
        (pump, events)
    }

    /// Whether another request may be taken.
    pub fn has_room(&self) -> bool {
        let limits = &self.shared.limits;
        self.requests.len() < limits.stream_in_flight_max && self.bytes < limits.stream_in_flight_bytes_max
    }

    /// Whether everything is answered.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Whether something waits for a leader, or for room on the way to it.
    pub fn is_held_up(&self) -> bool {
        !self.held_up.is_empty()
    }

    /// Looks at what is held up in the next [`Pump::advance`].
    pub fn look_again(&mut self) {
        self.touched.append(&mut self.held_up);
    }

    /// The answers that are complete.
    pub fn answers(&mut self) -> Vec<v1::ProduceResponse> {
        std::mem::take(&mut self.answers)
    }

    /// Takes a request apart; [`Pump::advance`] sends it.
    pub async fn take(&mut self, mut request: v1::ProduceRequest) {
        let (correlation_id, partition) = (request.correlation_id, request.partition.unwrap_or_default());
        let bytes = producer::payload_bytes(&request);
        let lot = self.shared.load.clients.received.lot(bytes as u64);
        let prepared = async {
            let patience = request.leader_wait_max.take().map(|wait| convert::duration("leader_wait_max", wait));
            let call = self.call.renewed(patience.transpose()?);
            Ok((call, producer::prepare(self.shared, call, request).await?))
        };
        let (call, prepared) = match prepared.await {
            Ok(prepared) => prepared,
            Err(problem) => {
                self.shared.metrics.produce_failed();
                return self.answers.push(failure(correlation_id, partition, problem));
            }
        };
        // A request that must be served here is refused at once if it cannot be.
        let give_up_at = if call.direct { Instant::now() } else { call.patient_until };
        let request = self.next_ticket;
        let asked = Asked::new(correlation_id, &prepared);
        self.requests.insert(request, Open { asked, correlation_id, partition, bytes, _lot: lot });
        self.bytes += bytes;
        for (index, part) in prepared.parts.into_iter().enumerate() {
            let (ticket, group) = (self.next_ticket, part.group_id);
            self.next_ticket += 1;
            self.batches.insert(ticket, Batch { part, request, index });
            self.lanes.entry(group).or_default().push(ticket, give_up_at);
            self.touched.insert(group);
        }
    }

    /// Another node said something.
    pub fn handle(&mut self, event: Event) {
        match event {
            Event::Answer(answer) => self.answered(answer.correlation_id, producer::only_result(answer)),
            Event::Ended { id, node, problem } => {
                self.upstreams.ended(id, node);
                let missing: Vec<Ticket> = self.lanes.values().flat_map(|lane| lane.on_their_way_to(node)).collect();
                missing.into_iter().for_each(|ticket| self.answered(ticket, Err(problem.clone())));
                self.look_again();
            }
        }
    }

    /// What became of a batch.
    pub fn answered(&mut self, ticket: Ticket, outcome: Outcome) {
        let Some(group) = self.batches.get(&ticket).map(|batch| batch.part.group_id) else { return };
        let Some(lane) = self.lanes.get_mut(&group) else { return };
        let mut settled = Vec::new();
        lane.answered(ticket, outcome, Instant::now() + RETRY_PAUSE, &mut settled);
        if lane.is_empty() {
            self.lanes.remove(&group);
        } else {
            self.touched.insert(group);
        }
        self.settle(settled);
    }

    /// Refuses everything that waits for a leader.
    pub fn refuse_waiting(&mut self, problem: &Problem) {
        let mut settled = Vec::new();
        self.lanes.values_mut().for_each(|lane| lane.refuse_waiting(problem, &mut settled));
        self.settle(settled);
    }

    /// Sends what may be sent.
    pub async fn advance(&mut self) {
        while let Some(group) = self.touched.pop_first() {
            self.transmit(group).await;
            self.give_up(group);
            match self.lanes.get(&group) {
                Some(lane) if lane.is_empty() => drop(self.lanes.remove(&group)),
                Some(lane) if !lane.is_idle() => drop(self.held_up.insert(group)),
                _ => {}
            }
        }
    }

    async fn transmit(&mut self, group: u64) {
        let Some(lane) = self.lanes.get_mut(&group) else { return };
        if lane.is_idle() {
            return;
        }
        let here = self.shared.broker.node_id();
        let (node, address) = match self.shared.gateway.leader_of(group) {
            Leader::Here => (here, String::new()),
            Leader::There(node, address) if !self.call.direct => (node, address),
            Leader::There(..) | Leader::Nobody => return,
        };
        while let Some(ticket) = lane.next(Instant::now(), node) {
            let Some(batch) = self.batches.get(&ticket) else { return };
            if node == here {
                let (shared, submission) = (self.shared, Submission::of(&batch.part));
                // Waits for room, and so does the client.
                let submitted = producer::submit(shared, &batch.part).await;
                self.local.push(Box::pin(async move { (ticket, submission.outcome(shared, submitted).await) }));
            } else if !self.upstreams.send((node, &address), || producer::request_for(&batch.part, ticket)) {
                return;
            }
            lane.sent(node);
        }
    }

    fn give_up(&mut self, group: u64) {
        let Some(lane) = self.lanes.get_mut(&group) else { return };
        let Some(batch) = lane.first_waiting().and_then(|ticket| self.batches.get(&ticket)) else { return };
        let (target, gateway) = (producer::target(&batch.part), &self.shared.gateway);
        let mut settled = Vec::new();
        let refusal = gateway.gone(&target).or_else(|| lane.refusal().filter(|_| gateway.is_pressed()).cloned());
        match refusal {
            Some(refusal) => lane.refuse_waiting(&refusal, &mut settled),
            None => lane.expire(Instant::now(), || gateway.not_leader(&target), &mut settled),
        }
        self.settle(settled);
    }

    fn settle(&mut self, settled: Vec<Settled>) {
        for (ticket, outcome) in settled {
            let Some(Batch { request, index, .. }) = self.batches.remove(&ticket) else { continue };
            let complete = self.requests.get_mut(&request).is_some_and(|open| open.asked.put(index, outcome));
            if complete && let Some(Open { asked, correlation_id, partition, bytes, .. }) = self.requests.remove(&request) {
                self.bytes -= bytes;
                let answer = asked.answer();
                self.answers.push(answer.unwrap_or_else(|problem| failure(correlation_id, partition, problem)));
            }
        }
    }
}

/// The answer inside a stream to a request that failed as a whole.
fn failure(correlation_id: u64, partition: u32, problem: Problem) -> v1::ProduceResponse {
    v1::ProduceResponse { correlation_id, results: vec![producer::failed(partition, problem)] }
}
