//! A lane: one stream with requests in one direction and their answers in the other.
//! Invariant: every call is answered or fails, once; what was never sent says so.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quinn::SendStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::frame::NodeFrame;
use super::settings::QuicSettings;
use super::stream::{FrameSource, StreamError, send};
use crate::kafka::ColdReads;

/// What a lane is for; which kinds an endpoint serves is fixed where it is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum LaneKind {
    /// Raft, heartbeats, requests to the controller: small, and never behind data.
    Control = 1,
    /// Replication.
    Data = 2,
    /// Snapshots and copies of whole partitions.
    Snapshot = 3,
    /// What a node's supervisor says of it. The only kind that a supervisor may open, and no node may.
    Supervisor = 4,
}

impl LaneKind {
    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Control),
            2 => Some(Self::Data),
            3 => Some(Self::Snapshot),
            4 => Some(Self::Supervisor),
            _ => None,
        }
    }
}

/// Tag of the first frame in each direction.
pub(crate) const HELLO: u16 = 0;

/// What whoever opens a lane says first: its kind, and the feature levels that it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) kind: LaneKind,
    pub(crate) levels: (u16, u16),
}

impl Hello {
    pub(crate) fn frame(self) -> NodeFrame {
        let mut head = BytesMut::with_capacity(5);
        head.put_u8(self.kind as u8);
        head.put_u16_le(self.levels.0);
        head.put_u16_le(self.levels.1);
        NodeFrame { tag: HELLO, head: head.freeze(), ..NodeFrame::default() }
    }

    /// Bytes that a later version adds at the end are ignored.
    pub(crate) fn parse(mut head: Bytes) -> Option<Self> {
        let kind = LaneKind::from_code(head.try_get_u8().ok()?)?;
        let levels = (head.try_get_u16_le().ok()?, head.try_get_u16_le().ok()?);
        Some(Self { kind, levels })
    }
}

/// The highest level that both speak.
pub(crate) fn common_level(ours: (u16, u16), theirs: (u16, u16)) -> Option<u16> {
    let level = ours.1.min(theirs.1);
    (level >= ours.0.max(theirs.0)).then_some(level)
}

/// The answer to a hello.
pub(crate) fn level_frame(level: u16) -> NodeFrame {
    NodeFrame { tag: HELLO, head: Bytes::copy_from_slice(&level.to_le_bytes()), ..NodeFrame::default() }
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nothing of it has left: the link is down.
    #[error("not sent: the link is down")]
    NotSent,
    /// It may have arrived: the lane was lost, or the answer took too long.
    #[error("sent, and its answer is lost")]
    Lost,
    /// It is longer than a frame may be.
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
}

pub(crate) struct Call {
    frame: NodeFrame,
    reply: oneshot::Sender<Result<NodeFrame, CallError>>,
}

impl Call {
    pub(crate) fn refuse(self) {
        drop(self.reply.send(Err(CallError::NotSent)));
    }
}

/// Where calls go in. Clones share the lane; they may be on other threads.
#[derive(Clone, Debug)]
pub struct Lane {
    kind: LaneKind,
    calls: mpsc::Sender<Call>,
    max_frame: usize,
    max_head: usize,
}

impl Lane {
    pub(crate) fn new(kind: LaneKind, settings: &QuicSettings) -> (Self, mpsc::Receiver<Call>) {
        let (calls, queue) = mpsc::channel(settings.in_flight);
        let lane = Self { kind, calls, max_frame: settings.max_frame_bytes, max_head: settings.max_head_bytes };
        (lane, queue)
    }

    /// What the lane is for.
    #[must_use]
    pub const fn kind(&self) -> LaneKind {
        self.kind
    }

    /// Sends a request and waits for its answer. Waits for its turn while as many as the lane takes have none yet. Dropped before
    /// its turn, it is not sent.
    ///
    /// # Errors
    /// As [`CallError`] says.
    pub async fn call(&self, frame: NodeFrame) -> Result<NodeFrame, CallError> {
        if frame.head.len() > self.max_head || frame.head.len() + frame.payload.len() > self.max_frame {
            return Err(CallError::TooLong(frame.wire_bytes()));
        }
        let (reply, answer) = oneshot::channel();
        self.calls.send(Call { frame, reply }).await.map_err(|_| CallError::NotSent)?;
        // Dropped without a word only with the thread that drives the link.
        answer.await.unwrap_or(Err(CallError::Lost))
    }
}

struct Waiting {
    reply: oneshot::Sender<Result<NodeFrame, CallError>>,
    deadline: Instant,
}

