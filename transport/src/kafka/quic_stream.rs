//! One stream of a client's QUIC connection as one connection of Kafka's protocol: what comes in, what goes out, and how it ends.
//! Invariant: what a client has not sent room for is not held here beyond one piece, and a stalled stream holds nothing of another.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, Shared, poll_immediate};
use madang_protocol::payload::{Payload, Region};
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::io::AsyncReadExt;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, timeout};

use crate::kafka::ConnectionContext;
use crate::kafka::cold_reads::Part;
use crate::kafka::connection::{Wires, serve};
use crate::kafka::duplex::{Presence, Sink, Source};
use crate::kafka::ledger::Ledger;
use crate::kafka::writer::{GATHERED, PIECE, region_failed};
use crate::service::{PeerInfo, Response, Service};
use crate::stats::CloseReason;

/// How long the last answers of a stream may take to arrive once it is over.
const LINGER: Duration = Duration::from_secs(2);
/// Codes with which streams and connections are closed.
pub(crate) mod code {
    pub(crate) const OVER: u32 = 0;
    pub(crate) const STOPPED: u32 = 1;
    pub(crate) const REFUSED: u32 = 2;
    pub(crate) const IDLE: u32 = 3;
    pub(crate) const BROKEN: u32 = 4;
}

/// Serves one stream until it is over and its last answers have arrived. If the future is dropped both directions end at once.
pub(crate) async fn serve_stream<S: Service>(
    service: S,
    mut send: SendStream,
    mut receive: RecvStream,
    peer: PeerInfo,
    context: &ConnectionContext,
) -> CloseReason {
    let ledger = RefCell::new(Ledger::default());
    let presence = StreamPresence::of(&send);
    let sink = StreamWriter { stream: &mut send, context, ledger: &ledger, gathered: Vec::new(), gathered_bytes: 0 };
    let wires = Wires { source: StreamSource(&mut receive), sink, presence: &presence };
    let reason = serve(service, wires, &peer, context, &ledger).await;
    // Both fail only on what has ended already.
    drop(receive.stop(VarInt::from_u32(code::OVER)));
    if is_whole(reason) {
        drop(send.finish());
    } else {
        drop(send.reset(VarInt::from_u32(code::BROKEN)));
    }
    drop(timeout(LINGER, send.stopped()).await);
    reason
}

/// Whether what was written is all that was to be, so that its end may be told as one.
const fn is_whole(reason: CloseReason) -> bool {
    use CloseReason::{Panicked, RegionFailed, RegionTruncated, WriteFailed, WriteStalled};
    !matches!(reason, Panicked | RegionFailed | RegionTruncated | WriteFailed | WriteStalled)
}

struct StreamSource<'a>(&'a mut RecvStream);

impl Source for StreamSource<'_> {
    async fn arrived(&mut self, most: usize) -> io::Result<Option<Bytes>> {
        match self.0.read_chunk(most, true).await {
            Ok(chunk) => Ok(Some(chunk.map(|chunk| chunk.bytes).unwrap_or_default())),
            Err(error) => ended(error.into()).map(|_| Some(Bytes::new())),
        }
    }

    async fn read(&mut self, buffer: &mut impl BufMut) -> io::Result<usize> {
        self.0.read_buf(buffer).await.or_else(ended)
    }
}

/// A client that closes its whole connection has ended this stream too.
fn ended(error: io::Error) -> io::Result<usize> {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<ReadError>());
    match cause {
        Some(ReadError::ConnectionLost(ConnectionError::ApplicationClosed(_))) => Ok(0),
        _ => Err(error),
    }
}

/// A client that wants no more answers has gone, and so has one whose connection is lost.
struct StreamPresence(Shared<LocalBoxFuture<'static, ()>>);

impl StreamPresence {
    fn of(stream: &SendStream) -> Self {
        Self(stream.stopped().map(drop).boxed_local().shared())
    }
}

impl Presence for StreamPresence {
    fn closed(&self) -> impl Future<Output = ()> {
        self.0.clone()
    }
}

/// Writes answers to a stream; ranges of files are read in pieces, on the cold readers unless they are warm.
struct StreamWriter<'a> {
    stream: &'a mut SendStream,
    context: &'a ConnectionContext,
    ledger: &'a RefCell<Ledger>,
    gathered: Vec<Bytes>,
    gathered_bytes: usize,
}

impl Sink for StreamWriter<'_> {
    async fn write(&mut self, responses: Vec<Response>) -> Result<(), CloseReason> {
        for response in responses {
            for chunk in response.chunks {
                match chunk {
                    Payload::Bytes(bytes) => self.gather(bytes).await?,
                    Payload::Regions(regions) => self.read(&regions).await?,
                }
            }
        }
        self.flush().await
    }
}

impl StreamWriter<'_> {
    async fn read(&mut self, regions: &Arc<[Arc<dyn Region>]>) -> Result<(), CloseReason> {
        for (index, region) in regions.iter().enumerate() {
            let mut offset = 0;
            while offset < region.len() {
                let length = PIECE.min(region.len() - offset);
                let part = Part { regions: Arc::clone(regions), index, offset, length };
                consume_budget().await;
                let read = if region.is_warm() { part.read() } else { self.context.cold_reads.read(part).await };
                self.gather(read.map_err(|error| region_failed(&error))?).await?;
                offset += length;
            }
        }
        Ok(())
    }

    async fn gather(&mut self, bytes: Bytes) -> Result<(), CloseReason> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.gathered_bytes += bytes.len();
        self.gathered.push(bytes);
        if self.gathered_bytes >= GATHERED { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), CloseReason> {
        let mut gathered = std::mem::take(&mut self.gathered);
        let mut left = &mut gathered[..];
        while !left.is_empty() {
            let chunks = self.take(left).await?;
            left = &mut left[chunks..];
        }
        self.gathered_bytes = 0;
        Ok(())
    }

    /// Hands over what the client has room for, and says how many chunks that were to their end. The connection ends if there is none for too long.
    async fn take(&mut self, chunks: &mut [Bytes]) -> Result<usize, CloseReason> {
        let failed = |_: WriteError| CloseReason::WriteFailed;
        let mut writing = pin!(self.stream.write_chunks(chunks));
        let written = match poll_immediate(writing.as_mut()).await {
            Some(written) => written.map_err(failed)?,
            None => {
                let deadline = Instant::now() + self.context.settings.write_stall;
                self.ledger.borrow_mut().set_write_deadline(Some(deadline));
                let written = writing.await.map_err(failed)?;
                self.ledger.borrow_mut().set_write_deadline(None);
                written
            }
        };
        self.context.stats.wrote(written.bytes);
        Ok(written.chunks)
    }
}
