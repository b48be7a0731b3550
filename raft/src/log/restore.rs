//! What a restart reads back from state: the applied log id, the membership, the machine's rows, and the decisions
//! about entries that were applied but not yet in a synced segment.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::convert::decode_membership;
use super::decisions;
use super::group_log::GroupLog;
use super::type_config::RaftMembership;
use crate::machine::Row;
use crate::state::State;
use crate::state::keys::GroupKeys;
use crate::tripwire::chain::Chain;
use crate::types::{Decision, LogId};

/// Rows read from state at once.
const SCAN_ROWS: usize = 10_000;

/// See the module.
pub(crate) struct Restored {
    pub(crate) applied: Option<LogId>,
    pub(crate) membership: RaftMembership,
    pub(crate) rows: Vec<Row>,
}

/// Reads a group's state, and marks in `log` what was applied before the restart.
///
/// # Errors
/// If rows cannot be read or decoded, or if state and log do not fit together.
pub(crate) fn restore(state: &dyn State, keys: &GroupKeys, log: &GroupLog) -> io::Result<Restored> {
    if let Some(reason) = state.get(&keys.condemned()).map_err(io::Error::other)? {
        return Err(undecodable(String::from_utf8_lossy(&reason)));
    }
    let (applied, chain) = match state.get(&keys.applied()).map_err(io::Error::other)? {
        Some(value) => GroupKeys::decode_applied(&value).map(|(applied, chain)| (Some(applied), chain)).map_err(undecodable)?,
        None => (None, None),
    };
    *log.chain() = Chain::resume(applied, chain, log.lives().next().0);
    let membership = match state.get(&keys.membership()).map_err(io::Error::other)? {
        Some(value) => decode_membership(&Bytes::from(value))?,
        None => RaftMembership::default(),
    };
    if applied.map(|log_id| log_id.index) < log.purged().map(|log_id| log_id.index) {
        return Err(behind_the_log(log, applied));
    }
    if let Some(applied) = applied {
        restore_decisions(state, keys, log, applied)?;
    }
    Ok(Restored { applied, membership, rows: read_rows(state, keys)? })
}

/// What was read and makes no sense is damage, unlike what could not be read.
pub(crate) fn undecodable(error: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Nothing is purged, and no snapshot is switched to, before the state that stands for it is durable.
fn behind_the_log(log: &GroupLog, applied: Option<LogId>) -> io::Error {
    let (group, purged) = (log.group(), log.purged());
    let reason = format!(
        "group {group}: the state ends at {applied:?}, but the log starts behind {purged:?}: rows were lost; let this replica \
         copy from its peers"
    );
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

fn restore_decisions(state: &dyn State, keys: &GroupKeys, log: &GroupLog, applied: LogId) -> io::Result<()> {
    let mut decided: BTreeMap<u64, Arc<[Decision]>> = BTreeMap::new();
    for (key, value) in scan_all(state, &keys.decisions_prefix())? {
        let last = decisions::decode(&value, &mut decided)?;
        let first = keys.decode_decisions(&key).map_err(undecodable)?;
        log.note_decision_row(first, last.unwrap_or(first));
    }
    for index in log.tail_first_index()..=applied.index {
        let Some(decisions) = decided.remove(&index) else {
            let group = log.group();
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("group {group}: entry {index} is applied but nothing says what was decided about it"),
            ));
        };
        log.mark_applied(index, decisions, Arc::default()).map_err(undecodable)?;
    }
    Ok(())
}

pub(crate) fn read_rows(state: &dyn State, keys: &GroupKeys) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (key, value) in scan_all(state, &keys.prefix())? {
        let (table, key) = keys.decode_row(&key).map_err(undecodable)?;
        if table != GroupKeys::META_TABLE {
            rows.push((table, key.to_vec(), value));
        }
    }
    Ok(rows)
}

pub(crate) fn scan_all(state: &dyn State, prefix: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut all: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut from = prefix.to_vec();
    loop {
        let some = state.scan(prefix, &from, SCAN_ROWS).map_err(io::Error::other)?;
        let full = some.len() == SCAN_ROWS;
        if let Some((last, _)) = some.last() {
            from = last.clone();
            from.push(0);
        }
        all.extend(some);
        if !full {
            return Ok(all);
        }
    }
}
