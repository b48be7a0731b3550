//! What a call is answered: counted until the connection has sent the last byte of it. The connection gets it in pieces,
//! so that what an unread answer leaves there is small.
//!
//! An answer that is not read gives way in two steps: first what the connection does not have yet, and the call ends with
//! a status that says so; then, should the client not read that either, the connection, because nothing else frees what it
//! holds.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use tonic::Status;
use tonic::body::Body;

use super::super::problem::{Problem, Reason};
use super::budget::{Budget, Handover, Holder, Membership};
use super::messages::trailers;
use super::nature::Nature;
use crate::net::Slot;

/// What the connection is given at once of one answer.
pub const PIECE_BYTES: usize = 64 << 10;

/// What a connection and the count take for data that waits, however small.
const AROUND_DATA_BYTES: u64 = 512;
/// What a stream takes, and its connection, besides what it is sent. It is counted while that is not read.
pub const AROUND_STREAM_BYTES: u64 = 32 << 10;

/// The answer to a call, as long as anything of it is left. Its bytes are where the budget can free them, because the
/// connection does not ask for more as long as its client does not read.
#[derive(Debug)]
struct Outgo {
    nature: Nature,
    connection: Arc<Slot>,
    budget: Arc<Budget>,
    made_of: Option<Handover>,
    /// All that is counted.
    bytes: AtomicU64,
    /// How often the connection took or sent something.
    steps: AtomicU64,
    state: Mutex<State>,
    _membership: Membership,
}

#[derive(Debug)]
struct State {
    /// Gone when it gave way, and at the end.
    body: Option<Body>,
    /// Of the message that is being handed over.
    rest: VecDeque<Bytes>,
    /// The steps when it was last seen that there were more, and when that was.
    seen: (u64, Instant),
    /// Was told to give way since then.
    told: bool,
    gave_way: bool,
}

/// Data that is counted until its last slice is dropped.
struct Held {
    data: Bytes,
    answer: Arc<Outgo>,
}

impl Outgo {
    fn poll(self: &Arc<Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut state = self.lock();
        if std::mem::take(&mut state.gave_way) {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers(gave_way(self.nature).into())))));
        }
        if state.rest.is_empty() {
            let Some(body) = state.body.as_mut() else { return Poll::Ready(None) };
            match ready!(Pin::new(body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        state.rest = self.parts(data);
                        if let Some(made_of) = &self.made_of {
                            made_of.put(None);
                        }
                    }
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                other => {
                    state.body = None;
                    return Poll::Ready(other);
                }
            }
        }
        let piece = match state.rest.front_mut() {
            Some(part) if part.len() > PIECE_BYTES => part.split_to(PIECE_BYTES),
            _ => state.rest.pop_front().unwrap_or_default(),
        };
        self.steps.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    /// Data as it is handed over. Where bytes are short, a piece that the connection keeps must not keep all of it.
    fn parts(self: &Arc<Self>, data: Bytes) -> VecDeque<Bytes> {
        match data.len() > PIECE_BYTES && self.budget.is_half_used() {
            true => data.chunks(PIECE_BYTES).map(|piece| self.hold(Bytes::copy_from_slice(piece))).collect(),
            false => VecDeque::from([self.hold(data)]),
        }
    }

    /// The same data, counted.
    fn hold(self: &Arc<Self>, data: Bytes) -> Bytes {
        let held = Held { data, answer: self.clone() };
        let before = self.bytes.fetch_add(held.bytes(), Ordering::Relaxed);
        self.budget.add(held.bytes() + self.around_bytes(before));
        Bytes::from_owner(held)
    }

    /// What is counted besides, from the first byte to the last.
    fn around_bytes(&self, others: u64) -> u64 {
        if self.nature.streams && others == 0 { AROUND_STREAM_BYTES } else { 0 }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What the connection does not have yet. To be dropped without the lock.
    fn take_rest(&mut self) -> (Option<Body>, VecDeque<Bytes>) {
        (self.body.take(), std::mem::take(&mut self.rest))
    }

    /// Whether nothing is missing but how the call ended.
    fn is_complete(&self, nature: Nature) -> bool {
        self.rest.is_empty() && (!nature.streams || self.body.is_none())
    }
}

impl Holder for Outgo {
    /// The connection takes and sends what it can: all that is left waits for the client.
    fn kept_waiting(&self) -> Option<(Instant, u64)> {
        let bytes = self.bytes.load(Ordering::Relaxed);
        (bytes > 0).then(|| (self.lock().seen.1, bytes))
    }

    fn give_way(&self) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.told, true) {
            drop(state);
            return self.connection.close();
        }
        // How a call ended stays true, and frees nothing.
        let left = (!state.is_complete(self.nature)).then(|| {
            state.gave_way = true;
            state.take_rest()
        });
        drop(state);
        // What makes the answer ends with it.
        drop(left);
        // The next step is the client's.
        self.lock().seen = (self.steps.load(Ordering::Relaxed), Instant::now());
    }

    /// A client may take its time as long as nobody waits.
    fn look(&self, now: Instant) {
        let (steps, mut state) = (self.steps.load(Ordering::Relaxed), self.lock());
        if state.seen.0 != steps {
            (state.seen, state.told) = ((steps, now), false);
        }
    }
}

impl Held {
    fn bytes(&self) -> u64 {
        self.data.len() as u64 + AROUND_DATA_BYTES
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let bytes = self.bytes();
        // The memory goes first: whoever hears that it is free may take as much at once.
        self.data = Bytes::new();
        let before = self.answer.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.answer.steps.fetch_add(1, Ordering::Relaxed);
        self.answer.budget.sub(bytes + self.answer.around_bytes(before - bytes));
    }
}

/// What the client is told whose answer gave way.
fn gave_way(nature: Nature) -> Problem {
    const WHY: &str = "this node holds as many bytes of answers as it may (setting send_bytes_max), and this one was not read \
                       for longest";
    match nature.writes {
        true => Problem::new(Reason::OutcomeUnknown, format!("{WHY}: what it does not say may have taken effect; read faster")),
        false => Problem::new(Reason::Overloaded, format!("{WHY}: ask again, and read faster or ask for less")),
    }
}

/// The body of an answer.
pub struct Outgoing(Arc<Outgo>);

impl Outgoing {
    /// The body of the answer to a call of `connection`, whose bytes are counted.
    pub fn new((body, made_of): (Body, Option<Handover>), nature: Nature, connection: Arc<Slot>, budget: &Arc<Budget>) -> Self {
        Self(Arc::new_cyclic(|outgo: &Weak<Outgo>| Outgo {
            nature,
            connection,
            budget: budget.clone(),
            made_of,
            bytes: AtomicU64::new(0),
            steps: AtomicU64::new(0),
            state: Mutex::new(State {
                body: Some(body),
                rest: VecDeque::new(),
                seen: (0, Instant::now()),
                told: false,
                gave_way: false,
            }),
            _membership: budget.join(outgo.clone()),
        }))
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.0.poll(context)
    }

    fn is_end_stream(&self) -> bool {
        let state = self.0.lock();
        state.rest.is_empty() && !state.gave_way && state.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }
}

impl Drop for Outgoing {
    /// What the connection has not sent yet stays counted, and its client can be made to give way.
    fn drop(&mut self) {
        let left = self.0.lock().take_rest();
        drop(left);
    }
}
