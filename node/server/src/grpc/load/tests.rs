//! Who waits, who gives way, and that nothing stays counted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::FutureExt;
use http_body::{Body as HttpBody, Frame};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::Status;

use super::super::problem::{Problem, Reason};
use super::*;
use crate::net::Slots;

const BYTES_MAX: u64 = 100_000;

/// A body that the test feeds.
struct Fed(mpsc::Receiver<Bytes>);

impl HttpBody for Fed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.0.poll_recv(context).map(|data| data.map(|data| Ok(Frame::data(data))))
    }
}

fn fed() -> (mpsc::Sender<Bytes>, Body) {
    let (feed, fed) = mpsc::channel(8);
    (feed, Body::new(Fed(fed)))
}

fn load() -> Directions {
    let budget = || Arc::new(Budget::new(BYTES_MAX, Duration::ZERO));
    Directions { received: budget(), sent: budget() }
}

fn used(budget: &Budget) -> u64 {
    budget.used.load(Ordering::Relaxed)
}

/// What comes next, unless it does not come now.
fn next(body: &mut (impl HttpBody<Data = Bytes, Error = Status> + Unpin)) -> Option<Option<Result<Frame<Bytes>, Status>>> {
    poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).now_or_never()
}

fn data(frame: Option<Option<Result<Frame<Bytes>, Status>>>) -> usize {
    frame.expect("it waits").unwrap().unwrap().into_data().unwrap().len()
}

/// The first `bytes` of a message of `length`.
fn part(length: u32, bytes: usize) -> Bytes {
    let mut part = vec![0];
    part.extend(length.to_be_bytes());
    part.resize(bytes, 0);
    part.into()
}

struct Call {
    feed: mpsc::Sender<Bytes>,
    intake: Arc<Intake>,
    body: Incoming,
}

fn call(load: &Directions) -> Call {
    let (feed, body) = fed();
    let intake = Intake::new(&load.received);
    Call { feed, body: Incoming::new(body, intake.clone()), intake }
}

impl Call {
    fn send(&mut self, data: Bytes) {
        self.feed.try_send(data).unwrap();
    }
}

#[tokio::test]
async fn a_request_counts_until_it_is_answered() {
    let load = load();
    let mut call = call(&load);
    call.send(part(100, 105));
    assert_eq!(data(next(&mut call.body)), 105);
    assert!(next(&mut call.body).is_none());
    assert_eq!(used(&load.received), 105, "the handler works on it");
    call.intake.answered();
    assert!(next(&mut call.body).is_none());
    assert_eq!(used(&load.received), 0, "a stream holds nothing of a message that was taken");
    call.send(part(100, 50));
    assert_eq!(data(next(&mut call.body)), 50);
    assert!(next(&mut call.body).is_none());
    assert_eq!(used(&load.received), 50);
    drop(call);
    assert_eq!(used(&load.received), 0);
}

#[tokio::test]
async fn over_the_limit_requests_wait_and_the_oldest_that_stalls_gives_way() {
    let load = load();
    let (mut stalled, mut other, mut late) = (call(&load), call(&load), call(&load));
    stalled.send(part(500_000, 60_000));
    assert_eq!(data(next(&mut stalled.body)), 60_000);
    other.send(part(500_000, 40_000));
    assert_eq!(data(next(&mut other.body)), 40_000);
    load.received.look(Instant::now());
    assert!(next(&mut stalled.body).is_none(), "nobody waits");
    late.send(part(9_995, 10_000));
    assert!(next(&mut late.body).is_none(), "there is no room");
    load.received.look(Instant::now());
    let status = next(&mut stalled.body).unwrap().unwrap().unwrap_err();
    assert_eq!(Problem::passed_on(&status).unwrap().reason(), Reason::Overloaded);
    assert!(next(&mut other.body).is_none(), "one was enough");
    drop(stalled);
    assert_eq!(data(next(&mut late.body)), 10_000);
    drop((other, late));
    assert_eq!((used(&load.received), load.received.waiting.load(Ordering::Relaxed)), (0, 0));
}

