//! What everything in one run shares: the executor, the disk, the seed's random numbers, the history, the verdict.
//! In a cluster each node has a view of its own: its disk, its clock, what is known of its own logs; the rest is the run's.
//! Invariant: the first violation is kept and ends the run; the digest covers every event in order.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use madang_actors::clock::{Mono, Wall};
use madang_actors::prng::Prng;
use madang_storage::FaultDisk;

use crate::executor::{Executor, Scope};
use crate::history::History;
use crate::swarm::{FaultClass, Swarm};

/// The clients and the injector of faults.
pub const OUTSIDE: Scope = Scope(0);
/// Wall clock at the start of a run, in milliseconds.
const EPOCH_MS: i64 = 1_700_000_000_000;

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its code: R10, S1, …
    pub code: &'static str,
    /// What was seen.
    pub what: String,
}

/// What all views of a run share.
struct Shared {
    rng: RefCell<Prng>,
    digest: Cell<u64>,
    violation: RefCell<Option<Violation>>,
    faults: RefCell<BTreeMap<FaultClass, u64>>,
    serial: Cell<u64>,
    healed: Cell<bool>,
    trace: bool,
}

/// One run, or a node's view of it.
pub struct Sim {
    /// The seed.
    pub seed: u64,
    /// What the seed drew.
    pub swarm: Rc<Swarm>,
    /// Tasks and time.
    pub executor: Executor,
    /// The node's disk.
    pub disk: FaultDisk,
    /// What is known to be true.
    pub history: RefCell<History>,
    wall_offset: Cell<i64>,
    shared: Rc<Shared>,
}

impl Sim {
    /// A run of `seed` that has not begun.
    #[must_use]
    pub fn new(seed: u64) -> Rc<Self> {
        Self::drawn(seed, Swarm::draw)
    }

