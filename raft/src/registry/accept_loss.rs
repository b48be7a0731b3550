//! A damaged group without other replicas begins again from what can still be read of it, because an operator accepts that the
//! rest is lost.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::states::{Down, Known};
use super::suspects::not_damaged;
use super::{Registry, lock};
use crate::journal::{Record, RecoveredGroup};
use crate::log::life_writer::{LifeWriter, NewLife};
use crate::log::lives::Lives;
use crate::log::salvage::{Salvaged, Salvager};
use crate::machine::Machine;
use crate::segments::salvage;
use crate::state::keys::GroupKeys;
use crate::types::{Entry, GroupId, Replica, ReplicaId, Vote};

impl Registry {
    /// Makes a damaged group one that has what can be read of it, and `replica`, on this node, as its only voter. What was not readable is
    /// lost. `machine` is an empty one; it is of no use afterwards. Nothing is deleted: see [`crate::log::lives`].
    ///
    /// To be called only if no other node has a replica of the group. A crash on the way changes nothing: call it again.
    ///
    /// # Errors
    /// If the group is not damaged, or the disk refuses.
    pub async fn accept_loss(&self, group: GroupId, replica: ReplicaId, machine: Box<dyn Machine>) -> io::Result<Salvaged> {
        // A second attempt waits for the first, and gets its answer.
        let _alone = self.salvaging.lock().await;
        let Some((claim, known, reason)) = self.groups.claim_damaged(group) else {
            return self.salvaged(group).ok_or_else(|| not_damaged(group));
        };
        let (known, settled) = self.settle_known(known).await;
        let begun = match settled {
            Ok(()) => self.begin_from_rest((group, replica), &known, machine).await,
            Err(error) => Err(error),
        };
        match begun {
            Ok((recovered, salvaged)) => {
                lock(&self.salvaged).insert(group, salvaged.clone());
                claim.end_stopped(recovered);
                Ok(salvaged)
            }
            Err(error) => {
                claim.end_down(Down::damaged(reason, known));
                Err(error)
            }
        }
    }

    async fn begin_from_rest(
        &self,
        (group, replica): (GroupId, ReplicaId),
        known: &Known,
        mut machine: Box<dyn Machine>,
    ) -> io::Result<(RecoveredGroup, Salvaged)> {
        self.transfers.forget(group).await;
        self.keep_aside(group).await?;
        let (lives, vote) = (self.lives.clone(), known.vote());
        let voter = Replica { id: replica, node: self.options.node_id };
        let known = match known {
            Known::Stopped(recovered) => Some((**recovered).clone()),
            _ => None,
        };
        let begin = move || begin_again(&lives, group, &mut *machine, known, voter);
        let (life, salvaged) = self.options.driver.try_run(begin).await?;
        let NewLife { incarnation, snapshot: last, membership, .. } = life;
        let vote = vote.filter(|vote| vote.term >= last.term).unwrap_or(Vote { term: last.term, ..Vote::default() });
        let snapshot = Some(last);
        let begin = Record::BeginAgain { group, replica, incarnation, snapshot, membership: membership.clone(), vote };
        self.write_through(vec![begin]).await?;
        let recovered = RecoveredGroup {
            vote: Some(vote),
            purged: Some(last),
            committed: Some(last),
            segments_synced: Some(last),
            snapshot: Some((last, membership)),
            last: Some(last),
            ..RecoveredGroup::empty(replica, incarnation)
        };
        self.holders.recovered(group, &recovered);
        tracing::warn!(%group, ?salvaged, "the group begins again from what was left of its damaged data");
        Ok((recovered, salvaged))
    }

    /// What was left of a group that began again since the node was started: who did not get the answer can ask again.
    #[must_use]
    pub fn salvaged(&self, group: GroupId) -> Option<Salvaged> {
        lock(&self.salvaged).get(&group).cloned()
    }
}

/// Makes the new life. Blocks.
fn begin_again(
    lives: &Arc<Lives>,
    group: GroupId,
    machine: &mut dyn Machine,
    known: Option<RecoveredGroup>,
    voter: Replica,
) -> io::Result<(NewLife, Salvaged)> {
    // Where the journal does not know which life was valid, it was the newest that was complete.
    let before = match &known {
        Some(known) => Some(known.incarnation),
        None => lives.newest_set_aside(group)?,
    };
    // Should this be cut short, what it made must not be taken for the newest.
    lives.delete_unfinished()?;
    let life = LifeWriter::begin_unfinished(lives.clone(), group)?;
    let incarnation = life.incarnation();
    let keys = GroupKeys::new(group, before.unwrap_or_default());
    let mut salvager = Salvager::begin(&**lives.state(), &keys, machine, life)?;
    let all_known = known.as_ref().is_some_and(|known| !known.damaged);
    let last = known.as_ref().and_then(|known| known.last.max(known.segments_synced));
    let entries = known.map(|known| known.tail).unwrap_or_default();
    let mut entries: BTreeMap<u64, Entry> = entries.into_iter().map(|entry| (entry.log_id.index, entry)).collect();
    let mut useless_bytes = 0;
    if let Some(before) = before {
        let last_index = last.filter(|_| all_known).map_or(u64::MAX - 1, |last| last.index);
        useless_bytes = salvage(&**lives.disk(), &lives.set_aside_dir(group, before), last_index, |mut found| {
            // What a damaged segment lacks may still be in the journal.
            let from_here = entries.split_off(&found.header.log_id.index);
            for entry in std::mem::replace(&mut entries, from_here).into_values() {
                salvager.take_entry(entry)?;
            }
            if let Some(entry) = entries.get(&found.header.log_id.index) {
                found.complete_from(entry);
            }
            entries = entries.split_off(&(found.header.last_index + 1));
            salvager.take_frame(found)
        })?;
    }
    for entry in entries.into_values() {
        salvager.take_entry(entry)?;
    }
    let (life, salvaged) = salvager.finish(voter, last, all_known)?;
    lives.finish(group, incarnation)?;
    // Nobody has more.
    lives.forget_joining(group)?;
    Ok((life, Salvaged { useless_bytes, ..salvaged }))
}
