//! What other nodes push: one consume stream for all partitions of a client's stream that the same node leads, in stored
//! batches, whatever the client wants. A feed runs ahead of the client by a small window, which grows as the client reads,
//! while there is memory for it: many clients that do not read must not cost much. What it has pushed is taken off the
//! connection at once, and counted: others share that connection, and must not wait for a client that does not read.

use std::collections::HashMap;
use std::sync::Arc;

use flotilla_broker::Topic;
use flotilla_proto::v1;
use flotilla_proto::v1::consume_request::Request as Ask;
use flotilla_proto::v1::consume_response::Response as Push;
use flotilla_proto::v1::consumer_client::ConsumerClient;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};

use super::super::forward::{Gateway, Repeat};
use super::super::load::{Budget, Lot};
use super::super::problem::{Problem, Reason};

/// Names a feed; never used twice by a stream.
pub type FeedId = u64;

/// What a feed may run ahead before its client has read anything.
const FIRST_WINDOW_BYTES: u64 = 64 << 10;
/// Credits that wait for the connection.
const ASKS_MAX: usize = 4;

/// What comes from a feed.
#[derive(Debug)]
pub enum Event {
    /// Records of one partition, and their bytes.
    Records(FeedId, v1::ConsumedRecords, Lot),
    /// Nothing more comes.
    Ended(FeedId, Problem),
}

/// The feeds of one stream.
pub struct Feeds {
    gateway: Gateway,
    window_bytes_max: u64,
    /// What is fed and not read is counted there.
    budget: Arc<Budget>,
    open: HashMap<FeedId, Feed>,
    next_id: FeedId,
    events: mpsc::UnboundedSender<Event>,
}

struct Feed {
    asks: mpsc::Sender<v1::ConsumeRequest>,
    window_bytes: u64,
    /// Taken by the client since the last credit was given.
    used_bytes: u64,
    /// Ends with the client's stream.
    _task: AbortOnDropHandle<()>,
}

impl Feeds {
    /// Each feed runs ahead by up to `window_bytes_max`.
    pub fn new(gateway: Gateway, window_bytes_max: u64, budget: Arc<Budget>) -> (Self, mpsc::UnboundedReceiver<Event>) {
        #[expect(clippy::disallowed_methods, reason = "bounded by the credits that feeds are given")]
        let (events, received) = mpsc::unbounded_channel();
        (Self { gateway, window_bytes_max, budget, open: HashMap::new(), next_id: 0, events }, received)
    }

    /// Opens a feed of these partitions from a node.
    pub fn open(&mut self, (node, address): (u64, String), topic: &Topic, partitions: Vec<v1::PartitionPosition>) -> FeedId {
        self.next_id += 1;
        let id = self.next_id;
        let (asks, receiver) = mpsc::channel(ASKS_MAX);
        let window_bytes = FIRST_WINDOW_BYTES.min(self.window_bytes_max);
        let open = v1::ConsumeOpen {
            topic: topic.name.to_string(),
            topic_id: Some(topic.id.to_string()),
            partitions,
            until_end: false,
            encoding: v1::Encoding::Batches.into(),
            // Records are counted where they are given to the client.
            credit: Some(v1::Credit { records: u64::MAX, bytes: window_bytes }),
        };
        // Cannot fail: the channel is empty and its receiver is here.
        let _ = asks.try_send(v1::ConsumeRequest { request: Some(Ask::Open(open)) });
        let (gateway, events, budget) = (self.gateway.clone(), self.events.clone(), self.budget.clone());
        let task = tokio::spawn(async move {
            let records = |records: v1::ConsumedRecords| {
                let lot = budget.lot(records.encoded_len() as u64);
                // The client's stream has ended if it does not listen, and ends this.
                let _ = events.send(Event::Records(id, records, lot));
            };
            let problem = run(&gateway, (node, &address), receiver, records).await;
            let _ = events.send(Event::Ended(id, problem));
        });
        self.open.insert(id, Feed { asks, window_bytes, used_bytes: 0, _task: AbortOnDropHandle::new(task) });
        id
    }

    /// Lets a feed push as much again as the client took of it.
    pub fn used(&mut self, id: FeedId, bytes: u64) {
        let Some(feed) = self.open.get_mut(&id) else { return };
        feed.used_bytes += bytes;
        if feed.used_bytes < feed.window_bytes / 2 {
            return;
        }
        // If there is no room, enough credits are on their way; this one goes out with the next.
        if let Ok(room) = feed.asks.try_reserve() {
            let grown = if self.budget.is_half_used() { feed.window_bytes } else { feed.window_bytes * 2 };
            let grown = grown.min(self.window_bytes_max);
            let bytes = std::mem::take(&mut feed.used_bytes) + (grown - feed.window_bytes);
            feed.window_bytes = grown;
            let credit = v1::Credit { records: 0, bytes };
            room.send(v1::ConsumeRequest { request: Some(Ask::Credit(credit)) });
        }
    }

    /// Ends a feed.
    pub fn close(&mut self, id: FeedId) {
        self.open.remove(&id);
    }
}

/// Opens a feed and hands on what it pushes until it ends. Returns why it did.
async fn run(
    gateway: &Gateway,
    (node, address): (u64, &str),
    asks: mpsc::Receiver<v1::ConsumeRequest>,
    records: impl FnMut(v1::ConsumedRecords),
) -> Problem {
    let connection = match gateway.connection(node, address).await {
        Ok(connection) => connection,
        Err(problem) => return problem,
    };
    let mut stub = ConsumerClient::new(connection.channel.clone()).max_decoding_message_size(gateway.message_bytes_max());
    let opened = stub.consume(gateway.envelope(None).around(ReceiverStream::new(asks))).await;
    let ended = match opened {
        Ok(pushes) => relay(pushes.into_inner(), records).await,
        Err(status) => Err(status),
    };
    match ended {
        Ok(()) => Problem::new(Reason::Draining, format!("node {node} ended the stream")),
        Err(status) => gateway.failed(&connection, &"the partition", Repeat::Read, &status),
    }
}

async fn relay(mut pushes: Streaming<v1::ConsumeResponse>, mut records: impl FnMut(v1::ConsumedRecords)) -> Result<(), Status> {
    while let Some(push) = pushes.message().await? {
        match push.response {
            Some(Push::Records(pushed)) => records(pushed),
            // The node is leaving.
            Some(Push::Drain(_)) => return Ok(()),
            // Whether a partition is at its stop is known from its position.
            Some(Push::Opened(_) | Push::PartitionEnd(_)) | None => {}
        }
    }
    Ok(())
}
