//! The metadata log on disk: Raft's entries, votes and snapshots in preallocated, zero-filled files.
//! Invariant: bytes are written before they are synced and answered after; damage below a synced position refuses the start and
//! changes nothing.
//!
//! `<generation>.snapshot` holds a dump of the metadata, `<generation>.log` what came after it; the highest generation counts and its
//! log is renamed into place last. A log is frames, little endian, each from a multiple of 8 bytes on:
//! `u32 length` of what follows the checksum, `u32 crc32c` of it, `u64 position` of the frame, `u64 synced` position known to be on the
//! device, `u8 kind`, body. A length of 0 ends the log.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use madang_storage::{Disk, DiskFile, OpenMode, read_small, replace_file_durably};
use raft::eraftpb::{Entry, EntryType, HardState};
use thiserror::Error;

use super::membership::{self, Membership};

/// Bytes of a frame before its body.
const HEADER: usize = 25;
/// Bytes of length and checksum, which the checksum does not cover.
const PREFIX: usize = 8;
/// Bytes of an entry before its data.
const ENTRY_HEADER: usize = 17;
/// Bytes of a new log.
const INITIAL_CAPACITY: u64 = 1 << 20;
/// Longest file that is read.
const MAX_FILE: u64 = 1 << 30;
const SNAPSHOT_MAGIC: &[u8; 8] = b"MDNGSNP2";
/// Of snapshots that name voters and no other members.
const VOTERS_MAGIC: &[u8; 8] = b"MDNGSNP1";

const KIND_ENTRY: u8 = 1;
const KIND_HARD_STATE: u8 = 2;

/// Why the metadata log cannot be opened or written.
#[derive(Debug, Error)]
pub enum RaftLogError {
    /// The disk failed.
    #[error("metadata log: {0}")]
    Io(#[from] io::Error),
    /// A file is damaged where it was known to be safe. Nothing was changed.
    #[error("metadata log {file} is damaged at byte {position}: {why}; restore it, or start this node anew")]
    Damaged {
        /// Name of the file.
        file: String,
        /// Where.
        position: u64,
        /// What is wrong.
        why: &'static str,
    },
}

/// Where a snapshot stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// Index of the last entry that it contains.
    pub index: u64,
    /// Term of that entry.
    pub term: u64,
    /// The members of the quorum at that entry.
    pub members: Membership,
}

/// A snapshot: where it stands and the records that build it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// Where it stands.
    pub meta: SnapshotMeta,
    /// Envelopes of metadata records.
    pub records: Vec<u8>,
}

/// What a log held when it was opened.
#[derive(Debug, Default, PartialEq)]
pub struct Loaded {
    /// The snapshot it starts from.
    pub snapshot: StoredSnapshot,
    /// The last vote and term.
    pub hard_state: HardState,
    /// The entries after the snapshot, without gaps.
    pub entries: Vec<Entry>,
}

/// The open log of the highest generation.
#[derive(Debug)]
pub struct RaftLog {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    generation: u64,
    file: Arc<dyn DiskFile>,
    position: u64,
    synced: u64,
    capacity: u64,
}

fn log_name(generation: u64) -> String {
    format!("{generation:020}.log")
}

fn snapshot_name(generation: u64) -> String {
    format!("{generation:020}.snapshot")
}

