//! A connection's end in the process: frames in order through the real `admit`, answers in order.
//! Invariant: one request at a time; a Produce is admitted once the appends of the one before it are enqueued, and nothing else overtakes.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_channel::mpsc::{Receiver, Sender, TrySendError, channel};
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use madang::broker::{Admission, Outcome, PeerInfo, admit, overlaps};

use crate::cover;
use crate::executor::{Exit, Planted};
use crate::node::Node;
use crate::node::env::SimEnv;
use crate::node::process::Process;
use crate::sim::{OUTSIDE, Sim};
use crate::swarm::FaultClass;

/// What a connection closes for without anybody's fault.
const APPEND_FAILED: &str = "produce with acks=0 failed";

/// Frames on their way in one direction. A client that wants no answers can fill it, and then waits as at a full socket.
const WINDOW: usize = 256;

/// The client's end of a connection.
pub struct Ends {
    /// Frames to the node, without their length.
    pub to: Sender<Bytes>,
    /// Frames from the node, with it.
    pub from: Receiver<Bytes>,
}

/// Connects to the process; none if there is none that serves.
#[must_use]
pub fn connect(node: &Rc<Node>) -> Option<Ends> {
    let process = node.serving()?;
    let (to, requests) = channel(WINDOW);
    let (answers, from) = channel(WINDOW);
    let sim = &node.sim;
    let env = SimEnv { sim: Rc::clone(sim), node: Rc::clone(node), process: Rc::clone(&process) };
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let peer = PeerInfo { listener: "PLAINTEXT".into(), peer_addr: local(40_000), local_addr: local(9092) };
    let ended = sim.executor.spawn(process.scope, serve(env, peer, requests, answers));
    let sim = Rc::clone(sim);
    sim.clone().executor.detach(OUTSIDE, async move {
        if let Ok(Exit::Panicked(Some(text))) = ended.await {
            sim.violate("U2", format!("a connection's handler: {text}"));
        }
    });
    Some(Ends { to, from })
}

async fn serve(env: SimEnv, peer: PeerInfo, mut requests: Receiver<Bytes>, answers: Sender<Bytes>) {
    let mut ledger = Ledger { sim: Rc::clone(&env.sim), completing: VecDeque::new(), admitting: None, answers };
    let mut next: Option<(Bytes, bool)> = None;
    let mut open = true;
    while open || ledger.is_finishing() {
        if let Some((frame, overlaps)) = next.take() {
            if ledger.admits(overlaps) {
                // What was sent together arrives together.
                let delay = if ledger.completing.is_empty() { env.sim.swarm.network_us } else { 0 };
                ledger.admitting = Some((admission(&env, &peer, frame, delay), overlaps));
            } else {
                next = Some((frame, overlaps));
            }
        }
        let waits = next.is_some();
        let event = poll_fn(|context| {
            match ledger.poll(context) {
                Poll::Ready(true) => return Poll::Ready(Event::Progress),
                Poll::Ready(false) => return Poll::Ready(Event::Closed),
                Poll::Pending => {}
            }
            // One frame is read ahead, so that a client that goes is noticed.
            if waits || !open {
                return Poll::Pending;
            }
            requests.poll_next_unpin(context).map(|frame| frame.map_or(Event::NoMore, Event::Frame))
        });
        match event.await {
            Event::Progress => {}
            Event::Closed => return,
            // The client has gone: what does not overlap is dropped where it waits.
            Event::NoMore => open = false,
            Event::Frame(frame) => {
                let overlapping = overlaps(&frame);
                next = Some((frame, overlapping));
            }
        }
    }
}

enum Event {
    Progress,
    Closed,
    NoMore,
    Frame(Bytes),
}

/// What the connection owes.
struct Ledger {
    sim: Rc<Sim>,
    /// The first one is polled when the outcomes of all before it are known.
    completing: VecDeque<LocalBoxFuture<'static, Outcome>>,
    admitting: Option<(LocalBoxFuture<'static, Admission>, bool)>,
    answers: Sender<Bytes>,
}

impl Ledger {
    fn admits(&self, overlaps: bool) -> bool {
        self.admitting.is_none() && (overlaps || self.completing.is_empty())
    }

    /// Whether an append is still on its way into its replica.
    fn is_finishing(&self) -> bool {
        self.admitting.as_ref().is_some_and(|(_, overlaps)| *overlaps)
    }

    /// Ready when something has moved; with false if the connection is over.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        if let Some(first) = self.completing.front_mut()
            && let Poll::Ready(outcome) = first.as_mut().poll(context)
        {
            self.completing.pop_front();
            return Poll::Ready(self.leaves(outcome));
        }
        let Some((admission, _)) = &mut self.admitting else { return Poll::Pending };
        let Poll::Ready(admission) = admission.as_mut().poll(context) else { return Poll::Pending };
        self.admitting = None;
        self.completing.push_back(match admission {
            Admission::Done(outcome) => Box::pin(std::future::ready(outcome)),
            Admission::Completing(later) => later,
        });
        Poll::Ready(true)
    }

    fn leaves(&mut self, outcome: Outcome) -> bool {
        let response = match outcome {
            Outcome::Silent => return true,
            Outcome::Close(why) => {
                self.sim
                    .require(why == APPEND_FAILED, "U1", || format!("a sound request closes its connection: {why}"));
                return false;
            }
            Outcome::Respond(response) => response,
        };
        let mut bytes = Vec::with_capacity(response.len());
        for chunk in &response.chunks {
            match chunk.read() {
                Ok(read) => bytes.extend_from_slice(&read),
                Err(_) => {
                    cover!("an answer's bytes cannot be read");
                    return false;
                }
            }
        }
        let sent = self.answers.try_send(Bytes::from(bytes));
        let full = sent.as_ref().is_err_and(TrySendError::is_full);
        self.sim.require(!full, "U3", || "a connection holds more answers than its client has requests".to_owned());
        // A client that has gone hears nothing.
        sent.is_ok() && response.close.is_none()
    }
}

/// One frame through the real handlers, unless its handler is to die.
fn admission(env: &SimEnv, peer: &PeerInfo, frame: Bytes, delay_us: u64) -> LocalBoxFuture<'static, Admission> {
    let (env, peer) = (env.clone(), peer.clone());
    let process: Rc<Process> = Rc::clone(&env.process);
    let sim = Rc::clone(&env.sim);
    let mut work: Pin<Box<dyn Future<Output = Admission>>> = Box::pin(async move {
        if delay_us > 0 {
            env.sim.pause(50, delay_us).await;
        }
        admit(&env, &peer, frame).await
    });
    let Some(mut left) = process.handler_dies.take() else { return work };
    Box::pin(poll_fn(move |context| {
        if left == 0 {
            sim.fault(FaultClass::HandlerPanic);
            cover!("panic in a handler");
            std::panic::panic_any(Planted);
        }
        left -= 1;
        work.as_mut().poll(context)
    }))
}
