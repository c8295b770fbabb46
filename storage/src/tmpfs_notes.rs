//! Notes in a file on tmpfs: a kill of the process leaves it, and no end of the operating system does.
//! Invariant: a file is read only if it is this user's own, and of this boot and mount; otherwise a new one takes its place.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, OFlags, StatxFlags};

use crate::log_dir::Identity;
use crate::notes::{HEADER, MAX_SLOTS, NotesOwner, SLOT};
use crate::slot_notes::{NotesFile, SlotNotes, initial};

/// `f_type` of tmpfs.
const TMPFS: u64 = 0x0102_1994;
/// `STATX_MNT_ID_UNIQUE`, since Linux 6.8: an id that no other mount of this boot gets. Older kernels leave it out of the answer, and give
/// the plain id to the next mount when this one is gone.
const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// A file on tmpfs.
#[derive(Debug)]
pub struct TmpfsFile {
    file: File,
    path: PathBuf,
}

/// Notes in `<folder>/madang-<directory id>`.
pub type TmpfsNotes = SlotNotes<TmpfsFile>;

impl NotesFile for TmpfsFile {
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, position)
    }

    fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

impl TmpfsNotes {
    /// Opens the notes of the log directory at `data`, which says of itself who it is, or begins new ones. None if there can be none: `folder` is not on tmpfs, the kernel
    /// cannot name a mount for good, or the boot is not known.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn open(folder: &Path, data: &Path, who: &Identity) -> io::Result<Option<Self>> {
        let (directory_id, boot_id) = (who.directory_id, who.boot_id.as_str());
        let on_tmpfs =
            rustix::fs::statfs(folder).is_ok_and(|found| u64::try_from(found.f_type).is_ok_and(|kind| kind == TMPFS));
        let Some(mount) = mount_of(data)?.filter(|_| on_tmpfs && !boot_id.is_empty()) else { return Ok(None) };
        let owner = NotesOwner { directory_id, generation: who.notes_generation, boot_id: boot_id.to_owned(), mount };
        let path = folder.join(format!("madang-{directory_id}"));
        let found = match open_own(&path) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "notes cannot be read; beginning new ones");
                None
            }
        };
        let found = found.map(|(file, bytes)| (TmpfsFile { file, path: path.clone() }, bytes));
        // What an older process noted may not outlive a process that notes nothing.
        let begin = |owner: &NotesOwner| begin(&path, owner).inspect_err(|_| drop(fs::remove_file(&path)));
        Self::take_over(found, owner, begin).map(Some)
    }
}

/// What names the mount of `data` among all of this boot; none if the kernel cannot tell.
fn mount_of(data: &Path) -> io::Result<Option<String>> {
    let found = rustix::fs::statx(CWD, data, AtFlags::empty(), MNT_ID_UNIQUE)?;
    let unique = found.stx_mask & MNT_ID_UNIQUE.bits() != 0;
    Ok(unique.then(|| format!("{}/{}:{}", found.stx_mnt_id, found.stx_dev_major, found.stx_dev_minor)))
}

/// The folder is everybody's: what another user has put there says nothing.
fn open_own(path: &Path) -> io::Result<(File, Vec<u8>)> {
    let no_follow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).write(true).custom_flags(no_follow).open(path)?;
    let found = file.metadata()?;
    let own = found.is_file() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0;
    if !own || found.nlink() != 1 || found.len() > (HEADER + MAX_SLOTS * SLOT) as u64 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a file of this user alone"));
    }
    let mut bytes = vec![0; usize::try_from(found.len()).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok((file, bytes))
}

fn begin(path: &Path, owner: &NotesOwner) -> io::Result<TmpfsFile> {
    let temporary = path.with_extension("tmp");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all_at(&initial(owner), 0)?;
    fs::rename(&temporary, path)?;
    Ok(TmpfsFile { file, path: path.to_owned() })
}
