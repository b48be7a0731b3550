//! What a sender announces before it streams a snapshot.

use std::io;

use bytes::Bytes;
use prost::Message;

use crate::log::convert::decode_membership;
use crate::tripwire::ChainEnd;
use crate::types::{GroupId, LogId};

/// Longest encoded head, in bytes: memberships name nodes, not data.
const HEAD_BYTES_MAX: usize = 1 << 20;

/// What a snapshot is: two with the same head hold the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The group.
    pub group: GroupId,
    /// The last entry that is applied in it.
    pub last: LogId,
    /// The membership at that entry, in this crate's own encoding.
    pub membership: Bytes,
    /// The first offset that is still alive: items below it are not streamed.
    pub live_from: u64,
    /// The hash chain through the last entry, where it is known.
    pub chain: Option<ChainEnd>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HeadValue {
    #[prost(uint64, tag = "1")]
    group: u64,
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(uint64, tag = "3")]
    index: u64,
    #[prost(bytes = "bytes", tag = "4")]
    membership: Bytes,
    #[prost(uint64, tag = "5")]
    live_from: u64,
    #[prost(uint64, optional, tag = "6")]
    chain_from: Option<u64>,
    #[prost(fixed32, optional, tag = "7")]
    chain_hash: Option<u32>,
}

impl SnapshotHead {
    /// For the wire.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let Self { group, last, membership, live_from, chain } = self.clone();
        let (chain_from, chain_hash) = chain.map(|ChainEnd { from, hash }| (from, hash)).unzip();
        let LogId { term, index } = last;
        let value = HeadValue { group: group.0, term, index, membership, live_from, chain_from, chain_hash };
        value.encode_to_vec().into()
    }

    /// From the wire.
    ///
    /// # Errors
    /// `InvalidData` if a peer sent anything else.
    pub fn decode(bytes: Bytes) -> io::Result<Self> {
        let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, format!("snapshot head: {reason}"));
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(invalid(format!("{} bytes, at most {HEAD_BYTES_MAX} are accepted", bytes.len())));
        }
        let value = HeadValue::decode(bytes).map_err(|error| invalid(error.to_string()))?;
        decode_membership(&value.membership)?;
        let last = LogId { term: value.term, index: value.index };
        if last.index == u64::MAX {
            return Err(invalid("there is no such log index".into()));
        }
        let HeadValue { membership, live_from, chain_from, chain_hash, .. } = value;
        let chain = chain_from.zip(chain_hash).map(|(from, hash)| ChainEnd { from, hash });
        Ok(Self { group: GroupId(value.group), last, membership, live_from, chain })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_head_comes_back(group: u64, term: u64, index in 0..u64::MAX, live_from: u64, chain: Option<(u64, u32)>) {
            let last = LogId { term, index };
            let chain = chain.map(|(from, hash)| ChainEnd { from, hash });
            let head = SnapshotHead { group: GroupId(group), last, membership: Bytes::new(), live_from, chain };
            prop_assert_eq!(SnapshotHead::decode(head.encode()).unwrap(), head);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>) {
            let _ = SnapshotHead::decode(bytes.into());
        }
    }
}