#[tokio::test]
async fn when_all_wait_for_each_other_the_oldest_goes_on() {
    let load = load();
    let (mut first, mut second) = (call(&load), call(&load));
    for call in [&mut first, &mut second] {
        call.send(part(500_000, 50_000));
        assert_eq!(data(next(&mut call.body)), 50_000);
    }
    for call in [&mut first, &mut second] {
        call.send(Bytes::from_static(&[0; 20_000]));
        assert!(next(&mut call.body).is_none(), "there is no room");
    }
    load.received.look(Instant::now());
    assert_eq!(data(next(&mut first.body)), 20_000, "the oldest");
    assert!(next(&mut second.body).is_none());
}

#[tokio::test]
async fn a_small_request_goes_on_whoever_holds_the_room_and_a_stream_does_not() {
    let load = load();
    let (mut holder, mut small, mut stream) = (call(&load), call(&load), call(&load));
    holder.send(part(500_000, BYTES_MAX as usize));
    assert_eq!(data(next(&mut holder.body)), BYTES_MAX as usize);
    small.send(part(95, 100));
    assert_eq!(data(next(&mut small.body)), 100);
    stream.intake.answered();
    stream.send(part(95, 100));
    assert!(next(&mut stream.body).is_none(), "there is no room");
}

#[tokio::test]
async fn a_request_that_does_not_go_on_is_given_up() {
    let load = load();
    let (mut silent, mut half, mut idle) = (call(&load), call(&load), call(&load));
    half.send(part(50, 20));
    assert_eq!(data(next(&mut half.body)), 20);
    idle.send(part(5, 10));
    assert_eq!(data(next(&mut idle.body)), 10);
    half.intake.answered();
    idle.intake.answered();
    load.received.look(Instant::now() + Duration::from_secs(29));
    assert!(next(&mut silent.body).is_none() && next(&mut half.body).is_none());
    load.received.look(Instant::now() + Duration::from_secs(31));
    for body in [&mut silent.body, &mut half.body] {
        let status = next(body).unwrap().unwrap().unwrap_err();
        assert_eq!(Problem::passed_on(&status).unwrap().reason(), Reason::Stalled);
    }
    assert!(next(&mut idle.body).is_none(), "a stream between two messages may rest");
}

/// A budget for answers of this many pieces.
const PIECES_MAX: usize = 8;

fn pieces(count: usize) -> Bytes {
    Bytes::from(vec![0; count * PIECE_BYTES])
}

/// An answer, in pieces.
struct Answer {
    sent: Arc<Budget>,
    feed: mpsc::Sender<Bytes>,
    connection: Arc<Slot>,
    body: Outgoing,
    made_of: Handover,
}

impl Answer {
    fn to(path: &str) -> Self {
        Self::within(path, Duration::ZERO)
    }

    fn within(path: &str, grace: Duration) -> Self {
        let sent = Arc::new(Budget::new((PIECES_MAX * PIECE_BYTES) as u64, grace));
        let (feed, body) = fed();
        let connection = Arc::new(Arc::new(Slots::new(1, 0)).admit().unwrap());
        let made_of = Handover::default();
        let body = Outgoing::new((body, Some(made_of.clone())), Nature::of(path), connection.clone(), &sent);
        Self { sent, feed, connection, body, made_of }
    }

    /// Without the little that is counted around them.
    fn used_pieces(&self) -> usize {
        used(&self.sent) as usize / PIECE_BYTES
    }

    /// The piece that the connection takes.
    fn piece(&mut self) -> Bytes {
        next(&mut self.body).expect("it waits").unwrap().unwrap().into_data().unwrap()
    }

    /// Somebody wants so many pieces, and waits for them.
    async fn wanted(&self, count: usize) -> JoinHandle<Lot> {
        let sent = self.sent.clone();
        let wants = tokio::spawn(async move { sent.room((count * PIECE_BYTES) as u64).await });
        while self.sent.waiting.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        wants
    }

    fn is_hung_up(&self) -> bool {
        self.connection.gave_way().now_or_never().is_some()
    }
}

const CONSUME: &str = "/flotilla.v1.Consumer/Consume";
const PRODUCE: &str = "/flotilla.v1.Producer/Produce";

