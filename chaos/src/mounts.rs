//! File systems of a run's own: an ext4 on a file, whose power can be cut, and a small tmpfs, which can fill up.
//! Both need root and Linux; where they are missing, whoever asks is told so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A device comes to rest by then, or it never does.
const REST_TIMEOUT: Duration = Duration::from_secs(60);

/// A file system that is mounted until it is dropped.
#[derive(Debug)]
pub struct Mount {
    point: PathBuf,
    /// The block device on which it lies, if it has one of its own.
    device: Option<PathBuf>,
}

/// Runs a command; what it said, if it failed or is missing.
fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(format!("{program}: {}", text(&output.stderr))) }
}

fn named(path: &Path) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}

impl Mount {
    /// A new tmpfs of `mib` MiB at `point`.
    ///
    /// # Errors
    /// If this system does not allow it.
    pub fn tmpfs(point: &Path, mib: u64) -> Result<Self, String> {
        fs::create_dir_all(point).map_err(named(point))?;
        let (size, shown) = (format!("size={mib}m"), point.to_string_lossy());
        run("mount", &["-t", "tmpfs", "-o", &size, "flotilla-test", &shown])?;
        Ok(Self { point: point.to_owned(), device: None })
    }

    /// Gives a tmpfs another size.
    ///
    /// # Errors
    /// If that fails.
    pub fn resize(&self, mib: u64) -> Result<(), String> {
        run("mount", &["-o", &format!("remount,size={mib}m"), &self.point.to_string_lossy()]).map(drop)
    }

    /// Makes an ext4 of `mib` MiB in the file `image`, and mounts it at `point`.
    ///
    /// # Errors
    /// If this system does not allow it.
    pub fn new_ext4(image: &Path, mib: u64, point: &Path) -> Result<Self, String> {
        fs::File::create(image).and_then(|file| file.set_len(mib << 20)).map_err(named(image))?;
        run("mkfs.ext4", &["-q", "-F", &image.to_string_lossy()])?;
        Self::ext4(image, point)
    }

    /// Mounts the ext4 in the file `image` at `point`. Its device writes past the page cache, so that the file holds what
    /// was written to the device and not what only the file system knows; and the file system writes when it is asked to.
    ///
    /// # Errors
    /// If this system does not allow it.
    pub fn ext4(image: &Path, point: &Path) -> Result<Self, String> {
        fs::create_dir_all(point).map_err(named(point))?;
        let device = run("losetup", &["--direct-io=on", "-f", "--show", &image.to_string_lossy()])?;
        let mount = Self { point: point.to_owned(), device: Some(device.clone().into()) };
        run("mount", &["-o", "commit=300", &device, &point.to_string_lossy()])?;
        Ok(mount)
    }

    /// Whether the device writes nothing at the moment, and how much it has written.
    fn writes(&self) -> Result<(bool, String), String> {
        let name = self.device.as_deref().and_then(Path::file_name).ok_or("a tmpfs has no device")?;
        let counter = |counter: &str| {
            let path = Path::new("/sys/block").join(name).join(counter);
            fs::read_to_string(&path).map_err(named(&path))
        };
        let idle = counter("inflight")?.split_whitespace().all(|count| count == "0");
        Ok((idle, counter("stat")?.split_whitespace().skip(4).take(3).collect::<Vec<_>>().join(" ")))
    }

    /// Copies `image`, on which this file system lies, as it is at one moment: as a power cut leaves it. Whoever writes
    /// must hold still meanwhile; what the kernel writes by itself makes it try again.
    ///
    /// # Errors
    /// If the device does not come to rest, or the file cannot be copied.
    pub fn cut(&self, image: &Path, copy: &Path) -> Result<(), String> {
        let deadline = Instant::now() + REST_TIMEOUT;
        loop {
            let (idle, before) = self.writes()?;
            if idle {
                run("cp", &["--sparse=always", &image.to_string_lossy(), &copy.to_string_lossy()])?;
                if self.writes()? == (true, before) {
                    return Ok(());
                }
            }
            if Instant::now() >= deadline {
                return Err(format!("the device of {} is never at rest", self.point.display()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Each step may find that what came before it failed. Who was killed a moment ago may still have files open.
        let point = self.point.to_string_lossy();
        let unmounted = run("umount", &[&point]).or_else(|_| run("umount", &["--lazy", &point]));
        if let Err(error) = unmounted {
            eprintln!("{error}");
        }
        if let Some(device) = &self.device {
            let _ = run("losetup", &["-d", &device.to_string_lossy()]);
        }
    }
}
