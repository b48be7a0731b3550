//! The batches of one partition that are not acknowledged yet, and the rules of their order. No I/O and no clock.
//!
//! - Batches go out in order. After a failed attempt nothing more goes out until every attempt on its way has ended;
//!   then all that are left go out again, in the same order and under the same sequence numbers.
//! - The partition remembers the last batches only. So at most that many go out from the oldest one on whose outcome is
//!   not known, whatever became of those between: else a retry of the oldest could not be told from a gap.
//! - A batch that may be in the log (*in doubt*) never gets another stamp, or it might be stored twice.
//! - If a stamped batch is given up, or the partition has forgotten the producer, the sequence has a gap: what is not in
//!   doubt starts again under a new producer id.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use flotilla_records::ProducerStamp;

use super::batch::{Attempt, Batch, Correlation, StreamId};
use super::delivery::Outcome;
use crate::error::{Error, reason};
use crate::retry::Backoff;

/// How long the answer to the last attempt at a batch is waited for once its time is over: it says what became of it.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

/// What a queue wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing before something else happens.
    Nothing,
    /// To be asked again at this time.
    At(Instant),
    /// A new producer id.
    ProducerId,
    /// To send this batch.
    Send(usize),
}

/// A batch that has left its queue.
#[derive(Debug)]
pub(super) struct Resolved {
    pub batch: Batch,
    pub outcome: Outcome,
}

#[derive(Debug)]
pub(super) struct Queue {
    batches: VecDeque<Batch>,
    /// How many of them have an attempt on its way. Those are always the first, unless an attempt has failed.
    in_flight: usize,
    in_flight_max: usize,
    idempotent: bool,
    /// Batches that were stamped so far.
    stamped: u64,
    /// The stamp of the next new batch.
    next_stamp: Option<ProducerStamp>,
    /// Whether sequence numbers were used up by a batch that is not in the log.
    gap: bool,
    /// Since an attempt failed: when the next may begin.
    retry_at: Option<Instant>,
    backoff: Backoff,
}

/// After its deadline a batch is not tried again; the answer to an attempt that is on its way then is waited for.
fn give_up_at(batch: &Batch) -> Instant {
    if batch.attempt.is_some() { batch.deadline + ANSWER_PATIENCE } else { batch.deadline }
}

impl Queue {
    pub fn new(idempotent: bool, in_flight_max: usize, backoff: Backoff) -> Self {
        Self {
            batches: VecDeque::new(),
            in_flight: 0,
            in_flight_max,
            idempotent,
            stamped: 0,
            next_stamp: None,
            gap: false,
            retry_at: None,
            backoff,
        }
    }

    pub fn push(&mut self, batch: Batch) {
        self.batches.push_back(batch);
    }

    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Smallest id of its batches.
    pub fn first_id(&self) -> Option<u64> {
        self.batches.front().map(|batch| batch.id)
    }

    /// Whether a batch that came now could go out at once.
    pub fn is_ready_for_more(&self) -> bool {
        let held_up = self.retry_at.is_some() || self.gap || self.in_flight < self.batches.len();
        self.batches.is_empty() || !held_up && self.in_flight < self.in_flight_max
    }

    /// The oldest attempt on its way.
    pub fn oldest_attempt(&self) -> Option<Attempt> {
        self.batches.iter().find_map(|batch| batch.attempt)
    }

    /// Whether the attempt is on its way.
    pub fn awaits(&self, correlation: Correlation) -> bool {
        self.batches.iter().filter_map(|batch| batch.attempt).any(|attempt| attempt.correlation == correlation)
    }

    /// When the first batch is to be given up.
    pub fn gives_up_at(&self) -> Option<Instant> {
        self.batches.front().map(give_up_at)
    }

    /// What to do now.
    pub fn next(&mut self, now: Instant) -> Next {
        let (index, busy) = (self.in_flight, self.in_flight > 0);
        if index == self.batches.len() || index >= self.in_flight_max || busy && (self.retry_at.is_some() || self.gap) {
            return Next::Nothing;
        }
        if self.batches.get(index).is_some_and(|batch| batch.deadline <= now) {
            return Next::Nothing;
        }
        let front = self.batches.front().and_then(|batch| batch.place);
        let place = self.batches.get(index).and_then(|batch| batch.place).unwrap_or(self.stamped);
        if front.is_some_and(|front| place - front >= self.in_flight_max as u64) {
            return Next::Nothing;
        }
        match self.retry_at {
            Some(at) if now < at => return Next::At(at),
            _ => self.retry_at = None,
        }
        let front_in_doubt = self.batches.front().is_some_and(|batch| batch.in_doubt);
        if self.gap && !front_in_doubt {
            self.start_new_sequence();
        }
        let stamped = self.batches.get(index).is_some_and(|batch| batch.stamp.is_some());
        if self.idempotent && !stamped && self.next_stamp.is_none() {
            return Next::ProducerId;
        }
        Next::Send(index)
    }

    fn start_new_sequence(&mut self) {
        self.gap = false;
        self.next_stamp = None;
        for batch in self.batches.iter_mut().filter(|batch| !batch.in_doubt) {
            batch.stamp = None;
            batch.place = None;
        }
    }

