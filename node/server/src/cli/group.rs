//! `flotilla group`: what consumer groups have committed.

use clap::Subcommand;
use flotilla_client::api;
use serde::Serialize;
use serde_json::json;

use super::exit::CliError;
use super::global::Global;
use super::output::{print, table};
use crate::units::parse_number;

/// Arguments of `flotilla group`.
#[derive(Debug, clap::Args)]
pub struct GroupArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Commit an offset for a group by hand; no member may own the partition
    Commit(CommitArgs),
    /// Show what a group has committed, and how far behind it is
    Committed(CommittedArgs),
}

#[derive(Debug, clap::Args)]
struct CommitArgs {
    /// Name of the group
    group: String,
    /// Name of the topic
    topic: String,
    /// The partition
    #[arg(long, value_name = "N", value_parser = parse_number::<u32>)]
    partition: u32,
    /// The next offset to read
    #[arg(long, value_name = "OFFSET", value_parser = parse_number::<u64>)]
    offset: u64,
    /// Anything to keep with it
    #[arg(long, default_value = "", value_name = "TEXT")]
    metadata: String,
}

#[derive(Debug, clap::Args)]
struct CommittedArgs {
    /// Name of the group
    group: String,
    /// Name of the topic
    topic: String,
    /// Only this partition; may be repeated
    #[arg(long, value_name = "N", value_parser = parse_number::<u32>)]
    partition: Vec<u32>,
}

#[derive(Debug, Serialize)]
struct CommittedView {
    partition: u32,
    /// None: nothing committed.
    offset: Option<u64>,
    metadata: String,
    commit_time: Option<String>,
    log_start_offset: u64,
    high_watermark: u64,
    lag: u64,
}

/// Runs the verb.
///
/// # Errors
/// What the cluster refuses, and when it does not answer.
pub async fn run(args: GroupArgs, global: &Global) -> Result<(), CliError> {
    match args.verb {
        Verb::Commit(args) => commit(args, global).await,
        Verb::Committed(args) => committed(args, global).await,
    }
}

async fn commit(args: CommitArgs, global: &Global) -> Result<(), CliError> {
    let CommitArgs { group, topic, partition, offset, metadata } = args;
    let shown = json!({ "group": group, "topic": topic, "partition": partition, "offset": offset });
    let done = format!("group {group} committed offset {offset} of {topic} partition {partition}");
    let request = api::CommitRequest { group, topic, partition, offset, metadata, fence: None, topic_id: None };
    global.client().await?.commit(request).await?;
    print(global.output, &shown, |_, _| done)
}

async fn committed(args: CommittedArgs, global: &Global) -> Result<(), CliError> {
    let request = api::CommittedRequest { group: args.group, topic: args.topic, partitions: args.partition, topic_id: None };
    let offsets = global.client().await?.committed(request).await?.offsets;
    let offsets: Vec<CommittedView> = offsets.into_iter().map(CommittedView::from).collect();
    print(global.output, &offsets, |offsets, _| {
        let rows: Vec<_> = offsets.iter().map(CommittedView::row).collect();
        table(&["PARTITION", "COMMITTED", "START", "END", "LAG", "COMMITTED AT", "METADATA"], &rows)
    })
}

impl From<api::CommittedOffset> for CommittedView {
    fn from(committed: api::CommittedOffset) -> Self {
        Self {
            partition: committed.partition,
            offset: committed.offset,
            metadata: committed.metadata,
            commit_time: committed.commit_time.map(|time| time.to_string()),
            log_start_offset: committed.log_start_offset,
            high_watermark: committed.high_watermark,
            lag: committed.lag,
        }
    }
}

impl CommittedView {
    fn row(&self) -> Vec<String> {
        vec![
            self.partition.to_string(),
            self.offset.map_or("-".to_owned(), |offset| offset.to_string()),
            self.log_start_offset.to_string(),
            self.high_watermark.to_string(),
            self.lag.to_string(),
            self.commit_time.clone().unwrap_or_default(),
            self.metadata.clone(),
        ]
    }
}
