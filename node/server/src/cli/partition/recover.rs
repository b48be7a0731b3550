//! `flotilla partition recover`.

use flotilla_client::{Code, api};
use serde::Serialize;

use super::Of;
use crate::cli::exit::CliError;
use crate::cli::global::Global;
use crate::cli::output::{note, print};

/// Ranges of offsets that are named.
const RANGES_NAMED: usize = 5;

/// Arguments of `flotilla partition recover`.
#[derive(Debug, clap::Args)]
pub struct RecoverArgs {
    #[command(flatten)]
    of: Of,
    /// Give up for good what cannot be read
    #[arg(long, required = true)]
    accept_loss: bool,
}

#[derive(Debug, Serialize)]
struct Recovered {
    topic: String,
    partition: u32,
    node: u64,
    lost_offsets: u64,
    lost: Vec<Range>,
    end_unknown: bool,
    useless_bytes: u64,
    next_offset: u64,
}

/// Offsets; the last is not among them.
#[derive(Debug, Serialize)]
struct Range {
    from: u64,
    to: u64,
}

pub async fn run(args: RecoverArgs, global: &Global) -> Result<(), CliError> {
    let RecoverArgs { of: Of { topic, partition }, accept_loss } = args;
    let request = api::RecoverPartitionRequest { topic: topic.clone(), partition, accept_loss };
    let client = global.client().await?;
    // It goes on at the node, however long it takes: who asks again gets the same answer.
    let answer = loop {
        match client.recover_partition(request.clone()).await {
            Err(error) if error.code() == Code::DeadlineExceeded => note("still reading what is left; Ctrl-C does not stop it"),
            answered => break answered?,
        }
    };
    let recovered = Recovered {
        topic,
        partition,
        node: answer.node_id,
        lost_offsets: answer.lost_offsets,
        lost: answer.lost.into_iter().map(|lost| Range { from: lost.from, to: lost.to }).collect(),
        end_unknown: answer.end_unknown,
        useless_bytes: answer.useless_bytes,
        next_offset: answer.next_offset,
    };
    print(global.output, &recovered, |recovered, _| text(recovered))
}

fn text(recovered: &Recovered) -> String {
    let Recovered { topic, partition, node, lost_offsets, lost, end_unknown, next_offset, .. } = recovered;
    let mut text = format!("partition {partition} of topic {topic} serves again; the next record gets offset {next_offset}\n");
    if *lost_offsets > 0 {
        let named: Vec<String> = lost.iter().take(RANGES_NAMED).map(|lost| format!("{} to {}", lost.from, lost.to - 1)).collect();
        let more = if lost.len() > RANGES_NAMED { ", ..." } else { "" };
        text += &format!("lost: {lost_offsets} offsets hold nothing any more ({}{more})\n", named.join(", "));
    }
    if *end_unknown {
        text += "lost: more, of which nothing is known; what comes behind it has new offsets\n";
    }
    if *lost_offsets == 0 && !end_unknown {
        text += "nothing was lost\n";
    }
    text + &format!("what was damaged is kept on node {node}, in the directory \"damaged\" of its data directory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_said() {
        let mut recovered = Recovered {
            topic: "access".to_owned(),
            partition: 2,
            node: 3,
            lost_offsets: 4,
            lost: vec![Range { from: 5, to: 8 }, Range { from: 10, to: 11 }],
            end_unknown: false,
            useless_bytes: 100,
            next_offset: 20,
        };
        let expected = "partition 2 of topic access serves again; the next record gets offset 20\n\
                        lost: 4 offsets hold nothing any more (5 to 7, 10 to 10)\n\
                        what was damaged is kept on node 3, in the directory \"damaged\" of its data directory";
        assert_eq!(text(&recovered), expected);
        (recovered.lost_offsets, recovered.lost) = (0, Vec::new());
        assert!(text(&recovered).contains("nothing was lost"));
    }
}
