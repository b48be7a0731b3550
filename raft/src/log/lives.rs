//! The lives of the groups' data on this node: where each one is, how one is made, set aside and found again.
//!
//! A life is what an incarnation names: rows under one prefix of the state and one directory of segments. The journal says
//! which life of a group is valid. A new one is received beside it and takes over by one record; the others of that
//! group are left over from a crash, and so is what is here of a group that was removed: that is deleted at the next open
//! (`leftovers.rs`). A group of which the journal knows nothing at all is another matter: its data is kept.
//!
//! A damaged life that is given up for a copy from the peers is set aside: its directory moves to `damaged/`, beside
//! `groups/`, and as long as it lies there its rows stay in the state, too. Whoever deletes it there has them deleted
//! at the next open. What is saved of it is put together in a directory of another name, so that it is taken for a life
//! only once it is complete.

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::leftovers::Leftovers;
use crate::disk::error::Class;
use crate::disk::{Disk, DiskFile};
use crate::driver::Driver;
use crate::joining::Joining;
use crate::segments::{SegmentError, SegmentOptions, SegmentReader, SegmentWriter, segments_dir};
use crate::state::State;
use crate::state::keys::GroupKeys;
use crate::troubles::Troubles;
use crate::types::{GroupId, Incarnation, LogId};

/// Rows with this group are the node's own.
pub(super) const NODE_ROWS: GroupId = GroupId(u64::MAX);
/// The file with which layout 1 said that its directory is to be deleted.
const REMOVED: &str = "removed";
/// What the name of a life's directory starts with while it is put together.
const UNFINISHED: &str = "unfinished.";
/// The directory beside the groups' for what is damaged and was replaced.
const DAMAGED: &str = "damaged";
/// Bytes that are copied at once.
const COPY_BYTES: usize = 1 << 20;

/// See the module.
pub(crate) struct Lives {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) groups_dir: PathBuf,
    damaged_dir: PathBuf,
    segments: SegmentOptions,
    pub(super) state: Arc<dyn State>,
    driver: Driver,
    troubles: Troubles,
    next: AtomicU64,
    pub(super) leftovers: Leftovers,
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
        let (next, leftovers) = (AtomicU64::new(boot_epoch << 32), Leftovers::default());
        Self { disk, groups_dir, damaged_dir, segments, state, driver, troubles, next, leftovers }
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
        let (all, aside, unfinished) = (self.all()?, self.set_aside_before()?, self.unfinished()?);
        let all = all.iter().chain(&aside).chain(&unfinished);
        if let Some(highest) = all.map(|(_, incarnation)| incarnation.0).max() {
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
        self.forget_joining(group)?;
        open()
    }

    /// Forgets durably that a group was to be copied. Blocks.
    ///
    /// # Errors
    /// If the disk refuses.
    pub(crate) fn forget_joining(&self, group: GroupId) -> io::Result<()> {
        Joining::forget(&*self.disk, &self.groups_dir, group)
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

    /// Opens the segments of a life that is put together from what is left of another. Blocks.
    pub(crate) fn open_unfinished(
        &self,
        group: GroupId,
        incarnation: Incarnation,
    ) -> Result<(SegmentWriter, SegmentReader), SegmentError> {
        SegmentWriter::open(self.disk.clone(), &self.unfinished_dir(group, incarnation), group, self.segments, None)
    }

    /// What is put together is complete and durable, and none of its files is open: from now on it is a life. Blocks.
    ///
    /// # Errors
    /// If the disk refuses.
    pub(crate) fn finish(&self, group: GroupId, incarnation: Incarnation) -> io::Result<()> {
        self.disk.rename(&self.unfinished_dir(group, incarnation), &segments_dir(&self.groups_dir, group, incarnation))?;
        self.disk.sync_dir(&self.groups_dir)
    }

    pub(super) fn unfinished_dir(&self, group: GroupId, incarnation: Incarnation) -> PathBuf {
        self.groups_dir.join(format!("{UNFINISHED}{group}-{incarnation}"))
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
                self.delete(group, *incarnation);
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

    /// Whether layout 1 began to delete it.
    pub(super) fn was_given_up(&self, dir: &Path) -> io::Result<bool> {
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

    /// Every life of which rows or files are here.
    pub(crate) fn all(&self) -> io::Result<BTreeSet<(GroupId, Incarnation)>> {
        Ok(&self.directories()? | &self.owners()?)
    }

    /// The groups of which rows or files are here.
    pub(crate) fn groups(&self) -> io::Result<BTreeSet<GroupId>> {
        let lives = &self.all()? - &self.set_aside_before()?;
        Ok(lives.into_iter().map(|(group, _)| group).filter(|group| *group != NODE_ROWS).collect())
    }

    /// The lives that somebody began to put together, and did not finish.
    pub(super) fn unfinished(&self) -> io::Result<BTreeSet<(GroupId, Incarnation)>> {
        self.lives_in(&self.groups_dir, UNFINISHED)
    }

    pub(super) fn directories(&self) -> io::Result<BTreeSet<(GroupId, Incarnation)>> {
        self.lives_in(&self.groups_dir, "")
    }

    /// The lives that were set aside, now or earlier.
    pub(super) fn set_aside_before(&self) -> io::Result<BTreeSet<(GroupId, Incarnation)>> {
        self.lives_in(&self.damaged_dir, "")
    }

    fn lives_in(&self, dir: &Path, prefix: &str) -> io::Result<BTreeSet<(GroupId, Incarnation)>> {
        match self.disk.list(dir) {
            Ok(paths) => Ok(paths.iter().filter_map(|path| parse_directory(path, prefix)).collect()),
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

/// The reverse of [`segments_dir`], behind `prefix`.
fn parse_directory(path: &Path, prefix: &str) -> Option<(GroupId, Incarnation)> {
    let (group, incarnation) = path.file_name()?.to_str()?.strip_prefix(prefix)?.split_once('-')?;
    Some((GroupId(group.parse().ok()?), Incarnation(incarnation.parse().ok()?)))
}

#[cfg(test)]
mod tests;
