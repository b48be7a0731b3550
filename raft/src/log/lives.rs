//! The lives of the groups' data on this node: where each one is, how one is made and deleted.
//!
//! A life is what an incarnation names: rows under one prefix of the state and one directory of segments. The journal says
//! which life of a group is valid. A new one is received beside it and takes over by one record; the others of that
//! group are left over from a crash, and deleted at the next open. A group that the journal does not know is another
//! matter: its data is deleted only if its directory says that it was removed on purpose.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::Disk;
use crate::segments::{SegmentError, SegmentOptions, SegmentReader, SegmentWriter, segments_dir};
use crate::state::keys::GroupKeys;
use crate::state::{State, WriteBatch};
use crate::types::{GroupId, Incarnation, LogId};

/// Rows with this group are the node's own.
const NODE_ROWS: GroupId = GroupId(u64::MAX);
/// The file that says that its directory is to be deleted once the journal does not name it.
const REMOVED: &str = "removed";

/// See the module.
pub(crate) struct Lives {
    disk: Arc<dyn Disk>,
    groups_dir: PathBuf,
    segments: SegmentOptions,
    state: Arc<dyn State>,
    boot_epoch: u64,
    created: AtomicU64,
}

impl Lives {
    /// `boot_epoch` is the journal's: it rises with every opening, so that no incarnation is ever used twice.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        groups_dir: PathBuf,
        segments: SegmentOptions,
        state: Arc<dyn State>,
        boot_epoch: u64,
    ) -> Self {
        Self { disk, groups_dir, segments, state, boot_epoch, created: AtomicU64::new(0) }
    }

    pub(crate) fn state(&self) -> &Arc<dyn State> {
        &self.state
    }

    /// A number for a new life.
    pub(crate) fn next(&self) -> Incarnation {
        let number = self.created.fetch_add(1, Ordering::Relaxed);
        Incarnation((self.boot_epoch << 32) | number)
    }

    /// Opens the segments of a life; `synced` is what the journal knows of them. Blocks.
    pub(crate) fn open_segments(
        &self,
        group: GroupId,
        incarnation: Incarnation,
        synced: Option<LogId>,
    ) -> Result<(SegmentWriter, SegmentReader), SegmentError> {
        let dir = segments_dir(&self.groups_dir, group, incarnation);
        SegmentWriter::open(self.disk.clone(), &dir, group, self.segments, synced)
    }

    /// Deletes a life that is not valid any more, or never was. Who reads its segments goes on undisturbed. Blocks.
    ///
    /// # Errors
    /// If the state or the disk refuses; what is left is deleted at the next open.
    pub(crate) fn delete(&self, group: GroupId, incarnation: Incarnation) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        batch.delete_prefix(GroupKeys::new(group, incarnation).prefix());
        self.state.write(batch).map_err(io::Error::other)?;
        match self.disk.remove_dir_all(&segments_dir(&self.groups_dir, group, incarnation)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Notes durably that a life is about to be given up on purpose. Blocks.
    ///
    /// # Errors
    /// If the disk refuses.
    pub(crate) fn mark_removed(&self, group: GroupId, incarnation: Incarnation) -> io::Result<()> {
        let dir = segments_dir(&self.groups_dir, group, incarnation);
        self.disk.create_dir_all(&dir)?;
        self.disk.open(&dir.join(REMOVED), true)?;
        self.disk.sync_dir(&dir)
    }

    /// Deletes what crashes left over. `valid` is what the journal names; the caller knows that no damage took a part of it.
    /// Returns the groups of which there is data that the journal should know and does not, and says where that is.
    ///
    /// # Errors
    /// If the state or the disk refuses.
    pub(crate) fn delete_orphans(&self, valid: &BTreeMap<GroupId, Incarnation>) -> io::Result<BTreeMap<GroupId, String>> {
        let mut unknown = BTreeMap::new();
        let directories = self.directories()?;
        let mut found = self.all()?;
        found.retain(|(group, incarnation)| *group != NODE_ROWS && valid.get(group) != Some(incarnation));
        for (group, incarnation) in found {
            let dir = segments_dir(&self.groups_dir, group, incarnation);
            let given_up = !directories.contains(&(group, incarnation)) || self.disk.list(&dir)?.contains(&dir.join(REMOVED));
            if valid.contains_key(&group) || given_up {
                tracing::info!(%group, %incarnation, "deleting data that a crash left over");
                self.delete(group, incarnation)?;
            } else {
                let reason = format!("the journal does not know it, but its data is in {}", dir.display());
                tracing::error!(%group, reason, "a part of the journal is lost; the data is kept and not served");
                unknown.insert(group, reason);
            }
        }
        Ok(unknown)
    }

    /// Every life of which rows or files are here.
    pub(crate) fn all(&self) -> io::Result<BTreeSet<(GroupId, Incarnation)>> {
        Ok(&self.directories()? | &self.owners()?)
    }

    fn directories(&self) -> io::Result<BTreeSet<(GroupId, Incarnation)>> {
        match self.disk.list(&self.groups_dir) {
            Ok(paths) => Ok(paths.iter().filter_map(|path| parse_directory(path)).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
            Err(error) => Err(error),
        }
    }

    /// Whose rows the state holds: one look-up for each life.
    fn owners(&self) -> io::Result<BTreeSet<(GroupId, Incarnation)>> {
        let mut owners = BTreeSet::new();
        let mut from = Vec::new();
        loop {
            let rows = self.state.scan(&[], &from, 1).map_err(io::Error::other)?;
            let Some((group, incarnation)) = rows.first().and_then(|(key, _)| GroupKeys::owner(key)) else { break };
            owners.insert((group, incarnation));
            let Some(next) = crate::state::prefix_end(&GroupKeys::new(group, incarnation).prefix()) else { break };
            from = next;
        }
        Ok(owners)
    }
}

/// The reverse of [`segments_dir`].
fn parse_directory(path: &Path) -> Option<(GroupId, Incarnation)> {
    let (group, incarnation) = path.file_name()?.to_str()?.split_once('-')?;
    Some((GroupId(group.parse().ok()?), Incarnation(incarnation.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use crate::disk::sim::SimDisk;
    use crate::state::OrderedState;

    const GROUPS: &str = "/data/groups";

    fn put(state: &OrderedState, group: GroupId, incarnation: Incarnation) {
        let mut batch = WriteBatch::default();
        batch.put(GroupKeys::new(group, incarnation).row(1, b"key"), *b"value");
        batch.put(GroupKeys::new(group, incarnation).row(2, b"key"), *b"value");
        state.write(batch).unwrap();
    }

    #[test]
    fn only_what_is_known_to_be_left_over_is_deleted() {
        let (state, disk) = (Arc::new(OrderedState::default()), Arc::new(SimDisk::new(1)));
        let lives = Lives::new(disk.clone(), GROUPS.into(), SegmentOptions::default(), state.clone(), 7);
        let (known, removed, unknown, rows_only) = (GroupId(1), GroupId(2), GroupId(3), GroupId(4));
        let incarnations = [(); 5].map(|()| lives.next());
        let [old, valid, second, third, fourth] = incarnations;
        assert!(incarnations.is_sorted() && old < valid);
        for (group, incarnation) in [(known, old), (known, valid), (removed, second), (unknown, third)] {
            put(&state, group, incarnation);
            drop(lives.open_segments(group, incarnation, None).unwrap());
        }
        put(&state, rows_only, fourth);
        put(&state, NODE_ROWS, Incarnation(0));
        lives.mark_removed(removed, second).unwrap();
        let not_ours = Path::new(GROUPS).join("not ours");
        disk.create_dir_all(&not_ours).unwrap();

        let lost = lives.delete_orphans(&BTreeMap::from([(known, valid)])).unwrap();
        assert_eq!(lost.into_keys().collect::<Vec<_>>(), [unknown]);
        let kept = BTreeSet::from([(known, valid), (unknown, third)]);
        assert_eq!(lives.directories().unwrap(), kept);
        let rows = &kept | &BTreeSet::from([(NODE_ROWS, Incarnation(0))]);
        assert_eq!(lives.owners().unwrap(), rows);
        assert!(disk.list(Path::new(GROUPS)).unwrap().contains(&not_ours));
    }

    #[test]
    fn no_incarnation_is_used_twice() {
        let lives = |boot_epoch| {
            let (disk, state) = (Arc::new(SimDisk::new(1)), Arc::new(OrderedState::default()));
            Lives::new(disk, GROUPS.into(), SegmentOptions::default(), state, boot_epoch)
        };
        let (one, two) = (lives(1), lives(2));
        let made = [one.next(), one.next(), two.next(), two.next()];
        assert!(made.windows(2).all(|pair| pair[0] < pair[1]), "{made:?}");
    }
}
