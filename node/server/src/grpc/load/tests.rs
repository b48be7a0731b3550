//! Who waits, who gives way, and that nothing stays counted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::FutureExt;
use http_body::{Body as HttpBody, Frame};
use tokio::sync::mpsc;
use tonic::Status;

use super::super::problem::{Problem, Reason};
use super::*;

const BYTES_MAX: u64 = 1_000;

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
    stalled.send(part(5_000, 600));
    assert_eq!(data(next(&mut stalled.body)), 600);
    other.send(part(5_000, 400));
    assert_eq!(data(next(&mut other.body)), 400);
    load.received.look(Instant::now());
    assert!(next(&mut stalled.body).is_none(), "nobody waits");
    late.send(part(5, 10));
    assert!(next(&mut late.body).is_none(), "there is no room");
    load.received.look(Instant::now());
    let status = next(&mut stalled.body).unwrap().unwrap().unwrap_err();
    assert_eq!(Problem::passed_on(&status).unwrap().reason(), Reason::Overloaded);
    assert!(next(&mut other.body).is_none(), "one was enough");
    drop(stalled);
    assert_eq!(data(next(&mut late.body)), 10);
    drop((other, late));
    assert_eq!((used(&load.received), load.received.waiting.load(Ordering::Relaxed)), (0, 0));
}

#[tokio::test]
async fn when_all_wait_for_each_other_the_oldest_goes_on() {
    let load = load();
    let (mut first, mut second) = (call(&load), call(&load));
    for call in [&mut first, &mut second] {
        call.send(part(5_000, 500));
        assert_eq!(data(next(&mut call.body)), 500);
    }
    for call in [&mut first, &mut second] {
        call.send(Bytes::from_static(&[0; 200]));
        assert!(next(&mut call.body).is_none(), "there is no room");
    }
    load.received.look(Instant::now());
    assert_eq!(data(next(&mut first.body)), 200, "the oldest");
    assert!(next(&mut second.body).is_none());
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

#[tokio::test]
async fn an_answer_that_is_not_read_gives_way_to_others() {
    let load = load();
    let (feed, body) = fed();
    let mut unread = Outgoing::new(body, &load.sent);
    let big = Bytes::from(vec![0; PIECE_BYTES + 900]);
    feed.try_send(big).unwrap();
    assert_eq!(data(next(&mut unread)), PIECE_BYTES);
    assert_eq!(used(&load.sent), 900);
    load.sent.look(Instant::now());
    assert_eq!(used(&load.sent), 900, "nobody waits");
    let sent = load.sent.clone();
    let wants = tokio::spawn(async move { sent.room(200).await });
    while load.sent.waiting.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    load.sent.look(Instant::now());
    assert_eq!(wants.await.unwrap().bytes(), 200);
    assert!(feed.is_closed(), "nobody goes on making the answer");
    let trailers = next(&mut unread).unwrap().unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "8");
    assert!(next(&mut unread).unwrap().is_none());
    assert_eq!(used(&load.sent), 0);
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
