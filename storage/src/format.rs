//! The files of one partition, byte by byte. All numbers are big-endian. A partition is a directory `<topic>-<partition>`:
//!
//! ```text
//! 00000000000000000000.log          record batches as on the wire, one after the other; the name is the base offset
//! 00000000000000000000.index        header, then entries {relative offset u32, position u32}; written when the segment is sealed
//! 00000000000000000000.timeindex    header, then entries {max timestamp of all before i64, relative offset u32}
//! 00000000000000000000.snapshot     producers at that offset: envelope
//! leader-epoch-checkpoint           epochs and their start offsets: envelope
//! log-start-offset                  i64: envelope; synced before the new start counts
//! cleaner-offset-checkpoint         up to where the log is compacted, i64: envelope
//! 00000000000000000000.7.cleaned    a segment that compaction of incarnation 7 is writing; counts for nothing
//! 00000000000000000000.swap         the same, whole and synced: takes the place of all segments that it covers
//! partition.metadata                topic id (16), partition i32, topic name: envelope; synced
//!
//! header   0 magic u32 | 4 version u16 | 6 zero u16 | 8 CRC-32C of the entries u32 | 12 entries u32 | 16 bytes of the log u64
//!          24 next offset i64 | 32 max timestamp i64 | 40 base offset of its batch i64 | 48 CRC-32C of bytes 0..48 u32 | 52 zeros to 64
//! envelope 0 magic u32 | 4 version u16 | 6 zero u16 | 8 CRC-32C of the body u32 | 12 length of the body u32 | 16 body
//! ```
//!
//! Invariant: whatever is not the log itself can be missing or damaged; it is then rebuilt from the batches.

use std::path::{Path, PathBuf};

use madang_protocol::types::Offset;

/// The suffix of a file that is about to take a name.
pub const TEMPORARY_SUFFIX: &str = ".tmp";
/// Suffix of a segment's batches.
pub const LOG_SUFFIX: &str = ".log";
/// Suffix of a segment's offset index.
pub const INDEX_SUFFIX: &str = ".index";
/// Suffix of a segment's time index.
pub const TIME_INDEX_SUFFIX: &str = ".timeindex";
/// Suffix of a producer snapshot.
pub const SNAPSHOT_SUFFIX: &str = ".snapshot";
/// Suffix of a segment that compaction is writing.
pub const CLEANED_SUFFIX: &str = ".cleaned";
/// Suffix of a compacted segment that is about to take the place of others.
pub const SWAP_SUFFIX: &str = ".swap";
/// The file of the cleaner's offset.
pub const CLEANER_OFFSET_FILE: &str = "cleaner-offset-checkpoint";
/// The leader epochs' file.
pub const LEADER_EPOCHS_FILE: &str = "leader-epoch-checkpoint";
/// The file of the log start offset.
pub const LOG_START_FILE: &str = "log-start-offset";
/// The file that says whose partition this is.
pub const PARTITION_METADATA_FILE: &str = "partition.metadata";
/// Size of an index file's header in bytes.
pub const INDEX_HEADER_SIZE: usize = 64;
/// No side file is longer than this many bytes.
pub const MAX_SIDE_FILE: u64 = 64 << 20;

const VERSION: u16 = 1;
const ENVELOPE_HEADER_SIZE: usize = 16;

/// What kind of side file the bytes are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Offset index.
    OffsetIndex,
    /// Time index.
    TimeIndex,
    /// Producer snapshot.
    Producers,
    /// Leader epochs.
    LeaderEpochs,
    /// Log start offset.
    LogStart,
    /// Up to where a log is compacted.
    CleanerOffset,
    /// Partition metadata.
    Partition,
    /// The log directory's identity.
    Directory,
    /// The clean-shutdown marker.
    CleanShutdown,
    /// The header of a directory's notes.
    Notes,
}

impl Kind {
    const fn magic(self) -> u32 {
        u32::from_be_bytes(match self {
            Self::OffsetIndex => *b"MDOI",
            Self::TimeIndex => *b"MDTI",
            Self::Producers => *b"MDPS",
            Self::LeaderEpochs => *b"MDLE",
            Self::LogStart => *b"MDLS",
            Self::CleanerOffset => *b"MDCO",
            Self::Partition => *b"MDPM",
            Self::Directory => *b"MDLD",
            Self::CleanShutdown => *b"MDCS",
            Self::Notes => *b"MDNT",
        })
    }
}

/// The path of a file named by an offset.
#[must_use]
pub fn offset_path(directory: &Path, offset: Offset, suffix: &str) -> PathBuf {
    directory.join(format!("{:020}{suffix}", offset.0))
}

/// The offset in a file's name, if it has that suffix and exactly 20 digits.
#[must_use]
pub fn offset_of(name: &str, suffix: &str) -> Option<Offset> {
    let digits = name.strip_suffix(suffix)?;
    let all_digits = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().ok().map(Offset)).flatten()
}

