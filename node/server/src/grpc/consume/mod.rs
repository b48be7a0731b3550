//! A consume stream: pushes what the partitions have, as far as the client's credits go.
//!
//! Partitions that this node leads are read here; the others come from their leaders ([`feed`]), and follow them when
//! they move. Nothing is read here before there is credit for it and the connection took what was read before, and feeds
//! run ahead by a small window, so a client that does not read costs the memory of a few pushes, whatever it granted. All
//! clients together may cost as much as [`super::load`] says. What waits is encoded already: it takes what it is counted as.

mod cursor;
mod feed;
mod lane;
mod open;
mod place;

use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::v1;
use flotilla_proto::v1::consume_request::Request as Ask;
use flotilla_proto::v1::consume_response::Response as Push;
use futures::{FutureExt, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Shared;
use super::call::Call;
use super::load::{Handover, Lot, framed};
use super::problem::Problem;
use super::refusals::broken;
use cursor::Cursor;

/// Pushes that wait for the connection.
const PUSHES_QUEUED_MAX: usize = 2;

/// What is pushed, encoded, and its bytes, which are counted until the connection takes it.
type Pushes = mpsc::Sender<(Result<Bytes, Status>, Option<Lot>)>;

/// Why a stream ends before the client ends it.
enum End {
    /// Everything asked for was sent, or the client is gone.
    Done,
    Failed(Problem),
}

impl From<Problem> for End {
    fn from(problem: Problem) -> Self {
        Self::Failed(problem)
    }
}

/// Serves the stream in a task of its own, and returns its encoded pushes, with what they are made of.
pub fn open(
    shared: Shared,
    call: Call,
    asks: Streaming<v1::ConsumeRequest>,
) -> (impl Stream<Item = Result<Bytes, Status>> + Send, Handover) {
    let (pushes, stream) = mpsc::channel(PUSHES_QUEUED_MAX);
    tokio::spawn(async move {
        let _open = shared.metrics.stream_opened("Consume");
        if let Err(End::Failed(problem)) = serve(&shared, call, asks, &pushes).await {
            // A client that does not read needs no reason.
            let _ = pushes.send_timeout((Err(problem.into()), None), Duration::from_secs(1)).await;
        }
    });
    let made_of = Handover::default();
    let next = made_of.clone();
    let pushes = ReceiverStream::new(stream).map(move |(push, lot)| {
        next.put(lot);
        push
    });
    (pushes, made_of)
}

async fn serve(shared: &Shared, call: Call, mut asks: Streaming<v1::ConsumeRequest>, pushes: &Pushes) -> Result<(), End> {
    let ask = tokio::select! {
        ask = asks.message() => ask.map_err(|status| broken(shared, &status))?.ok_or(End::Done)?,
        () = shared.draining.cancelled() => return Err(End::Done),
        () = pushes.closed() => return Err(End::Done),
    };
    let Some(Ask::Open(open)) = ask.request else {
        return Err(Problem::field("request", "must be `open` at first: it names topic and partitions").into());
    };
    let (mut cursor, mut events) = Cursor::open(shared, call.renewed(None), open).await?;
    let push_bytes_max = shared.limits.push_bytes_max as u64;
    send(pushes, encoded(Push::Opened(v1::ConsumeOpened { push_bytes_max })), None).await?;
    loop {
        // Credits that have come meanwhile count before the next look at what there is to push.
        while cursor.client_speaks
            && let Some(ask) = asks.message().now_or_never()
        {
            cursor.ask(ask)?;
        }
        if shared.draining.is_cancelled() {
            return send(pushes, encoded(Push::Drain(v1::Drain {})), None).await;
        }
        cursor.place().await?;
        if cursor.advance(pushes).await? {
            continue;
        }
        if cursor.is_done() {
            return Ok(());
        }
        tokio::select! {
            ask = asks.message(), if cursor.client_speaks => cursor.ask(ask)?,
            Some(event) = events.recv() => cursor.handle(event)?,
            failed = cursor.ready() => if let Some((lane, error)) = failed { cursor.failed(lane, error)? },
            () = tokio::time::sleep(cursor.patience()) => cursor.look_around()?,
            () = shared.draining.cancelled() => {}
            () = pushes.closed() => return Err(End::Done),
        }
    }
}

fn encoded(response: Push) -> Bytes {
    framed(&v1::ConsumeResponse { response: Some(response) })
}

async fn send(pushes: &Pushes, push: Bytes, lot: Option<Lot>) -> Result<(), End> {
    pushes.send((Ok(push), lot)).await.map_err(|_| End::Done)
}
