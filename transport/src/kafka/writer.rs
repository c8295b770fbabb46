//! Writes answers to a socket: bytes in memory gathered into vectored writes, ranges of files by `sendfile`.
//! Invariant: what leaves is exactly as long as what was promised, or the connection ends.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use madang_protocol::payload::{Payload, Region};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{SendAncillaryBuffer, SendFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::coop::consume_budget;
use tokio::time::Instant;

use crate::kafka::ConnectionContext;
use crate::kafka::cold_reads::Part;
use crate::kafka::duplex::Sink;
use crate::kafka::ledger::Ledger;
use crate::service::Response;
use crate::stats::CloseReason;

/// Regions up to this length are read and gathered with their neighbours: a system call of their own would cost more than the copy.
const COPIED: usize = 16 << 10;
/// The most that one `sendfile` moves, so that the arbiter's other connections get their turn.
pub(crate) const PIECE: usize = 256 << 10;
/// The most that a thread sends at a time of what may not be in the page cache.
const SENT_COLD: usize = 1 << 20;
/// Gathered bytes above which they are sent though more will follow.
pub(crate) const GATHERED: usize = 256 << 10;
/// Slices in one vectored write.
const SLICES: usize = 64;

/// The writing half of one connection.
pub(crate) struct AnswerWriter<'a> {
    pub(crate) stream: &'a TcpStream,
    pub(crate) context: &'a ConnectionContext,
    pub(crate) ledger: &'a RefCell<Ledger>,
    gathered: VecDeque<Bytes>,
    gathered_bytes: usize,
}

impl<'a> AnswerWriter<'a> {
    pub(crate) fn new(stream: &'a TcpStream, context: &'a ConnectionContext, ledger: &'a RefCell<Ledger>) -> Self {
        Self { stream, context, ledger, gathered: VecDeque::new(), gathered_bytes: 0 }
    }

