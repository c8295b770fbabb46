//! How far each log of a directory has come, noted where a kill of the process leaves it and an end of the system does not.
//! Invariant: a note claims no more than what was written, or synced, before it was made; and all notes of a directory are believed, or none.
//!
//! ```text
//! header  0 envelope: directory id (16), complete u8, generation u64, mount and boot id, each {u16, bytes}; zeros to 4096
//! slot    0 topic id (16) | 16 partition i32 | 20 incarnation u64 | 28 log end i64 | 36 confirmed end i64 | 44 high watermark i64
//!         52 unsettled u8 | 53 zeros | 60 CRC-32C of bytes 0..60 u32; all zeros if it is free; slot n is at 4096 + 64 n
//! ```

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;

use madang_protocol::types::{Offset, TopicPartition, Uuid};

use crate::format::{Fields, Kind, seal, unseal};
use crate::mutants::mutant;

/// Bytes before the first slot.
pub(crate) const HEADER: usize = 4096;
/// Bytes of one slot.
pub(crate) const SLOT: usize = 64;
/// Logs of one directory that can be noted.
pub(crate) const MAX_SLOTS: usize = 1 << 20;
const CHECKED: usize = SLOT - 4;

/// How far a log has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// The life of the replica that noted it.
    pub incarnation: u64,
    /// The log's end: all below it was written.
    pub log_end_offset: Offset,
    /// The end of what is on the device: all below it was synced.
    pub confirmed_end: Offset,
    /// The high watermark.
    pub high_watermark: Offset,
    /// Whether a cut of the log may be on no device yet, so that nothing may be appended before a sync.
    pub unsettled: bool,
}

/// Where a directory's notes are kept. Calls are short; each partition has one writer.
pub trait Notes: Send + Sync + Debug {
    /// Whether a process of this boot and on this mount has noted every log of the directory. If not there is nothing to load.
    fn are_believed(&self) -> bool;

    /// The latest note of a log, by this process or by the one before it.
    fn load(&self, partition: TopicPartition) -> Option<Note>;

    /// Notes how far a log has come, before anybody hears of it; of a log that is to be cut, how far it will have come after that.
    ///
    /// # Errors
    /// It cannot be noted: nothing is believed from here on.
    fn store(&self, partition: TopicPartition, note: Note) -> io::Result<()>;

    /// Forgets a log that was deleted.
    fn remove(&self, partition: TopicPartition);

    /// From now on every log of the directory is noted, so that the notes may be believed.
    ///
    /// # Errors
    /// They will not be believed.
    fn complete(&self) -> io::Result<()>;

    /// What is noted may not be believed: a sync has failed, or the directory was closed in order and says so itself.
    fn discard(&self);
}

/// Whose notes a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotesOwner {
    /// The directory.
    pub directory_id: Uuid,
    /// The directory's own count of notes that were begun, [`Identity::notes_generation`](crate::Identity::notes_generation).
    pub generation: u64,
    /// The boot of the operating system.
    pub boot_id: String,
    /// What names the directory's mount among all of this boot.
    pub mount: String,
}

/// Why notes are not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disbelief {
    /// Not whole, or not as they were written.
    #[error("damaged")]
    Damaged,
    /// Of another directory, boot or mount, or of a process before the last one.
    #[error("of another directory, boot or mount, or older than its last process")]
    Foreign,
    /// Not every log of the directory was noted.
    #[error("incomplete")]
    Incomplete,
}

/// The bytes before the first slot.
pub(crate) fn header(owner: &NotesOwner, complete: bool) -> Vec<u8> {
    let mut body = owner.directory_id.0.to_vec();
    body.push(u8::from(complete));
    body.extend_from_slice(&owner.generation.to_be_bytes());
    for text in [&owner.mount, &owner.boot_id] {
        body.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
        body.extend_from_slice(text.as_bytes());
    }
    let mut bytes = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    bytes.extend_from_slice(&seal(Kind::Notes, &body));
    bytes.resize(HEADER, 0);
    bytes
}

fn check_header(bytes: &[u8], owner: &NotesOwner) -> Result<(), Disbelief> {
    let sealed = |bytes: &[u8]| {
        let mut fields = Fields(bytes);
        let length = fields.u32()? as usize;
        // The envelope's own header is 16 bytes.
        let body = unseal(Kind::Notes, fields.bytes(length.checked_add(16)?)?)?;
        body.split_at_checked(17).map(|(fixed, texts)| (fixed.to_vec(), texts.to_vec()))
    };
    let (fixed, texts) = sealed(bytes).ok_or(Disbelief::Damaged)?;
    let (expected, texts_expected) = sealed(&header(owner, true)).ok_or(Disbelief::Damaged)?;
    if (fixed.get(..16) != expected.get(..16) || texts != texts_expected) && !mutant(41) {
        return Err(Disbelief::Foreign);
    }
    if fixed == expected { Ok(()) } else { Err(Disbelief::Incomplete) }
}

