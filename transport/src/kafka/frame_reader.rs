//! Cuts the byte stream into frames. Invariant: the buffer is never larger than four times the bytes that have arrived for the frame, or
//! than the frame before it, which did arrive; an idle connection has no buffer.

use std::cell::RefCell;
use std::pin::pin;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::future::{Either, poll_immediate, select};
use tokio::task::coop::consume_budget;
use tokio::time::Instant;

use crate::budget::Charge;
use crate::kafka::ConnectionContext;
use crate::kafka::duplex::Source;
use crate::kafka::ledger::{Ledger, until};
use crate::stats::CloseReason;

/// Length of the prefix.
const PREFIX: usize = 4;
/// The buffer a connection starts a frame with; not charged to the node's budget.
pub(crate) const BASE: usize = 16 << 10;
/// The most that is reserved because the frame before was as long.
const MAX_EXPECTED: usize = 1 << 20;
/// Frames up to this length are copied out of the buffer, so that one that is kept for long keeps no more than itself.
const COPIED: usize = 4 << 10;
/// Room beyond the expected frame: a read that does not fill its buffer tells the runtime that nothing is left, and saves asking.
const SLACK: usize = 64;
/// How much larger than the bytes received a buffer may be.
const GROWTH: usize = 4;

/// The reading half of one connection.
pub(crate) struct FrameReader<'a, R> {
    source: R,
    context: &'a ConnectionContext,
    ledger: &'a RefCell<Ledger>,
    buffer: BytesMut,
    charge: Charge,
    charged: usize,
    /// When the first byte of the frame in the buffer was there.
    started: Option<Instant>,
    last_frame: usize,
}

impl<'a, R: Source> FrameReader<'a, R> {
    pub(crate) fn new(source: R, context: &'a ConnectionContext, ledger: &'a RefCell<Ledger>) -> Self {
        let buffer = BytesMut::new();
        Self { source, context, ledger, buffer, charge: None, charged: 0, started: None, last_frame: 0 }
    }

    /// Waits for the next frame's prefix and answers the frame's length, prefix included.
    pub(crate) async fn announced(&mut self) -> Result<usize, CloseReason> {
        while self.buffer.len() < PREFIX {
            self.fill(PREFIX).await?;
        }
        let announced = i32::from_be_bytes([self.buffer[0], self.buffer[1], self.buffer[2], self.buffer[3]]);
        match usize::try_from(announced) {
            Ok(length) if length > 0 && length <= self.context.settings.max_request_bytes => Ok(PREFIX + length),
            _ => Err(CloseReason::FrameLength),
        }
    }

    /// Waits for the rest of the frame of `total` bytes and answers it without its prefix.
    pub(crate) async fn frame(&mut self, total: usize) -> Result<Bytes, CloseReason> {
        while self.buffer.len() < total {
            self.fill(total).await?;
        }
        self.ledger.borrow_mut().set_read_deadline(None);
        self.started = None;
        self.last_frame = total;
        let frame = self.cut(total);
        if self.buffer.capacity() <= BASE + SLACK {
            self.charge = None;
            self.charged = 0;
        }
        Ok(frame)
    }

    /// The time spent waiting for room is ours, not the client's.
    pub(crate) fn restart_clock(&mut self) {
        self.started = None;
    }

    /// Takes the first frame. Copies whichever is shorter, the frame or what follows it, and a frame that is lost in a large buffer.
    fn cut(&mut self, total: usize) -> Bytes {
        let following = self.buffer.len() - total;
        if total <= COPIED || following > total || total < self.buffer.capacity() / GROWTH {
            let frame = Bytes::copy_from_slice(&self.buffer[PREFIX..total]);
            self.buffer.advance(total);
            return frame;
        }
        let mut rest = BytesMut::new();
        if following > 0 {
            rest.reserve(following.max(BASE));
            rest.extend_from_slice(&self.buffer[total..]);
        }
        let mut frame = std::mem::replace(&mut self.buffer, rest);
        frame.truncate(total);
        frame.advance(PREFIX);
        frame.freeze()
    }

