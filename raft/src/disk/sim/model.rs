//! The device and the page cache over it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::fault::{Faults, code};
use super::rng::Rng;

/// The unit in which the page cache is dirty.
const BLOCK_BYTES: usize = 4096;
/// The unit that the device writes whole or not at all.
const SECTOR_BYTES: usize = 512;

pub(super) type InodeId = u64;

/// What names exist: on the device, or as the running system sees it.
#[derive(Debug, Clone, Default)]
struct Names {
    files: BTreeMap<PathBuf, InodeId>,
    dirs: BTreeSet<PathBuf>,
}

/// A change of names.
#[derive(Debug, Clone)]
pub(super) enum NameOp {
    Create(PathBuf, InodeId),
    CreateDir(PathBuf),
    Rename { from: PathBuf, to: PathBuf },
    Remove(PathBuf),
    RemoveAll(PathBuf),
}

/// A file's content: what reads see (`cached`), what the device holds, and which blocks still have to reach it.
#[derive(Debug, Clone, Default)]
struct Inode {
    cached: Vec<u8>,
    device: Vec<u8>,
    dirty: BTreeSet<usize>,
}

/// The state of a [`SimDisk`](super::SimDisk).
#[derive(Debug)]
pub(super) struct Model {
    rng: Rng,
    pub(super) faults: Faults,
    pub(super) generation: u64,
    pub(super) operations: u64,
    names: Names,
    device_names: Names,
    pending: Vec<NameOp>,
    inodes: BTreeMap<InodeId, Inode>,
    next_inode: InodeId,
}

fn power_is_off() -> io::Error {
    io::Error::other("simulated disk: the power is off")
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(code::EIO)
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("simulated disk: {} does not exist", path.display()))
}

impl Names {
    fn apply(&mut self, op: &NameOp) {
        match op {
            NameOp::Create(path, inode) => {
                self.files.insert(path.clone(), *inode);
            }
            NameOp::CreateDir(path) => {
                self.dirs.insert(path.clone());
            }
            NameOp::Rename { from, to } => {
                if let Some(inode) = self.files.remove(from) {
                    self.files.insert(to.clone(), inode);
                } else if self.dirs.contains(from) {
                    self.rename_dir(from, to);
                }
            }
            NameOp::Remove(path) => {
                self.files.remove(path);
            }
            NameOp::RemoveAll(path) => {
                self.files.retain(|file, _| !file.starts_with(path));
                self.dirs.retain(|dir| !dir.starts_with(path));
            }
        }
    }

    fn rename_dir(&mut self, from: &Path, to: &Path) {
        let moved = |path: &PathBuf| match path.strip_prefix(from) {
            Ok(rest) if rest.as_os_str().is_empty() => to.to_owned(),
            Ok(rest) => to.join(rest),
            Err(_) => path.clone(),
        };
        self.files = self.files.iter().map(|(path, inode)| (moved(path), *inode)).collect();
        self.dirs = self.dirs.iter().map(moved).collect();
    }

    fn dir_exists(&self, path: &Path) -> bool {
        path.as_os_str().is_empty() || path.parent().is_none() || self.dirs.contains(path)
    }
}

impl Inode {
    /// Copies a dirty block to the device; `torn` takes each sector only by chance.
    fn write_back(&mut self, block: usize, rng: Option<&mut Rng>) {
        let start = block * BLOCK_BYTES;
        let end = (start + BLOCK_BYTES).min(self.cached.len());
        if self.device.len() < end {
            self.device.resize(end, 0);
        }
        match rng {
            None => self.device[start..end].copy_from_slice(&self.cached[start..end]),
            Some(rng) => {
                for from in (start..end).step_by(SECTOR_BYTES) {
                    let to = (from + SECTOR_BYTES).min(end);
                    if rng.chance_ppm(500_000) {
                        self.device[from..to].copy_from_slice(&self.cached[from..to]);
                    }
                }
            }
        }
    }

    fn sync(&mut self) {
        for block in std::mem::take(&mut self.dirty) {
            self.write_back(block, None);
        }
        self.device.resize(self.cached.len(), 0);
    }

    /// Each dirty block on its own reaches the device, or does not, or is torn; so does the length.
    fn sync_by_chance(&mut self, rng: &mut Rng) {
        let old_len = self.device.len();
        for block in std::mem::take(&mut self.dirty) {
            match rng.below(4) {
                0 => {}
                1 => self.write_back(block, Some(rng)),
                _ => self.write_back(block, None),
            }
        }
        let len = if rng.chance_ppm(500_000) { self.cached.len() } else { old_len };
        self.device.resize(len, 0);
    }
}

