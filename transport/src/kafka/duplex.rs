//! What a connection's bytes travel over: a TCP socket, or a stream of a QUIC connection.
//! Invariant: a wait that is dropped has taken nothing that is not given out.

use std::future::{Future, pending};
use std::io;

use bytes::{BufMut, Bytes};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;

use crate::service::Response;
use crate::stats::CloseReason;

/// Where the client's bytes come from.
pub(crate) trait Source {
    /// Waits without a buffer until bytes may be there. What cannot wait without taking some gives them, at most `most`; no bytes are the end.
    async fn arrived(&mut self, most: usize) -> io::Result<Option<Bytes>>;

    /// Waits for bytes and puts what there is of them into `buffer`; 0 is the end.
    async fn read(&mut self, buffer: &mut impl BufMut) -> io::Result<usize>;
}

/// Where the answers go.
pub(crate) trait Sink {
    /// Writes all of them, in order.
    async fn write(&mut self, responses: Vec<Response>) -> Result<(), CloseReason>;
}

/// Whether the client is still there, told even if bytes that it has sent are unread.
pub(crate) trait Presence {
    /// Resolves once the client has closed its side.
    fn closed(&self) -> impl Future<Output = ()>;
}

impl Source for ReadHalf<'_> {
    async fn arrived(&mut self, _: usize) -> io::Result<Option<Bytes>> {
        self.readable().await.map(|()| None)
    }

    async fn read(&mut self, buffer: &mut impl BufMut) -> io::Result<usize> {
        self.read_buf(buffer).await
    }
}

impl Presence for TcpStream {
    async fn closed(&self) {
        // The priority interest comes with the event of a closed read side, and without that of mere bytes.
        match self.ready(Interest::PRIORITY).await {
            Ok(ready) if !ready.is_read_closed() => pending().await,
            _ => {}
        }
    }
}