/// Reads big-endian numbers from the front of a slice; none when it is too short.
#[derive(Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }
    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }
    pub(crate) fn i16(&mut self) -> Option<i16> {
        self.take().map(i16::from_be_bytes)
    }
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }
    pub(crate) fn i32(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }
    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }
    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_be_bytes)
    }
    pub(crate) fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(first)
    }
}

/// Wraps the body of a side file.
#[must_use]
pub fn seal(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(ENVELOPE_HEADER_SIZE + body.len());
    out.extend_from_slice(&kind.magic().to_be_bytes());
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&crc32c::crc32c(body).to_be_bytes());
    out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(body);
    out
}

/// The body of a side file; none if anything of it is not as it was written.
#[must_use]
pub fn unseal(kind: Kind, bytes: &[u8]) -> Option<&[u8]> {
    let mut fields = Fields(bytes);
    let whole = fields.u32()? == kind.magic() && fields.u16()? == VERSION && fields.u16()? == 0;
    let crc = fields.u32()?;
    let length = fields.u32()? as usize;
    (whole && fields.0.len() == length && crc32c::crc32c(fields.0) == crc).then_some(fields.0)
}

/// What both index files begin with: enough to open a sealed segment without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexHeader {
    /// CRC-32C of the entries.
    pub entries_crc: u32,
    /// Number of entries.
    pub entries: u32,
    /// Length of the segment's log in bytes when the index was written.
    pub log_bytes: u64,
    /// The offset that follows the segment.
    pub next_offset: Offset,
    /// The highest timestamp in the segment in milliseconds, or -1.
    pub max_timestamp: i64,
    /// Base offset of the first batch that has it, or -1.
    pub max_timestamp_offset: Offset,
}

impl IndexHeader {
    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(&self, kind: Kind) -> [u8; INDEX_HEADER_SIZE] {
        let mut out = [0; INDEX_HEADER_SIZE];
        out[0..4].copy_from_slice(&kind.magic().to_be_bytes());
        out[4..6].copy_from_slice(&VERSION.to_be_bytes());
        out[8..12].copy_from_slice(&self.entries_crc.to_be_bytes());
        out[12..16].copy_from_slice(&self.entries.to_be_bytes());
        out[16..24].copy_from_slice(&self.log_bytes.to_be_bytes());
        out[24..32].copy_from_slice(&self.next_offset.0.to_be_bytes());
        out[32..40].copy_from_slice(&self.max_timestamp.to_be_bytes());
        out[40..48].copy_from_slice(&self.max_timestamp_offset.0.to_be_bytes());
        let crc = crc32c::crc32c(&out[..48]);
        out[48..52].copy_from_slice(&crc.to_be_bytes());
        out
    }

    /// Reads a header; none if anything of it is not as it was written.
    #[must_use]
    pub fn parse(kind: Kind, bytes: &[u8; INDEX_HEADER_SIZE]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let whole = fields.u32()? == kind.magic() && fields.u16()? == VERSION && fields.u16()? == 0;
        let header = Self {
            entries_crc: fields.u32()?,
            entries: fields.u32()?,
            log_bytes: fields.u64()?,
            next_offset: Offset(fields.i64()?),
            max_timestamp: fields.i64()?,
            max_timestamp_offset: Offset(fields.i64()?),
        };
        let sound = fields.u32()? == crc32c::crc32c(&bytes[..48]) && fields.0.iter().all(|byte| *byte == 0);
        (whole && sound).then_some(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_their_text() {
        let path = offset_path(Path::new("/d"), Offset(42), LOG_SUFFIX);
        assert_eq!(path, Path::new("/d/00000000000000000042.log"));
        assert_eq!(offset_of("00000000000000000042.log", LOG_SUFFIX), Some(Offset(42)));
        assert_eq!(offset_of("42.log", LOG_SUFFIX), None);
        assert_eq!(offset_of("+0000000000000000042.log", LOG_SUFFIX), None);
        assert_eq!(offset_of("99999999999999999999.log", LOG_SUFFIX), None);
    }

    #[test]
    fn no_changed_byte_of_an_envelope_goes_unseen() {
        let sealed = seal(Kind::LogStart, b"body");
        assert_eq!(unseal(Kind::LogStart, &sealed), Some(&b"body"[..]));
        assert_eq!(unseal(Kind::Producers, &sealed), None);
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 4;
            assert_eq!(unseal(Kind::LogStart, &damaged), None, "byte {at}");
            assert_eq!(unseal(Kind::LogStart, &sealed[..at]), None, "length {at}");
        }
    }

    #[test]
    fn no_changed_byte_of_an_index_header_goes_unseen() {
        let header = IndexHeader {
            entries_crc: 1,
            entries: 2,
            log_bytes: 3,
            next_offset: Offset(4),
            max_timestamp: 5,
            max_timestamp_offset: Offset(6),
        };
        let bytes = header.to_bytes(Kind::TimeIndex);
        assert_eq!(IndexHeader::parse(Kind::TimeIndex, &bytes), Some(header));
        for at in 0..bytes.len() {
            let mut damaged = bytes;
            damaged[at] ^= 1;
            assert_eq!(IndexHeader::parse(Kind::TimeIndex, &damaged), None, "byte {at}");
        }
    }
}
