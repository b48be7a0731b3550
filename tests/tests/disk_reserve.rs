//! A disk that is nearly full: producing stops in time, everything else goes on, so that space can be freed through the
//! node; then producing goes on by itself. Needs root, for a small tmpfs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use flotilla_client::{Client, ProducerOptions, Record};
use flotilla_proto::v1;
use flotilla_proto::v1::producer_client::ProducerClient;
use flotilla_tests::mounts::{self, Mount};
use flotilla_tests::read;
use flotilla_tests::refusal;
use flotilla_tests::server::Server;
use tonic::Status;
use tonic::transport::Channel;

const TOPIC: &str = "full";
const OTHER_TOPIC: &str = "other";
const DISK_MIB: u64 = 256;
const ARGS: [&str; 8] =
    ["--journal-bytes", "128MiB", "--segment-bytes", "4MiB", "--retention-interval", "200ms", "--disk-reserve-bytes", "16MiB"];
const VALUE_BYTES: usize = 512 << 10;
/// What does not happen by then does not happen.
const PATIENCE: Duration = Duration::from_secs(60);

async fn produce(to: &mut ProducerClient<Channel>, topic: &str) -> Result<u64, Status> {
    let record = v1::Record { value: Some(vec![7; VALUE_BYTES].into()), ..v1::Record::default() };
    let records = v1::Records { records: vec![record] };
    let request = v1::ProduceRequest {
        topic: topic.into(),
        partition: Some(0),
        payload: Some(v1::produce_request::Payload::Records(records)),
        ..v1::ProduceRequest::default()
    };
    Ok(to.produce(request).await?.into_inner().results[0].offset)
}

/// Produces until that is refused, and the server says that its disk is full. How many were acknowledged.
async fn fill(server: &Server, to: &mut ProducerClient<Channel>) -> u64 {
    let (started, mut acked) = (Instant::now(), 0);
    loop {
        assert!(started.elapsed() < PATIENCE, "the disk does not fill up");
        match produce(to, TOPIC).await {
            Ok(_) => acked += 1,
            Err(status) => {
                refusal::check::<()>("a full disk", Err(status), "DISK_FULL");
                if server.get("/metrics").unwrap().contains("\nflotilla_disk_full 1\n") {
                    return acked;
                }
            }
        }
    }
}

/// Produces again and again until it is taken.
async fn wait_for_space(to: &mut ProducerClient<Channel>, topic: &str) {
    let started = Instant::now();
    while let Err(status) = produce(to, topic).await {
        assert!(started.elapsed() < PATIENCE, "no space comes back: {status}");
        refusal::check::<()>("still full", Err(status), "DISK_FULL");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn delete_records(client: &Client, before_offset: u64) {
    let request = v1::DeleteRecordsRequest { topic: TOPIC.into(), partition: 0, before_offset };
    client.delete_records(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn space_can_be_freed_through_a_full_node() {
    let dir = tempfile::tempdir().unwrap();
    let mount = match Mount::tmpfs(&dir.path().join("small"), DISK_MIB) {
        Ok(mount) => mount,
        Err(why) => return mounts::skip("disk_reserve", &why),
    };
    let mut server = Server::started(&dir.path().join("small/data"), &ARGS);
    let client = server.client().await;
    read::create_topic(&client, TOPIC, 1).await;
    read::create_topic(&client, OTHER_TOPIC, 1).await;
    let channel = Channel::from_shared(format!("http://{}", server.address())).unwrap().connect().await.unwrap();
    let mut producer = ProducerClient::new(channel);

    let acked = fill(&server, &mut producer).await;
    assert!(acked > 50, "{acked}");
    assert_eq!(read::all(&client, TOPIC).await[&0].len() as u64, acked, "reading goes on");

    // Nothing is wrong with what is produced: it is tried again until there is space.
    let patient = client.producer(OTHER_TOPIC, ProducerOptions::default()).await.unwrap();
    let value = vec![7; VALUE_BYTES];
    let mut waiting = patient.send(Record::new(&value)).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(500), &mut waiting).await;
    delete_records(&client, acked - 10).await;
    match early {
        Ok(sent) => sent.unwrap(),
        Err(_) => waiting.await.unwrap(),
    };
    patient.close().await.unwrap();
    wait_for_space(&mut producer, OTHER_TOPIC).await;
    let more = fill(&server, &mut producer).await;
    assert!(more > 10, "{more}");

    let bounds = read::bounds(&client, TOPIC).await;
    // As a node does that was stopped because it was full.
    server.kill();
    server.start();
    assert_eq!(read::bounds(&client, TOPIC).await, bounds);
    let kept = read::all(&client, TOPIC).await[&0].len() as u64;
    assert_eq!(kept, bounds[&0].1 - bounds[&0].0);
    client.delete_topic(v1::DeleteTopicRequest { name: TOPIC.into(), if_exists: false }).await.unwrap();
    wait_for_space(&mut producer, OTHER_TOPIC).await;
    assert!(server.is_running());
    println!("{acked} and {more} times {VALUE_BYTES} bytes were taken before the disk was full");
    server.kill();
    drop(mount);
}
