//! `flotilla partition move`.

use std::time::Duration;

use flotilla_client::{Client, api};

use super::Of;
use super::view::{TopicPartitionView, answered, node_list};
use crate::cli::exit::CliError;
use crate::cli::global::Global;
use crate::cli::output::print;
use crate::cli::wait::{Seen, until};
use crate::units::parse_duration;

/// Arguments of `flotilla partition move`.
#[derive(Debug, clap::Args)]
pub struct MoveArgs {
    #[command(flatten)]
    of: Of,
    /// Ids of the nodes that hold it afterwards, comma separated; the first is the preferred leader
    #[arg(long, required = true, value_delimiter = ',', value_name = "NODE,NODE,...")]
    replicas: Vec<u64>,
    /// Wait until it is there
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, default_value = "30m", value_parser = parse_duration, value_name = "DURATION", requires = "wait")]
    timeout: Duration,
}

pub async fn run(args: MoveArgs, global: &Global) -> Result<(), CliError> {
    let (client, Of { topic, partition }) = (global.client().await?, args.of);
    let request = api::MovePartitionRequest { topic: topic.clone(), partition, replicas: args.replicas.clone() };
    let mut moved = answered(client.move_partition(request).await?.partition)?;
    if args.wait {
        let nodes = node_list(&args.replicas);
        let what = format!("partition {partition} of topic {topic} is on nodes {nodes}");
        moved = until(&what, args.timeout, async || look(&client, &topic, partition, &args.replicas).await).await?;
    }
    print(global.output, &moved, |moved, _| match moved.target.as_slice() {
        [] => format!("partition {partition} of topic {topic} is on nodes {}", node_list(&moved.partition.replicas)),
        target => format!(
            "partition {partition} of topic {topic} moves to nodes {}; flotilla partition list --topic {topic} shows how far it is",
            node_list(target)
        ),
    })
}

async fn look(client: &Client, topic: &str, partition: u32, wanted: &[u64]) -> Result<Seen<TopicPartitionView>, CliError> {
    let request = api::ListPartitionsRequest { topic: Some(topic.to_owned()), unhealthy: false };
    let partitions = client.list_partitions(request).await?.partitions;
    let of = partitions.into_iter().find(|of| of.partition.as_ref().is_some_and(|found| found.partition == partition));
    let now = answered(of)?;
    let there = now.target.is_empty() && now.partition.replicas == wanted;
    if there {
        return Ok(Seen::Done(now));
    }
    // Without a target it was cancelled, or the node that answers has not heard of the move yet.
    let to = if now.target.is_empty() {
        "no move is known here".to_owned()
    } else {
        format!("on its way to {}", node_list(&now.target))
    };
    Ok(Seen::NotYet(format!("it is on nodes {}, {to}", node_list(&now.partition.replicas))))
}
