//! Walking the batches of a byte slice: what a fetch was answered with, or a piece of a segment under recovery.
//! Invariant: the walk moves forward by at least a header's size at each step, so it ends.

use super::{BatchError, BatchHeader, layout, verify_crc};
use crate::types::Offset;

/// One whole batch: its header and all its bytes.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    /// The header, as parsed.
    pub header: BatchHeader,
    /// The batch, header included.
    pub bytes: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// The batch that `bytes` starts with. Neither CRC nor records are checked.
    ///
    /// # Errors
    /// Those of [`BatchHeader::parse`]; `Torn` if the batch is not whole.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        let size = header.size_in_bytes();
        let Some(batch) = bytes.get(..size) else {
            return Err(BatchError::Torn { needed: size as u64, present: bytes.len() as u64 });
        };
        Ok(Self { header, bytes: batch })
    }

    /// What follows the header: the records, compressed if the header says so.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.bytes.get(layout::RECORDS..).unwrap_or_default()
    }

    /// Checks the CRC.
    ///
    /// # Errors
    /// `Crc` if it does not match.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        verify_crc(self.bytes)
    }
}

/// The batches of a slice, in order. After an error it yields nothing more. A slice that ends inside a batch (as a fetch's answer may) yields
/// `Torn` last.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Batches<'a> {
    /// Walks `bytes` from the start.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// Bytes of the whole batches yielded so far.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.position
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bytes.get(self.position..)?;
        if rest.is_empty() {
            return None;
        }
        match BatchView::parse(rest) {
            Ok(view) => {
                self.position += view.bytes.len();
                Some(Ok(view))
            }
            Err(error) => {
                self.bytes = self.bytes.get(..self.position).unwrap_or_default();
                Some(Err(error))
            }
        }
    }
}

/// What [`scan`] found at the place where it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// All bytes are whole, sound batches.
    Complete,
    /// The bytes end inside a batch: more have to be read, or the log's last write was torn. `needed` counts from the batch's start.
    Torn {
        /// Bytes that the batch needs, as far as its header tells.
        needed: u64,
    },
    /// The bytes are not a batch that may follow.
    Corrupt(BatchError),
}

/// Checks the batches of a piece of a segment, for recovery: header, CRC, and offsets that only rise from `first_offset` on.
/// Calls `each` with the position and the batch for every sound one. Answers the bytes that are sound and what follows them.
///
/// A caller that reads in pieces calls it again with the bytes from that position on, after having read `needed`.
pub fn scan<'a>(bytes: &'a [u8], first_offset: Offset, mut each: impl FnMut(usize, &BatchView<'a>)) -> (usize, Scan) {
    let mut batches = Batches::new(bytes);
    let mut lowest = first_offset;
    loop {
        let position = batches.position();
        let view = match batches.next() {
            None => return (position, Scan::Complete),
            Some(Err(BatchError::Torn { needed, .. })) => return (position, Scan::Torn { needed }),
            Some(Err(error)) => return (position, Scan::Corrupt(error)),
            Some(Ok(view)) => view,
        };
        if let Err(error) = check(&view, lowest) {
            return (position, Scan::Corrupt(error));
        }
        lowest = view.header.next_offset();
        each(position, &view);
    }
}

fn check(view: &BatchView<'_>, lowest: Offset) -> Result<(), BatchError> {
    view.verify_crc()?;
    if view.header.last_offset_delta < 0 || view.header.base_offset.0.checked_add(i64::from(i32::MAX)).is_none() {
        return Err(BatchError::Header("the batch's last offset is out of range"));
    }
    if view.header.base_offset < lowest {
        return Err(BatchError::Header("the batch's offset does not follow the one before"));
    }
    Ok(())
}