#[tokio::test]
async fn what_the_connection_holds_counts_until_it_has_sent_the_last_of_it() {
    let mut answer = Answer::to(CONSUME);
    answer.made_of.put(Some(answer.sent.lot((3 * PIECE_BYTES) as u64)));
    assert_eq!(answer.used_pieces(), 3, "what the message is made of");
    answer.feed.try_send(pieces(3)).unwrap();
    let held = (answer.piece(), answer.piece(), answer.piece());
    assert_eq!(answer.used_pieces(), 3);
    drop((held.0, held.2));
    assert_eq!(answer.used_pieces(), 3, "one piece keeps all of the message");
    drop(held.1);
    assert_eq!(answer.used_pieces(), 0);
}

#[tokio::test]
async fn where_bytes_are_short_a_piece_does_not_keep_its_message() {
    let mut answer = Answer::to(CONSUME);
    let others = answer.sent.lot((5 * PIECE_BYTES) as u64);
    answer.feed.try_send(pieces(3)).unwrap();
    let held = answer.piece();
    assert_eq!(answer.used_pieces(), 8);
    let _wants = answer.wanted(3).await;
    answer.sent.look(Instant::now());
    assert_eq!(answer.used_pieces(), 6, "the rest of the message gave way");
    drop((held, others));
    assert_eq!(answer.used_pieces(), 3, "of who has waited");
}

#[tokio::test]
async fn an_answer_that_is_not_read_gives_way_and_then_its_connection() {
    let mut answer = Answer::to(CONSUME);
    answer.feed.try_send(pieces(3)).unwrap();
    let held = answer.piece();
    answer.sent.look(Instant::now());
    assert!(!answer.feed.is_closed(), "nobody waits");
    let wants = answer.wanted(6).await;
    answer.sent.look(Instant::now());
    assert!(answer.feed.is_closed(), "nobody goes on making the answer");
    assert_eq!((answer.used_pieces(), answer.is_hung_up()), (3, false));
    answer.sent.look(Instant::now());
    assert!(answer.is_hung_up(), "nothing else frees what it holds");
    drop(held);
    assert_eq!(wants.await.unwrap().bytes(), (6 * PIECE_BYTES) as u64);
    let trailers = next(&mut answer.body).unwrap().unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "8");
    assert!(next(&mut answer.body).unwrap().is_none());
    assert_eq!(used(&answer.sent), 0);
}

#[tokio::test]
async fn an_answer_that_lacks_nothing_but_its_status_keeps_it() {
    for path in [PRODUCE, "/flotilla.v1.Consumer/Fetch"] {
        for bytes in [100, PIECE_BYTES] {
            let mut answer = Answer::to(path);
            answer.feed.try_send(vec![0; bytes].into()).unwrap();
            let held = answer.piece();
            let _others = answer.sent.lot((PIECES_MAX * PIECE_BYTES) as u64);
            let _wants = answer.wanted(1).await;
            answer.sent.look(Instant::now());
            assert!(!answer.feed.is_closed() && !answer.is_hung_up());
            drop((std::mem::replace(&mut answer.feed, mpsc::channel(1).0), held));
            assert!(next(&mut answer.body).unwrap().is_none(), "{path}: as the call ended, and no other status");
        }
    }
}

#[tokio::test]
async fn what_is_left_of_a_finished_answer_gives_way_with_its_connection() {
    let mut answer = Answer::to(PRODUCE);
    answer.feed.try_send(vec![0; 100].into()).unwrap();
    let held = answer.piece();
    let _others = answer.sent.lot((PIECES_MAX * PIECE_BYTES) as u64);
    let _wants = answer.wanted(1).await;
    let Answer { sent, connection, body, .. } = answer;
    drop(body);
    sent.look(Instant::now());
    assert!(connection.gave_way().now_or_never().is_none(), "it may be read yet");
    sent.look(Instant::now());
    assert!(connection.gave_way().now_or_never().is_some());
    let before = used(&sent);
    drop(held);
    assert!(before - used(&sent) >= 100);
}

