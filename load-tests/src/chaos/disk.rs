//! A node's disk: a file system in a file, mounted so that nothing is written back by itself. Needs root.
//! Invariant: it is unmounted when it is dropped, which frees its loop device too.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::cluster::poll;

/// How long it may be in use after the last process was killed.
const UNMOUNT: Duration = Duration::from_secs(30);
/// The file system commits nothing by itself for 300 s, and turns read-only when it meets an error.
const OPTIONS: &str = "loop,commit=300,errors=remount-ro";

/// A mounted file system.
#[derive(Debug)]
pub(crate) struct Disk {
    image: PathBuf,
    at: PathBuf,
    mounted: bool,
    frozen: bool,
}

fn tool(name: &str, arguments: &[&Path]) -> Result<(), String> {
    let ran = Command::new(name).args(arguments).output().map_err(|error| format!("{name}: {error}"))?;
    let said = String::from_utf8_lossy(&ran.stderr);
    if ran.status.success() { Ok(()) } else { Err(format!("{name} {arguments:?}: {}: {}", ran.status, said.trim())) }
}

impl Disk {
    /// Makes a file system of so many GiB and mounts it; the file is sparse.
    ///
    /// # Errors
    /// A text for a person.
    pub(crate) fn new(image: PathBuf, at: PathBuf, gib: u8) -> Result<Self, String> {
        File::create(&image)
            .and_then(|file| file.set_len(u64::from(gib) << 30))
            .map_err(|error| format!("{image:?}: {error}"))?;
        tool("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), &image])?;
        fs::create_dir_all(&at).map_err(|error| format!("{at:?}: {error}"))?;
        let mut disk = Self { image, at, mounted: false, frozen: false };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&mut self) -> Result<(), String> {
        tool("mount", &["-o".as_ref(), OPTIONS.as_ref(), &self.image, &self.at])?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), String> {
        // The last threads of a killed process may still be in a sync.
        let mut outcome = Ok(());
        let gone = poll(UNMOUNT, || {
            outcome = tool("umount", &[&self.at]);
            outcome.is_ok()
        });
        self.mounted = !gone;
        outcome?;
        Ok(())
    }

    /// What the device holds now, without what was not synced, takes the place of what the system has in memory. No process may use it.
    pub(crate) fn cut_power(&mut self) -> Result<(), String> {
        let held = self.image.with_extension("cut");
        tool("cp", &["--sparse=always".as_ref(), &self.image, &held])?;
        self.unmount()?;
        fs::rename(&held, &self.image).map_err(|error| format!("{held:?}: {error}"))?;
        self.mount()
    }

    /// Writes hang until [`Disk::thaw`].
    pub(crate) fn freeze(&mut self) -> Result<(), String> {
        tool("fsfreeze", &["-f".as_ref(), &self.at])?;
        self.frozen = true;
        Ok(())
    }

    pub(crate) fn thaw(&mut self) -> Result<(), String> {
        tool("fsfreeze", &["-u".as_ref(), &self.at])?;
        self.frozen = false;
        Ok(())
    }

    /// Takes all the room that is left.
    pub(crate) fn fill(&self) -> Result<(), String> {
        let path = self.filler();
        let failed = |error: String| format!("{}: {error}", path.display());
        let file = File::create(&path).map_err(|error| failed(error.to_string()))?;
        let (mut end, mut piece) = (0, 64 << 20);
        while piece >= 4096 {
            match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), end, piece) {
                Ok(()) => end += piece,
                Err(rustix::io::Errno::NOSPC) => piece /= 2,
                Err(error) => return Err(failed(error.to_string())),
            }
        }
        Ok(())
    }

    /// Gives it back.
    pub(crate) fn empty(&self) -> Result<(), String> {
        fs::remove_file(self.filler()).map_err(|error| format!("{}: {error}", self.filler().display()))
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }

    /// Makes the kernel treat it as damaged: every write and sync fails from now on.
    pub(crate) fn damage(&self) -> Result<(), String> {
        let found = Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(&self.at).output();
        let found = found.map_err(|error| format!("findmnt: {error}"))?.stdout;
        let device = String::from_utf8_lossy(&found).trim().trim_start_matches("/dev/").to_owned();
        let trigger = format!("/sys/fs/ext4/{device}/trigger_fs_error");
        fs::write(&trigger, "planted").map_err(|error| format!("{trigger}: {error}"))
    }

    /// Mounts it anew once it was damaged. No process may use it.
    pub(crate) fn mend(&mut self) -> Result<(), String> {
        self.unmount()?;
        // It says by its exit code that it mended something.
        drop(Command::new("fsck.ext4").arg("-fy").arg(&self.image).output());
        self.mount()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.frozen {
            drop(self.thaw());
        }
        if self.mounted
            && let Err(why) = self.unmount()
        {
            eprintln!("chaos: {why}");
        }
    }
}
