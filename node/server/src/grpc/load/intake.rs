//! What a call sends: counted from the first byte of a message until it is complete and taken, or, while its handler has
//! not answered, until it has.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use tonic::Status;
use tonic::body::Body;

use super::super::problem::{Problem, Reason};
use super::SMALL_BYTES;
use super::budget::{Budget, Holder, Membership, Waiting};
use super::framing::Framing;

/// A message of which nothing comes for this long is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a call holds of what it has sent.
#[derive(Debug)]
pub struct Intake {
    budget: Arc<Budget>,
    state: Mutex<State>,
    /// Set once, when the call is known to the budget.
    _membership: Membership,
}

#[derive(Debug)]
struct State {
    bytes: u64,
    /// When the message began that is not complete.
    begun: Option<Instant>,
    /// When something came.
    moved: Instant,
    /// A frame waits for room.
    waits: bool,
    /// It may take more than there is.
    goes_on: bool,
    /// The handler has answered, or returned a stream that answers.
    answered: bool,
    /// Nothing more comes.
    ended: bool,
    fate: Option<Fate>,
    reader: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    GaveWay,
    Stalled,
}

impl From<Fate> for Problem {
    fn from(fate: Fate) -> Self {
        match fate {
            Fate::GaveWay => Self::new(
                Reason::Overloaded,
                "this node holds as many bytes of requests as it may (setting receive_bytes_max), and this one took longest to \
                 arrive: send it again later, or to another node",
            ),
            Fate::Stalled => {
                let message =
                    format!("nothing of the request came for {} s, and it is not complete: send it again", PATIENCE.as_secs());
                Self::new(Reason::Stalled, message)
            }
        }
    }
}

impl Intake {
    /// Of a call that has just begun.
    pub fn new(budget: &Arc<Budget>) -> Arc<Self> {
        Arc::new_cyclic(|intake: &Weak<Self>| Self {
            budget: budget.clone(),
            state: Mutex::new(State {
                bytes: 0,
                begun: None,
                moved: Instant::now(),
                waits: false,
                goes_on: false,
                answered: false,
                ended: false,
                fate: None,
                reader: None,
            }),
            _membership: budget.join(intake.clone()),
        })
    }

    /// The handler has answered: what it took is not counted here any more.
    pub fn answered(&self) {
        let mut state = self.lock();
        state.answered = true;
        if state.ended {
            self.count(&mut state, 0);
        }
    }

    /// The reader comes for more, so it has taken all messages that are complete.
    fn ask(&self, unfinished: u64, context: &Context<'_>) -> Result<(), Problem> {
        let mut state = self.lock();
        if let Some(fate) = state.fate {
            return Err(fate.into());
        }
        if state.answered && !state.waits {
            self.count(&mut state, unfinished);
        }
        if !state.reader.as_ref().is_some_and(|reader| reader.will_wake(context.waker())) {
            state.reader = Some(context.waker().clone());
        }
        Ok(())
    }

    /// Something came. Whether it may be handed on now.
    fn arrived(&self, bytes: u64, began: bool, unfinished: u64) -> bool {
        let has_room = self.budget.has_room();
        let mut state = self.lock();
        let now = Instant::now();
        state.moved = now;
        if began || unfinished == 0 {
            state.begun = (unfinished > 0).then_some(now);
            state.goes_on = false;
        }
        let held = state.bytes + bytes;
        self.count(&mut state, held);
        // A small request goes on whoever holds all the room; of a stream there is no end.
        let is_small = !state.answered && held <= SMALL_BYTES as u64;
        state.waits = !has_room && !state.goes_on && !is_small;
        !state.waits
    }

    /// Whether what waits may be handed on.
    fn may_go_on(&self) -> bool {
        let has_room = self.budget.has_room();
        let mut state = self.lock();
        if has_room || state.goes_on {
            state.waits = false;
            state.moved = Instant::now();
        }
        !state.waits
    }

    fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        if state.answered {
            self.count(&mut state, 0);
        }
    }

    fn count(&self, state: &mut State, bytes: u64) {
        let before = std::mem::replace(&mut state.bytes, bytes);
        if bytes > before {
            self.budget.add(bytes - before);
        } else {
            self.budget.sub(before - bytes);
        }
    }

    fn settle(&self, state: &mut State, fate: Fate) {
        state.fate.get_or_insert(fate);
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether its client is to send something: the rest of a message, or the one that the handler waits for.
    fn is_owed(&self) -> bool {
        !self.ended && !self.waits && self.fate.is_none() && (self.begun.is_some() || !self.answered)
    }
}

impl Holder for Intake {
    fn kept_waiting(&self) -> Option<(Instant, u64)> {
        let state = self.lock();
        state.begun.filter(|_| state.is_owed()).map(|begun| (begun, state.bytes))
    }

    fn give_way(&self) {
        self.settle(&mut self.lock(), Fate::GaveWay);
    }

    fn look(&self, now: Instant) {
        let mut state = self.lock();
        if state.is_owed() && now.saturating_duration_since(state.moved) >= PATIENCE {
            self.settle(&mut state, Fate::Stalled);
        }
    }

    fn go_on(&self) {
        let mut state = self.lock();
        state.goes_on = true;
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    fn wants_more(&self) -> Option<Instant> {
        let state = self.lock();
        state.begun.filter(|_| state.waits && state.fate.is_none())
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        let bytes = self.lock().bytes;
        self.budget.sub(bytes);
    }
}

/// The body of a request.
pub struct Incoming {
    body: Body,
    intake: Arc<Intake>,
    framing: Framing,
    /// What has arrived and waits for room.
    held: Option<(Frame<Bytes>, Waiting)>,
}

impl Incoming {
    /// A body whose bytes are counted.
    pub fn new(body: Body, intake: Arc<Intake>) -> Self {
        Self { body, intake, framing: Framing::default(), held: None }
    }

    fn poll_held(&mut self, context: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        while let Some((_, waiting)) = &mut self.held {
            if self.intake.may_go_on() {
                return Poll::Ready(self.held.take().map(|(frame, _)| frame));
            }
            if waiting.freed.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            *waiting = self.intake.budget.wait();
        }
        Poll::Ready(None)
    }
}

impl HttpBody for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if let Err(problem) = this.intake.ask(this.framing.unfinished(), context) {
            (this.held, this.body) = (None, Body::empty());
            return Poll::Ready(Some(Err(problem.into())));
        }
        if this.held.is_none() {
            match std::task::ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    let Some(data) = frame.data_ref() else { return Poll::Ready(Some(Ok(frame))) };
                    let began = this.framing.take(data);
                    if this.intake.arrived(data.len() as u64, began, this.framing.unfinished()) {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    this.held = Some((frame, this.intake.budget.wait()));
                }
                other => {
                    this.intake.end();
                    return Poll::Ready(other);
                }
            }
        }
        this.poll_held(context).map(|frame| frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && self.body.is_end_stream()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.intake.end();
    }
}
