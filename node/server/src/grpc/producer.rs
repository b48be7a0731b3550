//! The Producer service: requests to the broker's words and back. [`super::produce_stream`] keeps many of them in flight.

use std::pin::Pin;
use std::time::Instant;

use flotilla_broker::{Header, NewRecord, Payload, Produce, ProduceError, Produced, ProducedRecord, Submitted};
use flotilla_proto::v1;
use flotilla_proto::v1::produce_request::Payload as WirePayload;
use flotilla_proto::v1::producer_server::Producer;
use futures::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::call::unary;
use super::convert;
use super::problem::Problem;
use super::{Shared, produce_stream};

/// See the module.
pub struct ProducerService(pub Shared);

#[tonic::async_trait]
impl Producer for ProducerService {
    async fn produce(&self, request: Request<v1::ProduceRequest>) -> Result<Response<v1::ProduceResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let produce = async {
            let (shared, submission) = (&self.0, Submission::of(&request));
            let submitted = submission.submit(shared, request).await;
            submission.answer(shared, submitted).await
        };
        unary(&self.0.metrics, "Produce", &metadata, produce).await
    }

    type ProduceStreamStream = Pin<Box<dyn Stream<Item = Result<v1::ProduceResponse, Status>> + Send>>;

    async fn produce_stream(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        Ok(Response::new(Box::pin(produce_stream::open(self.0.clone(), request.into_inner()))))
    }

    async fn init_producer(
        &self,
        request: Request<v1::InitProducerRequest>,
    ) -> Result<Response<v1::InitProducerResponse>, Status> {
        let init = async {
            let producer_id = self.0.broker.init_producer().await?;
            Ok(v1::InitProducerResponse { producer_id, epoch: 0 })
        };
        unary(&self.0.metrics, "InitProducer", request.metadata(), init).await
    }
}

/// What must be remembered of a request until it is answered.
#[derive(Debug, Clone, Copy)]
pub struct Submission {
    correlation_id: u64,
    partition: u32,
    bytes: usize,
    arrived: Instant,
}

impl Submission {
    /// Of a request that has just arrived.
    pub fn of(request: &v1::ProduceRequest) -> Self {
        Self {
            correlation_id: request.correlation_id,
            partition: request.partition.unwrap_or_default(),
            bytes: payload_bytes(request),
            arrived: Instant::now(),
        }
    }

    /// Bytes of payload.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Fixes the request's place in the order of each partition that it touches.
    pub async fn submit(&self, shared: &Shared, request: v1::ProduceRequest) -> Result<Submitted, Problem> {
        Ok(shared.broker.submit(produce(request)?).await?)
    }

    /// Waits for the acknowledgement.
    pub async fn answer(self, shared: &Shared, submitted: Result<Submitted, Problem>) -> Result<v1::ProduceResponse, Problem> {
        let produced = match submitted {
            Ok(submitted) => submitted.produced().await.map_err(Problem::from),
            Err(problem) => Err(problem),
        };
        let produced = produced.inspect_err(|_| shared.metrics.produce_failed())?;
        let results: Vec<_> = match produced {
            Produced::Batch(first) => vec![acknowledged(first)],
            Produced::Records(records) => records.into_iter().map(|record| self.result(record)).collect(),
        };
        let acknowledged = results.iter().filter(|result| result.error.is_none()).count();
        shared.metrics.produced(acknowledged as u64, self.bytes as u64, self.arrived.elapsed());
        Ok(v1::ProduceResponse { correlation_id: self.correlation_id, results })
    }

    /// The answer inside a stream to a request that failed as a whole.
    pub fn failure(self, problem: Problem) -> v1::ProduceResponse {
        let result =
            v1::ProduceResult { partition: self.partition, error: Some(problem.into_entry()), ..v1::ProduceResult::default() };
        v1::ProduceResponse { correlation_id: self.correlation_id, results: vec![result] }
    }

    fn result(&self, record: Result<ProducedRecord, ProduceError>) -> v1::ProduceResult {
        let failed = |error: ProduceError| v1::ProduceResult {
            partition: self.partition,
            error: Some(Problem::from(error).into_entry()),
            ..v1::ProduceResult::default()
        };
        record.map_or_else(failed, acknowledged)
    }
}

fn acknowledged(record: ProducedRecord) -> v1::ProduceResult {
    v1::ProduceResult {
        partition: record.partition,
        offset: record.offset,
        append_time: record.append_time_ms.map(convert::timestamp),
        duplicate: record.duplicate,
        error: None,
    }
}

fn payload_bytes(request: &v1::ProduceRequest) -> usize {
    let len = |field: &Option<bytes::Bytes>| field.as_ref().map_or(0, bytes::Bytes::len);
    match &request.payload {
        Some(WirePayload::Batch(batch)) => batch.len(),
        Some(WirePayload::Records(records)) => records.records.iter().map(|record| len(&record.key) + len(&record.value)).sum(),
        None => 0,
    }
}

/// A request in the broker's words.
pub fn produce(request: v1::ProduceRequest) -> Result<Produce, Problem> {
    let payload = match request.payload {
        Some(WirePayload::Batch(batch)) => Payload::Batch(batch),
        Some(WirePayload::Records(records)) => Payload::Records {
            records: records.records.into_iter().map(new_record).collect::<Result<_, _>>()?,
            codec: convert::codec(request.codec)?,
            producer: request.producer.as_ref().map(convert::stamp).transpose()?,
        },
        None => return Err(Problem::field("payload", "is missing: send records or a batch")),
    };
    Ok(Produce { topic: request.topic, partition: request.partition, payload })
}

fn new_record(record: v1::Record) -> Result<NewRecord, Problem> {
    let header = |header: v1::Header| Header { key: header.name, value: header.value };
    Ok(NewRecord {
        key: record.key,
        value: record.value,
        headers: record.headers.into_iter().map(header).collect(),
        timestamp_ms: record.timestamp.map(|at| convert::timestamp_ms("records.timestamp", at)).transpose()?,
    })
}
