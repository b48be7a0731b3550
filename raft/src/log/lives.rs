//! The lives of the groups' data on this node: where each one is, how one is made and deleted.
//!
//! A life is what an incarnation names: rows under one prefix of the state and one directory of segments. The journal says
//! which life of a group is valid. A new one is received beside it and takes over by one record; the others of that
//! group are left over from a crash, and deleted at the next open. A group that the journal does not know is another
//! matter: its data is deleted only if its directory says that it was removed on purpose.
//!
//! A damaged life that is given up for a copy from the peers is set aside: its directory moves to `damaged/`, beside
//! `groups/`, and as long as it lies there its rows stay in the state, too. Whoever deletes it there has them deleted
//! at the next open.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::error::Class;
use crate::disk::{Disk, DiskFile};
use crate::driver::Driver;
use crate::joining::Joining;
use crate::segments::{SegmentError, SegmentOptions, SegmentReader, SegmentWriter, segments_dir};
use crate::state::keys::GroupKeys;
use crate::state::{State, WriteBatch};
use crate::troubles::Troubles;
use crate::types::{GroupId, Incarnation, LogId};

/// Rows with this group are the node's own.
const NODE_ROWS: GroupId = GroupId(u64::MAX);
/// The file that says that its directory is to be deleted once the journal does not name it.
const REMOVED: &str = "removed";
/// The directory beside the groups' for what is damaged and was replaced.
const DAMAGED: &str = "damaged";
/// Bytes that are copied at once.
const COPY_BYTES: usize = 1 << 20;

/// See the module.
pub(crate) struct Lives {
    disk: Arc<dyn Disk>,
    groups_dir: PathBuf,
    damaged_dir: PathBuf,
    segments: SegmentOptions,
    state: Arc<dyn State>,
    driver: Driver,
    troubles: Troubles,
    next: AtomicU64,
}

