//! Disks of nodes that can lose their power: what was written and not synced is gone then.

use std::io;
use std::path::{Path, PathBuf};

use super::{Cluster, End};
use crate::mounts::Mount;

/// Far more than a run writes; holes take no room.
const DISK_MIB: u64 = 4096;

/// A node's disk: an ext4 in a file.
#[derive(Debug)]
pub(super) struct PowerDisk {
    image: PathBuf,
    point: PathBuf,
    mount: Option<Mount>,
}

impl PowerDisk {
    /// A new one for node `id`, below `dir`.
    ///
    /// # Errors
    /// What this machine lacks or refuses.
    pub fn make(dir: &Path, id: u64) -> Result<Self, String> {
        let (image, point) = (dir.join(format!("disk-{id}.image")), dir.join(format!("disk-{id}")));
        let mount = Mount::new_ext4(&image, DISK_MIB, &point)?;
        Ok(Self { image, point, mount: Some(mount) })
    }

    /// Where data may lie on it.
    pub fn data_dir(&self) -> PathBuf {
        self.point.join("data")
    }

    fn picture(&self) -> PathBuf {
        self.image.with_extension("picture")
    }

    /// Keeps what a power cut at this moment would leave. The node must hold still.
    fn take_picture(&self) -> Result<(), String> {
        let mount = self.mount.as_ref().ok_or("the disk is not mounted")?;
        mount.cut(&self.image, &self.picture())
    }

    /// Puts the picture in the place of what is there. The node must be gone.
    fn lose_power(&mut self) -> Result<(), String> {
        self.mount = None;
        std::fs::rename(self.picture(), &self.image).map_err(|error| format!("{}: {error}", self.image.display()))?;
        self.mount = Some(Mount::ext4(&self.image, &self.point)?);
        Ok(())
    }
}

/// Whether disks below `dir` can lose their power.
///
/// # Errors
/// What this machine lacks or refuses.
pub fn can_cut_power(dir: &Path) -> Result<(), String> {
    let disk = PowerDisk::make(dir, 0)?;
    let (image, point) = (disk.image.clone(), disk.point.clone());
    drop(disk);
    let removed = std::fs::remove_file(image).and_then(|()| std::fs::remove_dir(point));
    removed.map_err(|error| error.to_string())
}

impl Cluster {
    /// Cuts the power of `nodes` at one moment. They are down then.
    ///
    /// # Errors
    /// If one does not run, or the system refuses.
    pub async fn cut_power(&mut self, nodes: &[u64]) -> io::Result<()> {
        // They hold still between any two instructions: the pictures show one moment.
        for node in self.nodes.iter().filter(|node| nodes.contains(&node.id())) {
            node.pause()?;
        }
        for node in self.nodes.iter().filter(|node| nodes.contains(&node.id())) {
            let disk = node.disk().ok_or_else(|| io::Error::other("the node's disk cannot lose its power"))?;
            disk.take_picture().map_err(io::Error::other)?;
        }
        for node in self.nodes.iter_mut().filter(|node| nodes.contains(&node.id())) {
            node.kill()?;
            node.reap().await?;
            if let Some(disk) = node.disk_mut() {
                disk.lose_power().map_err(io::Error::other)?;
            }
        }
        Ok(())
    }

    /// Cuts directions of the network.
    ///
    /// # Errors
    /// If there is no network of the run's own, or the system refuses.
    pub fn cut(&self, ways: &[(End, End)]) -> io::Result<()> {
        let lan = self.options.network.as_ref().ok_or_else(|| io::Error::other("the nodes have no network of their own"))?;
        ways.iter().try_for_each(|(from, to)| lan.cut(*from, *to)).map_err(io::Error::other)
    }

    /// Mends the network.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn mend(&self) -> io::Result<()> {
        self.options.network.as_ref().map_or(Ok(()), |lan| lan.mend().map_err(io::Error::other))
    }
}