    /// Reads what there is of a frame of which at least `needed` bytes will come.
    async fn fill(&mut self, needed: usize) -> Result<(), CloseReason> {
        if self.ledger.borrow().is_draining() {
            return Err(CloseReason::Shutdown);
        }
        self.arm();
        let read = if self.buffer.is_empty() {
            self.first_read().await?
        } else {
            self.grow(needed).await?;
            self.next_read(needed).await?
        };
        if read == 0 {
            let clean = self.buffer.is_empty();
            return Err(if clean { CloseReason::ClientClosed } else { CloseReason::ClientClosedInFrame });
        }
        self.context.stats.read(read);
        Ok(())
    }

    fn arm(&mut self) {
        let settings = &self.context.settings;
        let deadline = if self.buffer.is_empty() {
            (Instant::now() + settings.max_idle, CloseReason::Idle)
        } else {
            let started = *self.started.get_or_insert_with(Instant::now);
            (started + settings.request_deadline, CloseReason::RequestDeadline)
        };
        self.ledger.borrow_mut().set_read_deadline(Some(deadline));
    }

    /// Waits without a buffer, then reads into one of the size that the last frame suggests.
    async fn first_read(&mut self) -> Result<usize, CloseReason> {
        loop {
            self.release();
            consume_budget().await;
            let arrived = self.arrived().await?;
            self.reserve_expected();
            if let Some(bytes) = arrived {
                self.buffer.extend_from_slice(&bytes);
                return Ok(bytes.len());
            }
            // Ready may be stale; a connection that waits again keeps no buffer.
            if let Some(read) = poll_immediate(pin!(self.source.read(&mut self.buffer))).await {
                return read.map_err(|_| CloseReason::ReadFailed);
            }
        }
    }

    async fn arrived(&mut self) -> Result<Option<Bytes>, CloseReason> {
        let arrived = pin!(self.source.arrived(BASE));
        let draining = pin!(until(self.ledger, |ledger| ledger.is_draining()));
        match select(arrived, draining).await {
            Either::Left((arrived, _)) => arrived.map_err(|_| CloseReason::ReadFailed),
            Either::Right(_) => Err(CloseReason::Shutdown),
        }
    }

    /// Reads no further than the end of a long frame of `needed` bytes: what follows it would have to be copied out of its buffer.
    async fn next_read(&mut self, needed: usize) -> Result<usize, CloseReason> {
        let most = if needed > BASE { needed - self.buffer.len() + SLACK } else { usize::MAX };
        let mut room = (&mut self.buffer).limit(most);
        let read = pin!(self.source.read(&mut room));
        let draining = pin!(until(self.ledger, |ledger| ledger.is_draining()));
        match select(read, draining).await {
            Either::Left((read, _)) => read.map_err(|_| CloseReason::ReadFailed),
            Either::Right(_) => Err(CloseReason::Shutdown),
        }
    }

    fn release(&mut self) {
        self.buffer = BytesMut::new();
        self.charge = None;
        self.charged = 0;
    }

    fn reserve_expected(&mut self) {
        let pool = self.context.budget.arriving();
        let expected = pool.rounded(self.last_frame.min(MAX_EXPECTED));
        if expected > BASE {
            self.charge = pool.try_take(expected);
        }
        self.charged = if self.charge.is_some() { expected } else { 0 };
        self.buffer = BytesMut::with_capacity(self.charged.max(BASE) + SLACK);
    }

    /// Makes room for at least one more byte of a frame that has `needed` bytes.
    async fn grow(&mut self, needed: usize) -> Result<(), CloseReason> {
        let received = self.buffer.len();
        if received < self.buffer.capacity() {
            return Ok(());
        }
        let capacity = needed.min(received.saturating_mul(GROWTH)).max(BASE);
        let pool = self.context.budget.arriving();
        // A frame above the pool takes all of it.
        let target = pool.rounded(capacity);
        if capacity > BASE && target > self.charged {
            let taken = pool.take(target - self.charged).await;
            match (&mut self.charge, taken) {
                (Some(charge), Some(more)) => charge.merge(more),
                (charge, taken) => *charge = taken,
            }
            self.charged = target;
        }
        // By way of a vector, which grows where it is if it can: `BytesMut` doubles.
        let mut larger = Vec::from(std::mem::take(&mut self.buffer));
        larger.reserve_exact(capacity - received);
        self.buffer = BytesMut::from(Bytes::from(larger));
        Ok(())
    }
}
