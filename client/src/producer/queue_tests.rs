//! The rules of a partition's queue, one by one, without I/O or time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use flotilla_records::ProducerStamp;
use tonic::Code;

use super::accumulator::Open;
use super::batch::{Attempt, Batch};
use super::queue::{ANSWER_PATIENCE, Next, Queue, Resolved};
use crate::error::Error;
use crate::retry::Backoff;

const RECORDS: u32 = 10;
const TIMEOUT: Duration = Duration::from_secs(100);
const STREAM: u64 = 1;

struct Partition {
    queue: Queue,
    now: Instant,
    correlation: u64,
}

fn stamp(id: i64, base_sequence: i32) -> ProducerStamp {
    ProducerStamp { id, epoch: 0, base_sequence }
}

fn refused(code: Code, reason: &str) -> Error {
    Error::Server { code, reason: reason.to_owned(), message: String::new(), metadata: HashMap::new(), retry_after: None }
}

impl Partition {
    fn with(batches: u64) -> Self {
        let now = Instant::now();
        let mut queue = Queue::new(true, 5, Backoff::new(Duration::from_millis(1), Duration::from_millis(1)));
        for id in 0..batches {
            queue.push(Batch::new(id, Open::with_records(RECORDS, now), now + TIMEOUT));
        }
        queue.offer_producer(stamp(7, 0));
        Self { queue, now, correlation: 0 }
    }

    /// Sends all that may go out; ids and stamps in order.
    fn send(&mut self) -> Vec<(u64, ProducerStamp)> {
        let mut sent = Vec::new();
        while let Next::Send(index) = self.queue.next(self.now) {
            let attempt = Attempt { stream: STREAM, correlation: self.correlation, since: self.now };
            let batch = self.queue.start(index, attempt).unwrap();
            sent.push((batch.id, batch.stamp.unwrap()));
            self.correlation += 1;
        }
        sent
    }

    fn answer(&mut self, correlation: u64, answer: Result<u64, Error>) -> Option<Resolved> {
        self.queue.answer(correlation, answer, self.now)
    }

    fn wait(&mut self) {
        self.now += Duration::from_millis(2);
    }
}

fn numbered(ids: impl IntoIterator<Item = u64>) -> Vec<(u64, ProducerStamp)> {
    ids.into_iter().map(|id| (id, stamp(7, id as i32 * RECORDS as i32))).collect()
}

#[test]
fn five_go_out_in_order_and_each_answer_makes_room_for_one() {
    let mut partition = Partition::with(7);
    assert_eq!(partition.send(), numbered(0..5));
    assert_eq!(partition.answer(0, Ok(0)).unwrap().batch.id, 0);
    assert_eq!(partition.send(), numbered([5]));
    assert!(partition.answer(0, Ok(0)).is_none(), "an answer counts once");
}

#[test]
fn no_more_go_out_than_the_partition_remembers_from_the_oldest_unknown_one_on() {
    let mut partition = Partition::with(7);
    partition.send();
    // All five are in the log, but the first one's answer was lost; the next attempt at it fails in between.
    partition.answer(0, Err(refused(Code::Unavailable, "OUTCOME_UNKNOWN")));
    for correlation in 1..5 {
        partition.answer(correlation, Ok(10));
    }
    partition.wait();
    assert_eq!(partition.send(), numbered([0]), "with 5 behind it, a refusal of 0 would make the partition forget 0");
    partition.answer(5, Ok(0));
    assert_eq!(partition.send(), numbered([5, 6]));
}

#[test]
fn after_a_failure_all_wait_and_go_again_with_the_same_numbers() {
    let mut partition = Partition::with(7);
    partition.send();
    assert!(partition.answer(0, Err(refused(Code::Unavailable, "NOT_LEADER"))).is_none());
    partition.wait();
    assert_eq!(partition.send(), [], "four are still on their way");
    for correlation in 1..5 {
        assert!(partition.answer(correlation, Err(refused(Code::FailedPrecondition, "OUT_OF_ORDER_SEQUENCE"))).is_none());
    }
    assert_eq!(partition.send(), numbered(0..5));
}

#[test]
fn a_retry_waits_for_its_time() {
    let mut partition = Partition::with(1);
    partition.send();
    partition.answer(0, Err(refused(Code::Unavailable, "NOT_LEADER")));
    assert!(matches!(partition.queue.next(partition.now), Next::At(at) if at > partition.now));
    partition.wait();
    assert_eq!(partition.send(), numbered([0]));
}

