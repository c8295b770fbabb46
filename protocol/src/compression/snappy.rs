//! Snappy as Kafka has it: one raw block, or blocks in the framing of snappy-java ("xerial"): a 16-byte header, then
//! a 4-byte length before each block.
//! Invariant: a block's output is allocated only if its compressed bytes could produce that much.

use std::io;

const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const VERSION: i32 = 1;
/// What snappy-java writes at most as one block.
const BLOCK: usize = 32 * 1024;

/// Compresses in snappy-java's framing.
pub(super) fn compress(input: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(input.len() / 2 + 32);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&VERSION.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in input.chunks(BLOCK) {
        let compressed = encoder.compress_vec(block)?;
        out.extend_from_slice(&(compressed.len() as u32).to_be_bytes());
        out.extend_from_slice(&compressed);
    }
    Ok(out)
}

/// Blocks of either form, one after the other.
pub(super) struct Blocks<'a> {
    rest: &'a [u8],
    framed: bool,
    block: Vec<u8>,
    position: usize,
    limit: usize,
}

impl<'a> Blocks<'a> {
    /// No block may expand beyond `limit` bytes.
    pub(super) fn new(input: &'a [u8], limit: usize) -> io::Result<Self> {
        if input.is_empty() {
            return Err(invalid("no block"));
        }
        let mut blocks = Self { rest: input, framed: false, block: Vec::new(), position: 0, limit };
        if let Some(after) = input.strip_prefix(&MAGIC) {
            let (version, after) = take_i32(after)?;
            // The oldest version that can read it, which no reader looks at.
            let (_, after) = take_i32(after)?;
            if version < VERSION {
                return Err(invalid("framing version"));
            }
            blocks.rest = after;
            blocks.framed = true;
        }
        Ok(blocks)
    }

    /// Bytes not yet decoded.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Fills `out` from the current block; 0 at the end.
    pub(super) fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.position == self.block.len() {
            if self.rest.is_empty() {
                return Ok(0);
            }
            self.next_block()?;
        }
        let ready = &self.block[self.position..];
        let count = ready.len().min(out.len());
        out[..count].copy_from_slice(&ready[..count]);
        self.position += count;
        Ok(count)
    }

    fn next_block(&mut self) -> io::Result<()> {
        let compressed = if self.framed {
            let (length, after) = take_i32(self.rest)?;
            let length = usize::try_from(length).map_err(|_| invalid("negative block length"))?;
            let (block, after) = after.split_at_checked(length).ok_or_else(|| invalid("block past the end"))?;
            self.rest = after;
            block
        } else {
            std::mem::take(&mut self.rest)
        };
        let declared = snap::raw::decompress_len(compressed)?;
        // The densest element takes 3 bytes and gives 64.
        if declared > compressed.len().saturating_mul(64) / 3 {
            return Err(invalid("declared length cannot be reached"));
        }
        if declared > self.limit {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.block.clear();
        self.block.resize(declared, 0);
        self.position = 0;
        let produced = snap::raw::Decoder::new().decompress(compressed, &mut self.block)?;
        self.block.truncate(produced);
        Ok(())
    }
}

fn take_i32(bytes: &[u8]) -> io::Result<(i32, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>().ok_or_else(|| invalid("four bytes are missing"))?;
    Ok((i32::from_be_bytes(*head), rest))
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
