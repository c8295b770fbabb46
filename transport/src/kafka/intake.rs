//! The half of a connection that reads frames and has them admitted, in order.
//! Invariant: a frame that does not overlap is admitted when the outcome of every earlier one is known, and nothing is admitted until its own is.

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};

use bytes::Bytes;
use futures_util::future::{Either, select};
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep, sleep_until};

use crate::budget::Charge;
use crate::kafka::ConnectionContext;
use crate::kafka::duplex::{Presence, Source};
use crate::kafka::frame_reader::FrameReader;
use crate::kafka::ledger::{Ledger, until};
use crate::service::{Admission, Outcome, Service};
use crate::stats::CloseReason;

/// See the file's head.
pub(crate) struct Intake<'a, S: Service, R, P> {
    pub(crate) service: &'a S,
    pub(crate) connection: &'a mut S::Connection,
    pub(crate) reader: FrameReader<'a, R>,
    pub(crate) presence: &'a P,
    pub(crate) context: &'a ConnectionContext,
    pub(crate) ledger: &'a RefCell<Ledger>,
}

impl<S: Service, R: Source, P: Presence> Intake<'_, S, R, P> {
    /// Reads until there is a reason not to.
    pub(crate) async fn run(mut self) -> CloseReason {
        loop {
            if let Err(reason) = self.admit_next().await {
                self.ledger.borrow_mut().set_read_deadline(None);
                return reason;
            }
        }
    }

    async fn admit_next(&mut self) -> Result<(), CloseReason> {
        consume_budget().await;
        let total = self.reader.announced().await?;
        self.obey_throttle().await?;
        self.wait_for_room(total).await?;
        let frame = self.reader.frame(total).await?;
        let charge = self.charge(total).await;
        let overlaps = self.service.overlaps(&frame);
        until(self.ledger, |ledger| !ledger.is_closing() && (overlaps || ledger.is_settled())).await;
        self.context.stats.request();
        if overlaps {
            self.admit_overlapping(frame, total, charge).await;
            return Ok(());
        }
        let outcome = self.execute(frame).await?;
        self.ledger.borrow_mut().push_known(outcome, total, charge);
        Ok(())
    }

    /// Neither reads nor admits while a quota says so; the answer that said it has left or is leaving.
    async fn obey_throttle(&mut self) -> Result<(), CloseReason> {
        loop {
            let Some(resume_at) = self.ledger.borrow_mut().take_throttle() else { return Ok(()) };
            self.ledger.borrow_mut().set_read_deadline(None);
            self.reader.restart_clock();
            let wait = pin!(sleep_until(resume_at));
            let draining = pin!(until(self.ledger, |ledger| ledger.is_draining()));
            if let Either::Right(_) = select(wait, draining).await {
                return Err(CloseReason::Shutdown);
            }
        }
    }

    async fn wait_for_room(&mut self, total: usize) -> Result<(), CloseReason> {
        let settings = &self.context.settings;
        if self.ledger.borrow().has_room(total, settings) {
            return Ok(());
        }
        self.ledger.borrow_mut().set_read_deadline(None);
        until(self.ledger, |ledger| ledger.is_draining() || ledger.has_room(total, settings)).await;
        self.reader.restart_clock();
        if self.ledger.borrow().is_draining() { Err(CloseReason::Shutdown) } else { Ok(()) }
    }

    async fn charge(&self, total: usize) -> Charge {
        let pool = self.context.budget.in_flight();
        if let Some(charge) = pool.try_take(total) {
            return Some(charge);
        }
        let deadline = Instant::now() + self.context.settings.request_deadline;
        self.ledger.borrow_mut().set_read_deadline(Some((deadline, CloseReason::Overloaded)));
        let charge = pool.take(total).await;
        self.ledger.borrow_mut().set_read_deadline(None);
        charge
    }

    async fn admit_overlapping(&mut self, frame: Bytes, total: usize, charge: Charge) {
        // Boxed, so that an idle connection is not as large as the largest request.
        match Box::pin(self.service.admit(self.connection, frame)).await {
            Admission::Done(outcome) => self.ledger.borrow_mut().push_known(outcome, total, charge),
            Admission::Completing(rest) => self.ledger.borrow_mut().push_completing(rest, total, charge),
        }
    }

    /// Runs one request to its outcome, unless its client goes away.
    async fn execute(&mut self, frame: Bytes) -> Result<Outcome, CloseReason> {
        let gone = pin!(gone(self.presence, self.context));
        let service = self.service;
        let connection = &mut *self.connection;
        let whole = async move {
            match service.admit(connection, frame).await {
                Admission::Done(outcome) => outcome,
                Admission::Completing(rest) => rest.await,
            }
        };
        let whole: Pin<Box<dyn Future<Output = Outcome> + '_>> = Box::pin(whole);
        match select(whole, gone).await {
            Either::Left((outcome, _)) => Ok(outcome),
            Either::Right(_) => Err(CloseReason::ClientGone),
        }
    }
}

/// Resolves some time after the client has closed its side.
async fn gone(presence: &impl Presence, context: &ConnectionContext) {
    presence.closed().await;
    sleep(context.settings.gone_grace).await;
}
