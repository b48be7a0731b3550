//! The batches of one stream for one partition, and the rules of their order. No I/O and no clock.
//!
//! - Batches go out in order, and all that are on their way are on their way to one node.
//! - A batch that was provably not appended, because the leader moves, goes out again: after all others on their way are
//!   answered, and only if none behind it was appended or may have been. Otherwise the order could not be kept, and its
//!   refusal is the answer.
//! - A batch whose outcome is not known never goes out again: only its producer can say what a repetition means.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::super::problem::{Problem, Reason};
use super::super::producer::Outcome;

/// Names a batch; never used twice by a stream.
pub type Ticket = u64;

/// A batch and what became of it.
pub type Settled = (Ticket, Outcome);

/// See the module.
#[derive(Debug, Default)]
pub struct Lane {
    /// Not on their way.
    waiting: VecDeque<Waiting>,
    /// In the order in which they went out.
    flight: VecDeque<Flying>,
    /// The node that they went to.
    node: Option<u64>,
    /// How many of `flight` have no answer yet.
    unanswered: usize,
    /// Since a refusal: when to try again.
    pause_until: Option<Instant>,
}

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    give_up_at: Instant,
    /// Why it was refused before.
    refusal: Option<Problem>,
}

#[derive(Debug)]
struct Flying {
    ticket: Ticket,
    give_up_at: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    OnItsWay,
    /// Not appended, for a reason that passes.
    Refused(Problem),
    /// It is appended, or may be; which is told already.
    Told,
}

impl Lane {
    /// Takes a batch, to be refused if no leader takes it before `give_up_at`.
    pub fn push(&mut self, ticket: Ticket, give_up_at: Instant) {
        self.waiting.push_back(Waiting { ticket, give_up_at, refusal: None });
    }

    /// Whether there is nothing to do before something else happens.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next one to go out, once it may.
    pub fn first_waiting(&self) -> Option<Ticket> {
        self.waiting.front().map(|batch| batch.ticket)
    }

    /// Whether everything is answered.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.flight.is_empty()
    }

    /// The batch to send to `leader` now, if any. [`Lane::sent`] follows.
    pub fn next(&self, now: Instant, leader: u64) -> Option<Ticket> {
        let elsewhere = self.unanswered > 0 && self.node != Some(leader);
        let refused = self.flight.len() > self.unanswered && self.flight.iter().any(Flying::is_refused);
        if elsewhere || refused || self.pause_until.is_some_and(|until| now < until) {
            return None;
        }
        self.first_waiting()
    }

    /// The batch named by [`Lane::next`] is on its way to `node`.
    pub fn sent(&mut self, node: u64) {
        if let Some(Waiting { ticket, give_up_at, .. }) = self.waiting.pop_front() {
            self.flight.push_back(Flying { ticket, give_up_at, state: State::OnItsWay });
            (self.node, self.pause_until) = (Some(node), None);
            self.unanswered += 1;
        }
    }

    /// What became of a batch on its way. Adds to `settled` what is to be told.
    pub fn answered(&mut self, ticket: Ticket, outcome: Outcome, retry_at: Instant, settled: &mut Vec<Settled>) {
        let Some(index) = self.flight.iter().position(|batch| batch.ticket == ticket) else { return };
        let refused_before = self.flight.iter().take(index).any(Flying::is_refused);
        let Some(batch) = self.flight.get_mut(index).filter(|batch| matches!(batch.state, State::OnItsWay)) else { return };
        self.unanswered -= 1;
        match outcome {
            Ok(result) => {
                batch.state = State::Told;
                settled.push((ticket, Ok(result)));
            }
            // Behind a gap that closes when the one before is sent again.
            Err(problem) if problem.is_passing() || refused_before && problem.reason() == Reason::OutOfOrderSequence => {
                batch.state = State::Refused(problem);
            }
            Err(problem) if problem.is_unknown() => {
                batch.state = State::Told;
                settled.push((ticket, Err(problem)));
            }
            Err(problem) => {
                self.flight.remove(index);
                settled.push((ticket, Err(problem)));
            }
        }
        if self.unanswered == 0 {
            self.land(retry_at, settled);
        }
        // Those that lie before any refusal have nothing to wait for.
        while matches!(self.flight.front(), Some(Flying { state: State::Told, .. })) {
            self.flight.pop_front();
        }
    }

    /// All are answered: what was refused behind the last one that was appended goes again, what was refused before it
    /// cannot.
    fn land(&mut self, retry_at: Instant, settled: &mut Vec<Settled>) {
        while let Some(Flying { ticket, give_up_at, state }) = self.flight.pop_back() {
            match state {
                State::Refused(refusal) => {
                    self.waiting.push_front(Waiting { ticket, give_up_at, refusal: Some(refusal) });
                    self.pause_until = Some(retry_at);
                }
                State::OnItsWay | State::Told => break,
            }
        }
        for Flying { ticket, state, .. } in self.flight.drain(..) {
            if let State::Refused(refusal) = state {
                settled.push((ticket, Err(refusal)));
            }
        }
    }

    /// Gives up what has waited for too long: nobody led the partition.
    pub fn expire(&mut self, now: Instant, nobody: impl Fn() -> Problem, settled: &mut Vec<Settled>) {
        self.waiting.retain_mut(|batch| {
            let stays = batch.give_up_at > now;
            if !stays {
                settled.push((batch.ticket, Err(batch.refusal.take().unwrap_or_else(&nobody))));
            }
            stays
        });
    }

    /// Why the next one could not be appended before, if it was sent already.
    pub fn refusal(&self) -> Option<&Problem> {
        self.waiting.front().and_then(|batch| batch.refusal.as_ref())
    }

    /// Refuses everything that waits.
    pub fn refuse_waiting(&mut self, problem: &Problem, settled: &mut Vec<Settled>) {
        settled.extend(self.waiting.drain(..).map(|batch| (batch.ticket, Err(problem.clone()))));
    }

    /// Those on their way to `node` that have no answer.
    pub fn on_their_way_to(&self, node: u64) -> Vec<Ticket> {
        let open = self.flight.iter().filter(|batch| self.node == Some(node) && matches!(batch.state, State::OnItsWay));
        open.map(|batch| batch.ticket).collect()
    }
}

