//! The Producer service: requests to the broker's words and back. A request is cut into one batch for each partition
//! ([`Prepared`]), each batch goes to its partition's leader, and the results are put together again ([`Asked`]).
//! [`super::produce_stream`] keeps many of them in flight.

use std::pin::{Pin, pin};
use std::time::Instant;

use bytes::Bytes;
use flotilla_broker::{Header, NewRecord, Part, Payload, Prepared, Produce, ProducedRecord, Submitted};
use flotilla_proto::v1;
use flotilla_proto::v1::produce_request::Payload as WirePayload;
use flotilla_proto::v1::producer_client::ProducerClient;
use flotilla_proto::v1::producer_server::Producer;
use futures::Stream;
use futures::future::join_all;
use tonic::{Request, Response, Status, Streaming};

use super::call::{Call, unary};
use super::convert;
use super::forward::{Repeat, Target, verbatim};
use super::problem::{Problem, Reason};
use super::{Shared, produce_stream};

/// See the module.
pub struct ProducerService(pub Shared);

#[tonic::async_trait]
impl Producer for ProducerService {
    async fn produce(&self, request: Request<v1::ProduceRequest>) -> Result<Response<v1::ProduceResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let call = Call::of(&metadata);
        // Pinned here, so that it is not moved from one future into the next.
        unary(&self.0.metrics, "Produce", &metadata, pin!(produce_all(&self.0, call, request))).await
    }

    type ProduceStreamStream = Pin<Box<dyn Stream<Item = Result<v1::ProduceResponse, Status>> + Send>>;

    async fn produce_stream(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        let (metadata, _, requests) = request.into_parts();
        Ok(Response::new(Box::pin(produce_stream::open(self.0.clone(), Call::of(&metadata), requests))))
    }

    async fn init_producer(
        &self,
        request: Request<v1::InitProducerRequest>,
    ) -> Result<Response<v1::InitProducerResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let shared = &self.0;
        let here = || async {
            let producer_id = shared.broker.init_producer().await?;
            Ok(v1::InitProducerResponse { producer_id, epoch: 0 })
        };
        let there = verbatim!(shared.gateway, ProducerClient::init_producer(request));
        // An id that nobody uses costs nothing.
        let init = shared.gateway.at_leader(Call::of(&metadata), &Target::Controller, Repeat::Read, here, there);
        unary(&shared.metrics, "InitProducer", &metadata, init).await
    }
}

async fn produce_all(shared: &Shared, call: Call, request: v1::ProduceRequest) -> Result<v1::ProduceResponse, Problem> {
    let (correlation_id, prepared) = (request.correlation_id, prepare(shared, call, request).await);
    let prepared = prepared.inspect_err(|_| shared.metrics.produce_failed())?;
    let mut asked = Asked::new(correlation_id, &prepared);
    match prepared.parts.as_slice() {
        [only] => drop(asked.put(0, produce_part(shared, call, only).await)),
        parts => {
            let outcomes = join_all(parts.iter().map(|part| produce_part(shared, call, part))).await;
            for (index, outcome) in outcomes.into_iter().enumerate() {
                asked.put(index, outcome);
            }
        }
    }
    asked.answer()
}

async fn produce_part(shared: &Shared, call: Call, part: &Part) -> Outcome {
    let target = target(part);
    let repeat = if part.idempotent { Repeat::Idempotent } else { Repeat::Once };
    let here = || async { Ok(v1::ProduceResponse { correlation_id: 0, results: vec![append(shared, part).await?] }) };
    let there = verbatim!(shared.gateway, ProducerClient::produce(request_for(part, 0)));
    only_result(shared.gateway.at_leader(call, &target, repeat, here, there).await?)
}

async fn append(shared: &Shared, part: &Part) -> Outcome {
    let submission = Submission::of(part);
    let submitted = submit(shared, part).await;
    submission.outcome(shared, submitted).await
}

/// Submits a part here, if the disk has space for it.
pub async fn submit(shared: &Shared, part: &Part) -> Result<Submitted, Problem> {
    let _claim = shared.space.take(part.batch.len(), || shared.broker.unwritten_bytes())?;
    Ok(shared.broker.submit(part).await?)
}

/// Cuts a request into its parts, once it is known where they belong.
pub async fn prepare(shared: &Shared, call: Call, mut request: v1::ProduceRequest) -> Result<Prepared, Problem> {
    let topic_id = request.topic_id.take();
    let request = produce(request)?;
    let topic = convert::topic_ref(&request.topic, topic_id.as_deref())?;
    let topic = shared.gateway.topic(&shared.broker, call, topic, request.partition).await?;
    Ok(shared.broker.prepare_for(&topic, request.partition, request.payload)?)
}

/// What a part is about.
pub fn target(part: &Part) -> Target {
    Target::Partition { topic: part.topic.name.clone(), partition: part.partition, group_id: part.group_id }
}

