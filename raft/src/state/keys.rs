//! Every key of the state, on one screen. Numbers are big-endian, so that keys sort as the numbers do.
//!
//! ```text
//! group u64 · incarnation u64 · table u8 · the rest depends on the table
//!
//! table 0, this crate's     row u8         key behind it        value
//!   1  applied                             -                    log id: term u64 · index u64 · chain: first entry u64 ·
//!                                                               hash u32 (older versions wrote no chain)
//!   2  membership                          -                    the membership (`log/convert.rs`)
//!   3  decisions                           first index u64      decisions of applied entries (`log/decisions.rs`)
//!   4  machine                             -                    kind and version of the machine that wrote the rows
//!   5  condemned                           -                    why this life is not to be used any more, in words
//! tables 1 to 255, the machine's           as the machine says
//!
//! group 2^64-1 is reserved for rows of the node itself; it has none yet
//! ```
//!
//! Retired tables and rows stay reserved. None is retired yet.

use crate::tripwire::ChainEnd;
use crate::types::{GroupId, Incarnation, LogId};

const PREFIX_BYTES: usize = 16;
const APPLIED_BYTES: usize = 28;
const ROW_APPLIED: u8 = 1;
const ROW_MEMBERSHIP: u8 = 2;
const ROW_DECISIONS: u8 = 3;
const ROW_MACHINE: u8 = 4;
const ROW_CONDEMNED: u8 = 5;

/// A key or value that is not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the state holds a malformed {what} ({bytes} bytes); the node's state is damaged: let it copy from its peers")]
pub struct MalformedRow {
    what: &'static str,
    bytes: usize,
}

/// The keys of one life of a group on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupKeys {
    prefix: [u8; PREFIX_BYTES],
}

impl GroupKeys {
    /// The table that belongs to this crate; a machine's tables are all others.
    pub const META_TABLE: u8 = 0;

    /// The keys of `group` in its life `incarnation`.
    #[must_use]
    pub fn new(group: GroupId, incarnation: Incarnation) -> GroupKeys {
        let number = (u128::from(group.0) << 64) | u128::from(incarnation.0);
        GroupKeys { prefix: number.to_be_bytes() }
    }

    /// Whose life a row belongs to; `None` if `row` is too short to be one.
    #[must_use]
    pub fn owner(row: &[u8]) -> Option<(GroupId, Incarnation)> {
        let prefix = row.get(..PREFIX_BYTES)?.try_into().ok()?;
        let number = u128::from_be_bytes(prefix);
        Some((GroupId((number >> 64) as u64), Incarnation(number as u64)))
    }

    /// What all of them start with.
    #[must_use]
    pub fn prefix(&self) -> Vec<u8> {
        self.prefix.to_vec()
    }

    /// The row of the last applied log id; see [`GroupKeys::encode_applied`].
    #[must_use]
    pub fn applied(&self) -> Vec<u8> {
        self.row(Self::META_TABLE, &[ROW_APPLIED])
    }

    /// The row of the last applied membership.
    #[must_use]
    pub fn membership(&self) -> Vec<u8> {
        self.row(Self::META_TABLE, &[ROW_MEMBERSHIP])
    }

    /// The row that says which machine, in which version, wrote the group's rows.
    #[must_use]
    pub fn machine(&self) -> Vec<u8> {
        self.row(Self::META_TABLE, &[ROW_MACHINE])
    }

    /// The row that says that this life is condemned.
    #[must_use]
    pub fn condemned(&self) -> Vec<u8> {
        self.row(Self::META_TABLE, &[ROW_CONDEMNED])
    }

    /// The row of the decisions about applied entries from raft index `first_index` on.
    #[must_use]
    pub fn decisions(&self, first_index: u64) -> Vec<u8> {
        let mut key = self.decisions_prefix();
        key.extend(first_index.to_be_bytes());
        key
    }

    /// What the keys of all decisions start with.
    #[must_use]
    pub fn decisions_prefix(&self) -> Vec<u8> {
        self.row(Self::META_TABLE, &[ROW_DECISIONS])
    }

    /// The first raft index of a decisions row.
    ///
    /// # Errors
    /// If `key` is none of this group's.
    pub fn decode_decisions(&self, key: &[u8]) -> Result<u64, MalformedRow> {
        let index = key.strip_prefix(self.decisions_prefix().as_slice());
        let index = index.and_then(|index| index.try_into().ok()).map(u64::from_be_bytes);
        index.ok_or(MalformedRow { what: "decisions key", bytes: key.len() })
    }

    /// A machine's row: `key` in its table `table` (not [`GroupKeys::META_TABLE`]).
    #[must_use]
    pub fn row(&self, table: u8, key: &[u8]) -> Vec<u8> {
        let mut row = Vec::with_capacity(PREFIX_BYTES + 1 + key.len());
        row.extend(self.prefix);
        row.push(table);
        row.extend(key);
        row
    }

