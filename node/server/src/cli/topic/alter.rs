//! `flotilla topic alter`.

use flotilla_client::{Error, api};

use super::view::{ConfigArgs, TopicView};
use crate::cli::exit::CliError;
use crate::cli::global::Global;
use crate::cli::output::{note, print, table};
use crate::units::parse_number;

/// Arguments of `flotilla topic alter`.
#[derive(Debug, clap::Args)]
pub struct AlterArgs {
    /// Name of the topic
    name: String,
    /// New total of partitions; keys map to other partitions afterwards
    #[arg(long, value_name = "N", value_parser = parse_number::<u32>)]
    partitions: Option<u32>,
    #[command(flatten)]
    config: ConfigArgs,
    /// Put a setting back to the server's default: retention, retention_bytes, batch_bytes_max, timestamp_type,
    /// timestamp_ahead_max
    #[arg(long, value_name = "SETTING", value_delimiter = ',')]
    reset: Vec<String>,
}

pub async fn run(args: AlterArgs, global: &Global) -> Result<(), CliError> {
    let configured = !args.config.is_empty() || !args.reset.is_empty();
    if !configured && args.partitions.is_none() {
        let nothing = "nothing to change: give --partitions, a setting such as --retention, or --reset";
        return Err(CliError::Usage(nothing.to_owned()));
    }
    let reset: Vec<String> = args.reset.iter().map(|name| name.trim().replace('-', "_")).collect();
    if let Some(both) = args.config.names().into_iter().find(|name| reset.iter().any(|reset| reset == name)) {
        return Err(CliError::Usage(format!("{both} is to be set and reset at once: give one of the two")));
    }
    let client = global.client().await?;
    let mut topic = None;
    if let Some(partitions) = args.partitions {
        topic = client.add_partitions(api::AddPartitionsRequest { name: args.name.clone(), partitions }).await?.topic;
    }
    if configured {
        let request = api::AlterTopicRequest { name: args.name, config: Some(args.config.to_config()), reset };
        let altered = client.alter_topic(request).await;
        if altered.is_err() && topic.is_some() {
            note("the topic has its partitions, the settings are as they were");
        }
        topic = altered?.topic;
    }
    let topic = topic.ok_or_else(|| Error::Protocol("no topic in the answer".to_owned()))?;
    print(global.output, &TopicView::from(topic), |topic, _| table(&TopicView::HEAD, &[topic.row()]))
}