/// A part as it goes to another node.
pub fn request_for(part: &Part, correlation_id: u64) -> v1::ProduceRequest {
    v1::ProduceRequest {
        topic: part.topic.name.to_string(),
        topic_id: Some(part.topic.id.to_string()),
        partition: Some(part.partition),
        payload: Some(WirePayload::Batch(part.batch.clone())),
        correlation_id,
        ..v1::ProduceRequest::default()
    }
}

/// What became of a part: the result of its first record, never one with an error inside.
pub type Outcome = Result<v1::ProduceResult, Problem>;

/// What another node says about a part.
pub fn only_result(answer: v1::ProduceResponse) -> Outcome {
    let mut results = answer.results.into_iter();
    match (results.next(), results.next()) {
        (Some(v1::ProduceResult { error: Some(error), .. }), None) => Err(error.into()),
        (Some(result), None) => Ok(result),
        _ => Err(Problem::new(Reason::Internal, "the partition's leader did not give one result for one batch")),
    }
}

/// What must be remembered of a part that is being appended here.
#[derive(Debug, Clone, Copy)]
pub struct Submission {
    records: u64,
    bytes: u64,
    arrived: Instant,
}

impl Submission {
    /// Of a part that is about to be submitted.
    pub fn of(part: &Part) -> Self {
        Self { records: u64::from(part.record_count), bytes: part.batch.len() as u64, arrived: Instant::now() }
    }

    /// Waits for the acknowledgement, and counts it.
    pub async fn outcome(self, shared: &Shared, submitted: Result<Submitted, Problem>) -> Outcome {
        let appended = match submitted {
            Ok(submitted) => submitted.appended().await.map_err(Problem::from),
            Err(problem) => Err(problem),
        };
        let appended = appended.inspect_err(|_| shared.metrics.produce_failed())?;
        shared.metrics.produced(self.records, self.bytes, self.arrived.elapsed());
        Ok(acknowledged(appended))
    }
}

/// A request that waits for the outcomes of its parts.
#[derive(Debug)]
pub struct Asked {
    correlation_id: u64,
    /// By part: its partition, and what became of it.
    outcomes: Vec<(u32, Option<Outcome>)>,
    /// For plain records: which part each belongs to, and its place there.
    places: Option<Vec<(usize, u32)>>,
    missing: usize,
}

impl Asked {
    /// Of a request with these parts.
    pub fn new(correlation_id: u64, prepared: &Prepared) -> Self {
        let outcomes: Vec<_> = prepared.parts.iter().map(|part| (part.partition, None)).collect();
        Self { correlation_id, missing: outcomes.len(), outcomes, places: prepared.places.clone() }
    }

    /// Takes the outcome of one part. Whether it was the last.
    pub fn put(&mut self, index: usize, outcome: Outcome) -> bool {
        if let Some((_, slot)) = self.outcomes.get_mut(index)
            && slot.replace(outcome).is_none()
        {
            self.missing -= 1;
        }
        self.missing == 0
    }

    /// The answer, once every part has its outcome.
    ///
    /// # Errors
    /// If the request had one part (an encoded batch, or records of one partition) and that failed.
    pub fn answer(self) -> Result<v1::ProduceResponse, Problem> {
        let correlation_id = self.correlation_id;
        let lost = || Err(Problem::new(Reason::Internal, "a part of the request has no outcome"));
        if let [(_, outcome)] = self.outcomes.as_slice() {
            let first = outcome.clone().unwrap_or_else(lost)?;
            let results = match &self.places {
                None => vec![first],
                Some(places) => places.iter().map(|(_, delta)| behind(&first, *delta)).collect(),
            };
            return Ok(v1::ProduceResponse { correlation_id, results });
        }
        let result = |(part, delta): (usize, u32)| match self.outcomes.get(part) {
            Some((_, Some(Ok(first)))) => behind(first, delta),
            Some((partition, Some(Err(problem)))) => failed(*partition, problem.clone()),
            _ => failed(0, Problem::new(Reason::Internal, "a part of the request has no outcome")),
        };
        Ok(v1::ProduceResponse { correlation_id, results: self.places.into_iter().flatten().map(result).collect() })
    }
}

/// The result of a record that lies `delta` behind the first of its batch.
fn behind(first: &v1::ProduceResult, delta: u32) -> v1::ProduceResult {
    v1::ProduceResult { offset: first.offset + u64::from(delta), ..first.clone() }
}

/// The result of an entry that failed.
pub fn failed(partition: u32, problem: Problem) -> v1::ProduceResult {
    v1::ProduceResult { partition, error: Some(problem.into_entry()), ..v1::ProduceResult::default() }
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

/// Bytes of a request's payload.
pub fn payload_bytes(request: &v1::ProduceRequest) -> usize {
    let len = |field: &Option<Bytes>| field.as_ref().map_or(0, Bytes::len);
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
