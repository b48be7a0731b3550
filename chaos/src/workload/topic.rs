//! The topic of a run: created, asked about, read to its end.

use std::collections::BTreeMap;
use std::time::Duration;

use flotilla_client::{Assignment, Client, ClientOptions, ConsumerOptions, Error, Position, api};
use tokio::time::Instant;

use super::reader::seen;
use crate::fault::Leaders;
use crate::history::Seen;

const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Creates the topic and waits until every partition has a leader.
///
/// # Errors
/// If the cluster refuses, or a partition has no leader after `timeout`.
pub async fn create(
    client: &Client,
    name: &str,
    partitions: u32,
    replication_factor: u32,
    timeout: Duration,
) -> Result<(), Error> {
    let deadline = Instant::now() + timeout;
    let request = api::CreateTopicRequest {
        name: name.to_owned(),
        partitions: Some(partitions),
        replication_factor: Some(replication_factor),
        // A retry may find what the first attempt made.
        if_not_exists: true,
        ..api::CreateTopicRequest::default()
    };
    client.create_topic(request).await?;
    while leaders(client, name).await?.values().any(Option::is_none) {
        if Instant::now() >= deadline {
            return Err(Error::Timeout(timeout));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

/// Who leads each partition.
///
/// # Errors
/// If no node answers.
pub async fn leaders(client: &Client, name: &str) -> Result<Leaders, Error> {
    Ok(describe(client, name).await?.into_iter().map(|partition| (partition.partition, partition.leader)).collect())
}

/// The partitions, with leaders, replicas and ends.
///
/// # Errors
/// If no node answers.
pub async fn describe(client: &Client, name: &str) -> Result<Vec<api::Partition>, Error> {
    Ok(client.describe_topic(api::DescribeTopicRequest { name: name.to_owned() }).await?.partitions)
}

/// The end of each partition; everything acknowledged before the question lies before it.
///
/// # Errors
/// If no node answers, or a partition has no leader.
pub async fn ends(client: &Client, name: &str) -> Result<BTreeMap<u32, u64>, Error> {
    let position = Some(api::Position { at: Some(api::position::At::Latest(api::Latest {})) });
    let request = api::ListOffsetsRequest { topic: name.to_owned(), partitions: Vec::new(), position, topic_id: None };
    let offsets = client.list_offsets(request).await?.offsets;
    Ok(offsets.into_iter().map(|listed| (listed.partition, listed.high_watermark)).collect())
}

/// Reads every partition from its start to its end through the node at `address` alone, with a new client.
///
/// # Errors
/// If reading fails: nothing that was read before counts.
pub async fn read_all(address: &str, name: &str) -> Result<BTreeMap<u32, Vec<Seen>>, Error> {
    let client = Client::connect([address], ClientOptions::default()).await?;
    let options = ConsumerOptions { until_end: true, ..ConsumerOptions::default() };
    let mut consumer = client.consumer(name, Assignment::all(Position::Earliest), options).await?;
    let mut partitions: BTreeMap<u32, Vec<Seen>> = consumer.positions().map(|(partition, _)| (partition, Vec::new())).collect();
    while let Some(chunk) = consumer.next().await? {
        partitions.entry(chunk.partition()).or_default().extend(seen(&chunk)?);
    }
    Ok(partitions)
}
