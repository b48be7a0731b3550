//! A produce stream: submits each request without waiting for the one before, answers them as they complete.
//!
//! What a stream may hold is bounded: requests in flight by number and bytes, answers by a short queue. A client that
//! does not read its answers stops being read.

use std::time::Duration;

use flotilla_proto::v1;
use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Shared;
use super::problem::{Problem, Reason};
use super::producer::Submission;
use super::refusals::ClearRefusals;

/// Answers that wait for the connection.
const ANSWERS_QUEUED_MAX: usize = 64;

type Answers = mpsc::Sender<Result<v1::ProduceResponse, Status>>;

/// Serves the stream in a task of its own, and returns its answers.
pub fn open(
    shared: Shared,
    requests: Streaming<v1::ProduceRequest>,
) -> impl Stream<Item = Result<v1::ProduceResponse, Status>> + Send {
    let (answers, stream) = mpsc::channel(ANSWERS_QUEUED_MAX);
    tokio::spawn(async move {
        let _open = shared.metrics.stream_opened("ProduceStream");
        if let Err(problem) = pump(&shared, requests, &answers).await {
            // A client that is gone needs no reason.
            let _ = answers.send_timeout(Err(problem.into()), Duration::from_secs(1)).await;
        }
    });
    ReceiverStream::new(stream)
}

/// Ends when the client ends the stream and everything is answered, or when the client is gone.
async fn pump(shared: &Shared, mut requests: Streaming<v1::ProduceRequest>, answers: &Answers) -> Result<(), Problem> {
    let mut in_flight = FuturesUnordered::new();
    let mut bytes_in_flight = 0;
    let mut end = None;
    loop {
        let limits = &shared.limits;
        let room = in_flight.len() < limits.stream_in_flight_max && bytes_in_flight < limits.stream_in_flight_bytes_max;
        tokio::select! {
            biased;
            Some((bytes, answer)) = in_flight.next(), if !in_flight.is_empty() => {
                bytes_in_flight -= bytes;
                if answers.send(Ok(answer)).await.is_err() {
                    return Ok(());
                }
            }
            () = shared.draining.cancelled(), if end.is_none() => end = Some(Err(leaving())),
            request = requests.message(), if room && end.is_none() => match request {
                Ok(Some(request)) => {
                    let submission = Submission::of(&request);
                    bytes_in_flight += submission.bytes();
                    let submitted = submission.submit(shared, request).await;
                    in_flight.push(async move {
                        let answer = submission.answer(shared, submitted).await;
                        (submission.bytes(), answer.unwrap_or_else(|problem| submission.failure(problem)))
                    });
                }
                Ok(None) => end = Some(Ok(())),
                Err(status) => end = Some(Err(broken(shared, &status))),
            },
            () = answers.closed() => return Ok(()),
        }
        if let Some(end) = end.take_if(|_| in_flight.is_empty()) {
            return end;
        }
    }
}

fn leaving() -> Problem {
    Problem::new(Reason::Draining, "this node is stopping: open the stream on another node, or when it is back")
}

/// The connection broke, or what came is no request.
fn broken(shared: &Shared, status: &Status) -> Problem {
    let refusals = ClearRefusals { request_bytes_max: shared.limits.request_bytes_max };
    refusals.reword(status).unwrap_or_else(|| Problem::new(Reason::InvalidRequest, status.message()))
}
