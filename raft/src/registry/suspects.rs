//! Groups whose data is damaged: they neither vote nor serve. What they had is set aside once their peers have taken
//! this replica out of the group; then it begins again, empty, and copies from them.

use std::io;
use std::time::Duration;

use bytes::Bytes;

use super::{Down, Registry, lock};
use crate::journal::{Journal, Record, Recovered, RecoveredGroup, Step, Suspect};
use crate::log::lives::Lives;
use crate::types::{GroupId, Incarnation, Vote};

impl Down {
    /// A group of which there is data, and of which the journal should know and does not.
    pub(super) fn unknown(reason: String) -> Self {
        Self { known: None, damaged: true, reason }
    }

    /// The valid life of its data; `None` if the journal does not know it.
    pub(super) fn incarnation(&self) -> Option<Incarnation> {
        self.known.as_ref().map(|known| known.incarnation)
    }

    pub(super) fn vote(&self) -> Option<Vote> {
        self.known.as_ref().and_then(|known| known.vote)
    }
}

impl Registry {
    /// What is wrong with a group that does not run because its data is damaged.
    #[must_use]
    pub fn damage_of(&self, group: GroupId) -> Option<String> {
        lock(&self.down).get(&group).filter(|down| down.damaged).map(|down| down.reason.clone())
    }

    /// Stops a group that runs, because its data is damaged. It does not start again before [`Registry::set_aside`], or
    /// a restart of the node.
    ///
    /// # Errors
    /// If what it submitted cannot be made durable. It does not run then, either.
    pub async fn condemn(&self, group: GroupId, reason: String) -> io::Result<()> {
        let Some(running) = lock(&self.running).remove(&group) else { return Ok(()) };
        tracing::error!(%group, reason, "the group's data is damaged: it is stopped on this node");
        let log = running.log();
        let known = RecoveredGroup { vote: log.vote(), damaged: true, ..RecoveredGroup::empty(log.incarnation()) };
        lock(&self.down).insert(group, Down { known: Some(known), damaged: true, reason });
        self.changes.note(group);
        let given_back = self.give_back(&running).await;
        // Not to be started from.
        let known = lock(&self.recovered).remove(&group);
        if let (Some(known), Some(down)) = (known, lock(&self.down).get_mut(&group)) {
            down.known = Some(known);
        }
        given_back
    }

    /// Moves the data of a damaged group out of the way, and makes the group one that begins empty and votes in no term
    /// up to that of `vote`. To be called only once this node is no replica of it any more, which is committed: then what
    /// it forgets binds nobody. Nothing is deleted: see [`crate::log::lives`].
    ///
    /// # Errors
    /// If the group is not damaged, or the disk refuses: calling it again goes on.
    pub async fn set_aside(&self, group: GroupId, vote: Vote) -> io::Result<()> {
        let known = lock(&self.down).get(&group).filter(|down| down.damaged).map(Down::vote);
        let Some(known) = known else { return Err(io::Error::other(format!("group {group} is not known to be damaged"))) };
        self.transfers.forget(group).await;
        let moved = self.keep_aside(group).await?;
        let incarnation = self.lives.next();
        let vote = known.filter(|known| known.term > vote.term).unwrap_or(vote);
        let lives = self.lives.clone();
        self.options.driver.try_run(move || lives.set_joining(group, true)).await?;
        let switch = Record::Switch { group, incarnation, snapshot: None, membership: Bytes::new() };
        self.write_through(vec![switch, Record::Vote { group, vote }]).await?;
        let empty = RecoveredGroup { vote: Some(vote), ..RecoveredGroup::empty(incarnation) };
        self.holders.recovered(group, &empty);
        lock(&self.recovered).insert(group, empty);
        lock(&self.down).remove(&group);
        tracing::warn!(%group, moved, "the group's damaged data was set aside; it begins again without any");
        Ok(())
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

/// Damage that does not say whose data it took gets the names of all groups of which there is data: so they can be dealt
/// with one by one, and groups that come later are not among them. Blocks.
pub(super) fn name_all(journal: &mut Journal, lives: &Lives, recovered: &mut Recovered) -> io::Result<()> {
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
