//! The half of a connection that writes answers in the order of their requests.

use std::cell::RefCell;
use std::future::poll_fn;

use crate::kafka::duplex::Sink;
use crate::kafka::ledger::Ledger;
use crate::stats::CloseReason;

/// Writes answers as they come; ends only when the connection does.
pub(crate) async fn write_answers(mut sink: impl Sink, ledger: &RefCell<Ledger>) -> CloseReason {
    loop {
        let mut ready = poll_fn(|context| ledger.borrow_mut().poll_ready(context)).await;
        let responses = std::mem::take(&mut ready.responses);
        if let Err(reason) = sink.write(responses).await {
            return reason;
        }
        ledger.borrow_mut().written(&ready);
        if let Some(reason) = ready.close {
            return reason;
        }
    }
}
