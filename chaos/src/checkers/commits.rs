//! Positions of groups, stored in the partition's own log.
//!
//! - `commit-back` a position goes back only on purpose · `commit-beyond-end` and never lies behind what can be read
//! - `zombie-commit` who was replaced as owner of a partition stores nothing any more
//! - `stale-committed` who asks after a position was stored is told that one, or a later one
//! - `commit-undelivered` a position is stored only when everything before it was read by somebody

use std::collections::{BTreeMap, HashMap};

use crate::history::{Commit, Committed, History, Micros, Outcome};

fn stored(commit: &&Commit) -> bool {
    matches!(commit.outcome, Outcome::Ok(_))
}

/// When it certainly had taken effect.
fn effective(commit: &Commit) -> Micros {
    commit.completed.unwrap_or(Micros::MAX)
}

/// What was stored of a group and partition.
#[derive(Default)]
struct Stored {
    /// When it had certainly taken effect, when it was asked for, and the offset; by the first.
    offsets: Vec<(Micros, Micros, u64)>,
    /// Of those and all before, the furthest offset.
    furthest: Vec<u64>,
    /// Positions that were to go back: from when until when they may have taken effect.
    resets: Vec<(Micros, Micros)>,
}

impl Stored {
    /// The furthest offset that had certainly been stored before `asked`, and not gone back behind since.
    fn due(&self, asked: &Committed) -> Option<u64> {
        let resets = self.resets.iter().filter(|(invoked, _)| *invoked < asked.completed);
        let reset = resets.map(|(_, effective)| *effective).max();
        let before = self.offsets.partition_point(|(at, ..)| *at < asked.invoked);
        match reset {
            None => before.checked_sub(1).and_then(|last| self.furthest.get(last)).copied(),
            Some(reset) => {
                let since = self.offsets.get(..before)?.iter().filter(|(_, invoked, _)| *invoked >= reset);
                since.map(|(.., offset)| *offset).max()
            }
        }
    }

    /// Whether a position may have gone back on purpose between the two moments.
    fn may_go_back(&self, from: Micros, to: Micros) -> bool {
        self.resets.iter().any(|(invoked, effective)| *effective >= from && *invoked <= to)
    }
}

fn all_stored(history: &History) -> HashMap<(u32, u32), Stored> {
    let mut all: HashMap<(u32, u32), Stored> = HashMap::new();
    for commit in &history.commits {
        let of_it = all.entry((commit.group, commit.partition)).or_default();
        if stored(&commit) {
            of_it.offsets.push((effective(commit), commit.invoked, commit.offset));
        }
        // One that is not known to have failed may have taken effect.
        if commit.resets && commit.outcome != Outcome::Fail {
            of_it.resets.push((commit.invoked, effective(commit)));
        }
    }
    for of_it in all.values_mut() {
        of_it.offsets.sort_unstable();
        let mut furthest = 0;
        let further = |(.., offset): &(Micros, Micros, u64)| {
            furthest = furthest.max(*offset);
            furthest
        };
        of_it.furthest = of_it.offsets.iter().map(further).collect();
    }
    all
}

pub(super) fn stale(history: &History) -> Vec<String> {
    let all = all_stored(history);
    let late = history.committed.iter().filter_map(|asked| {
        let due = all.get(&(asked.group, asked.partition))?.due(asked)?;
        asked.offset.is_none_or(|told| told < due).then_some((asked, due))
    });
    late.map(|(asked, due)| {
        let (group, partition, told) = (asked.group, asked.partition, asked.offset);
        format!("group {group} was told {told:?} as its position on partition {partition} after {due} had been stored")
    })
    .collect()
}

pub(super) fn goes_back(history: &History) -> Vec<String> {
    let all = all_stored(history);
    let mut told: BTreeMap<(u32, u32), (Micros, u64)> = BTreeMap::new();
    let mut found = Vec::new();
    for asked in &history.committed {
        let Some(offset) = asked.offset else { continue };
        let key = (asked.group, asked.partition);
        if let Some((at, before)) = told.insert(key, (asked.invoked, offset))
            && offset < before
            && at < asked.invoked
            && !all.get(&key).is_some_and(|stored| stored.may_go_back(at, asked.completed))
        {
            found.push(format!("group {}'s position on partition {} went back from {before} to {offset}", key.0, key.1));
        }
    }
    found
}

pub(super) fn beyond_end(history: &History) -> Vec<String> {
    let beyond = history.committed.iter().filter(|asked| asked.offset.is_some_and(|offset| offset > asked.high_watermark));
    beyond
        .map(|asked| {
            let (group, partition, offset, end) =
                (asked.group, asked.partition, asked.offset.unwrap_or_default(), asked.high_watermark);
            format!("group {group}'s position on partition {partition} is {offset}, and the partition ends at {end}")
        })
        .collect()
}

pub(super) fn zombies(history: &History) -> Vec<String> {
    // By group and partition: from when on which epoch is known to have begun.
    let mut proven: HashMap<(u32, u32), BTreeMap<u64, Micros>> = HashMap::new();
    for commit in history.commits.iter().filter(stored) {
        let Some(epoch) = commit.epoch else { continue };
        let at = proven.entry((commit.group, commit.partition)).or_default().entry(epoch).or_insert(Micros::MAX);
        *at = effective(commit).min(*at);
    }
    let mut found = Vec::new();
    for commit in history.commits.iter().filter(stored) {
        let Some(epoch) = commit.epoch else { continue };
        let later = proven.get(&(commit.group, commit.partition)).into_iter().flat_map(|epochs| epochs.range(epoch + 1..));
        if let Some((newer, _)) = later.into_iter().find(|(_, at)| **at < commit.invoked) {
            let (group, partition, offset) = (commit.group, commit.partition, commit.offset);
            found.push(format!(
                "group {group} stored {offset} on partition {partition} in epoch {epoch} after somebody had in epoch {newer}"
            ));
        }
    }
    found
}

pub(super) fn undelivered(history: &History) -> Vec<String> {
    let mut delivered: HashMap<u32, Vec<(Micros, u64)>> = HashMap::new();
    for poll in &history.polls {
        if let Some(last) = poll.records.last() {
            let reached = delivered.entry(poll.partition).or_default();
            let furthest = reached.last().map_or(0, |(_, end)| *end);
            reached.push((poll.completed, furthest.max(last.offset + 1)));
        }
    }
    let early = history.commits.iter().filter(stored).filter(|commit| {
        let reached = delivered.get(&commit.partition).map_or(&[][..], Vec::as_slice);
        let by_then = reached.partition_point(|(at, _)| *at <= effective(commit));
        let end = by_then.checked_sub(1).and_then(|last| reached.get(last)).map_or(0, |(_, end)| *end);
        commit.offset > end
    });
    early
        .map(|commit| {
            let (group, partition, offset) = (commit.group, commit.partition, commit.offset);
            format!("group {group} stored {offset} on partition {partition} before anybody had read so far")
        })
        .collect()
}
