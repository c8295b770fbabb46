//! A range of a segment's file that a response carries.
//! Invariant: it stays readable when the segment is deleted, as it holds the file and, on a real disk, an open descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use madang_protocol::payload::Region;

use crate::disk::{DiskFile, OpenDescriptor, read_exact_at};

#[derive(Debug)]
pub(crate) struct FileRegion {
    file: Arc<dyn DiskFile>,
    pinned: Option<Arc<dyn OpenDescriptor>>,
    position: u64,
    length: usize,
    warm: bool,
}

impl FileRegion {
    pub(crate) fn new(file: &Arc<dyn DiskFile>, position: u64, length: usize, warm: bool) -> io::Result<Self> {
        Ok(Self { pinned: file.pin()?, file: Arc::clone(file), position, length, warm })
    }
}

impl Region for FileRegion {
    fn len(&self) -> usize {
        self.length
    }

    fn read_at(&self, offset: usize, buffer: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(buffer.len()).is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let position = self.position + offset as u64;
        match &self.pinned {
            Some(descriptor) => read_pinned(descriptor.as_fd(), position, buffer),
            None => read_exact_at(self.file.as_ref(), position, buffer),
        }
    }

    fn as_fd(&self) -> Option<(BorrowedFd<'_>, u64)> {
        self.pinned.as_ref().map(|descriptor| (descriptor.as_fd(), self.position))
    }

    fn is_warm(&self) -> bool {
        self.warm
    }
}

#[cfg(feature = "real-disk")]
fn read_pinned(descriptor: BorrowedFd<'_>, position: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::pread(descriptor, &mut buffer[filled..], position + filled as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(not(feature = "real-disk"))]
fn read_pinned(_: BorrowedFd<'_>, _: u64, _: &mut [u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
