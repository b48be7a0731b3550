//! The gRPC services, one file each, over the broker's plain types. Wire types stop here.

mod call;
mod cluster;
mod connection;
mod consume;
mod consumer;
mod convert;
mod errors;
mod forward;
mod gate;
mod groups;
#[cfg(test)]
mod hostile;
mod load;
mod nodes;
mod partitions;
mod problem;
mod produce_stream;
mod producer;
mod refusals;
mod serve;
#[cfg(test)]
mod tests;
mod topics;

use std::sync::Arc;
use std::time::Duration;

use flotilla_broker::{Broker, Topic};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::server::Space;
use crate::telemetry::metrics::Metrics;

pub use forward::{Directory, Gateway};
pub use load::Load;
pub use serve::{serve, serve_newcomer};

/// What all services share.
#[derive(Clone)]
pub struct Shared {
    /// What they serve.
    pub broker: Broker,
    /// What they count.
    pub metrics: Arc<Metrics>,
    /// Passes on what other nodes lead.
    pub gateway: Gateway,
    /// Limits of requests and streams.
    pub limits: Limits,
    /// Limits of all of them together.
    pub load: Load,
    /// What is free of the disk.
    pub space: Arc<Space>,
    /// Cancelled when the server stops: streams end as soon as what is in flight is answered.
    pub draining: CancellationToken,
    /// Whether clients are served: before, only peers are.
    pub ready: watch::Receiver<bool>,
}

/// Limits of requests and streams, from the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest request, in bytes.
    pub request_bytes_max: usize,
    /// Largest size of one batch's records when decompressed.
    pub decompressed_bytes_max: usize,
    /// Records in one batch.
    pub records_per_batch_max: u32,
    /// Requests of one produce stream that wait for their answers.
    pub stream_in_flight_max: usize,
    /// Their bytes.
    pub stream_in_flight_bytes_max: usize,
    /// Largest message pushed to a consumer, unless a single batch is larger.
    pub push_bytes_max: usize,
    /// Longest wait of a fetch.
    pub wait_max: Duration,
}

impl Limits {
    /// What reading any batch of a topic takes but for the largest.
    pub fn batch_bytes(&self, topic: &Topic) -> usize {
        usize::try_from(topic.config.batch_bytes_max).unwrap_or(usize::MAX).min(self.push_bytes_max)
    }

    /// Largest message to accept from another node: an answer to the largest request, with its records decompressed.
    pub fn peer_message_bytes_max(&self) -> usize {
        self.request_bytes_max.saturating_add(self.decompressed_bytes_max).saturating_mul(4)
    }
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Self {
        Self {
            request_bytes_max: config.request_bytes_max.as_usize(),
            decompressed_bytes_max: config.decompressed_bytes_max.as_usize(),
            records_per_batch_max: config.records_per_batch_max,
            stream_in_flight_max: config.stream_in_flight_max as usize,
            stream_in_flight_bytes_max: config.stream_in_flight_bytes_max.as_usize(),
            push_bytes_max: config.push_bytes_max.as_usize(),
            wait_max: config.wait_max,
        }
    }
}
