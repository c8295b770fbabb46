//! Histories that were never lived: of a log that keeps its promises, with everything that is allowed to happen, and with planted anomalies.
//! Invariant: a history of [`clean`] has no anomaly, whatever the seed.

mod clients;
mod plants;
mod world;

pub use self::plants::plant;

use crate::history::Event;

use self::world::World;

/// A clean history of about so many records.
pub fn clean(seed: u64, records: u64, mut sink: impl FnMut(Event)) {
    World::new(seed, &mut sink).run(records);
}

/// As [`clean`], in memory.
#[must_use]
pub fn clean_events(seed: u64, records: u64) -> Vec<Event> {
    let mut events = Vec::new();
    clean(seed, records, |event| events.push(event));
    events
}
