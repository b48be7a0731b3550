//! `flotilla partition list`.

use flotilla_client::api;

use super::view::{HEAD, TopicPartitionView, WIDE_HEAD, node_list};
use crate::cli::exit::CliError;
use crate::cli::global::Global;
use crate::cli::output::{print, table};

/// Arguments of `flotilla partition list`.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Only those of this topic
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// Only those without a leader, with a replica that is offline or behind, or on the move
    #[arg(long)]
    unhealthy: bool,
}

pub async fn run(args: ListArgs, global: &Global) -> Result<(), CliError> {
    let request = api::ListPartitionsRequest { topic: args.topic, unhealthy: args.unhealthy };
    let partitions = global.client().await?.list_partitions(request).await?.partitions;
    let partitions: Vec<TopicPartitionView> = partitions.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
    print(global.output, &partitions, |partitions, wide| text(partitions, wide))
}

fn text(partitions: &[TopicPartitionView], wide: bool) -> String {
    let mut head = vec!["TOPIC"];
    head.extend(HEAD);
    head.push("MOVES TO");
    if wide {
        head.extend(WIDE_HEAD);
    }
    let row = |of: &TopicPartitionView| {
        let mut row = of.partition.row(wide);
        row.insert(0, of.topic.clone());
        row.insert(1 + HEAD.len(), node_list(&of.target));
        row
    };
    table(&head, &partitions.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn partition() -> TopicPartitionView {
        let partition = api::Partition {
            partition: 4,
            leader: Some(2),
            replicas: vec![1, 2, 3],
            in_sync: vec![2],
            log_start_offset: 5,
            high_watermark: 17,
            size_bytes: 1536,
            group_id: 9,
            time: Some((UNIX_EPOCH + Duration::from_secs(60)).into()),
            leader_clock: Some((UNIX_EPOCH + Duration::from_millis(63_100)).into()),
            replica_ids: vec![41, 42, 43],
            end_confirmed: true,
        };
        let of = api::TopicPartition { topic: "access".to_owned(), partition: Some(partition), target: vec![4, 2, 3] };
        of.try_into().unwrap()
    }

    #[test]
    fn columns_say_what_is_in_them() {
        let expected = "TOPIC   PARTITION  LEADER  REPLICAS  IN SYNC  START  END  SIZE      MOVES TO\n\
                        access  4          2       1,2,3     2        5      17   1.50 KiB  4,2,3\n";
        assert_eq!(text(&[partition()], false), expected);
        let wide = text(&[partition()], true);
        assert!(wide.lines().next().unwrap().ends_with("BYTES  GROUP  TIME                  AHEAD"), "{wide}");
        assert!(wide.lines().nth(1).unwrap().ends_with("1536   9      1970-01-01T00:01:00Z  -3s"), "{wide}");
    }

    #[test]
    fn programs_get_one_flat_object() {
        let expected = serde_json::json!({
            "topic": "access", "partition": 4, "leader": 2, "replicas": [1, 2, 3], "in_sync": [2], "log_start_offset": 5,
            "high_watermark": 17, "size_bytes": 1536, "group_id": 9, "replica_ids": [41, 42, 43], "target": [4, 2, 3],
            "time": "1970-01-01T00:01:00Z", "time_ahead_ms": -3_100,
        });
        assert_eq!(serde_json::to_value(partition()).unwrap(), expected);
    }

    #[test]
    fn an_end_that_no_majority_confirmed_is_not_shown() {
        let partition = api::Partition { replicas: vec![1], in_sync: vec![1], high_watermark: 9, ..api::Partition::default() };
        let of = api::TopicPartition { topic: "access".to_owned(), partition: Some(partition), target: vec![] };
        let shown: TopicPartitionView = of.try_into().unwrap();
        assert_eq!((shown.partition.log_start_offset, shown.partition.high_watermark), (Some(0), None));
    }

    #[test]
    fn what_nobody_could_say_is_not_shown_as_zero() {
        let partition = api::Partition { partition: 4, replicas: vec![1], ..api::Partition::default() };
        let of = api::TopicPartition { topic: "access".to_owned(), partition: Some(partition), target: vec![] };
        let shown: TopicPartitionView = of.try_into().unwrap();
        let row = "access  4          none    1         -        -      -    -     -\n";
        let json = serde_json::to_value(&shown).unwrap();
        assert!(
            ["log_start_offset", "high_watermark", "size_bytes", "time", "time_ahead_ms"]
                .iter()
                .all(|field| json[field].is_null()),
            "{json}"
        );
        let text = text(&[shown], false);
        assert!(text.ends_with(row), "{text}");
    }
}
