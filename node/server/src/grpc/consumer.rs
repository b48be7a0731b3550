//! The Consumer service: fetch, list offsets, and [`super::consume`] for streams.

use std::time::Duration;

use flotilla_broker::{FetchError, Fetched, FetchedRecord, PartitionOffset, Position, Room, Stop, Topic, TopicMissing, TopicRef};
use flotilla_proto::v1;
use flotilla_proto::v1::consumer_client::ConsumerClient;
use flotilla_proto::v1::consumer_server::Consumer;
use flotilla_proto::v1::position::At;
use prost::Message;
use tokio_stream::Empty;
use tonic::{Request, Response, Status, Streaming};

use super::call::{Call, unary};
use super::convert;
use super::forward::{self, Envelope, Repeat, Target};
use super::load::{Handover, Messages};
use super::problem::{Problem, Reason};
use super::{Shared, consume};

/// Bytes that a fetch returns where the request does not say.
const FETCH_BYTES_DEFAULT: u32 = 1 << 20;

/// See the module.
pub struct ConsumerService(pub Shared);

#[tonic::async_trait]
impl Consumer for ConsumerService {
    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<v1::FetchResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let (call, shared, made_of) = (Call::of(&metadata), &self.0, Handover::default());
        let serve = async {
            let topic = convert::topic_ref(&request.topic, request.topic_id.as_deref())?;
            let topic = shared.gateway.topic(&shared.broker, call, topic, Some(request.partition)).await?;
            let target = Target::existing(&topic, request.partition)?;
            // Where the log ends is for its leader to say.
            let repeat = match position(request.position)? {
                Position::Offset(_) | Position::Earliest => Repeat::ReadCommitted,
                Position::Latest | Position::Timestamp(_) => Repeat::Read,
            };
            let here = || fetch(shared, &topic, request.clone(), &made_of);
            // Until there is something to read it would hold room for nothing.
            let room_bytes = if request.wait_max.is_some() { 0 } else { bytes_max(shared, &request) };
            let there = |channel, envelope: Envelope| {
                let request = envelope.around(request.clone());
                let (sent, made_of, message_bytes_max) =
                    (&shared.load.clients.sent, &made_of, shared.gateway.message_bytes_max());
                async move {
                    let lot = sent.room(room_bytes as u64).await;
                    let fetched = ConsumerClient::new(channel).max_decoding_message_size(message_bytes_max).fetch(request).await;
                    made_of.put(Some(lot));
                    fetched
                }
            };
            shared.gateway.at_leader(call, &target, repeat, here, there).await
        };
        let mut answer = unary(&shared.metrics, "Fetch", &metadata, serve).await?;
        answer.extensions_mut().insert(made_of);
        Ok(answer)
    }

    /// What is pushed goes beside it, encoded.
    type ConsumeStream = Empty<Result<v1::ConsumeResponse, Status>>;

    async fn consume(&self, request: Request<Streaming<v1::ConsumeRequest>>) -> Result<Response<Self::ConsumeStream>, Status> {
        let (metadata, _, asks) = request.into_parts();
        let (pushes, made_of) = consume::open(self.0.clone(), Call::of(&metadata), asks);
        let mut answer = Response::new(tokio_stream::empty());
        answer.extensions_mut().insert(Messages::of(pushes));
        answer.extensions_mut().insert(made_of);
        Ok(answer)
    }

    async fn list_offsets(&self, request: Request<v1::ListOffsetsRequest>) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let list = async {
            let v1::ListOffsetsRequest { topic, topic_id, partitions, position } = &request;
            let (topic, last) = (convert::topic_ref(topic, topic_id.as_deref())?, partitions.iter().max().copied());
            let known = self.0.gateway.topic(&self.0.broker, Call::of(&metadata), topic, last).await?;
            let partitions = forward::partitions(&known, partitions);
            let offsets = list_offsets(&self.0, Call::of(&metadata), &known, partitions, *position).await?;
            Ok(v1::ListOffsetsResponse { offsets })
        };
        unary(&self.0.metrics, "ListOffsets", &metadata, list).await
    }
}

/// Turns a position into offsets, each partition where its leader is; in the order given.
pub async fn list_offsets(
    shared: &Shared,
    call: Call,
    topic: &Topic,
    partitions: impl IntoIterator<Item = u32>,
    at: Option<v1::Position>,
) -> Result<Vec<v1::PartitionOffset>, Problem> {
    let from = position(at)?;
    let here = |partition| async move {
        let offsets = shared.broker.list_offsets(topic, &[partition], from).await?;
        let first = offsets.into_iter().next().map(partition_offset);
        first.ok_or_else(|| Problem::new(Reason::Internal, "a partition did not say where it stands"))
    };
    let there = |channel, envelope: Envelope, partitions| {
        let topic_id = Some(topic.id.to_string());
        let request = v1::ListOffsetsRequest { topic: topic.name.to_string(), topic_id, partitions, position: at };
        let request = envelope.around(request);
        async move { Ok(ConsumerClient::new(channel).list_offsets(request).await?.map(|answer| answer.offsets)) }
    };
    shared.gateway.by_leader(call, topic, partitions, here, there).await
}

/// What a fetch may return, unless a single batch is larger.
fn bytes_max(shared: &Shared, request: &v1::FetchRequest) -> usize {
    (request.bytes_max.unwrap_or(FETCH_BYTES_DEFAULT) as usize).min(shared.limits.request_bytes_max)
}