impl RaftLog {
    /// Opens the log in `directory`, or starts one from `first`.
    ///
    /// # Errors
    /// The disk's, and [`RaftLogError::Damaged`]; nothing is deleted then.
    pub fn open(disk: Arc<dyn Disk>, directory: &Path, first: &StoredSnapshot) -> Result<(Self, Loaded), RaftLogError> {
        let missing: Vec<&Path> = directory.ancestors().take_while(|path| !disk.exists(path).unwrap_or(true)).collect();
        disk.create_dir(directory)?;
        let names = disk.list(directory)?;
        let generations = names.iter().filter_map(|name| name.strip_suffix(".log")?.parse::<u64>().ok());
        let Some(generation) = generations.max() else {
            if names.iter().any(|name| name.ends_with(".snapshot") && *name != snapshot_name(0)) {
                return Err(damaged(&log_name(0), 0, "snapshots without a log"));
            }
            // The names of the directories have to outlive a power cut as well; an interrupted start may not have synced the last.
            for path in missing.into_iter().chain([directory]) {
                if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                    disk.sync_dir(parent)?;
                }
            }
            let log = Self::create(disk, directory, 0, first, &[], &HardState::default())?;
            return Ok((log, Loaded { snapshot: first.clone(), ..Loaded::default() }));
        };
        let (log, loaded) = Self::load(disk, directory, generation)?;
        log.remove_older(&names);
        Ok((log, loaded))
    }

    fn load(disk: Arc<dyn Disk>, directory: &Path, generation: u64) -> Result<(Self, Loaded), RaftLogError> {
        let name = snapshot_name(generation);
        let bytes = read_small(disk.as_ref(), &directory.join(&name), MAX_FILE)?;
        let snapshot = decode_snapshot(&bytes).ok_or_else(|| damaged(&name, 0, "checksum of the snapshot"))?;
        let name = log_name(generation);
        let path = directory.join(&name);
        let file = disk.open(&path, OpenMode::Existing)?;
        // After a sync that failed, cached pages may be nowhere else, and a later sync passes over them: what is read here counts as
        // committed, so it has to be what the device has.
        file.sync()?;
        file.drop_cache(0)?;
        let bytes = read_small(disk.as_ref(), &path, MAX_FILE)?;
        let scanned = scan(&bytes, snapshot.meta.index).map_err(|(position, why)| damaged(&name, position, why))?;
        let position = scanned.end;
        if bytes[position as usize..].iter().any(|byte| *byte != 0) {
            write_zeros(file.as_ref(), position, bytes.len() as u64)?;
        }
        // What a process crash left in the page cache counts from here on, so it has to be on the device.
        file.sync()?;
        let capacity = bytes.len() as u64;
        let log =
            Self { disk, directory: directory.to_owned(), generation, file, position, synced: position, capacity };
        Ok((log, Loaded { snapshot, hard_state: scanned.hard_state, entries: scanned.entries }))
    }

    fn create(
        disk: Arc<dyn Disk>,
        directory: &Path,
        generation: u64,
        snapshot: &StoredSnapshot,
        entries: &[Entry],
        hard_state: &HardState,
    ) -> Result<Self, RaftLogError> {
        replace_file_durably(disk.as_ref(), &directory.join(snapshot_name(generation)), &encode_snapshot(snapshot))?;
        let frames = encode_frames(0, 0, entries, Some(hard_state));
        let capacity = (frames.len() as u64 * 2)
            .max(INITIAL_CAPACITY)
            .max(snapshot.records.len() as u64 / 2)
            .next_multiple_of(4096);
        let mut bytes = frames;
        let position = bytes.len() as u64;
        bytes.resize(capacity as usize, 0);
        let path = directory.join(log_name(generation));
        replace_file_durably(disk.as_ref(), &path, &bytes)?;
        let file = disk.open(&path, OpenMode::Existing)?;
        Ok(Self { disk, directory: directory.to_owned(), generation, file, position, synced: position, capacity })
    }

    /// The file to sync, and the position up to which its sync makes the log safe.
    #[must_use]
    pub fn sync_target(&self) -> (Arc<dyn DiskFile>, u64, u64) {
        (Arc::clone(&self.file), self.generation, self.position)
    }

    /// A sync that was asked for at this generation and position has succeeded.
    pub fn synced(&mut self, generation: u64, position: u64) {
        if generation == self.generation {
            self.synced = self.synced.max(position);
        }
    }

    /// Whether `entries` and `hard_state` fit into the file; if not, the log has to be rolled first.
    #[must_use]
    pub fn fits(&self, entries: &[Entry], hard_state: Option<&HardState>) -> bool {
        self.position + frames_length(entries, hard_state) + 8 <= self.capacity
    }

    /// Writes entries, which may replace earlier ones from the first one's index on, and a vote. Not yet durable.
    ///
    /// # Errors
    /// The disk's. The log must not be used after one.
    pub fn append(&mut self, entries: &[Entry], hard_state: Option<&HardState>) -> Result<(), RaftLogError> {
        let bytes = encode_frames(self.position, self.synced, entries, hard_state);
        if bytes.is_empty() {
            return Ok(());
        }
        self.file.write_at(self.position, &[IoSlice::new(&bytes)])?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Starts the next generation from a snapshot: what the old one held after it comes along in `entries`. Durable on return.
    ///
    /// # Errors
    /// The disk's; the old generation is then still complete, but this log must not be used.
    pub fn roll(
        &mut self,
        snapshot: &StoredSnapshot,
        entries: &[Entry],
        hard_state: &HardState,
    ) -> Result<(), RaftLogError> {
        let next = self.generation + 1;
        *self = Self::create(Arc::clone(&self.disk), &self.directory, next, snapshot, entries, hard_state)?;
        self.remove_older(&self.disk.list(&self.directory)?);
        Ok(())
    }

    /// Removes what older generations and interrupted rolls left. A failure leaves files that the next start removes.
    fn remove_older(&self, names: &[String]) {
        for name in names {
            let stem = name.strip_suffix(".log").or_else(|| name.strip_suffix(".snapshot"));
            if stem.and_then(|stem| stem.parse::<u64>().ok()).is_some_and(|generation| generation < self.generation) {
                let _ = self.disk.remove_file(&self.directory.join(name));
            }
        }
    }
}

