//! Bytes that may still be in a file: what a response carries as records.

use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use bytes::Bytes;

/// A readable, immutable range of stored bytes. A memory disk serves it by `read_at`, a file also by its descriptor.
pub trait Region: Send + Sync + Debug {
    /// Length in bytes; never changes.
    fn len(&self) -> usize;

    /// Whether the range has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` from `offset` bytes into the range.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file is shorter than it was promised to be; whatever the disk reports.
    fn read_at(&self, offset: usize, buffer: &mut [u8]) -> io::Result<()>;

    /// The descriptor and the position in its file at which the range starts, if it is in a file of the operating system.
    fn as_fd(&self) -> Option<(BorrowedFd<'_>, u64)>;

    /// Whether the bytes were appended so recently that reading them will not wait for the device.
    fn is_warm(&self) -> bool;
}

impl Region for Bytes {
    fn len(&self) -> usize {
        Self::len(self)
    }

    fn read_at(&self, offset: usize, buffer: &mut [u8]) -> io::Result<()> {
        let range = offset..offset.saturating_add(buffer.len());
        buffer.copy_from_slice(self.get(range).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn as_fd(&self) -> Option<(BorrowedFd<'_>, u64)> {
        None
    }

    fn is_warm(&self) -> bool {
        true
    }
}

/// Bytes in memory, or a range of a file.
#[derive(Clone, Debug)]
pub enum Payload {
    /// In memory.
    Bytes(Bytes),
    /// Ranges of files, to be sent one after the other.
    Regions(Arc<[Arc<dyn Region>]>),
}

impl Payload {
    /// Parts in memory, one after the other. They are not copied.
    #[must_use]
    pub fn of_parts(mut parts: Vec<Bytes>) -> Self {
        parts.retain(|part| !part.is_empty());
        match parts.pop() {
            None => Self::default(),
            Some(only) if parts.is_empty() => Self::Bytes(only),
            Some(last) => {
                let regions = parts.into_iter().chain([last]).map(|part| Arc::new(part) as Arc<dyn Region>);
                Self::Regions(regions.collect())
            }
        }
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Regions(regions) => regions.iter().map(|region| region.len()).sum(),
        }
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes themselves, read from the file if they are in one.
    ///
    /// # Errors
    /// Whatever [`Region::read_at`] reports.
    pub fn read(&self) -> io::Result<Bytes> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::Regions(regions) => {
                let mut all = vec![0; self.len()];
                let mut at = 0;
                for region in regions.iter() {
                    region.read_at(0, &mut all[at..at + region.len()])?;
                    at += region.len();
                }
                Ok(Bytes::from(all))
            }
        }
    }
}

impl Default for Payload {
    fn default() -> Self {
        Self::Bytes(Bytes::new())
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

/// By content in memory; ranges of files are never equal to anything, as comparing them would read them.
impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            _ => false,
        }
    }
}