impl Flying {
    fn is_refused(&self) -> bool {
        matches!(self.state, State::Refused(_))
    }
}

/// How long a refused batch waits before it is sent again.
pub const RETRY_PAUSE: Duration = super::super::forward::PAUSE;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use flotilla_proto::v1;

    use super::*;

    const LATER: Duration = Duration::from_secs(5);

    struct Case {
        lane: Lane,
        now: Instant,
        settled: Vec<Settled>,
    }

    impl Case {
        /// A lane with batches 0, 1, … of which all are on their way to node 1.
        fn flying(batches: u64) -> Self {
            let mut case = Self { lane: Lane::default(), now: Instant::now(), settled: vec![] };
            (0..batches).for_each(|ticket| case.lane.push(ticket, case.now + LATER));
            assert_eq!(case.send_all(1), (0..batches).collect::<Vec<_>>());
            case
        }

        fn send_all(&mut self, node: u64) -> Vec<Ticket> {
            let mut sent = vec![];
            while let Some(ticket) = self.lane.next(self.now, node) {
                self.lane.sent(node);
                sent.push(ticket);
            }
            sent
        }

        fn answer(&mut self, ticket: Ticket, outcome: Result<u64, Reason>) {
            let outcome = outcome.map(|offset| v1::ProduceResult { offset, ..Default::default() });
            let outcome = outcome.map_err(|reason| Problem::new(reason, "as the test wants"));
            self.lane.answered(ticket, outcome, self.now, &mut self.settled);
        }

        /// Tickets with their offsets or reasons, since the last call.
        fn told(&mut self) -> Vec<(Ticket, Result<u64, Reason>)> {
            let tell =
                |(ticket, outcome): Settled| (ticket, outcome.map(|result| result.offset).map_err(|problem| problem.reason()));
            self.settled.drain(..).map(tell).collect()
        }
    }

    #[test]
    fn what_is_refused_in_passing_goes_again_in_order_after_all_are_answered() {
        let mut case = Case::flying(4);
        case.answer(0, Ok(7));
        case.answer(1, Err(Reason::NotLeader));
        case.lane.push(4, case.now + LATER);
        assert!(case.send_all(2).is_empty(), "others are on their way");
        case.answer(3, Err(Reason::Unavailable));
        case.answer(2, Err(Reason::OutOfOrderSequence));
        assert_eq!(case.told(), [(0, Ok(7))]);
        assert_eq!(case.send_all(2), [1, 2, 3, 4]);
        (1..5).for_each(|ticket| case.answer(ticket, Ok(7 + ticket)));
        assert_eq!(case.told(), [(1, Ok(8)), (2, Ok(9)), (3, Ok(10)), (4, Ok(11))]);
        assert!(case.lane.is_empty());
    }

    #[test]
    fn what_was_refused_before_something_was_appended_cannot_go_again() {
        let mut case = Case::flying(4);
        case.answer(1, Err(Reason::NotLeader));
        case.answer(3, Err(Reason::NotLeader));
        case.answer(2, Ok(5));
        case.answer(0, Ok(4));
        assert_eq!(case.told(), [(2, Ok(5)), (0, Ok(4)), (1, Err(Reason::NotLeader))]);
        assert_eq!(case.send_all(1), [3]);
    }

    #[test]
    fn an_unknown_outcome_is_told_and_never_repeated() {
        let mut case = Case::flying(3);
        assert_eq!(case.lane.on_their_way_to(2), Vec::<Ticket>::new());
        for ticket in case.lane.on_their_way_to(1) {
            case.answer(ticket, Err(Reason::OutcomeUnknown));
        }
        let unknown = Err(Reason::OutcomeUnknown);
        assert_eq!(case.told(), [(0, unknown), (1, unknown), (2, unknown)]);
        assert!(case.lane.is_empty() && case.send_all(1).is_empty());
    }

    #[test]
    fn a_sequence_error_without_a_refusal_before_it_is_an_answer() {
        let mut case = Case::flying(2);
        case.answer(0, Err(Reason::OutOfOrderSequence));
        case.answer(1, Err(Reason::OutOfOrderSequence));
        assert_eq!(case.told(), [(0, Err(Reason::OutOfOrderSequence)), (1, Err(Reason::OutOfOrderSequence))]);
    }

    #[test]
    fn what_waits_too_long_is_refused_with_the_last_reason() {
        let mut case = Case::flying(1);
        case.answer(0, Err(Reason::Draining));
        case.lane.push(1, case.now + LATER);
        case.lane.push(2, case.now + LATER * 2);
        case.now += LATER;
        let nobody = || Problem::new(Reason::NotLeader, "nobody leads it");
        case.lane.expire(case.now, nobody, &mut case.settled);
        assert_eq!(case.told(), [(0, Err(Reason::Draining)), (1, Err(Reason::NotLeader))]);
        assert_eq!(case.send_all(2), [2]);
    }
}