/// Calls that were sent and have no answer, by correlation id, which is the order of their deadlines.
#[derive(Default)]
struct Sent {
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
}

/// Both halves of a lane that the other side has accepted.
pub(crate) struct LaneStream {
    pub(crate) send: SendStream,
    pub(crate) source: FrameSource,
}

/// Why a lane that was driven is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaneEnd {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("no answer within {0:?}")]
    Unanswered(Duration),
    #[error("an answer to nothing that was asked")]
    Unasked,
    #[error("nobody can ask any more")]
    Unused,
}

/// Sends the calls of a lane and brings their answers, until it fails or nobody holds the lane any more.
pub(crate) async fn drive(
    mut lane: LaneStream,
    calls: &mut mpsc::Receiver<Call>,
    settings: &QuicSettings,
    reads: &ColdReads,
) -> LaneEnd {
    let (sent, changed) = (Rc::new(RefCell::new(Sent::default())), Notify::new());
    let end = tokio::select! {
        end = write(&mut lane.send, calls, &sent, &changed, settings, reads) => end,
        end = read(&mut lane.source, &sent, &changed) => end,
        end = expire(&sent, &changed, settings.call_timeout) => end,
    };
    drop(lane.send.reset(0_u32.into()));
    lane.source.stop(0);
    for waiting in std::mem::take(&mut sent.borrow_mut().waiting).into_values() {
        drop(waiting.reply.send(Err(CallError::Lost)));
    }
    end
}

async fn write(
    stream: &mut SendStream,
    calls: &mut mpsc::Receiver<Call>,
    sent: &RefCell<Sent>,
    changed: &Notify,
    settings: &QuicSettings,
    reads: &ColdReads,
) -> LaneEnd {
    loop {
        while sent.borrow().waiting.len() >= settings.in_flight {
            changed.notified().await;
        }
        let Some(Call { frame, reply }) = calls.recv().await else { return LaneEnd::Unused };
        if reply.is_closed() {
            continue;
        }
        let correlation = {
            let mut sent = sent.borrow_mut();
            let correlation = sent.next;
            sent.next += 1;
            sent.waiting.insert(correlation, Waiting { reply, deadline: Instant::now() + settings.call_timeout });
            correlation
        };
        changed.notify_waiters();
        if let Err(error) = send(stream, &frame, correlation, reads).await {
            return error.into();
        }
    }
}

async fn read(source: &mut FrameSource, sent: &RefCell<Sent>, changed: &Notify) -> LaneEnd {
    loop {
        let received = match source.next().await {
            Ok(received) => received,
            Err(error) => return error.into(),
        };
        let Some(waiting) = sent.borrow_mut().waiting.remove(&received.correlation) else { return LaneEnd::Unasked };
        drop(waiting.reply.send(Ok(received.into())));
        changed.notify_waiters();
    }
}

/// A peer that leaves a call open beyond its time is not to be waited for: what else it was asked is lost as well.
async fn expire(sent: &RefCell<Sent>, changed: &Notify, call_timeout: Duration) -> LaneEnd {
    loop {
        let notified = changed.notified();
        let first = sent.borrow().waiting.first_key_value().map(|(_, waiting)| waiting.deadline);
        match first {
            None => notified.await,
            Some(deadline) => tokio::select! {
                () = notified => {}
                () = sleep_until(deadline) => return LaneEnd::Unanswered(call_timeout),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_survives_the_wire_and_what_a_later_version_adds() {
        let hello = Hello { kind: LaneKind::Data, levels: (1, 3) };
        let head = hello.frame().head;
        assert_eq!(&head[..], [2, 1, 0, 3, 0]);
        assert_eq!(Hello::parse(head.clone()), Some(hello));
        let mut longer = BytesMut::from(&head[..]);
        longer.put_u8(9);
        assert_eq!(Hello::parse(longer.freeze()), Some(hello));
        for length in 0..head.len() {
            assert_eq!(Hello::parse(head.slice(..length)), None);
        }
        assert_eq!(Hello::parse(Bytes::from_static(&[9, 1, 0, 3, 0])), None, "no such kind");
    }

    #[test]
    fn the_highest_level_that_both_speak_is_taken() {
        assert_eq!(common_level((1, 2), (1, 1)), Some(1));
        assert_eq!(common_level((1, 2), (2, 3)), Some(2));
        assert_eq!(common_level((1, 1), (2, 3)), None);
        assert_eq!(common_level((3, 4), (1, 2)), None);
    }
}
