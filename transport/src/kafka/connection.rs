//! One connection, from accept to close: runs its two halves in one task and holds them to their deadlines.
//! Invariant: whatever happens in here, a panic of the service included, ends this connection and no other.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::budget::MemoryBudget;
use crate::kafka::answers::write_answers;
use crate::kafka::duplex::{Presence, Sink, Source};
use crate::kafka::frame_reader::FrameReader;
use crate::kafka::intake::Intake;
use crate::kafka::ledger::Ledger;
use crate::kafka::writer::AnswerWriter;
use crate::kafka::{ColdReads, ConnectionSettings, ShutdownSignal};
use crate::service::{PeerInfo, Service};
use crate::stats::{CloseReason, Stats};

/// What all connections of a node share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ConnectionContext {
    /// Limits of each connection.
    pub settings: Arc<ConnectionSettings>,
    /// Bytes of requests, over all connections.
    pub budget: MemoryBudget,
    /// Counters.
    pub stats: Arc<Stats>,
    /// Where ranges of files that are not warm are read.
    pub cold_reads: ColdReads,
    /// Ends the connections.
    pub shutdown: ShutdownSignal,
}

/// Serves one connection until it is over and answers why. Call it on the thread that polls it, inside tokio's runtime. A panic of
/// the service is caught and answered as [`CloseReason::Panicked`]. If the future is dropped the connection is closed at once.
pub async fn serve_connection<S: Service>(
    service: S,
    mut stream: TcpStream,
    peer: PeerInfo,
    context: ConnectionContext,
) -> CloseReason {
    let ledger = RefCell::new(Ledger::default());
    let (source, write_half) = stream.split();
    let presence: &TcpStream = write_half.as_ref();
    let sink = AnswerWriter::new(presence, &context, &ledger);
    serve(service, Wires { source, sink, presence }, &peer, &context, &ledger).await
}

/// What a connection consists of.
pub(crate) struct Wires<'a, R, W, P> {
    pub(crate) source: R,
    pub(crate) sink: W,
    pub(crate) presence: &'a P,
}

/// Serves it until it is over.
pub(crate) async fn serve<S: Service>(
    service: S,
    wires: Wires<'_, impl Source, impl Sink, impl Presence>,
    peer: &PeerInfo,
    context: &ConnectionContext,
    ledger: &RefCell<Ledger>,
) -> CloseReason {
    let mut session = Session { service: &service, connection: None };
    let served = AssertUnwindSafe(converse(&mut session, wires, peer, context, ledger)).catch_unwind().await;
    let reason = served.unwrap_or(CloseReason::Panicked);
    context.stats.close(reason);
    match reason {
        CloseReason::Panicked => {
            tracing::error!(peer = %peer.peer_addr, "a request panicked; its connection is closed")
        }
        _ => tracing::debug!(peer = %peer.peer_addr, %reason, "connection closed"),
    }
    reason
}

/// The service's memory of the connection, handed back to it exactly once.
struct Session<'a, S: Service> {
    service: &'a S,
    connection: Option<S::Connection>,
}

impl<S: Service> Drop for Session<'_, S> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        if catch_unwind(AssertUnwindSafe(|| self.service.closed(connection))).is_err() {
            tracing::error!("the service panicked over a closed connection");
        }
    }
}

async fn converse<S: Service>(
    session: &mut Session<'_, S>,
    wires: Wires<'_, impl Source, impl Sink, impl Presence>,
    peer: &PeerInfo,
    context: &ConnectionContext,
    ledger: &RefCell<Ledger>,
) -> CloseReason {
    let Wires { source, sink, presence } = wires;
    let service = session.service;
    let connection = session.connection.insert(service.accepted(peer));
    let reader = FrameReader::new(source, context, ledger);
    let intake = pin!(Intake { service, connection, reader, presence, context, ledger }.run().fuse());
    let answers = pin!(write_answers(sink, ledger));
    let guards = pin!(watch_shutdown(context.shutdown.clone(), ledger));
    let timer = pin!(sleep_until(Instant::now() + context.settings.max_idle));
    Halves { ledger, intake, answers, guards, timer, ended: None }.run().await
}

async fn watch_shutdown(mut signal: ShutdownSignal, ledger: &RefCell<Ledger>) {
    signal.rearm();
    loop {
        let deadline = signal.next_deadline().await;
        ledger.borrow_mut().drain(deadline);
    }
}

/// What the connection's task polls, and why it reads no more.
struct Halves<'a, I, A, G> {
    ledger: &'a RefCell<Ledger>,
    intake: Pin<&'a mut I>,
    answers: Pin<&'a mut A>,
    guards: Pin<&'a mut G>,
    timer: Pin<&'a mut Sleep>,
    ended: Option<CloseReason>,
}

impl<I: Future<Output = CloseReason>, A: Future<Output = CloseReason>, G: Future<Output = ()>> Halves<'_, I, A, G> {
    async fn run(mut self) -> CloseReason {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<CloseReason> {
        // It never ends; it only writes to the ledger.
        let _: Poll<()> = self.guards.as_mut().poll(context);
        loop {
            self.ledger.borrow_mut().take_changed();
            if self.ended.is_none()
                && let Poll::Ready(reason) = self.intake.as_mut().poll(context)
            {
                self.ended = Some(reason);
            }
            if let Poll::Ready(reason) = self.answers.as_mut().poll(context) {
                return Poll::Ready(self.ended.unwrap_or(reason));
            }
            if !self.ledger.borrow_mut().take_changed() {
                break;
            }
        }
        match self.ended {
            Some(reason) if self.ledger.borrow().is_empty() => Poll::Ready(reason),
            _ => self.poll_deadline(context),
        }
    }

    /// The timer is moved only when it has to fire earlier, or has fired too early: most deadlines are met.
    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<CloseReason> {
        let Some((at, reason)) = self.ledger.borrow().deadline() else { return Poll::Pending };
        if at < self.timer.deadline() {
            self.timer.as_mut().reset(at);
        }
        while self.timer.as_mut().poll(context).is_ready() {
            if Instant::now() >= at {
                return Poll::Ready(reason);
            }
            self.timer.as_mut().reset(at);
        }
        Poll::Pending
    }
}
