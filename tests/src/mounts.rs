//! File systems of a test's own: an ext4 on a file, whose power can be cut, and a small tmpfs, which can fill up.
//! Both need root and Linux; where they are missing, a test says so and is skipped.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A file system that is mounted until it is dropped.
#[derive(Debug)]
pub struct Mount {
    point: PathBuf,
    /// The block device on which it lies, if it has one of its own.
    device: Option<PathBuf>,
}

/// Says, past the capture of test output, that a test did not run.
pub fn skip(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// Runs a command.
///
/// # Errors
/// What it said, if it failed or is missing.
fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(format!("{program}: {}", text(&output.stderr))) }
}

impl Mount {
    /// A new tmpfs of `mib` MiB at `point`.
    ///
    /// # Errors
    /// If this system does not allow it.
    pub fn tmpfs(point: &Path, mib: u64) -> Result<Self, String> {
        fs::create_dir_all(point).map_err(|error| error.to_string())?;
        let (size, shown) = (format!("size={mib}m"), point.to_string_lossy());
        run("mount", &["-t", "tmpfs", "-o", &size, "flotilla-test", &shown])?;
        Ok(Self { point: point.to_owned(), device: None })
    }

    /// Gives a tmpfs another size.
    ///
    /// # Panics
    /// If that fails.
    pub fn resize(&self, mib: u64) {
        run("mount", &["-o", &format!("remount,size={mib}m"), &self.point.to_string_lossy()]).unwrap();
    }

    /// Makes an ext4 of `mib` MiB in the file `image`, and mounts it at `point`.
    ///
    /// # Errors
    /// If this system does not allow it.
    pub fn new_ext4(image: &Path, mib: u64, point: &Path) -> Result<Self, String> {
        fs::File::create(image).and_then(|file| file.set_len(mib << 20)).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q", "-F", &image.to_string_lossy()])?;
        Self::ext4(image, point)
    }

    /// Mounts the ext4 in the file `image` at `point`. Its device writes past the page cache, so that the file holds what
    /// was written to the device and not what only the file system knows; and the file system writes when it is asked to.
    ///
    /// # Errors
    /// If this system does not allow it.
    pub fn ext4(image: &Path, point: &Path) -> Result<Self, String> {
        fs::create_dir_all(point).map_err(|error| error.to_string())?;
        let device = PathBuf::from(run("losetup", &["--direct-io=on", "-f", "--show", &image.to_string_lossy()])?);
        let mount = Self { point: point.to_owned(), device: Some(device) };
        run("mount", &["-o", "commit=300", &mount.device().to_string_lossy(), &point.to_string_lossy()])?;
        Ok(mount)
    }

    fn device(&self) -> &Path {
        self.device.as_deref().expect("a tmpfs has no device")
    }

    /// What the block layer counts of this device.
    fn counter(&self, name: &str) -> String {
        let device = self.device().file_name().unwrap();
        fs::read_to_string(Path::new("/sys/block").join(device).join(name)).unwrap()
    }

    /// Whether the device writes nothing at the moment, and how much it has written.
    fn writes(&self) -> (bool, String) {
        let idle = self.counter("inflight").split_whitespace().all(|count| count == "0");
        let stat = self.counter("stat");
        (idle, stat.split_whitespace().skip(4).take(3).collect::<Vec<_>>().join(" "))
    }

    /// Copies `image`, on which this file system lies, as it is at one moment: as a power cut leaves it. Whoever writes
    /// must hold still meanwhile; what the kernel writes by itself makes it try again.
    ///
    /// # Panics
    /// If the device does not come to rest, or the file cannot be copied.
    pub fn cut(&self, image: &Path, copy: &Path) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let (idle, before) = self.writes();
            if idle {
                let _ = fs::remove_file(copy);
                crate::files::copy(image, copy);
                if self.writes() == (true, before) {
                    return;
                }
            }
            assert!(Instant::now() < deadline, "the device is never at rest");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Each step may find that a failed test did not come that far.
        if let Err(error) = run("umount", &[&self.point.to_string_lossy()]) {
            eprintln!("{error}");
        }
        if let Some(device) = &self.device {
            let _ = run("losetup", &["-d", &device.to_string_lossy()]);
        }
    }
}
