//! `flotilla topic describe`.

use flotilla_client::{Error, api};
use serde::Serialize;

use super::view::TopicView;
use crate::cli::exit::CliError;
use crate::cli::global::Global;
use crate::cli::output::{print, table};
use crate::units::format_size;

/// Arguments of `flotilla topic describe`.
#[derive(Debug, clap::Args)]
pub struct DescribeArgs {
    /// Name of the topic
    name: String,
}

#[derive(Debug, Serialize)]
struct Described {
    #[serde(flatten)]
    topic: TopicView,
    partitions: Vec<PartitionView>,
}

#[derive(Debug, Serialize)]
struct PartitionView {
    partition: u32,
    leader: Option<u64>,
    replicas: Vec<u64>,
    in_sync: Vec<u64>,
    log_start_offset: u64,
    high_watermark: u64,
    size_bytes: u64,
    group_id: u64,
}

impl From<api::Partition> for PartitionView {
    fn from(partition: api::Partition) -> Self {
        Self {
            partition: partition.partition,
            leader: partition.leader,
            replicas: partition.replicas,
            in_sync: partition.in_sync,
            log_start_offset: partition.log_start_offset,
            high_watermark: partition.high_watermark,
            size_bytes: partition.size_bytes,
            group_id: partition.group_id,
        }
    }
}

pub async fn run(args: DescribeArgs, global: &Global) -> Result<(), CliError> {
    let answer = global.client().await?.describe_topic(api::DescribeTopicRequest { name: args.name }).await?;
    let topic = answer.topic.ok_or_else(|| Error::Protocol("no topic in its description".to_owned()))?;
    let partitions = answer.partitions.into_iter().map(PartitionView::from).collect();
    print(global.output, &Described { topic: topic.into(), partitions }, text)
}

fn text(described: &Described, wide: bool) -> String {
    let topic = &described.topic;
    let records: u64 =
        described.partitions.iter().map(|partition| partition.high_watermark.saturating_sub(partition.log_start_offset)).sum();
    let mut text = format!(
        "topic {} ({})\ncreated {}, {} records\nretention {}, size limit {}, largest batch {}, {}\n\n",
        topic.name,
        topic.id,
        topic.created_at.as_deref().unwrap_or("at an unknown time"),
        records,
        topic.retention_text(),
        topic.retention_bytes_text(),
        format_size(topic.batch_bytes_max),
        topic.timestamp_type,
    );
    let mut head = vec!["PARTITION", "LEADER", "START", "END", "BYTES"];
    if wide {
        head.extend(["REPLICAS", "IN SYNC", "GROUP"]);
    }
    let rows: Vec<_> = described.partitions.iter().map(|partition| row(partition, wide)).collect();
    text += &table(&head, &rows);
    text
}

fn row(partition: &PartitionView, wide: bool) -> Vec<String> {
    let list = |nodes: &[u64]| nodes.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let mut row = vec![
        partition.partition.to_string(),
        partition.leader.map_or("none".to_owned(), |leader| leader.to_string()),
        partition.log_start_offset.to_string(),
        partition.high_watermark.to_string(),
        partition.size_bytes.to_string(),
    ];
    if wide {
        row.extend([list(&partition.replicas), list(&partition.in_sync), partition.group_id.to_string()]);
    }
    row
}