    async fn gather(&mut self, bytes: Bytes) -> Result<(), CloseReason> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.gathered_bytes += bytes.len();
        self.gathered.push_back(bytes);
        if self.gathered_bytes >= GATHERED { self.flush(true).await } else { Ok(()) }
    }

    async fn send_regions(&mut self, regions: &Arc<[Arc<dyn Region>]>) -> Result<(), CloseReason> {
        for (index, region) in regions.iter().enumerate() {
            let length = region.len();
            if length == 0 {
                continue;
            }
            let part = |offset, length| Part { regions: Arc::clone(regions), index, offset, length };
            match region.as_fd() {
                Some((file, position)) if length > COPIED => {
                    self.flush(true).await?;
                    if region.is_warm() {
                        self.send_file(file, position, length).await?;
                    } else {
                        self.send_cold(length, part).await?;
                    }
                }
                _ => self.copy(region.is_warm(), length, part).await?,
            }
        }
        Ok(())
    }

    /// Sends a region by reading it, in pieces.
    async fn copy(
        &mut self,
        warm: bool,
        length: usize,
        part: impl Fn(usize, usize) -> Part,
    ) -> Result<(), CloseReason> {
        let mut offset = 0;
        while offset < length {
            let piece = part(offset, (length - offset).min(PIECE));
            offset += piece.length;
            let read = if warm { piece.read() } else { self.context.cold_reads.read(piece).await };
            self.gather(read.map_err(|error| region_failed(&error))?).await?;
        }
        Ok(())
    }

    async fn send_file(&mut self, file: BorrowedFd<'_>, position: u64, length: usize) -> Result<(), CloseReason> {
        let mut sent = 0;
        while sent < length {
            consume_budget().await;
            let mut at = position + sent as u64;
            let piece = (length - sent).min(PIECE);
            let moved =
                self.when_writable(|| Ok(rustix::fs::sendfile(self.stream, file, Some(&mut at), piece)?)).await?;
            if moved == 0 {
                return Err(CloseReason::RegionTruncated);
            }
            sent += moved;
        }
        Ok(())
    }

    /// Sends what may not be in the page cache: on a thread that may wait for it, over a descriptor of its own, as the connection may end meanwhile.
    async fn send_cold(&mut self, length: usize, part: impl Fn(usize, usize) -> Part) -> Result<(), CloseReason> {
        let socket = rustix::io::fcntl_dupfd_cloexec(self.stream, 0).map_err(|_| CloseReason::WriteFailed)?;
        let (socket, mut sent) = (Arc::new(socket), 0);
        while sent < length {
            let asked = (length - sent).min(SENT_COLD);
            let moved = match self.context.cold_reads.send(part(sent, asked), &socket).await {
                Ok(0) => return Err(CloseReason::RegionTruncated),
                Ok(moved) => moved,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) if is_of_the_socket(&error) => return Err(CloseReason::WriteFailed),
                Err(error) => return Err(region_failed(&error)),
            };
            self.context.stats.wrote(moved);
            sent += moved;
            if moved < asked {
                // Full. A third of its buffer has to be free, so that a thread is not asked for every packet.
                self.when_writable(|| takes_something(&socket)).await?;
            }
        }
        Ok(())
    }

    /// Sends what is gathered; `more` says that it is not the end, so a short packet may wait.
    async fn flush(&mut self, more: bool) -> Result<(), CloseReason> {
        while !self.gathered.is_empty() {
            let gathered = &self.gathered;
            let sent = self.when_writable(|| send_gathered(self.stream, gathered, more)).await?;
            self.advance(sent);
        }
        Ok(())
    }

    fn advance(&mut self, mut sent: usize) {
        self.gathered_bytes -= sent;
        while let Some(front) = self.gathered.front_mut() {
            if sent < front.len() {
                front.advance(sent);
                return;
            }
            sent -= front.len();
            self.gathered.pop_front();
        }
    }

    /// Repeats `operation` until the socket takes something, or has taken nothing for too long.
    async fn when_writable(&self, mut operation: impl FnMut() -> io::Result<usize>) -> Result<usize, CloseReason> {
        let mut blocked = false;
        loop {
            match self.stream.try_io(Interest::WRITABLE, &mut operation) {
                Ok(sent) => {
                    if blocked {
                        self.ledger.borrow_mut().set_write_deadline(None);
                    }
                    self.context.stats.wrote(sent);
                    return Ok(sent);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !blocked {
                        blocked = true;
                        let deadline = Instant::now() + self.context.settings.write_stall;
                        self.ledger.borrow_mut().set_write_deadline(Some(deadline));
                    }
                    self.stream.writable().await.map_err(|_| CloseReason::WriteFailed)?;
                }
                Err(_) => return Err(CloseReason::WriteFailed),
            }
        }
    }
}

impl Sink for AnswerWriter<'_> {
    async fn write(&mut self, responses: Vec<Response>) -> Result<(), CloseReason> {
        for response in responses {
            for chunk in response.chunks {
                match chunk {
                    Payload::Bytes(bytes) => self.gather(bytes).await?,
                    Payload::Regions(regions) => self.send_regions(&regions).await?,
                }
            }
        }
        self.flush(false).await?;
        if self.gathered.capacity() > SLICES {
            self.gathered = VecDeque::new();
        }
        Ok(())
    }
}

/// Whether the socket has room: nothing is moved.
fn takes_something(socket: &OwnedFd) -> io::Result<usize> {
    let mut polled = [PollFd::new(socket, PollFlags::OUT)];
    match rustix::event::poll(&mut polled, Some(&Timespec::default()))? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(0),
    }
}

/// Whether the peer, and not the file, is the trouble.
fn is_of_the_socket(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, TimedOut};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected | TimedOut)
}

fn send_gathered(stream: &TcpStream, gathered: &VecDeque<Bytes>, more: bool) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); SLICES];
    let count = gathered.len().min(SLICES);
    for (slice, bytes) in slices.iter_mut().zip(gathered) {
        *slice = IoSlice::new(bytes);
    }
    let more = if more || gathered.len() > SLICES { SendFlags::MORE } else { SendFlags::empty() };
    let mut no_control = SendAncillaryBuffer::default();
    Ok(rustix::net::sendmsg(stream, &slices[..count], &mut no_control, SendFlags::NOSIGNAL | more)?)
}

pub(crate) fn region_failed(error: &io::Error) -> CloseReason {
    if error.kind() == io::ErrorKind::UnexpectedEof { CloseReason::RegionTruncated } else { CloseReason::RegionFailed }
}
