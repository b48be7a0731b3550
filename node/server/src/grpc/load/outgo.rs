//! What a call is answered: counted until the connection takes it, in pieces so small that what an unread answer leaves
//! there is small, too.

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
use super::budget::{Budget, Holder, Membership};

/// What the connection is given at once of one answer.
pub const PIECE_BYTES: usize = 64 << 10;

/// About what the connection keeps of an answer that is not read.
const PINNED_BYTES_MAX: usize = 2 * PIECE_BYTES;

/// The answer to a call. Its bytes are where the budget can free them, because the connection does not ask for more as
/// long as its client does not read.
#[derive(Debug)]
struct Outgo {
    budget: Arc<Budget>,
    state: Mutex<State>,
    _membership: Membership,
}

#[derive(Debug)]
struct State {
    /// Gone when it gave way, and at the end.
    body: Option<Body>,
    rest: Bytes,
    is_large: bool,
    /// Since when the connection has had a piece that it may not have sent yet.
    handed_over: Option<Instant>,
    gave_way: bool,
}

impl Outgo {
    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut state = self.lock();
        state.handed_over = None;
        if std::mem::take(&mut state.gave_way) {
            let mut trailers = Status::from(gave_way()).into_http::<Body>().into_parts().0.headers;
            trailers.remove(CONTENT_TYPE);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        if state.rest.is_empty() {
            let Some(body) = state.body.as_mut() else { return Poll::Ready(None) };
            match ready!(Pin::new(body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.budget.add(data.len() as u64);
                        state.is_large = data.len() > 2 * PINNED_BYTES_MAX;
                        state.rest = data;
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
        self.budget.sub(piece.len() as u64);
        // What the connection keeps for long must not keep all of the message in memory.
        if state.is_large && state.rest.len() < PINNED_BYTES_MAX || self.budget.is_half_used() {
            piece = Bytes::copy_from_slice(&piece);
        }
        state.handed_over = Some(Instant::now());
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holder for Outgo {
    fn kept_waiting(&self) -> Option<(Instant, u64)> {
        let state = self.lock();
        let unread = state.body.is_some() || !state.rest.is_empty();
        state.handed_over.filter(|_| unread).map(|since| (since, state.rest.len() as u64))
    }

    fn give_way(&self) {
        let mut state = self.lock();
        let (body, rest) = (state.body.take(), std::mem::take(&mut state.rest));
        state.gave_way = true;
        drop(state);
        self.budget.sub(rest.len() as u64);
        // What makes the answer ends with it.
        drop(body);
    }

    /// A client may take its time as long as nobody waits.
    fn look(&self, _now: Instant) {}
}

impl Drop for Outgo {
    fn drop(&mut self) {
        let rest = self.lock().rest.len();
        self.budget.sub(rest as u64);
    }
}

fn gave_way() -> Problem {
    let message = "this node holds as many bytes of answers as it may (setting send_bytes_max), and this one was not read for \
                   longest: ask again, and read faster or ask for less";
    Problem::new(Reason::Overloaded, message)
}

/// The body of an answer.
pub struct Outgoing(Arc<Outgo>);

impl Outgoing {
    /// A body whose bytes are counted.
    pub fn new(body: Body, budget: &Arc<Budget>) -> Self {
        Self(Arc::new_cyclic(|outgo: &Weak<Outgo>| Outgo {
            budget: budget.clone(),
            state: Mutex::new(State {
                body: Some(body),
                rest: Bytes::new(),
                is_large: false,
                handed_over: None,
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
