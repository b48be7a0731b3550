//! The other nodes' produce streams behind one client's: opened by a task each, which reports what happens as events.

use std::collections::HashMap;

use flotilla_proto::v1;
use flotilla_proto::v1::producer_client::ProducerClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Streaming;

use super::super::forward::{Connection, Gateway, Repeat};
use super::super::problem::{Problem, Reason};

/// Answers that wait for the client's stream.
const EVENTS_MAX: usize = 64;

/// What happens to the streams.
#[derive(Debug)]
pub enum Event {
    /// A node answered.
    Answer(v1::ProduceResponse),
    /// A stream ended; what it has not answered shares this fate.
    Ended {
        /// Which one.
        id: u64,
        /// Where it went.
        node: u64,
        /// Whether that was appended is either not known, or it was not, for a reason that passes.
        problem: Problem,
    },
}

/// The streams, one per node.
pub struct Upstreams {
    gateway: Gateway,
    requests_max: usize,
    by_node: HashMap<u64, Upstream>,
    next_id: u64,
    events: mpsc::Sender<Event>,
}

struct Upstream {
    id: u64,
    requests: mpsc::Sender<v1::ProduceRequest>,
    /// Ends with the client's stream.
    _task: AbortOnDropHandle<()>,
}

impl Upstreams {
    /// Each node's stream holds up to `requests_max` requests that are not sent yet.
    pub fn new(gateway: Gateway, requests_max: usize) -> (Self, mpsc::Receiver<Event>) {
        let (events, received) = mpsc::channel(EVENTS_MAX);
        (Self { gateway, requests_max, by_node: HashMap::new(), next_id: 0, events }, received)
    }

    /// Sends a request to a node. `false`: not now, more is on its way than the stream holds, or it has just ended.
    pub fn send(&mut self, (node, address): (u64, &str), request: impl FnOnce() -> v1::ProduceRequest) -> bool {
        let upstream = match self.by_node.get(&node) {
            Some(upstream) => upstream,
            None => self.open(node, address),
        };
        match upstream.requests.try_reserve() {
            Ok(room) => {
                room.send(request());
                true
            }
            Err(_) => false,
        }
    }

    fn open(&mut self, node: u64, address: &str) -> &Upstream {
        self.next_id += 1;
        let id = self.next_id;
        let (requests, receiver) = mpsc::channel(self.requests_max.max(1));
        let (gateway, address, events) = (self.gateway.clone(), address.to_owned(), self.events.clone());
        let task = tokio::spawn(async move {
            let problem = run(&gateway, (node, &address), receiver, &events).await;
            // The client's stream has ended if it does not listen.
            let _ = events.send(Event::Ended { id, node, problem }).await;
        });
        let upstream = Upstream { id, requests, _task: AbortOnDropHandle::new(task) };
        self.by_node.entry(node).insert_entry(upstream).into_mut()
    }

    /// Forgets a stream that ended.
    pub fn ended(&mut self, id: u64, node: u64) {
        if self.by_node.get(&node).is_some_and(|upstream| upstream.id == id) {
            self.by_node.remove(&node);
        }
    }
}

/// Opens a stream and reports its answers until it ends. Returns what that means for those that are missing.
async fn run(
    gateway: &Gateway,
    (node, address): (u64, &str),
    requests: mpsc::Receiver<v1::ProduceRequest>,
    events: &mpsc::Sender<Event>,
) -> Problem {
    let connection = match gateway.connection(node, address).await {
        Ok(connection) => connection,
        // Nothing was sent, so it may be sent elsewhere.
        Err(problem) => return problem,
    };
    let mut stub = ProducerClient::new(connection.channel.clone()).max_decoding_message_size(gateway.message_bytes_max());
    let opened = stub.produce_stream(gateway.envelope(None).around(ReceiverStream::new(requests))).await;
    let ended = match opened {
        Ok(answers) => relay(answers.into_inner(), events).await,
        Err(status) => match Problem::passed_on(&status).filter(|problem| !problem.is_unknown()) {
            // It took nothing.
            Some(refusal) => return refusal,
            None => Some(status),
        },
    };
    unanswered(gateway, &connection, ended.as_ref())
}

async fn relay(mut answers: Streaming<v1::ProduceResponse>, events: &mpsc::Sender<Event>) -> Option<tonic::Status> {
    loop {
        match answers.message().await {
            Ok(Some(answer)) => {
                let _ = events.send(Event::Answer(answer)).await;
            }
            Ok(None) => return None,
            Err(status) => return Some(status),
        }
    }
}

/// A node that ends the stream in its own words has answered everything that it took before. Of a connection that broke,
/// nothing is known.
fn unanswered(gateway: &Gateway, connection: &Connection, status: Option<&tonic::Status>) -> Problem {
    let node = connection.node_id;
    let problem = match status {
        Some(status) => gateway.failed(connection, &"the partition", Repeat::Once, status),
        None => Problem::new(Reason::OutcomeUnknown, format!("node {node} ended the stream before it answered")),
    };
    if problem.is_passing() || problem.reason() == Reason::OutcomeUnknown {
        return problem;
    }
    Problem::new(Reason::OutcomeUnknown, format!("node {node}, which leads the partition, broke off: {}", problem.message()))
}