async fn fetch(
    shared: &Shared,
    topic: &Topic,
    request: v1::FetchRequest,
    made_of: &Handover,
) -> Result<v1::FetchResponse, Problem> {
    let batches = convert::wants_batches(request.encoding)?;
    let wait = request.wait_max.map_or(Ok(Duration::ZERO), |wait| convert::duration("wait_max", wait))?;
    let bytes_max = bytes_max(shared, &request);
    let stop = request.stop_offset.map_or(Stop::Never, Stop::Before);
    let position = position(request.position)?;
    let mut reader = shared.broker.reader(topic, request.partition, position, stop).await?;
    let ready = reader.ready(wait.min(shared.limits.wait_max)).await;
    ready.map_err(|error| unless_deleted(shared, topic, error))?;
    let room = Room { records: request.records_max.unwrap_or(u32::MAX) as usize, bytes: bytes_max };
    // One batch, and one record of it, comes however large. What was larger than there was room for is read again, with room.
    let mut expected_bytes = shared.limits.batch_bytes(topic);
    let from = reader.position();
    let taken = loop {
        let room_bytes = bytes_max.max(expected_bytes);
        let mut lot = shared.load.clients.sent.room(room_bytes as u64).await;
        reader.seek(from);
        let reading = shared.load.reading().await;
        let fetched = reader.read(bytes_max).await.map_err(|error| unless_deleted(shared, topic, error))?;
        drop(reading);
        expected_bytes = fetched.bytes();
        if expected_bytes > room_bytes {
            continue;
        }
        let taken = take(shared, (request.partition, reader.stop()), fetched, batches, room)?;
        expected_bytes = taken.encoded_len();
        if expected_bytes <= room_bytes {
            lot.resize(expected_bytes as u64);
            made_of.put(Some(lot));
            break taken;
        }
    };
    Ok(v1::FetchResponse {
        next_offset: taken.next_offset,
        high_watermark: taken.high_watermark,
        log_start_offset: taken.log_start_offset,
        records: taken.records,
        batches: taken.batches,
    })
}

/// Takes about as many records as there is room for out of what was read from a partition that is read up to a stop, in
/// the encoding asked for. The next read goes on at the `next_offset` of what is returned.
///
/// Plain records are taken exactly; of batches whole ones, until there are enough. Stored batches are small enough
/// already; what is decompressed here counts as it is sent.
pub fn take(
    shared: &Shared,
    (partition, stop): (u32, Option<u64>),
    fetched: Fetched,
    batches: bool,
    room: Room,
) -> Result<v1::ConsumedRecords, Problem> {
    let mut taken = v1::ConsumedRecords {
        partition,
        next_offset: fetched.next_offset,
        high_watermark: fetched.ends.high_watermark,
        log_start_offset: fetched.ends.log_start_offset,
        ..v1::ConsumedRecords::default()
    };
    let (mut stored_batches, mut stored_bytes) = (0, 0);
    if batches {
        let mut record_count = 0;
        for batch in fetched.batches {
            if record_count >= room.records as u64 {
                taken.next_offset = batch.base_offset;
                break;
            }
            record_count += u64::from(batch.record_count);
            stored_bytes += batch.payload.len();
            taken.batches.push(batch.stamped()?);
        }
        stored_batches = taken.batches.len();
    } else {
        let (records, next_offset) = fetched.records(stop, room, shared.limits.decompressed_bytes_max)?;
        taken.records = records.into_iter().map(record).collect();
        taken.next_offset = next_offset;
        for batch in fetched.batches.iter().take_while(|batch| batch.base_offset < next_offset) {
            stored_batches += 1;
            stored_bytes += batch.payload.len();
        }
    }
    shared.metrics.fetched(stored_batches as u64, stored_bytes as u64);
    Ok(taken)
}

/// A partition that closes under a reader does so because the node stops, or because its topic was deleted.
pub fn unless_deleted(shared: &Shared, topic: &Topic, error: FetchError) -> Problem {
    if !matches!(error, FetchError::NotServing(_)) {
        return error.into();
    }
    match TopicRef::from(topic).find(&shared.broker.image()) {
        Ok(_) => error.into(),
        Err(TopicMissing::UnknownTopic { topic }) => {
            Problem::new(Reason::UnknownTopic, format!("topic {topic:?} was deleted")).with("topic", topic)
        }
        Err(recreated) => recreated.into(),
    }
}

/// A place in a partition.
pub fn position(position: Option<v1::Position>) -> Result<Position, Problem> {
    let missing = || Problem::field("position", "is missing: give offset, earliest, latest or timestamp");
    Ok(match position.and_then(|position| position.at).ok_or_else(missing)? {
        At::Offset(offset) => Position::Offset(offset),
        At::Earliest(_) => Position::Earliest,
        At::Latest(_) => Position::Latest,
        At::Timestamp(at) => Position::Timestamp(convert::timestamp_ms("position.timestamp", at)?),
    })
}

fn record(record: FetchedRecord) -> v1::Record {
    let header = |header: flotilla_broker::Header| v1::Header { name: header.key, value: header.value };
    v1::Record {
        key: record.key,
        value: record.value,
        headers: record.headers.into_iter().map(header).collect(),
        timestamp: Some(convert::timestamp(record.timestamp_ms)),
        offset: record.offset,
    }
}

fn partition_offset(of: PartitionOffset) -> v1::PartitionOffset {
    v1::PartitionOffset {
        partition: of.partition,
        offset: of.offset,
        timestamp: of.timestamp_ms.map(convert::timestamp),
        log_start_offset: of.ends.log_start_offset,
        high_watermark: of.ends.high_watermark,
    }
}