    /// A run of `seed` with what `draw` makes of it.
    pub fn drawn(seed: u64, draw: impl FnOnce(&mut Prng) -> Swarm) -> Rc<Self> {
        let mut rng = Prng::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6d61_6461_6e67);
        let swarm = draw(&mut rng);
        Rc::new(Self {
            seed,
            history: RefCell::new(History::new(swarm.page_cache)),
            swarm: Rc::new(swarm),
            executor: Executor::new(rng.fork()),
            disk: FaultDisk::new(),
            wall_offset: Cell::new(0),
            shared: Rc::new(Shared {
                rng: RefCell::new(rng),
                digest: Cell::new(0xcbf2_9ce4_8422_2325),
                violation: RefCell::new(None),
                faults: RefCell::default(),
                serial: Cell::new(1),
                healed: Cell::new(false),
                trace: std::env::var_os("MADANG_SIM_TRACE").is_some(),
            }),
        })
    }

    /// One node's view of the run.
    #[must_use]
    pub fn view(&self) -> Rc<Self> {
        Rc::new(Self {
            seed: self.seed,
            swarm: Rc::clone(&self.swarm),
            executor: self.executor.clone(),
            disk: FaultDisk::new(),
            history: RefCell::new(self.history.borrow().of_one_node()),
            wall_offset: Cell::new(0),
            shared: Rc::clone(&self.shared),
        })
    }

    /// The virtual monotonic clock.
    #[must_use]
    pub fn now(&self) -> Mono {
        self.executor.now()
    }

    /// The virtual wall clock.
    #[must_use]
    pub fn wall(&self) -> Wall {
        let millis = i64::try_from(self.now().since_start().as_millis()).unwrap_or(i64::MAX);
        Wall(EPOCH_MS + millis + self.wall_offset.get())
    }

    /// Moves the wall clock.
    pub fn jump(&self, by_ms: i64) {
        self.wall_offset.set((self.wall_offset.get() + by_ms).clamp(-7_200_000, 7_200_000));
    }

    /// A number in `0..bound`.
    pub fn below(&self, bound: u64) -> u64 {
        self.shared.rng.borrow_mut().below(bound)
    }

    /// True `numerator` times out of `denominator`.
    pub fn chance(&self, numerator: u64, denominator: u64) -> bool {
        self.shared.rng.borrow_mut().chance(numerator, denominator)
    }

    /// 64 random bits.
    pub fn random(&self) -> u64 {
        self.shared.rng.borrow_mut().next_u64()
    }

    /// The class of the next fault, by the weights that the seed drew; none if there are no classes.
    pub fn next_fault(&self) -> Option<FaultClass> {
        let total: u64 = self.swarm.classes.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.below(total);
        let picked = self.swarm.classes.iter().find(|(_, weight)| match drawn.checked_sub(*weight) {
            Some(left) => {
                drawn = left;
                false
            }
            None => true,
        });
        picked.map(|(class, _)| *class)
    }

    /// A generator of its own.
    pub fn fork(&self) -> Prng {
        self.shared.rng.borrow_mut().fork()
    }

    /// A number that no other caller gets.
    pub fn serial(&self) -> u64 {
        let serial = self.shared.serial.get();
        self.shared.serial.set(serial + 1);
        serial
    }

    /// Sleeps for a time drawn from `low..=high` microseconds.
    pub async fn pause(&self, low: u64, high: u64) {
        let wait = low + self.below(high.saturating_sub(low) + 1);
        self.executor.sleep(Duration::from_micros(wait)).await;
    }

    /// Notes an event in the digest.
    pub fn note(&self, what: &str, numbers: &[i64]) {
        let mut digest = self.shared.digest.get();
        let mut mix = |byte: u8| digest = (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        what.bytes().for_each(&mut mix);
        let now = i64::try_from(self.now().since_start().as_nanos()).unwrap_or(i64::MAX);
        for number in numbers.iter().chain([&now]) {
            number.to_le_bytes().into_iter().for_each(&mut mix);
        }
        self.shared.digest.set(digest);
        if self.shared.trace {
            eprintln!("{:>12.6} {what} {numbers:?}", self.now().since_start().as_secs_f64());
        }
    }

    /// Says more of an event to whoever reads the trace.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        if self.shared.trace {
            eprintln!("{:>12.6}   {}", self.now().since_start().as_secs_f64(), what());
        }
    }

    /// The digest of all events so far.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.shared.digest.get()
    }

    /// An invariant is broken.
    pub fn violate(&self, code: &'static str, what: impl Into<String>) {
        let what = what.into();
        if self.shared.trace {
            eprintln!("VIOLATION {code}: {what}");
        }
        let mut violation = self.shared.violation.borrow_mut();
        if violation.is_none() {
            *violation = Some(Violation { code, what });
        }
    }

    /// Whether `holds`; if not, `code` is broken.
    pub fn require(&self, holds: bool, code: &'static str, what: impl FnOnce() -> String) -> bool {
        if !holds {
            self.violate(code, what());
        }
        holds
    }

    /// The first broken invariant.
    #[must_use]
    pub fn violation(&self) -> Option<Violation> {
        self.shared.violation.borrow().clone()
    }

    /// A fault has happened.
    pub fn fault(&self, class: FaultClass) {
        self.note("fault", &[class as i64]);
        *self.shared.faults.borrow_mut().entry(class).or_default() += 1;
    }

    /// The faults so far, by class.
    #[must_use]
    pub fn faults(&self) -> BTreeMap<FaultClass, u64> {
        self.shared.faults.borrow().clone()
    }

    /// Looks at what the node wrote, past sectors that cannot be read.
    pub fn look<T>(&self, look: impl FnOnce() -> T) -> T {
        self.disk.ignore_unreadable(true);
        let seen = look();
        self.disk.ignore_unreadable(false);
        seen
    }

    /// From now on nothing fails any more.
    pub fn heal(&self) {
        self.shared.healed.set(true);
        self.disk.set_capacity(None);
        self.disk.forget_plans();
        self.disk.mend();
    }

    /// Whether faults are over.
    #[must_use]
    pub fn is_healed(&self) -> bool {
        self.shared.healed.get()
    }
}