    /// Table and the machine's key of any row of this group.
    ///
    /// # Errors
    /// If `row` is none of this group's.
    pub fn decode_row<'a>(&self, row: &'a [u8]) -> Result<(u8, &'a [u8]), MalformedRow> {
        let rest = row.strip_prefix(self.prefix.as_slice());
        let parts = rest.and_then(|rest| rest.split_first()).map(|(table, key)| (*table, key));
        parts.ok_or(MalformedRow { what: "key", bytes: row.len() })
    }

    /// The value of what is applied: the last log id, and the hash chain through it.
    #[must_use]
    pub fn encode_applied(log_id: LogId, chain: ChainEnd) -> Vec<u8> {
        let mut value = Vec::with_capacity(APPLIED_BYTES);
        [log_id.term, log_id.index, chain.from].into_iter().for_each(|number| value.extend(number.to_be_bytes()));
        value.extend(chain.hash.to_be_bytes());
        value
    }

    /// The last applied log id, and the hash chain through it, unless an older version wrote the row.
    ///
    /// # Errors
    /// If `value` has a wrong length.
    pub fn decode_applied(value: &[u8]) -> Result<(LogId, Option<ChainEnd>), MalformedRow> {
        let malformed = || MalformedRow { what: "applied log id", bytes: value.len() };
        let mut rest = value;
        let mut number = || {
            let (number, behind) = rest.split_first_chunk()?;
            rest = behind;
            Some(u64::from_be_bytes(*number))
        };
        let (term, index) = number().zip(number()).ok_or_else(malformed)?;
        let chain = match (number(), rest) {
            (Some(from), hash) => Some(ChainEnd { from, hash: u32::from_be_bytes(hash.try_into().map_err(|_| malformed())?) }),
            (None, []) => None,
            (None, _) => return Err(malformed()),
        };
        Ok((LogId { term, index }, chain))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_key_comes_back(group: u64, incarnation: u64, index: u64, term: u64, from: u64, hash: u32, table: u8, key: Vec<u8>) {
            let keys = GroupKeys::new(GroupId(group), Incarnation(incarnation));
            let row = keys.row(table, &key);
            prop_assert_eq!(keys.decode_row(&row).unwrap(), (table, key.as_slice()));
            prop_assert!(row.starts_with(&keys.prefix()));
            prop_assert_eq!(GroupKeys::owner(&row), Some((GroupId(group), Incarnation(incarnation))));
            prop_assert_eq!(keys.decode_decisions(&keys.decisions(index)).unwrap(), index);
            prop_assert!(keys.decisions(index).starts_with(&keys.decisions_prefix()));
            let log_id = LogId { term, index };
            let chain = ChainEnd { from, hash };
            let applied = GroupKeys::encode_applied(log_id, chain);
            prop_assert_eq!(GroupKeys::decode_applied(&applied).unwrap(), (log_id, Some(chain)));
            prop_assert_eq!(GroupKeys::decode_applied(&applied[..16]).unwrap(), (log_id, None), "as older versions wrote it");
        }

        #[test]
        fn keys_sort_as_their_numbers(a: (u64, u64, u64), b: (u64, u64, u64)) {
            let key = |n: (u64, u64, u64)| GroupKeys::new(GroupId(n.0), Incarnation(n.1)).decisions(n.2);
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
        }

        #[test]
        fn no_bytes_make_a_decoder_panic(bytes: Vec<u8>, group: u64) {
            let keys = GroupKeys::new(GroupId(group), Incarnation(1));
            prop_assert!(keys.decode_row(&bytes).is_err() || bytes.starts_with(&keys.prefix()));
            let _ = keys.decode_decisions(&bytes);
            let _ = GroupKeys::owner(&bytes);
            prop_assert_eq!(GroupKeys::decode_applied(&bytes).is_ok(), [16, APPLIED_BYTES].contains(&bytes.len()));
        }
    }

    /// Keys are on disk for ever: this layout must not change.
    #[test]
    fn the_layout_stands() {
        let keys = GroupKeys::new(GroupId(1), Incarnation(2));
        let prefix = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2];
        assert_eq!(keys.applied(), [&prefix[..], &[0, 1]].concat());
        assert_eq!(keys.membership(), [&prefix[..], &[0, 2]].concat());
        assert_eq!(keys.decisions(3), [&prefix[..], &[0, 3, 0, 0, 0, 0, 0, 0, 0, 3]].concat());
        assert_eq!(keys.machine(), [&prefix[..], &[0, 4]].concat());
        assert_eq!(keys.condemned(), [&prefix[..], &[0, 5]].concat());
        let applied = GroupKeys::encode_applied(LogId { term: 1, index: 2 }, ChainEnd { from: 3, hash: 4 });
        assert_eq!(applied, [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4]);
        assert_eq!(keys.row(7, b"k"), [&prefix[..], &[7, b'k']].concat());
    }
}
