//! The topic that a benchmark uses: its own, deleted afterwards, unless one is named.

use flotilla_client::{Client, api};
use uuid::Uuid;

use crate::cli::exit::CliError;
use crate::units::parse_number;

/// Which topic to use.
#[derive(Debug, clap::Args)]
pub struct TopicArgs {
    /// Use this topic, created if it is missing, and keep it [default: a new one, deleted afterwards]
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// Partitions of a new topic
    #[arg(long, default_value_t = 6, value_name = "N", value_parser = parse_number::<u32>)]
    pub partitions: u32,
    /// Copies of each partition of a new topic [default: the server's]
    #[arg(long, value_name = "N", value_parser = parse_number::<u32>)]
    replication_factor: Option<u32>,
    /// Keep the benchmark's own topic
    #[arg(long)]
    keep: bool,
}

/// The topic in use.
#[derive(Debug)]
pub struct BenchTopic {
    pub name: String,
    pub partitions: u32,
    delete: bool,
}

impl TopicArgs {
    pub async fn create(&self, client: &Client) -> Result<BenchTopic, CliError> {
        let own = || format!("bench-{}", Uuid::new_v4().simple());
        let name = self.topic.clone().unwrap_or_else(own);
        let existing = match self.topic {
            Some(_) => client.topic(&name).await.ok(),
            None => None,
        };
        if existing.is_none() {
            let request = api::CreateTopicRequest {
                name: name.clone(),
                partitions: Some(self.partitions),
                replication_factor: self.replication_factor,
                config: None,
                if_not_exists: true,
            };
            client.create_topic(request).await?;
        }
        let partitions = client.topic(&name).await?.partition_count;
        Ok(BenchTopic { name, partitions, delete: self.topic.is_none() && !self.keep })
    }
}

impl BenchTopic {
    /// Runs a benchmark on the topic, and deletes it afterwards if it is the benchmark's own: also after a failure.
    pub async fn run<T>(self, client: &Client, bench: impl AsyncFnOnce(&Self) -> Result<T, CliError>) -> Result<T, CliError> {
        let result = tokio::select! {
            result = bench(&self) => result,
            _ = tokio::signal::ctrl_c() => Err(CliError::Interrupted),
        };
        if self.delete {
            let request = api::DeleteTopicRequest { name: self.name, if_exists: true };
            let deleted = client.delete_topic(request).await;
            return result.and_then(|result| deleted.map(|_| result).map_err(CliError::from));
        }
        result
    }
}