#[test]
fn a_batch_in_doubt_keeps_its_stamp_and_is_reported_so() {
    let mut partition = Partition::with(2);
    partition.send();
    assert_eq!(partition.queue.broken(STREAM, partition.now), 2);
    partition.wait();
    assert_eq!(partition.send(), numbered(0..2));
    // The partition has forgotten the producer: the first may be stored, so nobody can say.
    let given_up = partition.answer(2, Err(refused(Code::FailedPrecondition, "UNKNOWN_PRODUCER"))).unwrap();
    assert!(given_up.outcome.unwrap_err().outcome_unknown());
    assert!(
        partition
            .answer(3, Err(refused(Code::FailedPrecondition, "UNKNOWN_PRODUCER")))
            .unwrap()
            .outcome
            .unwrap_err()
            .outcome_unknown()
    );
}

#[test]
fn a_refused_batch_leaves_a_gap_that_a_new_id_closes() {
    let mut partition = Partition::with(3);
    partition.send();
    let refused_batch = partition.answer(0, Err(refused(Code::InvalidArgument, "BATCH_TOO_LARGE"))).unwrap();
    assert!(!refused_batch.outcome.unwrap_err().outcome_unknown());
    for correlation in 1..3 {
        assert!(partition.answer(correlation, Err(refused(Code::FailedPrecondition, "OUT_OF_ORDER_SEQUENCE"))).is_none());
    }
    partition.wait();
    assert_eq!(partition.queue.next(partition.now), Next::ProducerId);
    partition.queue.offer_producer(stamp(8, 0));
    assert_eq!(partition.send(), [(1, stamp(8, 0)), (2, stamp(8, RECORDS as i32))]);
}

#[test]
fn a_sequence_error_without_a_gap_is_an_error() {
    let mut partition = Partition::with(1);
    partition.send();
    let given_up = partition.answer(0, Err(refused(Code::FailedPrecondition, "OUT_OF_ORDER_SEQUENCE"))).unwrap();
    assert_eq!(given_up.outcome.unwrap_err().reason(), "OUT_OF_ORDER_SEQUENCE");
}

#[test]
fn what_runs_out_of_time_says_whether_it_may_be_stored() {
    let mut partition = Partition::with(7);
    partition.send();
    let late = partition.now + TIMEOUT + ANSWER_PATIENCE;
    let mut unknown = Vec::new();
    while let Some(Resolved { batch, outcome }) = partition.queue.expire(late, TIMEOUT, "") {
        unknown.push((batch.id, outcome.unwrap_err().outcome_unknown()));
    }
    assert_eq!(unknown, [(0, true), (1, true), (2, true), (3, true), (4, true), (5, false), (6, false)]);
    assert!(partition.queue.is_empty() && partition.queue.is_ready_for_more());
}

#[test]
fn when_its_time_is_over_the_last_answer_is_waited_for_and_nothing_else_goes_out() {
    let mut partition = Partition::with(7);
    partition.send();
    partition.now += TIMEOUT;
    assert!(partition.queue.expire(partition.now, TIMEOUT, "").is_none());
    assert_eq!(partition.queue.gives_up_at(), Some(partition.now + ANSWER_PATIENCE));
    assert_eq!(partition.answer(0, Ok(0)).unwrap().outcome.unwrap(), 0);
    // Refused for now: another attempt would come too late.
    assert!(partition.answer(1, Err(refused(Code::Unavailable, "NOT_LEADER"))).is_none());
    assert_eq!(partition.send(), []);
    let given_up = partition.queue.expire(partition.now, TIMEOUT, "").unwrap();
    assert_eq!((given_up.batch.id, given_up.outcome.unwrap_err().outcome_unknown()), (1, false));
}

#[test]
fn a_stop_keeps_only_what_is_on_its_way_or_can_be_recognised() {
    let mut partition = Partition::with(8);
    partition.send();
    // 0 is refused for good, 1 for now; nobody knows about 2; 3 and 4 are on their way; the others were never sent.
    partition.answer(0, Err(refused(Code::InvalidArgument, "BATCH_TOO_LARGE"))).unwrap();
    partition.answer(1, Err(refused(Code::FailedPrecondition, "OUT_OF_ORDER_SEQUENCE")));
    partition.answer(2, Err(refused(Code::Unavailable, "OUTCOME_UNKNOWN")));
    let cause = Error::Stopped { cause: Box::new(refused(Code::InvalidArgument, "BATCH_TOO_LARGE")) };
    let mut gone = Vec::new();
    while let Some(Resolved { batch, outcome }) = partition.queue.stop(&cause) {
        gone.push((batch.id, outcome.unwrap_err().outcome_unknown()));
    }
    assert_eq!(gone, [(1, false), (5, false), (6, false), (7, false)]);
    assert_eq!(partition.queue.first_id(), Some(2));
}
