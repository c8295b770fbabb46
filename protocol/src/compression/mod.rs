//! The codecs of record batches: names, compressing, and bounded decompressing.
//! Invariant: memory follows the bytes that are there and the bytes produced, never a length that the input declares.

mod decoder;
mod snappy;

pub use decoder::{Decoder, decompress};

use std::fmt;
use std::io::{self, Write};

use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

/// How the records of a batch are compressed: attribute bits 0-2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy, raw or in the framing that Java clients write.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// RFC 8878.
    Zstd,
}

impl Codec {
    /// The codec of attribute bits 0-2; `None` for 5 to 7.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::None,
            1 => Self::Gzip,
            2 => Self::Snappy,
            3 => Self::Lz4,
            4 => Self::Zstd,
            _ => return None,
        })
    }

    /// The attribute bits.
    #[must_use]
    pub const fn bits(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// Kafka's name in `compression.type`: none, gzip, snappy, lz4, zstd.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The codec of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd].into_iter().find(|codec| codec.name() == name)
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A codec and its level, for writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compression {
    /// The codec.
    pub codec: Codec,
    /// Kafka's level: gzip 1 to 9 (6 if absent), zstd -131,072 to 22 (3 if absent). Others have none and ignore it.
    pub level: Option<i32>,
}

impl Compression {
    /// Records as they are.
    pub const NONE: Self = Self::of(Codec::None);

    /// The codec at its default level.
    #[must_use]
    pub const fn of(codec: Codec) -> Self {
        Self { codec, level: None }
    }
}

/// How far records may expand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes that one batch's records may have.
    pub max_bytes: usize,
    /// Most bytes out for each byte in, once `ratio_free_bytes` are out.
    pub max_ratio: usize,
    /// Bytes that may come out at any ratio.
    pub ratio_free_bytes: usize,
}

impl Limits {
    const MIB: usize = 1 << 20;

    /// The limits of a topic: 64 MiB or 64 × `max.message.bytes`, whichever is larger; a ratio above 1,000 only up to 16 MiB.
    #[must_use]
    pub const fn for_max_message_bytes(max_message_bytes: usize) -> Self {
        let scaled = max_message_bytes.saturating_mul(64);
        let max_bytes = if scaled > 64 * Self::MIB { scaled } else { 64 * Self::MIB };
        Self { max_bytes, max_ratio: 1_000, ratio_free_bytes: 16 * Self::MIB }
    }

    /// The most bytes that `input` bytes may expand to.
    #[must_use]
    pub const fn allowed(&self, input: usize) -> usize {
        let by_ratio = input.saturating_mul(self.max_ratio);
        let allowed = if by_ratio > self.ratio_free_bytes { by_ratio } else { self.ratio_free_bytes };
        if allowed < self.max_bytes { allowed } else { self.max_bytes }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::for_max_message_bytes(1 << 20)
    }
}

/// Compresses `input` as Kafka's clients read it: gzip, snappy in the Java clients' framing, lz4 frames of independent 64 KiB blocks, zstd.
///
/// # Errors
/// What the codec reports; none is known for memory to memory.
pub fn compress(compression: Compression, input: &[u8]) -> io::Result<Vec<u8>> {
    match compression.codec {
        Codec::None => Ok(input.to_vec()),
        Codec::Gzip => {
            let level = compression.level.and_then(|level| u32::try_from(level).ok()).unwrap_or(6).min(9);
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
            encoder.write_all(input)?;
            encoder.finish()
        }
        Codec::Snappy => snappy::compress(input),
        Codec::Lz4 => {
            let info = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
            let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
            encoder.write_all(input)?;
            encoder.finish().map_err(io::Error::from)
        }
        Codec::Zstd => {
            let mut encoder =
                zstd::stream::write::Encoder::new(Vec::new(), compression.level.unwrap_or(3).clamp(-131_072, 22))?;
            encoder.set_pledged_src_size(Some(input.len() as u64))?;
            encoder.write_all(input)?;
            encoder.finish()
        }
    }
}
