//! Data that is to be deleted: lives that were replaced, removed, or left over by a crash. A deletion that meets an error is
//! tried again, with growing pauses, until it is done; one that a crash cuts short is finished at the next open, however
//! much of it is gone already: by then the journal knows that the group has another life, or that it was removed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::lives::{Lives, NODE_ROWS};
use crate::segments::segments_dir;
use crate::state::WriteBatch;
use crate::state::keys::GroupKeys;
use crate::troubles::Subject;
use crate::types::{GroupId, Incarnation, ReplicaId};

/// A deletion that failed is tried again after this time at first, then after twice as long each time,
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// up to this.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What was not deleted yet.
#[derive(Default)]
pub(super) struct Leftovers {
    lives: Mutex<BTreeSet<(GroupId, Incarnation)>>,
    added: Notify,
    /// Whether everything that the journal does not name was looked at.
    surveyed: AtomicBool,
}

impl Leftovers {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<(GroupId, Incarnation)>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lives {
    /// Deletes a life that is not valid any more, or never was: at once, or later where the disk refuses. Who reads its
    /// segments goes on undisturbed. Blocks.
    pub(crate) fn delete(&self, group: GroupId, incarnation: Incarnation) {
        if let Err(error) = self.try_delete(group, incarnation) {
            self.troubles().raise_error(Subject::Deletion(group), &error);
            self.leftovers.lock().insert((group, incarnation));
            self.leftovers.added.notify_one();
        }
    }

    fn try_delete(&self, group: GroupId, incarnation: Incarnation) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        batch.delete_prefix(GroupKeys::new(group, incarnation).prefix());
        self.state.write(batch).map_err(io::Error::other)?;
        match self.disk.remove_dir_all(&segments_dir(&self.groups_dir, group, incarnation)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
        self.disk.sync_dir(&self.groups_dir)
    }

    /// Tries again to delete what could not be deleted, until the task is aborted.
    pub(crate) async fn keep_clean(self: Arc<Self>) {
        loop {
            self.leftovers.added.notified().await;
            let mut pause = PAUSE_MIN;
            loop {
                tokio::time::sleep(pause).await;
                pause = PAUSE_MAX.min(pause * 2);
                let lives = self.clone();
                if matches!(self.driver().run(move || lives.delete_again()).await, Ok(0)) {
                    break;
                }
            }
        }
    }

    /// Returns how many lives are left.
    fn delete_again(&self) -> usize {
        let waiting = self.leftovers.lock().clone();
        for (group, incarnation) in waiting {
            match self.try_delete(group, incarnation) {
                Ok(()) => {
                    let mut left = self.leftovers.lock();
                    left.remove(&(group, incarnation));
                    if !left.iter().any(|(owner, _)| *owner == group) {
                        self.troubles().clear(Subject::Deletion(group));
                    }
                }
                Err(error) => self.troubles().raise_error(Subject::Deletion(group), &error),
            }
        }
        self.leftovers.lock().len()
    }

    /// Whether nothing is left of a group that was removed, so that it may be forgotten: data of a group that the journal
    /// does not know is kept.
    pub(crate) fn is_gone(&self, group: GroupId) -> bool {
        let left = self.leftovers.lock().iter().any(|(owner, _)| *owner == group);
        !left && self.leftovers.surveyed.load(Ordering::Relaxed)
    }

    /// Deletes what crashes left over. `valid` and `removed` are what the journal names; the caller knows that no damage took
    /// a part of it. Returns the groups of which there is data that the journal should know and does not, and says where that
    /// is. Blocks.
    ///
    /// # Errors
    /// If it cannot be read what is there.
    pub(crate) fn delete_orphans(
        &self,
        valid: &BTreeMap<GroupId, Incarnation>,
        removed: &BTreeMap<GroupId, ReplicaId>,
    ) -> io::Result<BTreeMap<GroupId, String>> {
        if let Err(error) = self.delete_unfinished() {
            tracing::warn!(%error, "what somebody began to put together was not deleted; the next open does it");
        }
        let mut unknown = BTreeMap::new();
        let (directories, aside) = (self.directories()?, self.set_aside_before()?);
        let mut found = &self.all()? - &aside;
        found.retain(|(group, incarnation)| *group != NODE_ROWS && valid.get(group) != Some(incarnation));
        for (group, incarnation) in found {
            let dir = segments_dir(&self.groups_dir, group, incarnation);
            let explained = valid.contains_key(&group) || removed.contains_key(&group);
            if explained || !directories.contains(&(group, incarnation)) || self.was_given_up(&dir)? {
                tracing::info!(%group, %incarnation, "deleting data that a crash left over");
                self.delete(group, incarnation);
            } else {
                let reason = format!("the journal does not know it, but its data is in {}", dir.display());
                tracing::error!(%group, reason, "a part of the journal is lost; the data is kept and not served");
                unknown.insert(group, reason);
            }
        }
        self.leftovers.surveyed.store(true, Ordering::Relaxed);
        Ok(unknown)
    }

    /// Deletes what somebody began to put together and did not finish. Nobody may be at it. Blocks.
    ///
    /// # Errors
    /// If the disk refuses; what is left is deleted at the next open.
    pub(crate) fn delete_unfinished(&self) -> io::Result<()> {
        for (group, incarnation) in self.unfinished()? {
            let mut batch = WriteBatch::default();
            batch.delete_prefix(GroupKeys::new(group, incarnation).prefix());
            self.state.write(batch).map_err(io::Error::other)?;
            self.disk.remove_dir_all(&self.unfinished_dir(group, incarnation))?;
        }
        Ok(())
    }
}
