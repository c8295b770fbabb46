//! What one connection owes: its requests in flight, in order, and the deadlines that its two halves are under.
//! Invariant: answers leave from the front only; every wait on the ledger is woken by the connection's own task, so it needs no waker.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};

use futures_util::future::LocalBoxFuture;
use tokio::time::Instant;

use crate::budget::Charge;
use crate::kafka::ConnectionSettings;
use crate::service::{Outcome, Response};
use crate::stats::CloseReason;

/// Answers known and not written, above which nothing more is admitted: an answer pins what it refers to.
const MAX_UNWRITTEN_BYTES: usize = 256 << 10;
/// The same in items, so that the first of many pipelined requests does not wait for all of them.
const MAX_UNWRITTEN_ITEMS: usize = 32;

/// One request in flight.
struct Slot {
    state: SlotState,
    frame_bytes: usize,
    charge: Charge,
}

enum SlotState {
    Completing(LocalBoxFuture<'static, Outcome>),
    Known(Outcome),
}

/// The front answers, taken to be written together.
#[derive(Default)]
pub(crate) struct Ready {
    pub(crate) responses: Vec<Response>,
    /// The connection ends after these.
    pub(crate) close: Option<CloseReason>,
    items: usize,
    frame_bytes: usize,
    answer_bytes: usize,
    charges: Vec<Charge>,
}

/// See the file's head.
#[derive(Default)]
pub(crate) struct Ledger {
    slots: VecDeque<Slot>,
    completing: usize,
    in_flight: usize,
    in_flight_bytes: usize,
    unwritten_items: usize,
    unwritten_bytes: usize,
    throttled_until: Option<Instant>,
    read_deadline: Option<(Instant, CloseReason)>,
    write_deadline: Option<Instant>,
    drain_deadline: Option<Instant>,
    closing: bool,
    changed: bool,
}

impl Ledger {
    /// Adds a request whose outcome is known.
    pub(crate) fn push_known(&mut self, outcome: Outcome, frame_bytes: usize, charge: Charge) {
        self.note_known(&outcome);
        self.push(SlotState::Known(outcome), frame_bytes, charge);
    }

    /// Adds a request that is admitted and completing.
    pub(crate) fn push_completing(
        &mut self,
        future: LocalBoxFuture<'static, Outcome>,
        frame_bytes: usize,
        charge: Charge,
    ) {
        self.completing += 1;
        self.push(SlotState::Completing(future), frame_bytes, charge);
    }

    fn push(&mut self, state: SlotState, frame_bytes: usize, charge: Charge) {
        self.in_flight += 1;
        self.in_flight_bytes += frame_bytes;
        self.slots.push_back(Slot { state, frame_bytes, charge });
    }

    fn note_known(&mut self, outcome: &Outcome) {
        self.unwritten_items += 1;
        self.closing |= matches!(outcome, Outcome::Close(_));
        if let Outcome::Respond(response) = outcome {
            self.closing |= response.close.is_some();
            self.unwritten_bytes += response.len();
            if !response.throttle.is_zero() {
                self.throttled_until = self.throttled_until.max(Some(Instant::now() + response.throttle));
            }
        }
    }

    /// Takes all answers at the front that are known. `Pending` if there is none; the completing request at the front has the waker then.
    pub(crate) fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Ready> {
        let mut ready = Ready::default();
        while ready.close.is_none() {
            let Some(outcome) = self.poll_front(context) else { break };
            let Some(slot) = self.slots.pop_front() else { break };
            ready.items += 1;
            ready.frame_bytes += slot.frame_bytes;
            ready.charges.extend(slot.charge.map(Some));
            match outcome {
                Outcome::Silent => {}
                Outcome::Close(why) => ready.close = Some(CloseReason::Service(why)),
                Outcome::Respond(response) => {
                    ready.answer_bytes += response.len();
                    ready.close = response.close.map(CloseReason::Service);
                    ready.responses.push(response);
                }
            }
        }
        if ready.items == 0 { Poll::Pending } else { Poll::Ready(ready) }
    }

    fn poll_front(&mut self, context: &mut Context<'_>) -> Option<Outcome> {
        let slot = self.slots.front_mut()?;
        match &mut slot.state {
            SlotState::Known(outcome) => Some(std::mem::replace(outcome, Outcome::Silent)),
            SlotState::Completing(future) => match future.as_mut().poll(context) {
                Poll::Pending => None,
                Poll::Ready(outcome) => {
                    self.completing -= 1;
                    self.changed = true;
                    self.note_known(&outcome);
                    Some(outcome)
                }
            },
        }
    }

    /// The answers have left.
    pub(crate) fn written(&mut self, ready: &Ready) {
        self.in_flight -= ready.items;
        self.in_flight_bytes -= ready.frame_bytes;
        self.unwritten_items -= ready.items;
        self.unwritten_bytes -= ready.answer_bytes;
        self.changed = true;
    }

    /// Whether a frame may be admitted while earlier ones are in flight.
    pub(crate) fn has_room(&self, frame_bytes: usize, settings: &ConnectionSettings) -> bool {
        let fits = self.in_flight < settings.max_in_flight
            && self.in_flight_bytes.saturating_add(frame_bytes) <= settings.max_in_flight_bytes;
        let drains = self.unwritten_items < MAX_UNWRITTEN_ITEMS && self.unwritten_bytes < MAX_UNWRITTEN_BYTES;
        self.in_flight == 0 || (fits && drains)
    }

    /// Whether the outcome of every request admitted so far is known.
    pub(crate) fn is_settled(&self) -> bool {
        self.completing == 0
    }

    /// Whether an outcome that closes the connection is known, so that nothing more may be admitted.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether every request admitted so far has been answered.
    pub(crate) fn is_empty(&self) -> bool {
        self.in_flight == 0
    }

    /// Until when nothing is read, once.
    pub(crate) fn take_throttle(&mut self) -> Option<Instant> {
        self.throttled_until.take()
    }

    /// The reading half ends with `reason` at the deadline; `None` while it does not wait for the client.
    pub(crate) fn set_read_deadline(&mut self, deadline: Option<(Instant, CloseReason)>) {
        self.read_deadline = deadline;
    }

    /// The connection ends at the deadline unless the write in hand moves on.
    pub(crate) fn set_write_deadline(&mut self, deadline: Option<Instant>) {
        self.write_deadline = deadline;
    }

    /// Reads no more from now on; what is in flight has until `deadline`.
    pub(crate) fn drain(&mut self, deadline: Instant) {
        self.drain_deadline = Some(deadline);
        self.changed = true;
    }

    /// Whether nothing more is read.
    pub(crate) fn is_draining(&self) -> bool {
        self.drain_deadline.is_some()
    }

    /// The first deadline that is running, and what it means.
    pub(crate) fn deadline(&self) -> Option<(Instant, CloseReason)> {
        let write = self.write_deadline.map(|at| (at, CloseReason::WriteStalled));
        let drain = self.drain_deadline.map(|at| (at, CloseReason::Shutdown));
        [self.read_deadline, write, drain].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Whether something changed since the last call for which the other half may be waiting.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }
}

/// Waits until `condition` holds. The connection's task polls both halves whenever the ledger has changed.
pub(crate) async fn until(ledger: &RefCell<Ledger>, mut condition: impl FnMut(&mut Ledger) -> bool) {
    poll_fn(|_| if condition(&mut ledger.borrow_mut()) { Poll::Ready(()) } else { Poll::Pending }).await;
}
