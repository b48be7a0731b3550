//! The produce streams of one producer, one per node: opened by a task each, which reports what happens as events.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use flotilla_proto::v1;
use flotilla_proto::v1::producer_client::ProducerClient;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_stream::wrappers::ReceiverStream;

use super::batch::StreamId;
use super::sender::Event;
use crate::client::Client;
use crate::error::Error;
use crate::retry::Backoff;

/// A node's address; none where the leader is not known, which means any node.
type Node = Option<Arc<str>>;
/// Requests of a stream. While [`REQUESTS_MAX`] wait, no more go in: the answer to one of them wakes the sender.
pub(super) type Requests = mpsc::Sender<v1::ProduceRequest>;
const REQUESTS_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct Streams {
    client: Client,
    events: mpsc::Sender<Event>,
    by_node: HashMap<Node, Stream>,
    next_id: StreamId,
}

#[derive(Debug)]
struct Stream {
    id: StreamId,
    state: State,
    backoff: Backoff,
}

#[derive(Debug)]
enum State {
    Opening(AbortHandle),
    Open(AbortHandle, Requests),
    /// Could not be opened; may be tried again then.
    Down(Instant),
}

impl Streams {
    pub fn new(client: Client, events: mpsc::Sender<Event>) -> Self {
        Self { client, events, by_node: HashMap::new(), next_id: 0 }
    }

    /// The stream to `node` if it is open. Otherwise it is being opened, or will be at the time returned.
    pub fn get(&mut self, node: Node, now: Instant) -> Result<(StreamId, Requests), Option<Instant>> {
        match self.by_node.get(&node).map(|stream| (stream.id, &stream.state)) {
            Some((id, State::Open(_, requests))) => return Ok((id, requests.clone())),
            Some((_, State::Opening(_))) => return Err(None),
            Some((_, State::Down(until))) if now < *until => return Err(Some(*until)),
            Some((_, State::Down(_))) | None => {}
        }
        self.next_id += 1;
        let id = self.next_id;
        let task = tokio::spawn(run(id, self.client.clone(), node.clone(), self.events.clone()));
        let backoff = self.by_node.remove(&node).map_or_else(|| self.client.backoff(), |stream| stream.backoff);
        self.by_node.insert(node, Stream { id, state: State::Opening(task.abort_handle()), backoff });
        Err(None)
    }

    pub fn opened(&mut self, id: StreamId, requests: Requests) {
        if let Some(stream) = self.by_node.values_mut().find(|stream| stream.id == id)
            && let State::Opening(task) = &stream.state
        {
            stream.state = State::Open(task.clone(), requests);
            stream.backoff.reset();
        }
    }

    /// Ends a stream that broke or does not answer. Whether it was there.
    pub fn remove(&mut self, id: StreamId, now: Instant) -> bool {
        let Some((node, stream)) = self.by_node.iter_mut().find(|(_, stream)| stream.id == id) else {
            return false;
        };
        match &stream.state {
            State::Opening(task) => {
                task.abort();
                stream.state = State::Down(now + stream.backoff.next());
            }
            State::Open(task, _) => {
                task.abort();
                let node = node.clone();
                self.by_node.remove(&node);
            }
            State::Down(_) => return false,
        }
        true
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        for stream in self.by_node.values() {
            if let State::Opening(task) | State::Open(task, _) = &stream.state {
                task.abort();
            }
        }
    }
}

/// Opens a stream and reports its answers until it ends.
async fn run(id: StreamId, client: Client, node: Node, events: mpsc::Sender<Event>) {
    let error = match client.connection(node.as_deref()).await {
        Ok(connection) => {
            let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
            // The sender has ended if it does not listen: nothing is left to do here and below.
            let _ = events.send(Event::Opened(id, requests)).await;
            let mut stub = ProducerClient::new(connection.channel).max_decoding_message_size(client.message_bytes_max());
            let ended = match stub.produce_stream(ReceiverStream::new(receiver)).await {
                Ok(answers) => relay(id, answers.into_inner(), &events).await,
                Err(status) => Error::of_answer(status, &connection.address),
            };
            client.forget_connection(&connection.address);
            ended
        }
        Err(error) => error,
    };
    let _ = events.send(Event::Broken(id, error)).await;
}

async fn relay(id: StreamId, mut answers: tonic::Streaming<v1::ProduceResponse>, events: &mpsc::Sender<Event>) -> Error {
    loop {
        match answers.message().await {
            Ok(Some(answer)) => {
                let _ = events.send(Event::Answer(id, answer)).await;
            }
            Ok(None) => return Error::ConnectionLost { reason: "the server ended the stream".to_owned() },
            Err(status) => return Error::from(status),
        }
    }
}