/// A slot's bytes.
pub(crate) fn slot(partition: TopicPartition, note: Note) -> [u8; SLOT] {
    let mut bytes = [0; SLOT];
    bytes[..16].copy_from_slice(&partition.topic_id.0);
    bytes[16..20].copy_from_slice(&partition.partition.to_be_bytes());
    bytes[20..28].copy_from_slice(&note.incarnation.to_be_bytes());
    for (place, offset) in [note.log_end_offset, note.confirmed_end, note.high_watermark].into_iter().enumerate() {
        bytes[28 + place * 8..36 + place * 8].copy_from_slice(&offset.0.to_be_bytes());
    }
    bytes[52] = u8::from(note.unsettled);
    let crc = crc32c::crc32c(&bytes[..CHECKED]);
    bytes[CHECKED..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// None if the bytes are not as they were written; a free slot is `Some(None)`.
fn parse_slot(bytes: &[u8]) -> Option<Option<(TopicPartition, Note)>> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Some(None);
    }
    let (checked, crc) = bytes.split_at_checked(CHECKED)?;
    if Fields(crc).u32()? != crc32c::crc32c(checked) {
        return None;
    }
    let mut fields = Fields(checked);
    let partition = TopicPartition { topic_id: Uuid(fields.take()?), partition: fields.i32()? };
    let note = Note {
        incarnation: fields.u64()?,
        log_end_offset: Offset(fields.i64()?),
        confirmed_end: Offset(fields.i64()?),
        high_watermark: Offset(fields.i64()?),
        unsettled: fields.bytes(1)? != [0],
    };
    Some(Some((partition, note)))
}

/// Every note of a file and the number of its slot.
///
/// # Errors
/// They are not to be believed, and why.
pub(crate) fn parse(bytes: &[u8], owner: &NotesOwner) -> Result<BTreeMap<TopicPartition, (usize, Note)>, Disbelief> {
    let (head, slots) = bytes.split_at_checked(HEADER).ok_or(Disbelief::Damaged)?;
    check_header(head, owner)?;
    let mut found = BTreeMap::new();
    for (number, bytes) in slots.chunks(SLOT).enumerate() {
        // Whose a damaged one was is not known, so that no log can be told to have none.
        let whole = parse_slot(bytes).filter(|_| bytes.len() == SLOT);
        let Some((partition, note)) = whole.ok_or(Disbelief::Damaged)? else { continue };
        if found.insert(partition, (number, note)).is_some() {
            return Err(Disbelief::Damaged);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(directory: u8, boot_id: &str, mount: &str) -> NotesOwner {
        let (directory_id, boot_id, mount) = (Uuid([directory; 16]), boot_id.to_owned(), mount.to_owned());
        NotesOwner { directory_id, generation: 4, boot_id, mount }
    }

    fn partition(number: i32) -> TopicPartition {
        TopicPartition { topic_id: Uuid([3; 16]), partition: number }
    }

    fn file() -> Vec<u8> {
        let mut bytes = header(&owner(1, "boot", "mount"), true);
        for number in 0..3 {
            let at = i64::from(number);
            let note = Note {
                incarnation: 7,
                log_end_offset: Offset(at + 9),
                confirmed_end: Offset(at),
                high_watermark: Offset(at),
                unsettled: number == 2,
            };
            bytes.extend_from_slice(&slot(partition(number), note));
        }
        bytes
    }

    #[test]
    fn what_is_noted_is_read_and_a_free_slot_is_none() {
        let mut bytes = file();
        bytes.extend_from_slice(&[0; SLOT]);
        let found = parse(&bytes, &owner(1, "boot", "mount")).expect("believed");
        assert_eq!(found.len(), 3);
        let (number, note) = found[&partition(2)];
        assert_eq!((number, note.log_end_offset, note.confirmed_end), (2, Offset(11), Offset(2)));
        assert!(note.unsettled && !found[&partition(1)].1.unsettled);
        bytes.pop();
        assert_eq!(parse(&bytes, &owner(1, "boot", "mount")).expect_err("torn"), Disbelief::Damaged);
    }

    #[test]
    fn notes_of_another_directory_boot_or_mount_are_not_believed() {
        for other in [
            owner(2, "boot", "mount"),
            owner(1, "later", "mount"),
            owner(1, "boot", "elsewhere"),
            owner(1, "bootm", "ount"),
            NotesOwner { generation: 5, ..owner(1, "boot", "mount") },
            NotesOwner { generation: 3, ..owner(1, "boot", "mount") },
        ] {
            assert_eq!(parse(&file(), &other).expect_err("foreign"), Disbelief::Foreign);
        }
    }

    #[test]
    fn notes_that_do_not_name_every_log_yet_are_not_believed() {
        let owner = owner(1, "boot", "mount");
        assert_eq!(parse(&header(&owner, false), &owner).expect_err("incomplete"), Disbelief::Incomplete);
    }

    #[test]
    fn no_changed_byte_goes_unseen() {
        let (bytes, owner) = (file(), owner(1, "boot", "mount"));
        // What follows the envelope in the header's page means nothing.
        let envelope = 4 + 16 + 25 + 4 + "boot".len() + "mount".len();
        for at in (0..envelope).chain(HEADER..bytes.len()) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert!(parse(&damaged, &owner).is_err(), "byte {at}");
        }
        for length in [0, 3, envelope - 1, HEADER - 1, HEADER + 1, bytes.len() - 1] {
            assert_eq!(parse(&bytes[..length], &owner).expect_err("short"), Disbelief::Damaged, "length {length}");
        }
    }

    #[test]
    fn two_notes_of_one_log_are_believed_neither_way() {
        let mut bytes = file();
        bytes.extend_from_slice(&slot(partition(1), Note::default()));
        assert_eq!(parse(&bytes, &owner(1, "boot", "mount")).expect_err("twice"), Disbelief::Damaged);
    }
}
