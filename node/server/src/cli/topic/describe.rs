//! `flotilla topic describe`.

use std::time::Duration;

use flotilla_client::{Error, api};
use indicatif::BinaryBytes;
use serde::Serialize;

use super::view::TopicView;
use crate::cli::exit::CliError;
use crate::cli::global::Global;
use crate::cli::output::{count, print, table};
use crate::cli::partition::view::{HEAD, PartitionView, WIDE_HEAD};
use crate::units::{format_duration, format_size};

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

pub async fn run(args: DescribeArgs, global: &Global) -> Result<(), CliError> {
    let answer = global.client().await?.describe_topic(api::DescribeTopicRequest { name: args.name }).await?;
    let topic = answer.topic.ok_or_else(|| Error::Protocol("no topic in its description".to_owned()))?;
    let partitions = answer.partitions.into_iter().map(PartitionView::from).collect();
    print(global.output, &Described { topic: topic.into(), partitions }, text)
}

fn text(described: &Described, wide: bool) -> String {
    let topic = &described.topic;
    let records = |partition: &PartitionView| Some(partition.high_watermark?.saturating_sub(partition.log_start_offset?));
    let records: u64 = described.partitions.iter().filter_map(records).sum();
    let size_bytes: u64 = described.partitions.iter().filter_map(|partition| partition.size_bytes).sum();
    // Nobody knows what those hold whose end no majority confirms.
    let partly = described.partitions.iter().any(|partition| partition.high_watermark.is_none());
    let mut text = format!(
        "topic {} ({})\ncreated {}, replication factor {}, {}, {}\n\
         retention {}, size limit {}, largest batch {}, {}, dated at most {} ahead\n\n",
        topic.name,
        topic.id,
        topic.created_at.as_deref().unwrap_or("at an unknown time"),
        topic.replication_factor,
        format_args!("{}{}", if partly { "at least " } else { "" }, count(records, "record")),
        BinaryBytes(size_bytes),
        topic.retention_text(),
        topic.retention_bytes_text(),
        format_size(topic.batch_bytes_max),
        topic.timestamp_type,
        format_duration(Duration::from_millis(topic.timestamp_ahead_max_ms)),
    );
    let mut head = HEAD.to_vec();
    if wide {
        head.extend(WIDE_HEAD);
    }
    let rows: Vec<_> = described.partitions.iter().map(|partition| partition.row(wide)).collect();
    text += &table(&head, &rows);
    text
}
