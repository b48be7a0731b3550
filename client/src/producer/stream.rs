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
use crate::client::{Client, meant_for};
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
    /// It goes to the node that it is meant for, and not through another one.
    direct: bool,
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

    /// The stream to `node` if it is open, and whether it goes there without a detour. Otherwise it is being opened, or
    /// will be at the time returned.
    pub fn get(&mut self, node: Node, now: Instant) -> Result<(StreamId, Requests, bool), Option<Instant>> {
        self.leave_detour(&node);
        if let Some(stream) = self.by_node.get(&node) {
            match &stream.state {
                State::Open(_, requests) => return Ok((stream.id, requests.clone(), stream.direct)),
                State::Opening(_) => return Err(None),
                State::Down(until) if now < *until => return Err(Some(*until)),
                State::Down(_) => {}
            }
        }
        self.next_id += 1;
        let id = self.next_id;
        let task = tokio::spawn(run(id, self.client.clone(), node.clone(), self.events.clone()));
        let backoff = self.by_node.remove(&node).map_or_else(|| self.client.retry_backoff(), |stream| stream.backoff);
        self.by_node.insert(node, Stream { id, state: State::Opening(task.abort_handle()), direct: false, backoff });
        Err(None)
    }

    /// A node that could not be reached when its stream was opened, so that it goes through another, may be by now. What is
    /// on its way on the old stream is still answered there.
    fn leave_detour(&mut self, node: &Node) {
        let detour = self.by_node.get(node).is_some_and(|stream| matches!(stream.state, State::Open(..)) && !stream.direct);
        if detour && node.as_deref().is_some_and(|address| self.client.is_connected_or_soon(address)) {
            self.by_node.remove(node);
        }
    }

    pub fn opened(&mut self, id: StreamId, address: &str, requests: Requests) {
        if let Some((node, stream)) = self.by_node.iter_mut().find(|(_, stream)| stream.id == id)
            && let State::Opening(task) = &stream.state
        {
            stream.state = State::Open(task.clone(), requests);
            stream.direct = node.as_deref() == Some(address);
            stream.backoff.reset();
        }
    }

    /// Ends a stream that broke or does not answer. Whether it was still in use.
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
            let mut stub = ProducerClient::new(connection.channel).max_decoding_message_size(client.message_bytes_max());
            let request = meant_for(ReceiverStream::new(receiver), &connection.address, node.as_deref());
            let ended = match stub.produce_stream(request).await {
                Ok(answers) => {
                    // Not before: what is not handed over is certainly not written. The sender has ended if it does not
                    // listen: nothing is left to do here and below.
                    let _ = events.send(Event::Opened(id, connection.address.clone(), requests)).await;
                    relay(id, answers.into_inner(), &events).await
                }
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