    /// Gives a producer id, if the queue has none.
    pub fn offer_producer(&mut self, stamp: ProducerStamp) {
        if self.idempotent {
            self.next_stamp.get_or_insert(stamp);
        }
    }

    /// Starts an attempt for the batch that [`next`](Queue::next) named; it is to be encoded and sent.
    pub fn start(&mut self, index: usize, attempt: Attempt) -> Option<&mut Batch> {
        let batch = self.batches.get_mut(index)?;
        if batch.attempt.replace(attempt).is_none() {
            self.in_flight += 1;
        }
        if batch.stamp.is_none() {
            batch.stamp = self.next_stamp;
            batch.place = batch.stamp.is_some().then_some(self.stamped);
            self.stamped += u64::from(batch.stamp.is_some());
            if let Some(next) = &mut self.next_stamp {
                next.base_sequence = next.sequence_after(batch.records);
            }
        }
        Some(batch)
    }

    /// The answer to an attempt. None: the batch stays, or the attempt is not on its way any more.
    pub fn answer(&mut self, correlation: Correlation, answer: Outcome, now: Instant) -> Option<Resolved> {
        let is_it = |batch: &Batch| batch.attempt.is_some_and(|attempt| attempt.correlation == correlation);
        let index = self.batches.iter().position(is_it)?;
        let batch = self.batches.get_mut(index)?;
        batch.attempt = None;
        self.in_flight -= 1;
        let error = match answer {
            Ok(offset) => {
                self.backoff.reset();
                return self.batches.remove(index).map(|batch| Resolved { batch, outcome: Ok(offset) });
            }
            Err(error) => error,
        };
        if error.is_sequence_error() {
            return self.out_of_sequence(index, error, now);
        }
        if !error.is_retriable() {
            return self.give_up(index, error);
        }
        batch.in_doubt |= error.outcome_unknown();
        self.retry_later(now, error.retry_after());
        None
    }

    fn out_of_sequence(&mut self, index: usize, error: Error, now: Instant) -> Option<Resolved> {
        let in_doubt = self.batches.get(index).is_some_and(|batch| batch.in_doubt);
        if index > 0 {
            // One before it is not in the log yet: they go again together.
            self.retry_later(now, None);
            return None;
        }
        let expected = self.gap || error.reason() == reason::UNKNOWN_PRODUCER;
        if in_doubt || !expected {
            return self.give_up(index, error);
        }
        self.gap = true;
        self.retry_later(now, None);
        None
    }

    /// Removes a batch that will not be tried again.
    pub fn give_up(&mut self, index: usize, error: Error) -> Option<Resolved> {
        let batch = self.batches.remove(index)?;
        self.in_flight -= usize::from(batch.attempt.is_some());
        self.gap |= batch.stamp.is_some();
        let doubtful = batch.in_doubt && !error.outcome_unknown();
        let error = if doubtful { Error::InDoubt { cause: Box::new(error) } } else { error };
        Some(Resolved { batch, outcome: Err(error) })
    }

    /// A stream broke: its attempts have ended without an answer. How many there were.
    pub fn broken(&mut self, stream: StreamId, now: Instant) -> usize {
        let mut ended = 0;
        for batch in &mut self.batches {
            if batch.attempt.is_some_and(|attempt| attempt.stream == stream) {
                batch.attempt = None;
                batch.in_doubt = true;
                ended += 1;
            }
        }
        self.in_flight -= ended;
        if ended > 0 {
            self.retry_later(now, None);
        }
        ended
    }

    fn retry_later(&mut self, now: Instant, at_least: Option<Duration>) {
        if self.retry_at.is_none() {
            self.retry_at = Some(now + self.backoff.next().max(at_least.unwrap_or_default()));
        }
    }

    /// Takes out a batch whose time is over.
    pub fn expire(&mut self, now: Instant, timeout: Duration, last_error: &str) -> Option<Resolved> {
        let front = self.batches.front().filter(|batch| give_up_at(batch) <= now)?;
        let outcome_unknown = front.in_doubt || front.attempt.is_some();
        self.give_up(0, Error::DeliveryTimeout { timeout, outcome_unknown, last: last_error.to_owned() })
    }

    /// Takes out everything: the producer ends.
    pub fn abandon(&mut self) -> Option<Resolved> {
        let front = self.batches.front_mut()?;
        front.in_doubt |= front.attempt.is_some();
        self.give_up(0, Error::Closed)
    }

    /// Takes out what does not stay when the producer stops: all but what is on its way, and what the server can tell
    /// from a new batch if it is in the log.
    pub fn stop(&mut self, error: &Error) -> Option<Resolved> {
        let stays = |batch: &Batch| batch.attempt.is_some() || batch.in_doubt && batch.stamp.is_some();
        let index = self.batches.iter().position(|batch| !stays(batch))?;
        self.give_up(index, error.clone())
    }

    /// Takes out what never got a stamp because there is no producer id for a lasting reason.
    pub fn refuse_unstamped(&mut self, error: &Error) -> Option<Resolved> {
        let index = self.batches.iter().position(|batch| batch.stamp.is_none() && batch.attempt.is_none())?;
        self.give_up(index, error.clone())
    }
}
