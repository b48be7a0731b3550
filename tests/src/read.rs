//! Reading topics to their end.

use std::collections::BTreeMap;

use flotilla_client::{Assignment, Client, ConsumerOptions, Error, Position, api};

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Its offset.
    pub offset: u64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
}

/// What each partition holds, in order.
pub type Partitions = BTreeMap<u32, Vec<Read>>;

/// Reads every partition of `topic` from its first record to its end.
///
/// # Panics
/// If that fails.
pub async fn all(client: &Client, topic: &str) -> Partitions {
    try_all(client, topic).await.unwrap()
}

/// As [`all`].
///
/// # Errors
/// If reading fails: nothing that was read before counts.
pub async fn try_all(client: &Client, topic: &str) -> Result<Partitions, Error> {
    from(client, topic, Assignment::all(Position::Earliest)).await
}

/// Reads what `assignment` names to its end.
///
/// # Errors
/// If reading fails: nothing that was read before counts.
pub async fn from(client: &Client, topic: &str, assignment: Assignment) -> Result<Partitions, Error> {
    let options = ConsumerOptions { until_end: true, ..ConsumerOptions::default() };
    let mut consumer = client.consumer(topic, assignment, options).await?;
    let mut partitions: Partitions = consumer.positions().map(|(partition, _)| (partition, Vec::new())).collect();
    while let Some(chunk) = consumer.next().await? {
        let read = partitions.entry(chunk.partition()).or_default();
        for record in chunk.records() {
            let record = record?;
            let (key, value) = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
            read.push(Read { offset: record.offset, key, value });
        }
    }
    Ok(partitions)
}

/// Log start offset and high watermark of each partition.
///
/// # Panics
/// If that fails.
pub async fn bounds(client: &Client, topic: &str) -> BTreeMap<u32, (u64, u64)> {
    let position = Some(api::Position { at: Some(api::position::At::Earliest(api::Earliest {})) });
    let request = api::ListOffsetsRequest { topic: topic.to_owned(), partitions: Vec::new(), position, topic_id: None };
    let offsets = client.list_offsets(request).await.unwrap().offsets;
    offsets.into_iter().map(|listed| (listed.partition, (listed.log_start_offset, listed.high_watermark))).collect()
}

/// Creates `topic`.
///
/// # Panics
/// If that fails.
pub async fn create_topic(client: &Client, topic: &str, partitions: u32) {
    let request =
        api::CreateTopicRequest { name: topic.to_owned(), partitions: Some(partitions), ..api::CreateTopicRequest::default() };
    client.create_topic(request).await.unwrap();
}
