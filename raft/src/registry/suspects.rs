//! Groups whose data is damaged: they neither vote nor serve. What they had is set aside once their peers have taken
//! this replica out of the group; then another one may begin here, empty, and copy from them.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use super::Registry;
use super::states::{Cause, Down, GroupState, Known, Outage};
use crate::journal::{Damage, Journal, Record, Recovered, RecoveredGroup, Step, Suspect};
use crate::log::lives::Lives;
use crate::types::GroupId;

impl Registry {
    /// Why a group does not run here, if it should and cannot.
    #[must_use]
    pub fn outage(&self, group: GroupId) -> Option<Outage> {
        self.groups.outage(group)
    }

    /// What is wrong with a group that does not run because its data is damaged.
    #[must_use]
    pub fn damage_of(&self, group: GroupId) -> Option<String> {
        self.outage(group).filter(|outage| outage.cause == Cause::Damaged).map(|outage| outage.reason)
    }

    /// Stops a group that runs, because its data is damaged. It does not start again before [`Registry::set_aside`], or
    /// a restart of the node.
    ///
    /// # Errors
    /// If what it submitted cannot be made durable. It does not run then, either.
    pub async fn condemn(&self, group: GroupId, reason: String) -> io::Result<()> {
        let Some((claim, closing)) = self.groups.claim_condemned(group) else { return Ok(()) };
        tracing::error!(%group, reason, "the group's data is damaged: it is stopped on this node");
        let (known, given_back) = self.settle(closing).await;
        claim.end_down(Down::damaged(reason, known));
        given_back
    }

    /// Moves the data of a damaged replica out of the way; the group is absent here then. To be called only once it is committed
    /// that nobody counts on this replica any more: what it forgets binds nobody. Nothing is deleted: see [`crate::log::lives`].
    ///
    /// # Errors
    /// If the group is not damaged, or the disk refuses: calling it again goes on.
    pub async fn set_aside(&self, group: GroupId) -> io::Result<()> {
        let (claim, known, reason) = self.groups.claim_damaged(group).ok_or_else(|| not_damaged(group))?;
        let (known, settled) = self.settle_known(known).await;
        let moved = match settled {
            Ok(()) => self.give_up(group).await,
            Err(error) => Err(error),
        };
        match moved {
            Ok(moved) => {
                tracing::warn!(%group, moved, "what was damaged of the group was set aside");
                claim.end_removed(known.replica());
                Ok(())
            }
            Err(error) => {
                claim.end_down(Down::damaged(reason, known));
                Err(error)
            }
        }
    }

    async fn give_up(&self, group: GroupId) -> io::Result<usize> {
        self.transfers.forget(group).await;
        let moved = self.keep_aside(group).await?;
        // It deals with the damage, too: what the journal lost of the group hides nothing any more.
        self.write_through(vec![Record::Remove { group }]).await?;
        self.holders.removed(group);
        let lives = self.lives.clone();
        self.options.driver.try_run(move || lives.forget_joining(group)).await?;
        Ok(moved)
    }

    /// See [`Registry::settle`].
    pub(super) async fn settle_known(&self, known: Known) -> (Known, io::Result<()>) {
        match known {
            Known::Closing(closing) => self.settle(closing).await,
            known => (known, Ok(())),
        }
    }

    /// Moves a group's data to where what is damaged is kept, with copies of the journal's files that are damaged.
    pub(super) async fn keep_aside(&self, group: GroupId) -> io::Result<usize> {
        let hit = self.damage.iter().filter(|damage| damage.groups.includes(group));
        let files: Vec<_> = hit.map(|damage| damage.file.clone()).collect();
        let (lives, boot) = (self.lives.clone(), self.boot_epoch);
        let moved = move || {
            for file in files {
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                lives.keep_copy(&file, &format!("journal-{name}-found-at-start-{boot}"))?;
            }
            lives.set_aside(group)
        };
        self.options.driver.try_run(moved).await
    }
}

pub(super) fn not_damaged(group: GroupId) -> io::Error {
    io::Error::other(format!("group {group} is not known to be damaged"))
}

/// The states in which the groups of a node are when its journal was opened. `unknown` are those of which there is data, and
/// of which the journal should know and does not.
pub(super) fn states_at_open(
    groups: BTreeMap<GroupId, RecoveredGroup>,
    damage: &[Damage],
    unknown: BTreeMap<GroupId, String>,
) -> BTreeMap<GroupId, GroupState> {
    let down = |reason, known| GroupState::Down(Box::new(Down::damaged(reason, known)));
    let mut states: BTreeMap<GroupId, GroupState> =
        unknown.into_iter().map(|(group, reason)| (group, down(reason, Known::Nothing))).collect();
    for damage in damage {
        let Suspect::Named(named) = &damage.groups else { continue };
        let Damage { file, range, reason, .. } = damage;
        let reason = format!("{} bytes {}..{}: {reason}", file.display(), range.start, range.end);
        for group in named {
            states.entry(*group).or_insert_with(|| down(reason.clone(), Known::Nothing));
        }
    }
    for (group, recovered) in groups {
        let known = Box::new(recovered);
        let state = match states.remove(&group) {
            Some(GroupState::Down(of_damage)) => down(of_damage.reason, Known::Stopped(known)),
            _ if known.damaged => down("the journal lost a part of it".to_owned(), Known::Stopped(known)),
            _ => GroupState::Stopped(known),
        };
        states.insert(group, state);
    }
    states
}

/// Brings what is on the disk in line with what the journal says. Returns the groups of which there is data, and of which the
/// journal should know and does not. Blocks.
pub(super) fn survey(journal: &mut Journal, lives: &Lives, recovered: &mut Recovered) -> io::Result<BTreeMap<GroupId, String>> {
    lives.number_behind_all()?;
    name_all(journal, lives, recovered)?;
    if !recovered.damage.is_empty() {
        // Where damage took a part of the journal, what it does not name may be what it named.
        return Ok(BTreeMap::new());
    }
    let valid = recovered.groups.iter().map(|(id, group)| (*id, group.incarnation)).collect();
    lives.delete_orphans(&valid, &recovered.removed)
}

/// Damage that does not say whose data it took gets the names of all groups of which there is data: so they can be dealt
/// with one by one, and groups that come later are not among them. Blocks.
fn name_all(journal: &mut Journal, lives: &Lives, recovered: &mut Recovered) -> io::Result<()> {
    if !recovered.damage.iter().any(|damage| damage.groups == Suspect::All) {
        return Ok(());
    }
    let mut groups = lives.groups()?;
    groups.extend(recovered.groups.keys());
    let groups: Vec<GroupId> = groups.into_iter().collect();
    let (tx, rx) = std::sync::mpsc::sync_channel(1);
    journal.handle().submit(vec![Record::Suspects { groups: groups.clone() }], move |written| drop(tx.send(written)));
    while journal.step(Duration::ZERO) == Step::Wrote {}
    rx.try_recv().map_err(|_| io::Error::other("the journal has no room to note whose data is suspect"))??;
    for damage in recovered.damage.iter_mut().filter(|damage| damage.groups == Suspect::All) {
        damage.groups = Suspect::Named(groups.clone());
    }
    Ok(())
}
