//! Frames on one QUIC stream. Invariant: the buffer is never more than twice the bytes that have arrived, or one small step.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use madang_protocol::payload::Payload;
use quinn::{ReadError, RecvStream, SendStream, WriteError};
use tokio::time::timeout;

use super::frame::{FrameError, NodeFrame, PREFIX, Received, announced, parse};
use super::settings::QuicSettings;
use crate::kafka::{ColdReads, Part};

/// The buffer that a frame starts with, and the pieces in which a file is read.
const STEP: usize = 64 << 10;
const PIECE: usize = 256 << 10;

/// Why a stream is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error("the peer ended it")]
    Ended,
    #[error("the peer ended it inside a frame")]
    EndedInFrame,
    #[error("a frame did not arrive within {0:?}")]
    Slow(Duration),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("the payload cannot be read: {0}")]
    Payload(std::io::Error),
}

/// The receiving half.
pub(crate) struct FrameSource {
    stream: RecvStream,
    max_frame: usize,
    max_head: usize,
    frame_timeout: Duration,
}

impl FrameSource {
    pub(crate) const fn new(stream: RecvStream, settings: &QuicSettings) -> Self {
        Self {
            stream,
            max_frame: settings.max_frame_bytes,
            max_head: settings.max_head_bytes,
            frame_timeout: settings.frame_timeout,
        }
    }

    /// The next frame. The wait for its first byte has no end; from there on it has to keep coming.
    pub(crate) async fn next(&mut self) -> Result<Received, StreamError> {
        let mut prefix = [0; PREFIX];
        match self.stream.read(&mut prefix).await? {
            None => Err(StreamError::Ended),
            Some(read) => {
                let limit = self.frame_timeout;
                timeout(limit, self.rest(prefix, read)).await.map_err(|_| StreamError::Slow(limit))?
            }
        }
    }

    async fn rest(&mut self, mut prefix: [u8; PREFIX], read: usize) -> Result<Received, StreamError> {
        fill(&mut self.stream, &mut prefix[read..]).await?;
        let length = announced(prefix, self.max_frame)?;
        let mut buffer = BytesMut::new();
        let mut filled = 0;
        while filled < length {
            // As much again as has arrived.
            let goal = length.min((filled * 2).max(STEP));
            buffer.resize(goal, 0);
            fill(&mut self.stream, &mut buffer[filled..goal]).await?;
            filled = goal;
        }
        Ok(parse(buffer.freeze(), self.max_head)?)
    }

    /// Tells the peer that nothing more of it is read.
    pub(crate) fn stop(&mut self, code: u32) {
        drop(self.stream.stop(code.into()));
    }
}

async fn fill(stream: &mut RecvStream, mut buffer: &mut [u8]) -> Result<(), StreamError> {
    while !buffer.is_empty() {
        let read = stream.read(buffer).await?.ok_or(StreamError::EndedInFrame)?;
        buffer = &mut buffer[read..];
    }
    Ok(())
}

/// Sends one frame. After an error the stream is of no use, as half of the frame may have left.
pub(crate) async fn send(
    stream: &mut SendStream,
    frame: &NodeFrame,
    correlation: u64,
    reads: &ColdReads,
) -> Result<(), StreamError> {
    stream.write_chunk(frame.front(correlation)).await?;
    match &frame.payload {
        Payload::Bytes(bytes) if bytes.is_empty() => Ok(()),
        Payload::Bytes(bytes) => Ok(stream.write_chunk(bytes.clone()).await?),
        Payload::Regions(regions) => {
            for (index, region) in regions.iter().enumerate() {
                let mut offset = 0;
                while offset < region.len() {
                    let length = PIECE.min(region.len() - offset);
                    let part = Part { regions: regions.clone(), index, offset, length };
                    let bytes: std::io::Result<Bytes> =
                        if region.is_warm() { part.read() } else { reads.read(part).await };
                    stream.write_chunk(bytes.map_err(StreamError::Payload)?).await?;
                    offset += length;
                }
            }
            Ok(())
        }
    }
}
