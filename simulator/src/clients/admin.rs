//! The administrator: deletes records.
//! Invariant: the history knows what is asked before it is asked.

use std::rc::Rc;

use crate::clients::Clients;
use crate::cover;

/// Runs until the clients stop.
pub async fn run(clients: Rc<Clients>) {
    let sim = Rc::clone(&clients.sim);
    while !clients.is_stopping() {
        sim.pause(50_000, 800_000).await;
        let partition = clients.any_partition();
        let (start, high) = {
            let mut history = sim.history.borrow_mut();
            let known = history.of(partition);
            (known.log_start, known.high_watermark)
        };
        let span = u64::try_from(high - start).unwrap_or(0);
        let before = start + i64::try_from(sim.below(span / 2 + 1)).unwrap_or(0);
        {
            let mut history = sim.history.borrow_mut();
            let known = history.of(partition);
            known.asked_start = known.asked_start.max(before);
        }
        if let Ok(low) = clients.node.delete_records(partition, before).await {
            cover!("records deleted on request");
            sim.require(low >= before, "R13", || {
                format!("{partition:?}: deleted below {before}, and it starts at {low}")
            });
        }
    }
}
