//! Hostile requests against everything that takes wire types apart: a million mutations of real requests decode into
//! something, or into an error, and conversion never panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use bytes::Bytes;
use flotilla_proto::v1;
use prost::Message;

use super::{consumer, groups, producer, topics};

/// Mutations of each seed.
const ROUNDS: u64 = 250_000;

/// xorshift64*, Marsaglia and Vigna: the same mutations in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// Changes, cuts, doubles or inserts a few bytes.
    fn mutate(&mut self, seed: &[u8]) -> Bytes {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(4) {
                0 if !bytes.is_empty() => bytes[at] = self.next() as u8,
                1 => bytes.truncate(at),
                2 => bytes.insert(at, self.next() as u8),
                _ => bytes.extend_from_within(at..),
            }
        }
        bytes.into()
    }
}

fn attack<M: Message + Default>(seed: &M, convert: impl Fn(M)) {
    let encoded = seed.encode_to_vec();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut decoded = 0;
    for _ in 0..ROUNDS {
        if let Ok(message) = M::decode(random.mutate(&encoded)) {
            decoded += 1;
            convert(message);
        }
    }
    assert!(decoded > ROUNDS / 100, "the mutations are too wild to reach the conversion: {decoded}");
}

fn time(seconds: i64) -> v1::Position {
    v1::Position { at: Some(v1::position::At::Timestamp(super::convert::timestamp(seconds * 1000))) }
}

#[test]
fn produce_requests() {
    let header = v1::Header { name: "trace".into(), value: Some(Bytes::from_static(b"1")) };
    let record = v1::Record {
        key: Some(Bytes::from_static(b"key")),
        value: Some(Bytes::from_static(b"value")),
        headers: vec![header],
        timestamp: Some(super::convert::timestamp(1)),
        offset: 3,
    };
    let records = v1::Records { records: vec![record.clone(), record] };
    let seed = v1::ProduceRequest {
        topic: "topic".into(),
        partition: Some(1),
        payload: Some(v1::produce_request::Payload::Records(records)),
        codec: 5,
        producer: Some(v1::ProducerStamp { producer_id: 1, epoch: 2, sequence: 3 }),
        correlation_id: 9,
        topic_id: Some("id".into()),
        leader_wait_max: Some(super::convert::wire_duration(std::time::Duration::from_secs(1))),
    };
    attack(&seed, |request| {
        let _ = producer::payload_bytes(&request);
        let _ = super::convert::topic_ref(&request.topic, request.topic_id.as_deref());
        let _ = producer::produce(request);
    });
}

#[test]
fn consume_requests() {
    let position = v1::PartitionPosition { partition: 1, position: Some(time(5)), stop_offset: Some(7) };
    let seed = v1::ConsumeOpen {
        topic: "topic".into(),
        partitions: vec![position, position],
        until_end: true,
        encoding: 2,
        credit: Some(v1::Credit { records: 10, bytes: 10 }),
        topic_id: None,
    };
    attack(&seed, |open| {
        let _ = super::convert::wants_batches(open.encoding);
        for partition in open.partitions {
            let _ = consumer::position(partition.position);
        }
    });
}

#[test]
fn topic_requests() {
    let config = v1::TopicConfig {
        retention: Some(super::convert::wire_duration(std::time::Duration::from_secs(3600))),
        retention_bytes: Some(1),
        batch_bytes_max: Some(2),
        timestamp_type: 2,
        timestamp_ahead_max: Some(super::convert::wire_duration(std::time::Duration::from_secs(60))),
    };
    let seed = v1::CreateTopicRequest {
        name: "topic".into(),
        partitions: Some(6),
        replication_factor: Some(1),
        config: Some(config),
        if_not_exists: true,
    };
    attack(&seed, |request| {
        let _ = topics::create_topic(request);
    });
}

#[test]
fn commit_requests() {
    let seed = v1::CommitRequest {
        group: "group".into(),
        topic: "topic".into(),
        partition: 1,
        offset: 2,
        metadata: "m".into(),
        fence: Some(v1::Fence { epoch: 3, member_id: "member".into() }),
        topic_id: None,
    };
    attack(&seed, |request| {
        let _ = groups::commit(request);
    });
}