impl Model {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            faults: Faults::default(),
            generation: 0,
            operations: 0,
            names: Names::default(),
            device_names: Names::default(),
            pending: Vec::new(),
            inodes: BTreeMap::new(),
            next_inode: 0,
        }
    }

    /// Counts a writing operation; true if the power fails during it.
    fn begin(&mut self) -> io::Result<bool> {
        if self.faults.powered_off {
            return Err(power_is_off());
        }
        self.operations += 1;
        Ok(self.faults.power_fails())
    }

    fn inode(&mut self, id: InodeId) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&id).ok_or_else(|| io::Error::other("simulated disk: no such inode"))
    }

    pub(super) fn open(&mut self, path: &Path, create: bool) -> io::Result<InodeId> {
        if self.faults.powered_off {
            return Err(power_is_off());
        }
        if let Some(inode) = self.names.files.get(path) {
            return Ok(*inode);
        }
        if !create {
            return Err(not_found(path));
        }
        let inode = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(inode, Inode::default());
        self.name_op(NameOp::Create(path.to_owned(), inode))?;
        Ok(inode)
    }

    pub(super) fn name_op(&mut self, op: NameOp) -> io::Result<()> {
        let power_fails = self.begin()?;
        self.check(&op)?;
        self.names.apply(&op);
        self.pending.push(op);
        if power_fails { Err(power_is_off()) } else { Ok(()) }
    }

    fn check(&self, op: &NameOp) -> io::Result<()> {
        let parent_exists = |path: &Path| match path.parent() {
            Some(parent) if !self.names.dir_exists(parent) => Err(not_found(parent)),
            _ => Ok(()),
        };
        match op {
            NameOp::Create(path, _) => parent_exists(path),
            NameOp::CreateDir(_) => Ok(()),
            NameOp::Rename { from, to } => {
                if !self.names.files.contains_key(from) && !self.names.dirs.contains(from) {
                    return Err(not_found(from));
                }
                parent_exists(to)
            }
            NameOp::Remove(path) if self.names.files.contains_key(path) => Ok(()),
            NameOp::RemoveAll(path) if self.names.dirs.contains(path) => Ok(()),
            NameOp::Remove(path) | NameOp::RemoveAll(path) => Err(not_found(path)),
        }
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let missing: Vec<_> = path.ancestors().filter(|dir| !self.names.dir_exists(dir)).map(Path::to_owned).collect();
        missing.into_iter().rev().try_for_each(|dir| self.name_op(NameOp::CreateDir(dir)))
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        if self.faults.powered_off {
            return Err(power_is_off());
        }
        if !self.names.dir_exists(path) {
            return Err(not_found(path));
        }
        let mut all: Vec<_> = self.names.files.keys().chain(&self.names.dirs).cloned().collect();
        all.retain(|entry| entry.parent() == Some(path));
        all.sort();
        Ok(all)
    }

    /// Commits every pending change of names: like a journaling file system, which commits them in order.
    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        if self.begin()? {
            return Err(power_is_off());
        }
        if !self.names.dir_exists(path) {
            return Err(not_found(path));
        }
        if self.faults.lying_sync {
            return Ok(());
        }
        if self.faults.sync_fails(&mut self.rng) {
            return Err(eio());
        }
        for op in self.pending.drain(..) {
            self.device_names.apply(&op);
        }
        Ok(())
    }

    pub(super) fn write(&mut self, id: InodeId, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let power_fails = self.begin()?;
        let fails = self.faults.write_fails(&mut self.rng);
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let mut left = if fails || power_fails { self.rng.below(total as u64 + 1) as usize } else { total };
        self.reserve(id, start + total)?;
        let writeback_ppm = self.faults.writeback_ppm;
        let mut rng = self.rng.clone();
        let inode = self.inode(id)?;
        let mut at = start;
        for slice in slices {
            let count = slice.len().min(left);
            inode.cached[at..at + count].copy_from_slice(&slice[..count]);
            at += count;
            left -= count;
        }
        if at > start {
            inode.dirty.extend(start / BLOCK_BYTES..=(at - 1) / BLOCK_BYTES);
        }
        if rng.chance_ppm(writeback_ppm) {
            let chosen: Vec<_> = inode.dirty.iter().copied().filter(|_| rng.chance_ppm(500_000)).collect();
            for block in chosen {
                inode.write_back(block, None);
            }
        }
        self.rng = rng;
        match (power_fails, fails) {
            (true, _) => Err(power_is_off()),
            (false, true) => Err(eio()),
            (false, false) => Ok(()),
        }
    }

    /// Extends a file to hold `len` bytes, if there is space.
    fn reserve(&mut self, id: InodeId, len: usize) -> io::Result<()> {
        let used: usize = self.inodes.values().map(|inode| inode.cached.len()).sum();
        let capacity = self.faults.capacity_bytes;
        let inode = self.inode(id)?;
        let old_len = inode.cached.len();
        if len <= old_len {
            return Ok(());
        }
        if (used + len - old_len) as u64 > capacity {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "simulated disk: no space left"));
        }
        inode.cached.resize(len, 0);
        if inode.device.len() > old_len {
            // Cut and extended again without a sync: the device still holds the old bytes where zeros belong.
            inode.dirty.extend(old_len / BLOCK_BYTES..=(len - 1) / BLOCK_BYTES);
        }
        Ok(())
    }

    pub(super) fn read(&mut self, id: InodeId, buf: &mut [u8], offset: u64, uncached: bool) -> io::Result<()> {
        if self.faults.powered_off {
            return Err(power_is_off());
        }
        let inode = self.inode(id)?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.saturating_add(buf.len());
        let Some(cached) = inode.cached.get(start..end) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        buf.copy_from_slice(cached);
        if uncached {
            // A dirty block is still in the cache; a clean one comes from the device, which may hold something else.
            let mut at = start;
            while at < end {
                let block_end = ((at / BLOCK_BYTES + 1) * BLOCK_BYTES).min(end);
                if !inode.dirty.contains(&(at / BLOCK_BYTES)) {
                    let device = inode.device.get(at..block_end.min(inode.device.len())).unwrap_or(&[]);
                    buf[at - start..block_end - start].fill(0);
                    buf[at - start..at - start + device.len()].copy_from_slice(device);
                }
                at = block_end;
            }
        }
        Ok(())
    }

    pub(super) fn sync(&mut self, id: InodeId) -> io::Result<()> {
        let power_fails = self.begin()?;
        if self.faults.lying_sync {
            return Ok(());
        }
        let fails = self.faults.sync_fails(&mut self.rng);
        let mut rng = self.rng.clone();
        let inode = self.inode(id)?;
        if fails || power_fails {
            inode.sync_by_chance(&mut rng);
        } else {
            inode.sync();
        }
        self.rng = rng;
        match (power_fails, fails) {
            (true, _) => Err(power_is_off()),
            (false, true) => Err(eio()),
            (false, false) => Ok(()),
        }
    }

    pub(super) fn len(&mut self, id: InodeId) -> io::Result<u64> {
        Ok(self.inode(id)?.cached.len() as u64)
    }

    pub(super) fn set_len(&mut self, id: InodeId, len: u64) -> io::Result<()> {
        let power_fails = self.begin()?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        self.reserve(id, len)?;
        let inode = self.inode(id)?;
        inode.cached.truncate(len);
        inode.dirty.retain(|block| block * BLOCK_BYTES < len);
        if power_fails { Err(power_is_off()) } else { Ok(()) }
    }

    pub(super) fn power_cut(&mut self) {
        self.kill();
        let kept = self.rng.below(self.pending.len() as u64 + 1) as usize;
        for op in self.pending.drain(..).take(kept) {
            self.device_names.apply(&op);
        }
        self.names = self.device_names.clone();
        let referenced: BTreeSet<_> = self.names.files.values().copied().collect();
        self.inodes.retain(|id, _| referenced.contains(id));
        for inode in self.inodes.values_mut() {
            inode.sync_by_chance(&mut self.rng);
            inode.cached.clone_from(&inode.device);
        }
    }

    pub(super) fn kill(&mut self) {
        self.generation += 1;
        self.faults.clear_plan();
    }

    pub(super) fn flip_bits(&mut self, path: &Path, range: Range<u64>, count: usize) -> io::Result<()> {
        let id = *self.names.files.get(path).ok_or_else(|| not_found(path))?;
        let picks: Vec<_> =
            (0..count).map(|_| (range.start + self.rng.below(range.end - range.start), 1 << self.rng.below(8))).collect();
        let inode = self.inode(id)?;
        for (at, bit) in picks {
            let at = at as usize;
            let byte: u8 = bit;
            let cached = inode.cached.get_mut(at).ok_or(io::ErrorKind::UnexpectedEof)?;
            *cached ^= byte;
            if let Some(device) = inode.device.get_mut(at) {
                *device ^= byte;
            }
        }
        Ok(())
    }
}
