//! What a call is answered: counted until the connection has sent the last byte of it. The connection gets it in pieces,
//! so that what an unread answer leaves there is small.
//!
//! An answer that is not read gives way in two steps: first what the connection does not have yet, and the call ends with
//! a status that says so; then, should the client not read that either, the connection, because nothing else frees what it
//! holds.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use tonic::Status;
use tonic::body::Body;

use super::super::problem::{Problem, Reason};
use super::SMALL_BYTES;
use super::budget::{Budget, Handover, Holder, Membership, Share};
use super::nature::Nature;
use crate::net::Slot;

/// What the connection is given at once of one answer.
pub const PIECE_BYTES: usize = 64 << 10;

/// The answer to a call. Its bytes are where the budget can free them, because the connection does not ask for more as
/// long as its client does not read.
#[derive(Debug)]
struct Outgo {
    nature: Nature,
    connection: Arc<Slot>,
    budget: Arc<Budget>,
    made_of: Option<Handover>,
    state: Mutex<State>,
    _membership: Membership,
}

#[derive(Debug)]
struct State {
    /// Gone when it gave way, and at the end.
    body: Option<Body>,
    /// Of the message that is being handed over.
    rest: Bytes,
    /// All that is counted; absent before there is any.
    held: Option<Arc<Share>>,
    /// Since when the connection has had a piece that it may not have sent yet, or was told that it must.
    handed_over: Option<Instant>,
    /// Was told to give way since then.
    told: bool,
    gave_way: bool,
}

impl Outgo {
    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut state = self.lock();
        (state.handed_over, state.told) = (None, false);
        if std::mem::take(&mut state.gave_way) {
            let mut trailers = Status::from(gave_way(self.nature)).into_http::<Body>().into_parts().0.headers;
            trailers.remove(CONTENT_TYPE);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        if state.rest.is_empty() {
            let Some(body) = state.body.as_mut() else { return Poll::Ready(None) };
            match ready!(Pin::new(body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        state.rest = self.counted(&mut state, data);
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
        let piece_bytes = state.rest.len().min(PIECE_BYTES);
        let mut piece = state.rest.split_to(piece_bytes);
        // Where bytes are short, what the connection keeps must not keep all of the message.
        if !state.rest.is_empty() && self.budget.is_half_used() {
            piece = self.counted(&mut state, Bytes::copy_from_slice(&piece));
        }
        state.handed_over = Some(Instant::now());
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn counted(&self, state: &mut State, data: Bytes) -> Bytes {
        if data.len() <= SMALL_BYTES {
            return data;
        }
        state.held.get_or_insert_with(|| Share::of(&self.budget)).hold(data)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn held_bytes(&self) -> u64 {
        self.held.as_ref().map_or(0, |held| held.bytes())
    }
}

impl Holder for Outgo {
    fn kept_waiting(&self) -> Option<(Instant, u64)> {
        let state = self.lock();
        let held = state.held_bytes();
        // A stream that goes on holds what is to be sent next, which is counted where it was made.
        let goes_on = self.nature.streams && state.body.is_some();
        state.handed_over.filter(|_| goes_on || held > 0).map(|since| (since, held))
    }

    fn give_way(&self) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.told, true) {
            drop(state);
            return self.connection.close();
        }
        state.handed_over = Some(Instant::now());
        // Nothing is missing but how the call ended: that stays true, and frees nothing.
        if !self.nature.streams && state.rest.is_empty() {
            return;
        }
        let left = (state.body.take(), std::mem::take(&mut state.rest));
        state.gave_way = true;
        drop(state);
        // What makes the answer ends with it.
        drop(left);
    }

    /// A client may take its time as long as nobody waits.
    fn look(&self, _now: Instant) {}
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
            state: Mutex::new(State {
                body: Some(body),
                rest: Bytes::new(),
                held: None,
                handed_over: None,
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
