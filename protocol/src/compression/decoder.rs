//! Decompressing under a limit, piece by piece.
//! Invariant: after an end without error, every input byte was used and the stream was whole.

use std::io::{self, Read};

use flate2::bufread::GzDecoder;
use lz4_flex::frame::FrameDecoder;
use zstd::stream::read::Decoder as ZstdDecoder;

use super::snappy::Blocks;
use super::{Codec, Limits};
use crate::record_batch::BatchError;

/// The largest window of zstd: 128 MiB, what its highest level uses. Its pages are touched only as output is produced.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
const LZ4_MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
const CHUNK: usize = 16 * 1024;

/// A slice that remembers whether anybody read beyond its end: the lz4 reader takes a missing end mark for an end.
struct Whole<'a> {
    rest: &'a [u8],
    overrun: bool,
}

impl Read for Whole<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.rest.read(out)?;
        self.overrun |= count == 0 && !out.is_empty();
        Ok(count)
    }
}

enum Stream<'a> {
    Plain(&'a [u8]),
    Gzip(Box<GzDecoder<&'a [u8]>>),
    Snappy(Blocks<'a>),
    Lz4(Box<FrameDecoder<Whole<'a>>>),
    Zstd(Box<ZstdDecoder<'static, &'a [u8]>>),
}

/// Produces the records of a batch from its body.
pub struct Decoder<'a> {
    codec: Codec,
    stream: Stream<'a>,
    produced: usize,
    allowed: usize,
}

impl<'a> Decoder<'a> {
    /// Decodes `input`, which is one whole stream of `codec`.
    ///
    /// # Errors
    /// `Compressed` if the stream's start is not of the codec.
    pub fn new(codec: Codec, input: &'a [u8], limits: &Limits) -> Result<Self, BatchError> {
        let allowed = match codec {
            Codec::None => usize::MAX,
            _ => limits.allowed(input.len()),
        };
        let corrupt = |_| BatchError::Compressed(codec);
        let stream = match codec {
            Codec::None => Stream::Plain(input),
            // No frame at all is a whole stream of nothing, to Kafka too.
            Codec::Zstd if input.is_empty() => Stream::Plain(input),
            Codec::Gzip => Stream::Gzip(Box::new(GzDecoder::new(input))),
            Codec::Snappy => Stream::Snappy(Blocks::new(input, allowed).map_err(corrupt)?),
            Codec::Lz4 if !input.starts_with(&LZ4_MAGIC) => return Err(BatchError::Compressed(codec)),
            Codec::Lz4 => Stream::Lz4(Box::new(FrameDecoder::new(Whole { rest: input, overrun: false }))),
            Codec::Zstd => {
                let mut decoder = ZstdDecoder::with_buffer(input).map_err(corrupt)?.single_frame();
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(corrupt)?;
                Stream::Zstd(Box::new(decoder))
            }
        };
        Ok(Self { codec, stream, produced: 0, allowed })
    }

    /// Fills some of `out`, which is not empty; 0 at the end of the stream. Not called again after 0 or an error.
    ///
    /// # Errors
    /// `Compressed` if the stream is corrupt or cut short, `TooLarge` if it expands beyond the limit, `TrailingBytes` if bytes follow its end.
    pub fn read(&mut self, out: &mut [u8]) -> Result<usize, BatchError> {
        let read = match &mut self.stream {
            Stream::Plain(rest) => rest.read(out),
            Stream::Gzip(decoder) => decoder.read(out),
            Stream::Snappy(blocks) => blocks.read(out),
            Stream::Lz4(decoder) => decoder.read(out),
            Stream::Zstd(decoder) => decoder.read(out),
        };
        let count = read.map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => BatchError::TooLarge(self.allowed),
            _ => BatchError::Compressed(self.codec),
        })?;
        if count == 0 {
            self.check_end()?;
        }
        self.produced = self.produced.saturating_add(count);
        if self.produced > self.allowed {
            return Err(BatchError::TooLarge(self.allowed));
        }
        Ok(count)
    }

    fn check_end(&self) -> Result<(), BatchError> {
        let rest = match &self.stream {
            Stream::Plain(rest) => rest,
            Stream::Gzip(decoder) => decoder.get_ref(),
            Stream::Snappy(blocks) => blocks.rest(),
            Stream::Lz4(decoder) if decoder.get_ref().overrun => return Err(BatchError::Compressed(self.codec)),
            Stream::Lz4(decoder) => decoder.get_ref().rest,
            Stream::Zstd(decoder) => decoder.get_ref(),
        };
        if rest.is_empty() { Ok(()) } else { Err(BatchError::TrailingBytes) }
    }
}

/// Everything that `input` expands to. Memory grows as bytes are produced.
///
/// # Errors
/// Those of [`Decoder`].
pub fn decompress(codec: Codec, input: &[u8], limits: &Limits) -> Result<Vec<u8>, BatchError> {
    let mut decoder = Decoder::new(codec, input, limits)?;
    let mut out = Vec::new();
    let mut chunk = [0; CHUNK];
    loop {
        let count = decoder.read(&mut chunk)?;
        if count == 0 {
            return Ok(out);
        }
        out.extend_from_slice(&chunk[..count]);
    }
}
