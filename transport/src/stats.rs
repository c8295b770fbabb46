//! Counters of the transport, shared by all threads, and the reasons for which connections end.
//! Invariant: counters only grow, except the numbers of open connections.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client closed it between two frames.
    ClientClosed,
    /// The client closed it inside a frame.
    ClientClosedInFrame,
    /// The client went away while a request of its was parked.
    ClientGone,
    /// Nothing was asked for the idle time.
    Idle,
    /// A frame did not arrive whole in time.
    RequestDeadline,
    /// A frame announced a length that is not positive or above the limit.
    FrameLength,
    /// There was no memory for a frame in time.
    Overloaded,
    /// Reading from the socket failed.
    ReadFailed,
    /// Writing to the socket failed.
    WriteFailed,
    /// An answer made no progress in time.
    WriteStalled,
    /// A file was shorter than the answer promised.
    RegionTruncated,
    /// A file could not be read.
    RegionFailed,
    /// The service asked for it.
    Service(&'static str),
    /// The service or the connection panicked.
    Panicked,
    /// The node stops.
    Shutdown,
}

impl CloseReason {
    /// Every reason's label, in the order of [`Stats::closes`].
    pub const LABELS: [&'static str; 15] = [
        "client-closed",
        "client-closed-in-frame",
        "client-gone",
        "idle",
        "request-deadline",
        "frame-length",
        "overloaded",
        "read-failed",
        "write-failed",
        "write-stalled",
        "region-truncated",
        "region-failed",
        "service",
        "panicked",
        "shutdown",
    ];

    /// A label for metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        Self::LABELS[self.index()]
    }

    fn index(self) -> usize {
        match self {
            Self::ClientClosed => 0,
            Self::ClientClosedInFrame => 1,
            Self::ClientGone => 2,
            Self::Idle => 3,
            Self::RequestDeadline => 4,
            Self::FrameLength => 5,
            Self::Overloaded => 6,
            Self::ReadFailed => 7,
            Self::WriteFailed => 8,
            Self::WriteStalled => 9,
            Self::RegionTruncated => 10,
            Self::RegionFailed => 11,
            Self::Service(_) => 12,
            Self::Panicked => 13,
            Self::Shutdown => 14,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(why) => formatter.write_str(why),
            other => formatter.write_str(other.label()),
        }
    }
}

/// Counters of all connections of a node.
#[derive(Debug, Default)]
pub struct Stats {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    requests: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    open: AtomicU64,
    quic_accepted: AtomicU64,
    quic_failed: AtomicU64,
    quic_open: AtomicU64,
    closes: [AtomicU64; CloseReason::LABELS.len()],
}

impl Stats {
    /// Bytes read from sockets.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    /// Bytes written to sockets.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Ordering::Relaxed)
    }

    /// Frames given to the service.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Connections admitted since the start.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections closed at once because a limit was reached.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Connections open now.
    pub fn open_connections(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// QUIC connections whose handshake ended well since the start. Each of their streams counts as a connection too.
    pub fn quic_accepted(&self) -> u64 {
        self.quic_accepted.load(Ordering::Relaxed)
    }

    /// QUIC connections whose handshake failed.
    pub fn quic_failed(&self) -> u64 {
        self.quic_failed.load(Ordering::Relaxed)
    }

    /// QUIC connections open now.
    pub fn open_quic_connections(&self) -> u64 {
        self.quic_open.load(Ordering::Relaxed)
    }

    /// Connections ended, by reason's label.
    pub fn closes(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        CloseReason::LABELS.iter().zip(&self.closes).map(|(label, count)| (*label, count.load(Ordering::Relaxed)))
    }

    /// Connections ended for this reason.
    pub fn closed_for(&self, reason: CloseReason) -> u64 {
        self.closes[reason.index()].load(Ordering::Relaxed)
    }

    pub(crate) fn read(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn wrote(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn accept(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// The connection's socket is gone.
    pub(crate) fn release(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn accept_quic(&self) {
        self.quic_accepted.fetch_add(1, Ordering::Relaxed);
        self.quic_open.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn release_quic(&self) {
        self.quic_open.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn fail_handshake(&self) {
        self.quic_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn close(&self, reason: CloseReason) {
        self.closes[reason.index()].fetch_add(1, Ordering::Relaxed);
    }
}
