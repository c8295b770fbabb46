//! What the parts of a run share: the clock, the scenario, who has written and read what.
//! Invariant: nobody holds the lock while waiting.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use madang_load_tests::bench::measure::Meter;
use madang_load_tests::bench::records::{Filler, Spec, stamp, stamped_at, value};
use madang_load_tests::bench::scenario::Scenario;
use madang_load_tests::bench::schedule::Schedule;
use madang_load_tests::bench::verify::Verifier;
use tokio::sync::Notify;

/// Producers that write what is there before the measured ones begin; their numbers follow those of the measured ones.
pub(crate) const PRELOADERS: u32 = 4;

/// What is counted.
pub(crate) struct Counts {
    pub(crate) verifier: Verifier,
    pub(crate) produce: Meter,
    pub(crate) consume: Meter,
    pub(crate) connect: Meter,
    /// The first errors of each kind of work.
    pub(crate) errors: Vec<String>,
}

/// Errors that are kept.
const ERRORS: usize = 8;

impl Counts {
    pub(crate) fn error(&mut self, why: impl ToString) {
        let why = why.to_string();
        if self.errors.len() < ERRORS && !self.errors.contains(&why) {
            self.errors.push(why);
        }
    }
}

/// One run.
pub(crate) struct Shared {
    pub(crate) scenario: Scenario,
    pub(crate) run: u64,
    pub(crate) servers: String,
    pub(crate) topics: Vec<Arc<str>>,
    keys: Vec<String>,
    pub(crate) filler: Filler,
    /// None if as much is sent as is answered.
    pub(crate) schedule: Option<Schedule>,
    base: Instant,
    /// When the load began, in nanoseconds after `base`.
    origin: AtomicU64,
    counts: Mutex<Counts>,
    /// The measured producers are to end, at this time at the latest.
    pub(crate) end_ns: AtomicU64,
    pub(crate) producers_end: Flag,
    pub(crate) consumers_end: Flag,
    /// Records due and never sent.
    pub(crate) backlog: AtomicU64,
    /// Memberships that ended and were followed by another.
    pub(crate) churned: AtomicU64,
}

/// Something that happens once and that many may wait for.
#[derive(Default)]
pub(crate) struct Flag {
    is_set: AtomicBool,
    notify: Notify,
}

impl Flag {
    pub(crate) fn set(&self) {
        self.is_set.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }

    pub(crate) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }

    pub(crate) async fn wait(&self) {
        let notified = self.notify.notified();
        tokio::pin!(notified);
        // Registered before the look, so that no setting is missed.
        notified.as_mut().enable();
        if !self.is_set() {
            notified.await;
        }
    }
}

impl Shared {
    pub(crate) fn new(scenario: Scenario, run: u64, servers: String) -> Self {
        let topics: Vec<Arc<str>> =
            (0..scenario.topics.count).map(|topic| format!("bench-{:08x}-{topic}", run as u32).into()).collect();
        let place = |topic: &Arc<str>| (0..scenario.topics.partitions).map(|at| format!("{topic}/{at}")).collect();
        let keys: Vec<String> = topics.iter().flat_map(|topic| -> Vec<String> { place(topic) }).collect();
        // One for the check at the end or the read before the start.
        let groups = scenario.consumers.groups.max(1) + 1;
        let verifier = Verifier::new(run, scenario.producers.count + PRELOADERS, groups, keys.clone());
        let counts = Counts {
            verifier,
            produce: Meter::default(),
            consume: Meter::default(),
            connect: Meter::default(),
            errors: Vec::new(),
        };
        let rate = scenario.records_per_second();
        Self {
            run,
            servers,
            topics,
            keys,
            filler: Filler::new(scenario.seed, scenario.records.compressibility),
            schedule: rate.map(|rate| Schedule::new(u64::from(scenario.producers.count), rate)),
            base: Instant::now(),
            origin: AtomicU64::new(0),
            counts: Mutex::new(counts),
            end_ns: AtomicU64::new(u64::MAX),
            producers_end: Flag::default(),
            consumers_end: Flag::default(),
            backlog: AtomicU64::new(0),
            churned: AtomicU64::new(0),
            scenario,
        }
    }

    fn since_base(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The load starts now; what is measured is measured by these.
    pub(crate) fn begin_now(&self, meter: &Meter) {
        let mut counts = self.counts();
        (counts.produce, counts.consume, counts.connect) = (meter.clone(), meter.clone(), meter.clone());
        self.origin.store(self.since_base(), Ordering::Release);
    }

    /// Nanoseconds since the start of the load.
    pub(crate) fn now(&self) -> u64 {
        self.since_base().saturating_sub(self.origin.load(Ordering::Acquire))
    }

    /// The moment at which this many nanoseconds have passed since the start of the load.
    pub(crate) fn moment(&self, at_ns: u64) -> Instant {
        self.base + Duration::from_nanos(self.origin.load(Ordering::Acquire).saturating_add(at_ns))
    }

    pub(crate) fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Topic and partition of a place.
    pub(crate) fn place(&self, place: u32) -> (&Arc<str>, i32) {
        let partitions = self.scenario.topics.partitions.max(1);
        let topic = self.topics.get((place / partitions) as usize).unwrap_or(&self.topics[0]);
        (topic, (place % partitions) as i32)
    }

    /// The place of a topic's partition; one that does not exist for another topic.
    pub(crate) fn place_of(&self, topic: &str, partition: i32) -> u32 {
        let at = self.topics.iter().position(|known| **known == *topic).and_then(|at| u32::try_from(at).ok());
        let partition = u32::try_from(partition).ok();
        at.zip(partition).map_or(u32::MAX, |(at, partition)| at * self.scenario.topics.partitions + partition)
    }

    fn stamps(&self) -> u32 {
        self.scenario.producers.count + PRELOADERS
    }

    /// The bytes of a record that is to be sent at `due`.
    pub(crate) fn value(&self, producer: u32, spec: &Spec, due: u64) -> Vec<u8> {
        let key = self.keys.get(spec.place as usize).map_or("", String::as_str);
        value(self.run, producer, spec, stamp(due, producer, self.stamps()), key, &self.filler)
    }

    /// Counts records that a group has read.
    pub(crate) fn read<'a>(&self, group: u32, measured: bool, records: impl Iterator<Item = (u32, &'a [u8])>) -> usize {
        let mut counts = self.counts();
        let counts = &mut *counts;
        // After the lock: what waited for it has not arrived before.
        let now = self.now();
        let mut number = 0;
        for (place, bytes) in records {
            number += 1;
            let head = counts.verifier.read(group, place, bytes);
            if measured {
                // What was preloaded was not to be read at once.
                let timed = head.filter(|head| head.process < self.scenario.producers.count);
                let due = timed.map(|head| stamped_at(head.unique, self.stamps()));
                counts.consume.done(due, now, bytes.len() as u64);
            }
        }
        number
    }
}
