//! Log lines are produced and consumed back, byte for byte, in order, with each codec, with keys and without.
//!
//! `FLOTILLA_LOG_FILES` names a folder whose `*.log` files are used; otherwise lines are generated.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::time::Duration;

use flotilla_client::{Client, Codec, Delivered, ProducerOptions, Record, api};
use flotilla_records::partition_for_key;
use flotilla_tests::lines::{self, Lines};
use flotilla_tests::read::{self, Partitions, Read};
use flotilla_tests::server::Server;

const PARTITIONS: u32 = 6;
const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

type Sent<'a> = Vec<(Option<&'a [u8]>, &'a [u8], Delivered)>;

/// Produces every line and waits for all acknowledgements.
async fn produce<'a>(client: &Client, topic: &str, lines: &'a Lines, codec: Codec, keyed: bool) -> Sent<'a> {
    // Small batches, so that there are many.
    let options = ProducerOptions { codec, batch_bytes: 16 << 10, linger: Duration::from_millis(1), ..Default::default() };
    let producer = client.producer(topic, options).await.unwrap();
    let mut sent = Vec::new();
    for line in &lines.lines {
        let key = lines::key(line).filter(|_| keyed);
        let record = Record { key, value: Some(line), ..Record::default() };
        sent.push((key, line.as_slice(), producer.send(record).await.unwrap()));
    }
    producer.close().await.unwrap();
    let mut delivered = Vec::new();
    for (key, line, delivery) in sent {
        delivered.push((key, line, delivery.await.unwrap()));
    }
    delivered
}

/// What the partitions must hold if each record is where its acknowledgement says.
fn expected(sent: &Sent<'_>) -> Partitions {
    let mut partitions: Partitions = (0..PARTITIONS).map(|partition| (partition, Vec::new())).collect();
    for (key, line, delivered) in sent {
        let read = Read { offset: delivered.offset, key: key.map(<[u8]>::to_vec), value: Some(line.to_vec()) };
        partitions.get_mut(&delivered.partition).unwrap().push(read);
    }
    partitions
}

/// The lines of each key, in the order in which they come.
fn by_key<'a>(records: impl Iterator<Item = (Option<&'a [u8]>, &'a [u8])>) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut keys: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    for (key, line) in records.filter_map(|(key, line)| Some((key?, line))) {
        keys.entry(key.to_vec()).or_default().push(line.to_vec());
    }
    keys
}

fn check(sent: &Sent<'_>, read: &Partitions) {
    // A producer's records of one partition have ascending offsets, so this is order as well as content.
    assert_eq!(&expected(sent), read);
    for records in read.values() {
        assert!(records.iter().enumerate().all(|(place, record)| record.offset == place as u64), "offsets are dense");
    }
    let sent_keys = by_key(sent.iter().map(|(key, line, _)| (*key, *line)));
    let records = read.values().flatten().map(|record| (record.key.as_deref(), record.value.as_deref().unwrap()));
    assert_eq!(sent_keys, by_key(records), "order per key");
    for (key, _, delivered) in sent {
        assert!(key.is_none_or(|key| partition_for_key(key, PARTITIONS) == delivered.partition), "partition of {key:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_come_back_as_they_went() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::started(dir.path(), &[]);
    let client = server.client().await;
    let sources = lines::sources();
    let mut topics = Vec::new();
    for (number, source) in sources.iter().enumerate() {
        for codec in CODECS {
            for keyed in [true, false] {
                let topic = format!("lines-{number}-{codec:?}-{keyed}").to_lowercase();
                read::create_topic(&client, &topic, PARTITIONS).await;
                let sent = produce(&client, &topic, source, codec, keyed).await;
                assert_eq!(sent.len(), source.lines.len());
                check(&sent, &read::all(&client, &topic).await);
                topics.push((topic, sent));
            }
        }
    }
    // And from the disk, in another process.
    server.kill();
    server.start();
    let client = server.client().await;
    for (topic, sent) in &topics {
        check(sent, &read::all(&client, topic).await);
    }
    let count: usize = topics.iter().map(|(_, sent)| sent.len()).sum();
    println!("{} sources, {} topics, {count} records, each read before and after kill -9", sources.len(), topics.len());
}

/// Plain records in unary calls: the server builds, and compresses, the batches.
#[tokio::test(flavor = "multi_thread")]
async fn plain_records_come_back_as_they_went() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::started(dir.path(), &[]);
    let client = server.client().await;
    for codec in [api::Codec::None, api::Codec::Gzip, api::Codec::Snappy, api::Codec::Lz4, api::Codec::Zstd] {
        let topic = format!("plain-{}", codec as i32);
        read::create_topic(&client, &topic, PARTITIONS).await;
        let lines = Lines { name: topic.clone(), lines: lines::generated(500) };
        let mut sent: Sent<'_> = Vec::new();
        for some in lines.lines.chunks(50) {
            let record = |line: &Vec<u8>| api::Record {
                key: lines::key(line).map(|key| key.to_vec().into()),
                value: Some(line.clone().into()),
                ..api::Record::default()
            };
            let records = api::Records { records: some.iter().map(record).collect() };
            let request = api::ProduceRequest {
                topic: topic.clone(),
                payload: Some(api::produce_request::Payload::Records(records)),
                codec: codec.into(),
                ..api::ProduceRequest::default()
            };
            let results = client.produce(request).await.unwrap().results;
            assert_eq!(results.len(), some.len());
            for (line, result) in some.iter().zip(results) {
                assert_eq!(result.error, None);
                let delivered = Delivered { partition: result.partition, offset: result.offset };
                sent.push((lines::key(line), line, delivered));
            }
        }
        check(&sent, &read::all(&client, &topic).await);
    }
}
