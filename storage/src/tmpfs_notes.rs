//! Notes in a file on tmpfs: a kill of the process leaves it, and no end of the operating system does.
//! Invariant: a file is read only if it is this user's own, and of this boot and mount; otherwise a new one takes its place.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use madang_protocol::types::{TopicPartition, Uuid};
use rustix::fs::{AtFlags, CWD, OFlags, StatxFlags};

use crate::notes::{HEADER, MAX_SLOTS, Note, Notes, NotesOwner, SLOT, header, parse, slot};

/// `f_type` of tmpfs.
const TMPFS: u64 = 0x0102_1994;
/// `STATX_MNT_ID_UNIQUE`, since Linux 6.8: an id that no other mount of this boot gets. Older kernels leave it out of the answer, and give
/// the plain id to the next mount when this one is gone.
const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// Notes in `<folder>/madang-<directory id>`.
#[derive(Debug)]
pub struct TmpfsNotes {
    file: File,
    path: PathBuf,
    owner: NotesOwner,
    believed: bool,
    discarded: AtomicBool,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    noted: BTreeMap<TopicPartition, (usize, Note)>,
    free: Vec<usize>,
    count: usize,
}

impl TmpfsNotes {
    /// Opens the notes of the log directory at `data`, or begins new ones. None if there can be none: `folder` is not on tmpfs, the kernel
    /// cannot name a mount for good, or the boot is not known.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn open(folder: &Path, data: &Path, directory_id: Uuid, boot_id: &str) -> io::Result<Option<Self>> {
        let on_tmpfs =
            rustix::fs::statfs(folder).is_ok_and(|found| u64::try_from(found.f_type).is_ok_and(|kind| kind == TMPFS));
        let Some(mount) = mount_of(data)?.filter(|_| on_tmpfs && !boot_id.is_empty()) else { return Ok(None) };
        let owner = NotesOwner { directory_id, boot_id: boot_id.to_owned(), mount };
        let path = folder.join(format!("madang-{directory_id}"));
        match open_own(&path) {
            Ok((file, bytes)) => match parse(&bytes, &owner) {
                Ok(noted) => return Ok(Some(Self::with(file, path, owner, noted, (bytes.len() - HEADER) / SLOT))),
                Err(why) => tracing::info!(path = %path.display(), %why, "notes are not believed; beginning new ones"),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "notes cannot be read; beginning new ones"),
        }
        let file = begin(&path, &owner)?;
        Ok(Some(Self { believed: false, ..Self::with(file, path, owner, BTreeMap::new(), 0) }))
    }

    fn with(
        file: File,
        path: PathBuf,
        owner: NotesOwner,
        noted: BTreeMap<TopicPartition, (usize, Note)>,
        count: usize,
    ) -> Self {
        let mut free: Vec<usize> = (0..count).collect();
        let taken: std::collections::BTreeSet<usize> = noted.values().map(|(number, _)| *number).collect();
        free.retain(|number| !taken.contains(number));
        let slots = Mutex::new(Slots { noted, free, count });
        Self { file, path, owner, believed: true, discarded: AtomicBool::new(false), slots }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
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

fn begin(path: &Path, owner: &NotesOwner) -> io::Result<File> {
    let temporary = path.with_extension("tmp");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all_at(&header(owner, false), 0)?;
    fs::rename(&temporary, path)?;
    Ok(file)
}

impl Slots {
    /// The slot of a log; one that has none gets one.
    fn take(&mut self, partition: TopicPartition, note: Note) -> io::Result<usize> {
        if let Some((number, known)) = self.noted.get_mut(&partition) {
            *known = note;
            return Ok(*number);
        }
        let number = match self.free.pop() {
            Some(number) => number,
            None if self.count < MAX_SLOTS => self.count,
            None => return Err(io::ErrorKind::StorageFull.into()),
        };
        self.count = self.count.max(number + 1);
        self.noted.insert(partition, (number, note));
        Ok(number)
    }
}

const fn position(number: usize) -> u64 {
    (HEADER + number * SLOT) as u64
}

impl Notes for TmpfsNotes {
    fn are_believed(&self) -> bool {
        self.believed && !self.discarded.load(Ordering::Acquire)
    }

    fn load(&self, partition: TopicPartition) -> Option<Note> {
        self.slots().noted.get(&partition).map(|(_, note)| *note).filter(|_| self.are_believed())
    }

    fn store(&self, partition: TopicPartition, note: Note) -> io::Result<()> {
        if self.discarded.load(Ordering::Acquire) {
            return Ok(());
        }
        let number = self.slots().take(partition, note);
        number.and_then(|number| self.file.write_all_at(&slot(partition, note), position(number))).inspect_err(|error| {
            tracing::warn!(path = %self.path.display(), %error, "not noted; the next start after a kill reads more");
            self.discard();
        })
    }

    fn remove(&self, partition: TopicPartition) {
        let mut slots = self.slots();
        if let Some((number, _)) = slots.noted.remove(&partition) {
            slots.free.push(number);
            if !self.discarded.load(Ordering::Acquire) && self.file.write_all_at(&[0; SLOT], position(number)).is_err()
            {
                self.discard();
            }
        }
    }

    fn complete(&self) -> io::Result<()> {
        if self.discarded.load(Ordering::Acquire) {
            return Ok(());
        }
        self.file.write_all_at(&header(&self.owner, true), 0)
    }

    fn discard(&self) {
        if self.discarded.swap(true, Ordering::AcqRel) {
            return;
        }
        // Either alone is enough.
        let voided = self.file.write_all_at(&[0; 64], 0);
        let removed = fs::remove_file(&self.path);
        if let (Err(error), Err(_)) = (voided, removed) {
            tracing::error!(path = %self.path.display(), %error, "notes that may not be believed stay");
        }
    }
}
