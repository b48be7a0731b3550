//! What a producer is given: its options, and records.

use std::time::Duration;

use flotilla_records::Codec;

use crate::error::Error;

/// How a producer batches and retries. `Default` suits most.
#[derive(Debug, Clone)]
pub struct ProducerOptions {
    /// How long an unfilled batch waits for more records. Default 5 ms. With zero a batch leaves as soon as it may, and
    /// grows only while earlier ones are on their way.
    pub linger: Duration,
    /// A batch is full at about this many uncompressed bytes. Default 256 KiB, at most what the topic accepts.
    pub batch_bytes: usize,
    /// A batch is full at this many records. Default: as many as the server accepts.
    pub batch_records_max: u32,
    /// How batches are compressed. Default: not.
    pub codec: Codec,
    /// Batches per partition on their way at once. Default 5, which is also the most with idempotence.
    pub in_flight_max: usize,
    /// Memory for records that are not acknowledged yet, in bytes; `send` waits while it is full. Default 64 MiB.
    pub buffer_bytes: usize,
    /// Whether retries are recognised by the server, so that no record is stored twice or out of order. Default: yes.
    pub idempotence: bool,
    /// Whether the first record that is given up stops the producer: nothing behind it is sent any more, so that no
    /// partition gets a record behind a missing one; `send` and `enqueue` fail from then on. Default: no.
    pub stop_at_loss: bool,
    /// How long to try before a record is given up, from the start of its batch. The answer to an attempt that is on its way
    /// then is waited for one second more. Default 2 minutes.
    pub delivery_timeout: Duration,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(5),
            batch_bytes: 256 << 10,
            batch_records_max: u32::MAX,
            codec: Codec::None,
            in_flight_max: IDEMPOTENT_IN_FLIGHT_MAX,
            buffer_bytes: 64 << 20,
            idempotence: true,
            stop_at_loss: false,
            delivery_timeout: Duration::from_secs(120),
        }
    }
}

/// A partition remembers this many batches of each producer, so more on their way could not be told apart from new ones.
const IDEMPOTENT_IN_FLIGHT_MAX: usize = 5;

impl ProducerOptions {
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |what: &str| Err(Error::InvalidArgument(what.to_owned()));
        if self.idempotence && self.in_flight_max > IDEMPOTENT_IN_FLIGHT_MAX {
            return wrong(
                "an idempotent producer may have at most 5 batches per partition in flight: lower in_flight_max or turn idempotence off",
            );
        }
        if self.in_flight_max == 0 || self.batch_bytes == 0 || self.batch_records_max == 0 {
            return wrong("a batch must hold at least one byte and one record, and at least one must be allowed on its way");
        }
        if self.buffer_bytes < self.batch_bytes || self.buffer_bytes > u32::MAX as usize {
            return wrong("buffer_bytes must be at least batch_bytes, and below 4 GiB");
        }
        Ok(())
    }
}

/// A record to write. Borrows: its bytes are copied once, into the batch.
#[derive(Debug, Clone, Copy, Default)]
pub struct Record<'a> {
    /// The partition to write to. Absent: by key, and without a key to one of the producer's choice.
    pub partition: Option<u32>,
    /// Chooses the partition, and is what compaction goes by.
    pub key: Option<&'a [u8]>,
    /// The payload; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names and values, in order; names may repeat.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    /// Milliseconds since the Unix epoch. Absent: now.
    pub timestamp_ms: Option<i64>,
}

impl<'a> Record<'a> {
    /// A record with this payload.
    #[must_use]
    pub fn new(value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { value: Some(value.as_ref()), ..Self::default() }
    }

    /// The same with a key.
    #[must_use]
    pub fn key(self, key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { key: Some(key.as_ref()), ..self }
    }

    /// The same for a certain partition.
    #[must_use]
    pub fn partition(self, partition: u32) -> Self {
        Self { partition: Some(partition), ..self }
    }

    /// The same with headers.
    #[must_use]
    pub fn headers(self, headers: &'a [(&'a str, Option<&'a [u8]>)]) -> Self {
        Self { headers, ..self }
    }
}
