//! What apply decided about entries that are not in a synced segment yet, kept as rows.
//!
//! Rows and applied log id are written together and may reach the disk before the segment does; after a restart
//! such entries are not applied again, so their decisions could not be had any more. One row for each apply call,
//! removed when the segment is synced.
//!
//! Layout of a value, little endian: for each entry: log index u64, item count u32, then for each item a byte
//! 0 (dropped), or 1 (kept) followed by base offset u64, offset count u32, largest timestamp i64 (milliseconds).

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Buf;

use crate::types::{Decision, Kept};

const DROPPED: u8 = 0;
const KEPT: u8 = 1;

/// Appends the decisions about one entry to a row's value.
pub(crate) fn encode(index: u64, decisions: &[Decision], value: &mut Vec<u8>) {
    value.extend_from_slice(&index.to_le_bytes());
    value.extend_from_slice(&(decisions.len() as u32).to_le_bytes());
    for decision in decisions {
        match decision {
            Decision::Drop => value.push(DROPPED),
            Decision::Keep(kept) => {
                value.push(KEPT);
                value.extend_from_slice(&kept.base_offset.to_le_bytes());
                value.extend_from_slice(&kept.offset_count.to_le_bytes());
                value.extend_from_slice(&kept.max_timestamp_ms.to_le_bytes());
            }
        }
    }
}

/// Reads a row's value into `into`, by log index; returns the last index in it.
///
/// # Errors
/// `InvalidData` if the value is not one that [`encode`] wrote.
pub(crate) fn decode(mut value: &[u8], into: &mut BTreeMap<u64, Arc<[Decision]>>) -> io::Result<Option<u64>> {
    let mut last = None;
    while !value.is_empty() {
        let index = value.try_get_u64_le().map_err(short)?;
        let count = value.try_get_u32_le().map_err(short)? as usize;
        if count > value.remaining() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "decisions row: item count exceeds the row"));
        }
        let decisions: io::Result<Vec<Decision>> = (0..count).map(|_| decode_one(&mut value)).collect();
        into.insert(index, decisions?.into());
        last = last.max(Some(index));
    }
    Ok(last)
}

fn decode_one(value: &mut &[u8]) -> io::Result<Decision> {
    match value.try_get_u8().map_err(short)? {
        DROPPED => Ok(Decision::Drop),
        KEPT => Ok(Decision::Keep(Kept {
            base_offset: value.try_get_u64_le().map_err(short)?,
            offset_count: value.try_get_u32_le().map_err(short)?,
            max_timestamp_ms: value.try_get_i64_le().map_err(short)?,
        })),
        other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("decisions row: unknown decision {other}"))),
    }
}

fn short(_: bytes::TryGetError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "decisions row: it ends in the middle of a field")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn decision() -> impl Strategy<Value = Decision> {
        prop_oneof![
            Just(Decision::Drop),
            any::<(u64, u32, i64)>().prop_map(|(base_offset, offset_count, max_timestamp_ms)| {
                Decision::Keep(Kept { base_offset, offset_count, max_timestamp_ms })
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(entries in prop::collection::btree_map(any::<u64>(), prop::collection::vec(decision(), 0..5), 0..9)) {
            let mut value = Vec::new();
            for (index, decisions) in &entries {
                encode(*index, decisions, &mut value);
            }
            let mut decoded = BTreeMap::new();
            decode(&value, &mut decoded).unwrap();
            let decoded: BTreeMap<u64, Vec<Decision>> = decoded.into_iter().map(|(index, d)| (index, d.to_vec())).collect();
            prop_assert_eq!(decoded, entries);
        }

        #[test]
        fn garbage_is_an_error_or_a_value_but_no_panic(value in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&value, &mut BTreeMap::new());
        }
    }
}