impl Lives {
    /// `boot_epoch` is the journal's: it rises with every opening, so that no incarnation is ever used twice. See
    /// [`Lives::number_behind_all`], too.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        groups_dir: PathBuf,
        segments: SegmentOptions,
        state: Arc<dyn State>,
        (driver, troubles): (Driver, Troubles),
        boot_epoch: u64,
    ) -> Self {
        let damaged_dir = groups_dir.with_file_name(DAMAGED);
        let next = AtomicU64::new(boot_epoch << 32);
        Self { disk, groups_dir, damaged_dir, segments, state, driver, troubles, next }
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    pub(crate) fn state(&self) -> &Arc<dyn State> {
        &self.state
    }

    /// Does what blocks.
    pub(crate) fn driver(&self) -> &Driver {
        &self.driver
    }

    /// What is wrong on this node.
    pub(crate) fn troubles(&self) -> &Troubles {
        &self.troubles
    }

    /// A number for a new life.
    pub(crate) fn next(&self) -> Incarnation {
        Incarnation(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Sees to it that new lives have higher numbers than all of which anything is here: a journal that was lost counts its
    /// openings anew.
    ///
    /// # Errors
    /// If the state or the disk refuses.
    pub(crate) fn number_behind_all(&self) -> io::Result<()> {
        let (all, aside) = (self.all()?, self.set_aside_before()?);
        if let Some(highest) = all.iter().chain(&aside).map(|(_, incarnation)| incarnation.0).max() {
            self.next.fetch_max(highest.saturating_add(1), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether a group whose log ends at `last` (an index) is only being copied so far. Blocks.
    ///
    /// # Errors
    /// If the disk refuses.
    pub(crate) fn joining(&self, group: GroupId, last: Option<u64>) -> io::Result<Joining> {
        let open = || Joining::open(self.disk.clone(), &self.groups_dir, group, self.driver.clone());
        let joining = open()?;
        if !joining.is_over(last) {
            return Ok(joining);
        }
        self.set_joining(group, false)?;
        open()
    }

    /// Notes durably that a group is to be copied, or that it is not. Blocks.
    ///
    /// # Errors
    /// If the disk refuses.
    pub(crate) fn set_joining(&self, group: GroupId, joins: bool) -> io::Result<()> {
        let set = if joins { Joining::begin } else { Joining::forget };
        set(&*self.disk, &self.groups_dir, group)
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

    /// Takes back what [`Lives::mark_removed`] noted. Blocks.
    ///
    /// # Errors
    /// If the disk refuses.
    pub(crate) fn unmark_removed(&self, group: GroupId, incarnation: Incarnation) -> io::Result<()> {
        let dir = segments_dir(&self.groups_dir, group, incarnation);
        self.disk.remove(&dir.join(REMOVED))?;
        self.disk.sync_dir(&dir)
    }

    /// Where a life that was set aside has its segments.
    pub(crate) fn set_aside_dir(&self, group: GroupId, incarnation: Incarnation) -> PathBuf {
        segments_dir(&self.damaged_dir, group, incarnation)
    }

    /// The newest life of a group that was set aside.
    ///
    /// # Errors
    /// If the disk refuses.
    pub(crate) fn newest_set_aside(&self, group: GroupId) -> io::Result<Option<Incarnation>> {
        let lives = self.set_aside_before()?;
        Ok(lives.into_iter().filter(|(owner, _)| *owner == group).map(|(_, incarnation)| incarnation).max())
    }

    /// Moves the segments of all of a group's lives to where what is damaged is kept; returns how many there were. None of
    /// them may be in use. Blocks.
    ///
    /// # Errors
    /// If the disk refuses; calling it again goes on.
    pub(crate) fn set_aside(&self, group: GroupId) -> io::Result<usize> {
        let lives: Vec<_> = self.directories()?.into_iter().filter(|(owner, _)| *owner == group).collect();
        self.keep_damaged()?;
        let mut moved = 0;
        for (_, incarnation) in &lives {
            let [from, to] = [&self.groups_dir, &self.damaged_dir].map(|dir| segments_dir(dir, group, *incarnation));
            if self.was_given_up(&from)? {
                self.delete(group, *incarnation)?;
                continue;
            }
            // The directory was made anew by a start after an attempt that was cut short.
            if self.holds_no_segment(&from)? && self.directory_is_there(&to)? {
                self.disk.remove_dir_all(&from)?;
                continue;
            }
            self.disk.rename(&from, &to)?;
            moved += 1;
        }
        self.disk.sync_dir(&self.damaged_dir)?;
        self.disk.sync_dir(&self.groups_dir)?;
        Ok(moved)
    }

    fn was_given_up(&self, dir: &Path) -> io::Result<bool> {
        Ok(self.disk.list(dir)?.contains(&dir.join(REMOVED)))
    }

    fn holds_no_segment(&self, dir: &Path) -> io::Result<bool> {
        Ok(!self.disk.list(dir)?.iter().any(|path| path.extension().is_some_and(|extension| extension == "segment")))
    }

    fn directory_is_there(&self, dir: &Path) -> io::Result<bool> {
        let Some(parent) = dir.parent() else { return Ok(false) };
        Ok(self.disk.list(parent)?.iter().any(|path| path == dir))
    }

    /// Copies a file to where what is damaged is kept, under `name`, unless that was done before. Blocks.
    ///
    /// # Errors
    /// If the disk refuses.
    pub(crate) fn keep_copy(&self, file: &Path, name: &str) -> io::Result<()> {
        self.keep_damaged()?;
        let (to, begun) = (self.damaged_dir.join(name), self.damaged_dir.join(format!("{name}.tmp")));
        let source = match self.disk.open(file, false) {
            Ok(source) => source,
            // It was the file that got lost.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if self.disk.list(&self.damaged_dir)?.contains(&to) {
            return Ok(());
        }
        let copy = self.disk.open(&begun, true)?;
        copy_readable(&*source, &*copy)?;
        copy.sync()?;
        self.disk.rename(&begun, &to)?;
        self.disk.sync_dir(&self.damaged_dir)
    }

    fn keep_damaged(&self) -> io::Result<()> {
        self.disk.create_dir_all(&self.damaged_dir)?;
        match self.damaged_dir.parent() {
            Some(parent) => self.disk.sync_dir(parent),
            None => Ok(()),
        }
    }

    /// Deletes what crashes left over. `valid` is what the journal names; the caller knows that no damage took a part of it.
    /// Returns the groups of which there is data that the journal should know and does not, and says where that is.
    ///
    /// # Errors
    /// If the state or the disk refuses.
    pub(crate) fn delete_orphans(&self, valid: &BTreeMap<GroupId, Incarnation>) -> io::Result<BTreeMap<GroupId, String>> {
        let mut unknown = BTreeMap::new();
        let (directories, aside) = (self.directories()?, self.set_aside_before()?);
        let mut found = &self.all()? - &aside;
        found.retain(|(group, incarnation)| *group != NODE_ROWS && valid.get(group) != Some(incarnation));
        for (group, incarnation) in found {
            let dir = segments_dir(&self.groups_dir, group, incarnation);
            let given_up = !directories.contains(&(group, incarnation)) || self.was_given_up(&dir)?;
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

    /// The groups of which rows or files are here.
    pub(crate) fn groups(&self) -> io::Result<BTreeSet<GroupId>> {
        let lives = &self.all()? - &self.set_aside_before()?;
        Ok(lives.into_iter().map(|(group, _)| group).filter(|group| *group != NODE_ROWS).collect())
    }

    fn directories(&self) -> io::Result<BTreeSet<(GroupId, Incarnation)>> {
        self.lives_in(&self.groups_dir)
    }

    /// The lives that were set aside, now or earlier.
    fn set_aside_before(&self) -> io::Result<BTreeSet<(GroupId, Incarnation)>> {
        self.lives_in(&self.damaged_dir)
    }

    fn lives_in(&self, dir: &Path) -> io::Result<BTreeSet<(GroupId, Incarnation)>> {
        match self.disk.list(dir) {
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

/// Copies what can be read; what the device cannot read, again and again, is zeros in the copy.
fn copy_readable(from: &dyn DiskFile, to: &dyn DiskFile) -> io::Result<()> {
    let len = from.len()?;
    to.set_len(len)?;
    let mut buffer = vec![0; COPY_BYTES];
    for at in (0..len).step_by(COPY_BYTES) {
        let bytes = usize::try_from(len - at).unwrap_or(COPY_BYTES).min(COPY_BYTES);
        let Some(piece) = buffer.get_mut(..bytes) else { break };
        match from.read_exact_at(piece, at) {
            Ok(()) => to.write_all_at(&[IoSlice::new(piece)], at)?,
            Err(error) if Class::of(&error) == Class::Damage => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
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
        let lives = Lives::new(disk.clone(), GROUPS.into(), SegmentOptions::default(), state.clone(), <_>::default(), 7);
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
    fn what_is_set_aside_keeps_its_rows_until_it_is_deleted() {
        let (state, disk) = (Arc::new(OrderedState::default()), Arc::new(SimDisk::new(1)));
        let lives = Lives::new(disk.clone(), GROUPS.into(), SegmentOptions::default(), state.clone(), <_>::default(), 7);
        let (group, other) = (GroupId(1), GroupId(11));
        let [old, kept] = [(); 2].map(|()| lives.next());
        for (group, incarnation) in [(group, old), (other, kept)] {
            put(&state, group, incarnation);
            drop(lives.open_segments(group, incarnation, None).unwrap());
        }
        let journal = Path::new("/data/journal");
        disk.create_dir_all(journal).unwrap();
        let file = disk.open(&journal.join("1"), true).unwrap();
        file.write_all_at(&[IoSlice::new(b"what was readable")], 0).unwrap();
        lives.keep_copy(&journal.join("1"), "journal-1").unwrap();
        file.write_all_at(&[IoSlice::new(b"WHAT CAME LATER..")], 0).unwrap();
        lives.keep_copy(&journal.join("1"), "journal-1").unwrap();
        assert_eq!(lives.set_aside(group).unwrap(), 1);
        disk.power_cut();
        let copy = disk.open(Path::new("/data/damaged/journal-1"), false).unwrap();
        let mut bytes = [0; 17];
        copy.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"what was readable", "the first copy stays");

        // The new life, after a journal that counts its openings anew.
        let lives = Lives::new(disk.clone(), GROUPS.into(), SegmentOptions::default(), state.clone(), <_>::default(), 1);
        lives.number_behind_all().unwrap();
        let new = lives.next();
        assert!(new > old && new > kept, "{new}");
        put(&state, group, new);
        drop(lives.open_segments(group, new, None).unwrap());
        let valid = BTreeMap::from([(group, new), (other, kept)]);
        assert_eq!(lives.delete_orphans(&valid).unwrap(), BTreeMap::new());
        assert_eq!(lives.owners().unwrap(), BTreeSet::from([(group, old), (group, new), (other, kept)]));
        assert_eq!(lives.groups().unwrap(), BTreeSet::from([group, other]));
        disk.remove_dir_all(&segments_dir(Path::new("/data/damaged"), group, old)).unwrap();
        assert_eq!(lives.delete_orphans(&valid).unwrap(), BTreeMap::new());
        assert_eq!(lives.owners().unwrap(), BTreeSet::from([(group, new), (other, kept)]));
    }

    #[test]
    fn no_incarnation_is_used_twice() {
        let lives = |boot_epoch| {
            let (disk, state) = (Arc::new(SimDisk::new(1)), Arc::new(OrderedState::default()));
            Lives::new(disk, GROUPS.into(), SegmentOptions::default(), state, <_>::default(), boot_epoch)
        };
        let (one, two) = (lives(1), lives(2));
        let made = [one.next(), one.next(), two.next(), two.next()];
        assert!(made.windows(2).all(|pair| pair[0] < pair[1]), "{made:?}");
    }
}
