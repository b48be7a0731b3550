//! The Rust client of Flotilla: connections, a batching idempotent [`Producer`], a [`Consumer`] by assignment, and
//! administration.
//!
//! ```no_run
//! # async fn demo() -> Result<(), flotilla_client::Error> {
//! use flotilla_client::{Assignment, Client, ClientOptions, ConsumerOptions, Position, ProducerOptions, Record};
//!
//! let client = Client::connect(["127.0.0.1:7070"], ClientOptions::default()).await?;
//! let producer = client.producer("access", ProducerOptions::default()).await?;
//! let delivery = producer.send(Record::new("GET /").key("203.0.113.9")).await?;
//! let position = delivery.await?; // on the disks of a majority
//! println!("partition {}, offset {}", position.partition, position.offset);
//! producer.close().await?;
//!
//! let from = Assignment::all(Position::Earliest);
//! let mut consumer = client.consumer("access", from, ConsumerOptions { until_end: true, ..Default::default() }).await?;
//! while let Some(chunk) = consumer.next().await? {
//!     for record in chunk.records() {
//!         let record = record?;
//!         println!("{} {:?}", record.offset, record.value);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Every call has a deadline and every failure is an [`Error`] that says whether a retry may help
//! ([`Error::is_retriable`]) and whether the request may have taken effect ([`Error::outcome_unknown`]).

mod admin;
mod client;
mod cluster;
mod connections;
mod consumer;
mod error;
mod line;
mod metadata;
mod outage;
mod producer;
mod retry;

/// The messages of the public API, as the administration calls take and return them.
pub use flotilla_proto::v1 as api;
pub use flotilla_records::{Codec, HeaderRef, Headers};

pub use client::{Client, ClientOptions};
pub use consumer::{Assignment, Chunk, ConsumedRecord, Consumer, ConsumerOptions, Position};
pub use error::{Code, Error};
pub use metadata::{Limits, TopicView};
pub use outage::Outage;
pub use producer::{Delivered, Delivery, Producer, ProducerOptions, ProducerStats, Record};