#[tokio::test]
async fn who_reads_slowly_keeps_what_it_reads() {
    const GRACE: Duration = Duration::from_secs(10);
    let mut answer = Answer::within(CONSUME, GRACE);
    let _others = answer.sent.lot((5 * PIECE_BYTES) as u64);
    answer.feed.try_send(pieces(3)).unwrap();
    let (first, second) = (answer.piece(), answer.piece());
    let _wants = answer.wanted(1).await;
    let begun = Instant::now();
    answer.sent.look(begun);
    drop(first);
    answer.sent.look(begun + GRACE);
    assert!(!answer.feed.is_closed(), "it has just read something");
    let third = answer.piece();
    answer.sent.look(begun + 2 * GRACE);
    assert!(!answer.feed.is_closed(), "it has just asked for more");
    answer.sent.look(begun + 3 * GRACE);
    assert!(answer.feed.is_closed());
    drop((second, third));
}

#[tokio::test]
async fn who_has_read_everything_keeps_nobody_waiting() {
    let mut answer = Answer::to(CONSUME);
    answer.feed.try_send(pieces(1)).unwrap();
    drop(answer.piece());
    let _others = answer.sent.lot((PIECES_MAX * PIECE_BYTES) as u64);
    let _wants = answer.wanted(1).await;
    answer.sent.look(Instant::now());
    answer.sent.look(Instant::now());
    assert!(!answer.feed.is_closed() && !answer.is_hung_up());
}

#[tokio::test]
async fn more_than_there_may_be_gives_way_though_nobody_waits() {
    let mut answer = Answer::to(CONSUME);
    answer.feed.try_send(pieces(3)).unwrap();
    let _held = answer.piece();
    let others = answer.sent.lot((4 * PIECE_BYTES) as u64);
    answer.sent.look(Instant::now());
    assert!(!answer.feed.is_closed());
    let _more = answer.sent.lot(PIECE_BYTES as u64);
    answer.sent.look(Instant::now());
    assert!(answer.feed.is_closed());
    drop(others);
}

#[tokio::test]
async fn the_messages_of_a_stream_leave_nothing_behind_and_end_with_a_status() {
    let message = || framed(&flotilla_proto::v1::Credit { records: 1, bytes: 1 });
    for (end, code) in [(None, "0"), (Some(Status::aborted("as the test wants")), "10")] {
        let messages = [Ok(message()), Ok(message())].into_iter().chain(end.map(Err));
        let mut body = Messages::of(tokio_stream::iter(messages)).into_body();
        for _ in 0..2 {
            let data = next(&mut body).unwrap().unwrap().unwrap().into_data().unwrap();
            assert_eq!(data, message());
            assert!(data.is_unique(), "nothing else keeps its memory");
            assert!(!body.is_end_stream());
        }
        assert_eq!(next(&mut body).unwrap().unwrap().unwrap().into_trailers().unwrap()["grpc-status"], code);
        assert!(body.is_end_stream() && next(&mut body).unwrap().is_none());
    }
}

#[tokio::test]
async fn a_write_whose_answer_gives_way_is_unknown() {
    for path in [PRODUCE, "/flotilla.v1.Producer/ProduceStream", "/flotilla.v1.Future/Unheard"] {
        let mut answer = Answer::to(path);
        answer.feed.try_send(pieces(3)).unwrap();
        let _held = answer.piece();
        let _wants = answer.wanted(6).await;
        answer.sent.look(Instant::now());
        let trailers = next(&mut answer.body).unwrap().unwrap().unwrap().into_trailers().unwrap();
        let problem = Problem::passed_on(&Status::from_header_map(&trailers).unwrap()).unwrap();
        assert_eq!(problem.reason(), Reason::OutcomeUnknown, "{path}");
    }
}

#[tokio::test]
async fn more_than_there_is_means_all_of_it() {
    let load = load();
    let all = load.sent.room(10 * BYTES_MAX).await;
    assert_eq!(all.bytes(), BYTES_MAX);
    assert!(load.sent.room(1).now_or_never().is_none());
    drop(all);
    assert!(load.sent.room(1).now_or_never().is_some());
    assert_eq!(used(&load.sent), 0);
}
