//! `flotilla topic create`.

use flotilla_client::{Error, api};
use serde::Serialize;

use super::view::{ConfigArgs, TopicView};
use crate::cli::exit::CliError;
use crate::cli::global::Global;
use crate::cli::output::{count, print};
use crate::units::parse_number;

/// Arguments of `flotilla topic create`.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// Name: 1 to 249 of a-z A-Z 0-9 . _ -
    name: String,
    /// Number of partitions [default: 1]
    #[arg(long, value_name = "N", value_parser = parse_number::<u32>)]
    partitions: Option<u32>,
    /// Copies of each partition, on different nodes [default: 3, or the number of nodes if there are fewer]
    #[arg(long, value_name = "N", value_parser = parse_number::<u32>)]
    replication_factor: Option<u32>,
    #[command(flatten)]
    config: ConfigArgs,
    /// Succeed if the topic exists with the same number of partitions
    #[arg(long)]
    if_not_exists: bool,
}

#[derive(Debug, Serialize)]
struct Created {
    created: bool,
    topic: TopicView,
}

pub async fn run(args: CreateArgs, global: &Global) -> Result<(), CliError> {
    let request = api::CreateTopicRequest {
        name: args.name,
        partitions: args.partitions,
        replication_factor: args.replication_factor,
        config: Some(args.config.to_config()),
        if_not_exists: args.if_not_exists,
    };
    let answer = global.client().await?.create_topic(request).await?;
    let topic = answer.topic.ok_or_else(|| Error::Protocol("no topic in the answer to its creation".to_owned()))?;
    print(global.output, &Created { created: answer.created, topic: topic.into() }, |created, _| {
        let (topic, what) = (&created.topic, if created.created { "created" } else { "exists" });
        let (partitions, replicas) = (count(topic.partition_count, "partition"), count(topic.replication_factor, "replica"));
        format!("topic {} {what}: {partitions}, {replicas}", topic.name)
    })
}
