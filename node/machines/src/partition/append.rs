//! A record batch: it gets the next offsets, unless its producer sent it before or may not send it now.

use bytes::Bytes;
use flotilla_records::{BatchError, BatchHeader};

use super::producers::Admission;
use super::{OFFSET_MAX, PartitionAnswer, PartitionMachine, PartitionOutcome, PartitionRefusal};
use crate::rows::Rows;
use crate::{Applied, Decision};

impl PartitionMachine {
    pub(super) fn append(&mut self, payload: &Bytes, rows: &mut dyn Rows) -> Applied<PartitionOutcome> {
        let header = match parse(payload) {
            Ok(header) => header,
            Err(error) => return Applied::dropped(Err(error.into())),
        };
        match self.admit(&header) {
            Ok(Admission::New) => self.append_new(&header, rows),
            Ok(Admission::Duplicate { base_offset }) => Applied::dropped(Ok(PartitionAnswer::Duplicate { base_offset })),
            Err(refusal) => Applied::dropped(Err(refusal)),
        }
    }

    /// As [`PartitionMachine::append`], but a producer of whom nothing is known may go on with any number.
    pub(super) fn append_behind_loss(&mut self, payload: &Bytes, rows: &mut dyn Rows) -> Applied<PartitionOutcome> {
        match parse(payload) {
            Ok(header) if matches!(self.admit(&header), Err(PartitionRefusal::UnknownProducer { .. })) => {
                self.append_new(&header, rows)
            }
            _ => self.append(payload, rows),
        }
    }

    fn admit(&self, header: &BatchHeader) -> Result<Admission, PartitionRefusal> {
        let admission = match &header.producer {
            Some(stamp) => self.producers.admit(stamp, header.record_count)?,
            None => Admission::New,
        };
        let room = OFFSET_MAX - self.next_offset;
        if admission == Admission::New && u64::from(header.record_count) > room {
            return Err(PartitionRefusal::OffsetsExhausted);
        }
        Ok(admission)
    }

    fn append_new(&mut self, header: &BatchHeader, rows: &mut dyn Rows) -> Applied<PartitionOutcome> {
        let base_offset = self.next_offset;
        let record_count = header.record_count;
        self.next_offset += u64::from(record_count);
        if let Some(stamp) = &header.producer {
            self.producers.record(stamp, record_count, base_offset, self.time.dated_ms, rows);
        }
        self.put_meta(rows);
        let max_timestamp_ms = self.kept_as_of(header.max_timestamp_ms);
        Applied {
            outcome: Ok(PartitionAnswer::Appended { base_offset, record_count }),
            decision: Decision::Keep { base_offset, offset_count: record_count, max_timestamp_ms },
        }
    }

    /// The client's time, unless it gave none, or one that would keep the records, and all that came before them, for longer
    /// than anybody wants: then that of their arrival.
    fn kept_as_of(&self, client_ms: i64) -> i64 {
        let dated_ms = self.time.dated_ms;
        let latest_ms = self.timestamp_ahead_max_ms.map_or(i64::MAX, |ahead| dated_ms.saturating_add_unsigned(ahead));
        if (0..=latest_ms).contains(&client_ms) { client_ms } else { dated_ms }
    }
}

/// The header of a batch that may be appended. The leader has checked the records; what offsets and sequences depend
/// on is checked here again, since no replica may be led astray by another.
fn parse(payload: &[u8]) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::parse(payload)?;
    if header.batch_bytes != payload.len() {
        return Err(BatchError::LengthMismatch { announced: header.batch_bytes as i64, actual: payload.len() });
    }
    if header.control {
        return Err(BatchError::ControlNotAllowed);
    }
    if header.transactional {
        return Err(BatchError::TransactionalNotAllowed);
    }
    if header.record_count == 0 {
        return Err(BatchError::NoRecords);
    }
    if header.record_count != header.offset_count() {
        return Err(BatchError::OffsetGaps { count: header.record_count, last_offset_delta: header.last_offset_delta });
    }
    Ok(header)
}
