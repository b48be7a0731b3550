//! A produce stream: submits each request without waiting for the one before, answers them as they complete.
//!
//! A request is cut into one batch for each of its partitions. Each partition has a [`Lane`], which keeps its order; each
//! batch goes to its partition's leader, here or over a stream to another node ([`upstream`]).
//!
//! What a stream may hold is bounded: requests in flight by number and bytes, answers by a short queue. A client that
//! does not read its answers stops being read.

mod lane;
mod pump;
mod upstream;

use std::time::Duration;

use flotilla_proto::v1;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Shared;
use super::call::Call;
use super::forward::PAUSE;
use super::problem::{Problem, Reason};
use super::refusals::broken;
use pump::Pump;

/// Answers that wait for the connection.
const ANSWERS_QUEUED_MAX: usize = 64;

type Answers = mpsc::Sender<Result<v1::ProduceResponse, Status>>;

/// Serves the stream in a task of its own, and returns its answers.
pub fn open(
    shared: Shared,
    call: Call,
    requests: Streaming<v1::ProduceRequest>,
) -> impl Stream<Item = Result<v1::ProduceResponse, Status>> + Send {
    let (answers, stream) = mpsc::channel(ANSWERS_QUEUED_MAX);
    tokio::spawn(async move {
        let _open = shared.metrics.stream_opened("ProduceStream");
        if let Err(problem) = serve(&shared, call, requests, &answers).await {
            // A client that is gone needs no reason.
            let _ = answers.send_timeout(Err(problem.into()), Duration::from_secs(1)).await;
        }
    });
    ReceiverStream::new(stream)
}

/// Ends when the client ends the stream and everything is answered, or when the client is gone.
async fn serve(
    shared: &Shared,
    call: Call,
    mut requests: Streaming<v1::ProduceRequest>,
    answers: &Answers,
) -> Result<(), Problem> {
    let (mut pump, mut upstream) = Pump::new(shared, call);
    let mut end = None;
    loop {
        tokio::select! {
            biased;
            Some((ticket, outcome)) = pump.local.next(), if !pump.local.is_empty() => pump.answered(ticket, outcome),
            Some(event) = upstream.recv() => pump.handle(event),
            () = shared.draining.cancelled(), if end.is_none() => {
                end = Some(Err(leaving()));
                pump.refuse_waiting(&leaving());
            }
            request = requests.message(), if pump.has_room() && end.is_none() => match request {
                Ok(Some(request)) => pump.take(request).await,
                Ok(None) => end = Some(Ok(())),
                Err(status) => end = Some(Err(broken(shared, &status))),
            },
            () = tokio::time::sleep(PAUSE), if pump.is_held_up() => pump.look_again(),
            () = answers.closed() => return Ok(()),
        }
        pump.advance().await;
        for answer in pump.answers() {
            if answers.send(Ok(answer)).await.is_err() {
                return Ok(());
            }
        }
        if let Some(end) = end.take_if(|_| pump.is_empty()) {
            return end;
        }
    }
}

fn leaving() -> Problem {
    Problem::new(Reason::Draining, "this node is stopping: open the stream on another node, or when it is back")
}