fn damaged(file: &str, position: u64, why: &'static str) -> RaftLogError {
    RaftLogError::Damaged { file: file.to_owned(), position, why }
}

fn write_zeros(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 16];
    let mut at = from;
    while at < to {
        let length = (to - at).min(zeros.len() as u64);
        file.write_at(at, &[IoSlice::new(&zeros[..length as usize])])?;
        at += length;
    }
    Ok(())
}

fn encode_snapshot(snapshot: &StoredSnapshot) -> Vec<u8> {
    let mut body = Vec::with_capacity(snapshot.records.len() + 64);
    body.extend_from_slice(&snapshot.meta.index.to_le_bytes());
    body.extend_from_slice(&snapshot.meta.term.to_le_bytes());
    snapshot.meta.members.encode(&mut body);
    body.extend_from_slice(&snapshot.records);
    let mut bytes = SNAPSHOT_MAGIC.to_vec();
    bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

fn decode_snapshot(bytes: &[u8]) -> Option<StoredSnapshot> {
    let (magic, bytes) = bytes.split_first_chunk::<8>()?;
    let length = u64_at(bytes, 0)?;
    let body = bytes.get(12..)?;
    if body.len() as u64 != length || crc32c::crc32c(body) != u32_at(bytes, 8)? {
        return None;
    }
    let (index, term, rest) = (u64_at(body, 0)?, u64_at(body, 8)?, body.get(16..)?);
    let (members, records) = match magic {
        SNAPSHOT_MAGIC => Membership::decode(rest)?,
        VOTERS_MAGIC => membership::list(rest).map(|(voters, records)| (Membership::of(voters), records))?,
        _ => return None,
    };
    Some(StoredSnapshot { meta: SnapshotMeta { index, term, members }, records: records.to_vec() })
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn frames_length(entries: &[Entry], hard_state: Option<&HardState>) -> u64 {
    let frame = |body: usize| (HEADER + body).next_multiple_of(8) as u64;
    entries.iter().map(|entry| frame(ENTRY_HEADER + entry.data.len())).sum::<u64>()
        + hard_state.map_or(0, |_| frame(24))
}

fn encode_frames(position: u64, synced: u64, entries: &[Entry], hard_state: Option<&HardState>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(frames_length(entries, hard_state) as usize);
    for entry in entries {
        let mut body = Vec::with_capacity(ENTRY_HEADER + entry.data.len());
        body.extend_from_slice(&entry.term.to_le_bytes());
        body.extend_from_slice(&entry.index.to_le_bytes());
        body.push(entry.entry_type as u8);
        body.extend_from_slice(&entry.data);
        push_frame(&mut bytes, position, synced, KIND_ENTRY, &body);
    }
    if let Some(state) = hard_state {
        let body = [state.term, state.vote, state.commit].map(u64::to_le_bytes).concat();
        push_frame(&mut bytes, position, synced, KIND_HARD_STATE, &body);
    }
    bytes
}

fn push_frame(bytes: &mut Vec<u8>, base: u64, synced: u64, kind: u8, body: &[u8]) {
    let start = bytes.len();
    bytes.extend_from_slice(&((HEADER - PREFIX + body.len()) as u32).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&(base + start as u64).to_le_bytes());
    bytes.extend_from_slice(&synced.to_le_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(body);
    let crc = crc32c::crc32c(&bytes[start + PREFIX..]);
    bytes[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(8), 0);
}

/// A whole frame at a position of a log file.
struct Frame<'a> {
    synced: u64,
    kind: u8,
    body: &'a [u8],
    next: usize,
}

fn frame_at(bytes: &[u8], at: usize) -> Option<Frame<'_>> {
    let length = u32_at(bytes, at)? as usize;
    let end = at.checked_add(PREFIX)?.checked_add(length)?;
    if length < HEADER - PREFIX || end > bytes.len() || u64_at(bytes, at + 8)? != at as u64 {
        return None;
    }
    let checked = bytes.get(at + PREFIX..end)?;
    if crc32c::crc32c(checked) != u32_at(bytes, at + 4)? {
        return None;
    }
    Some(Frame { synced: u64_at(checked, 8)?, kind: checked[16], body: &checked[17..], next: end.next_multiple_of(8) })
}

/// What the frames of a log say.
#[derive(Debug, Default, PartialEq)]
struct Scanned {
    hard_state: HardState,
    entries: Vec<Entry>,
    end: u64,
}

/// Reads a log after the snapshot at `snapshot_index`. Stops at a torn tail; an error is damage that no crash explains.
fn scan(bytes: &[u8], snapshot_index: u64) -> Result<Scanned, (u64, &'static str)> {
    let mut scanned = Scanned::default();
    let mut at = 0;
    while let Some(frame) = frame_at(bytes, at) {
        let malformed = (at as u64, "a frame that its writer cannot have written");
        match frame.kind {
            KIND_HARD_STATE => scanned.hard_state = decode_hard_state(frame.body).ok_or(malformed)?,
            KIND_ENTRY => take_entry(&mut scanned.entries, decode_entry(frame.body).ok_or(malformed)?, snapshot_index)
                .ok_or((at as u64, "a gap between entries"))?,
            _ => return Err((at as u64, "a frame of unknown kind: a newer version wrote it")),
        }
        at = frame.next;
    }
    // A frame beyond the tail that knew the tail to be safe proves that what is broken here had been synced.
    let later = (at + 8..bytes.len()).step_by(8).filter_map(|later| frame_at(bytes, later));
    if later.into_iter().any(|frame| frame.synced > at as u64) {
        return Err((at as u64, "a frame that was synced"));
    }
    let last = scanned.entries.last().map_or(snapshot_index, |entry| entry.index);
    scanned.hard_state.commit = scanned.hard_state.commit.clamp(snapshot_index, last);
    scanned.end = at as u64;
    Ok(scanned)
}

fn take_entry(entries: &mut Vec<Entry>, entry: Entry, snapshot_index: u64) -> Option<()> {
    let keep = entry.index.checked_sub(snapshot_index + 1)?;
    if keep > entries.len() as u64 {
        return None;
    }
    entries.truncate(keep as usize);
    entries.push(entry);
    Some(())
}

fn decode_hard_state(body: &[u8]) -> Option<HardState> {
    let (term, vote, commit) = (u64_at(body, 0)?, u64_at(body, 8)?, u64_at(body, 16)?);
    Some(HardState { term, vote, commit, ..HardState::default() })
}

fn decode_entry(body: &[u8]) -> Option<Entry> {
    let entry_type = match body.get(16)? {
        0 => EntryType::EntryNormal,
        1 => EntryType::EntryConfChange,
        2 => EntryType::EntryConfChangeV2,
        _ => return None,
    };
    let data = body.get(ENTRY_HEADER..)?.to_vec().into();
    Some(Entry { term: u64_at(body, 0)?, index: u64_at(body, 8)?, entry_type, data, ..Entry::default() })
}
