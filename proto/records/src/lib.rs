//! The record batch: how Flotilla keeps records on the wire, in the log and in clients.
//!
//! A batch is a **Kafka RecordBatch, format version 2, verbatim** (KIP-98; "Record Batch" in Kafka's documentation of its
//! message format). The server [validates](validate) a batch and stores it as received, the machines read its
//! [header](BatchHeader) alone, and clients [build](BatchBuilder) and [decode](Batch) it.
//!
//! Nothing here does I/O, waits, keeps state between calls or knows what a batch is good for. Every decoder takes bytes
//! from strangers: none panics, and none allocates more than its caller allowed.

mod batch;
mod builder;
mod codec;
mod error;
mod header;
mod partitioner;
mod record;
mod validate;
pub mod varint;

pub use batch::{Batch, Body};
pub use builder::BatchBuilder;
pub use codec::{Codec, UnknownCodecName};
pub use error::{BatchError, RecordError};
pub use header::{
    BatchHeader, HEADER_BYTES, ProducerStamp, TimestampType, set_base_offset, stamped_header, with_append_time, with_base_offset,
};
pub use partitioner::{murmur2, partition_for_key};
pub use record::{Header, HeaderRef, Headers, Record, RecordRef, RecordRefs, Records};
pub use validate::{BatchSummary, Limits, TIMESTAMP_MS_MAX, TIMESTAMP_MS_MIN, validate};
