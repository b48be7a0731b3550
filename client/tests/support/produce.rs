//! The producing half of the fake server.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::v1;
use flotilla_proto::v1::producer_server::Producer;
use flotilla_records::{Batch, Limits, validate, with_base_offset};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Fake, Fault, Log, TOPIC, means_another};

const REMEMBERED: usize = 5;
/// How long a request of a stream waits for a leader.
const LEADER_WAIT: Duration = Duration::from_secs(2);

fn failed(code: Code, reason: &str) -> v1::ProduceResult {
    let message = format!("refused: {reason}");
    let error = v1::Error { code: code as i32, reason: reason.to_owned(), message, metadata: HashMap::new(), retry_delay: None };
    v1::ProduceResult { error: Some(error), ..Default::default() }
}

impl Log {
    fn append(&mut self, partition: u32, bytes: &Bytes) -> v1::ProduceResult {
        let limits = Limits { decompressed_bytes_max: 64 << 20, ..Limits::default() };
        validate(bytes, &limits).expect("the client sends valid batches");
        let header = *Batch::parse(bytes.clone()).unwrap().header();
        let done = |offset, duplicate| v1::ProduceResult { partition, offset, duplicate, ..Default::default() };
        if let Some(stamp) = header.producer {
            let known = self.producers.get(&(stamp.id, stamp.epoch));
            let last = known.and_then(|batches| batches.back());
            if let Some((_, _, offset)) = known.and_then(|batches| batches.iter().find(|(seen, ..)| *seen == stamp)) {
                return done(*offset, true);
            }
            match last {
                None if stamp.base_sequence != 0 => return failed(Code::FailedPrecondition, "UNKNOWN_PRODUCER"),
                Some((seen, count, _)) if seen.sequence_after(*count) != stamp.base_sequence => {
                    return failed(Code::FailedPrecondition, "OUT_OF_ORDER_SEQUENCE");
                }
                _ => {}
            }
            let batches = self.producers.entry((stamp.id, stamp.epoch)).or_default();
            batches.push_back((stamp, header.record_count, self.end));
            if batches.len() > REMEMBERED {
                batches.pop_front();
            }
        }
        let offset = self.end;
        self.batches.push((offset, with_base_offset(bytes.clone(), offset, 1).unwrap()));
        self.end += u64::from(header.offset_count());
        done(offset, false)
    }
}

impl Fake {
    /// The answer to a request, if there is one; whether the stream breaks.
    fn produce_one(&self, request: &v1::ProduceRequest) -> (Option<v1::ProduceResult>, bool) {
        let Some(v1::produce_request::Payload::Batch(bytes)) = &request.payload else { panic!("batches only") };
        let partition = request.partition.expect("the client names the partition");
        let mut state = self.state.lock().unwrap();
        if means_another(&state, request.topic_id.as_deref()) {
            let mut refused = failed(Code::FailedPrecondition, "TOPIC_RECREATED");
            let metadata =
                HashMap::from([("topic".to_owned(), TOPIC.to_owned()), ("topic_id".to_owned(), state.topic_id.clone())]);
            refused.error.as_mut().unwrap().metadata = metadata;
            return (Some(refused), false);
        }
        let attempt = state.produced;
        state.produced += 1;
        let fault = state.script.as_mut().and_then(|script| script(attempt));
        match fault {
            Some(Fault::BreakBefore) => return (None, true),
            Some(Fault::NoLeader) => return (Some(failed(Code::Unavailable, "NO_LEADER")), false),
            Some(Fault::Refuse(reason)) => return (Some(failed(Code::Unavailable, reason)), false),
            Some(Fault::Reject(reason)) => return (Some(failed(Code::InvalidArgument, reason)), false),
            Some(Fault::ForgetProducers) => state.logs.iter_mut().for_each(|log| log.producers.clear()),
            _ => {}
        }
        let result = state.logs[partition as usize].append(partition, bytes);
        drop(state);
        self.appended.send_modify(|appended| *appended += 1);
        match fault {
            Some(Fault::BreakAfterAppend) => (None, true),
            Some(Fault::AppendSilently) => (None, false),
            _ => (Some(result), false),
        }
    }

    async fn serve_produce(
        self,
        mut requests: Streaming<v1::ProduceRequest>,
        answers: mpsc::Sender<Result<v1::ProduceResponse, Status>>,
    ) {
        let mut answering = self.answering.subscribe();
        while let Ok(Some(request)) = requests.message().await {
            let (result, broken) = self.produce_one(&request);
            let waits = result.as_ref().and_then(|result| result.error.as_ref()).is_some_and(|error| error.reason == "NO_LEADER");
            if broken {
                // Without details, as the transport reports a broken connection.
                let _ = answers.send(Err(Status::unavailable("broken"))).await;
                return;
            }
            answering.wait_for(|answering| *answering).await.unwrap();
            if waits {
                let wait = request.leader_wait_max.map_or(LEADER_WAIT, |wait| wait.try_into().unwrap());
                tokio::time::sleep(wait).await;
            }
            if let Some(result) = result {
                let answer = v1::ProduceResponse { correlation_id: request.correlation_id, results: vec![result] };
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tonic::async_trait]
impl Producer for Fake {
    type ProduceStreamStream = ReceiverStream<Result<v1::ProduceResponse, Status>>;

    async fn produce(&self, request: Request<v1::ProduceRequest>) -> Result<Response<v1::ProduceResponse>, Status> {
        let (result, _) = self.produce_one(request.get_ref());
        Ok(Response::new(v1::ProduceResponse { correlation_id: 0, results: result.into_iter().collect() }))
    }

    async fn produce_stream(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        if self.state.lock().unwrap().refuses_streams {
            // Without details, as the transport reports a broken connection.
            return Err(Status::unavailable("broken"));
        }
        let (answers, receiver) = mpsc::channel(64);
        tokio::spawn(self.clone().serve_produce(request.into_inner(), answers));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn init_producer(&self, _: Request<v1::InitProducerRequest>) -> Result<Response<v1::InitProducerResponse>, Status> {
        let mut state = self.state.lock().unwrap();
        state.producer_ids += 1;
        Ok(Response::new(v1::InitProducerResponse { producer_id: state.producer_ids, epoch: 0 }))
    }
}
