//! What a node does whose storage has failed: it waits until its disk takes writes again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// What has to fit on the disk and come to rest there: with less it would only fail again.
const PROBE_BYTES: usize = 16 << 20;
const PROBE_PIECE_BYTES: usize = 1 << 20;
/// Between two attempts.
const AGAIN: Duration = Duration::from_secs(1);

/// Returns when `dir` takes writes, or when `stop` is cancelled.
pub async fn until_writable(dir: &Path, stop: &CancellationToken) {
    let mut said = String::new();
    loop {
        let path = dir.join("probe.tmp");
        let probed = tokio::task::spawn_blocking(move || probe(path)).await.map_err(io::Error::other);
        let Err(error) = probed.and_then(|probed| probed) else { return };
        if said != error.to_string() {
            said = error.to_string();
            tracing::error!(%error, dir = %dir.display(), "the disk takes no writes: waiting until it does");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

/// Writes a file and removes it.
fn probe(path: PathBuf) -> io::Result<()> {
    let written = write(&path);
    let removed = fs::remove_file(&path);
    written.and(removed)
}

fn write(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    // Not zeros: a file system may store those as nothing.
    let piece = vec![0xA5; PROBE_PIECE_BYTES];
    for _ in 0..PROBE_BYTES / PROBE_PIECE_BYTES {
        file.write_all(&piece)?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[tokio::test]
    async fn waits_until_there_is_a_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (missing, stop) = (dir.path().join("disk"), CancellationToken::new());
        let waiting = tokio::spawn({
            let (missing, stop) = (missing.clone(), stop.clone());
            async move { until_writable(&missing, &stop).await }
        });
        until_writable(dir.path(), &stop).await;
        assert!(!waiting.is_finished());
        fs::create_dir(&missing).unwrap();
        waiting.await.unwrap();
        assert_eq!(fs::read_dir(&missing).unwrap().count(), 0);
        stop.cancel();
        until_writable(&dir.path().join("none"), &stop).await;
    }
}
