//! The frame of the messages between nodes. All integers are little-endian:
//!
//! ```text
//! u32  bytes after this field
//! u16  version of the framing
//! u16  tag of the message
//! u64  correlation id: an answer has its request's
//! u32  bytes of the head
//! ...  head: the message
//! ...  payload: record bytes, as they are stored
//! ```
//!
//! Invariant: a frame of a tag that the reader does not know is still a whole frame, so it can be refused and the next one read.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use madang_protocol::payload::Payload;

/// The version of this framing.
pub const PROTOCOL_VERSION: u16 = 1;
/// Bytes of the length itself.
pub(crate) const PREFIX: usize = 4;
/// Bytes between the length and the head.
pub(crate) const FIXED: usize = 16;

/// One message on a lane.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFrame {
    /// What the head is.
    pub tag: u16,
    /// The message.
    pub head: Bytes,
    /// Record bytes that go with it.
    pub payload: Payload,
}

/// A frame whose payload is in memory, with what it answers or is to be answered by.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Received {
    pub(crate) correlation: u64,
    pub(crate) tag: u16,
    pub(crate) head: Bytes,
    pub(crate) payload: Bytes,
}

impl From<Received> for NodeFrame {
    fn from(received: Received) -> Self {
        Self { tag: received.tag, head: received.head, payload: Payload::Bytes(received.payload) }
    }
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of {0} bytes")]
    Length(usize),
    #[error("framing version {0}")]
    Version(u16),
    #[error("a head of {0} bytes")]
    Head(usize),
}

impl NodeFrame {
    /// All of the frame but its payload.
    pub(crate) fn front(&self, correlation: u64) -> Bytes {
        let length = FIXED + self.head.len() + self.payload.len();
        let mut front = BytesMut::with_capacity(PREFIX + FIXED + self.head.len());
        front.put_u32_le(u32::try_from(length).unwrap_or(u32::MAX));
        front.put_u16_le(PROTOCOL_VERSION);
        front.put_u16_le(self.tag);
        front.put_u64_le(correlation);
        front.put_u32_le(u32::try_from(self.head.len()).unwrap_or(u32::MAX));
        front.extend_from_slice(&self.head);
        front.freeze()
    }

    /// Bytes on the wire.
    pub(crate) fn wire_bytes(&self) -> usize {
        PREFIX + FIXED + self.head.len() + self.payload.len()
    }
}

/// The length that a prefix announces, if a frame may be so long.
pub(crate) fn announced(prefix: [u8; PREFIX], max_bytes: usize) -> Result<usize, FrameError> {
    let length = u32::from_le_bytes(prefix) as usize;
    if length < FIXED || length - FIXED > max_bytes { Err(FrameError::Length(length)) } else { Ok(length) }
}

/// Takes a whole frame apart that is at least [`FIXED`] bytes long.
pub(crate) fn parse(mut bytes: Bytes, max_head: usize) -> Result<Received, FrameError> {
    if bytes.len() < FIXED {
        return Err(FrameError::Length(bytes.len()));
    }
    let version = bytes.get_u16_le();
    if version != PROTOCOL_VERSION {
        return Err(FrameError::Version(version));
    }
    let tag = bytes.get_u16_le();
    let correlation = bytes.get_u64_le();
    let head = bytes.get_u32_le() as usize;
    if head > bytes.len() || head > max_head {
        return Err(FrameError::Head(head));
    }
    let head = bytes.split_to(head);
    Ok(Received { correlation, tag, head, payload: bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> NodeFrame {
        NodeFrame { tag: 7, head: Bytes::from_static(b"head"), payload: Bytes::from_static(b"payload").into() }
    }

    fn whole() -> Bytes {
        let mut bytes = BytesMut::from(&frame().front(9)[..]);
        bytes.extend_from_slice(b"payload");
        bytes.freeze()
    }

    #[test]
    fn the_layout_is_the_one_that_is_written_down() {
        let mut expected = vec![27, 0, 0, 0, 1, 0, 7, 0, 9, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0];
        expected.extend_from_slice(b"headpayload");
        assert_eq!(whole(), expected);
        assert_eq!(frame().wire_bytes(), expected.len());
        assert_eq!(announced([27, 0, 0, 0], 11), Ok(27));
        let received = parse(whole().slice(PREFIX..), 4).expect("a frame");
        assert_eq!((received.correlation, NodeFrame::from(received)), (9, frame()));
    }

    #[test]
    fn lengths_that_cannot_be_are_refused_before_anything_is_kept_for_them() {
        assert_eq!(announced([27, 0, 0, 0], 10), Err(FrameError::Length(27)));
        assert_eq!(announced([15, 0, 0, 0], 1 << 20), Err(FrameError::Length(15)));
        assert_eq!(announced([255; 4], 64 << 20), Err(FrameError::Length(u32::MAX as usize)));
        assert_eq!(parse(whole().slice(PREFIX..), 3), Err(FrameError::Head(4)));
        for length in 0..FIXED {
            assert_eq!(parse(whole().slice(PREFIX..PREFIX + length), 4), Err(FrameError::Length(length)));
        }
        let mut other = BytesMut::from(&whole()[PREFIX..]);
        other[0] = 2;
        assert_eq!(parse(other.freeze(), 4), Err(FrameError::Version(2)));
    }
}
