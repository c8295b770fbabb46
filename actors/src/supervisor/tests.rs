//! The machine against OTP's rules, at its boundaries, and under random orders of everything that can happen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::reference::{Action, Reference};
use super::*;
use crate::child_spec::{Backoff, Restart};

const AT_ONCE: Backoff =
    Backoff { initial: Duration::ZERO, max: Duration::ZERO, reset_after: Duration::from_secs(300) };

fn spec(id: impl ToString, restart: Restart) -> ChildSpec {
    ChildSpec { restart, backoff: AT_ONCE, ..ChildSpec::new(id.to_string()) }
}

fn panic_at(site: &str) -> ExitReason {
    ExitReason::Panic { message: "boom".into(), site: site.into() }
}

struct World {
    machine: Supervisor,
    now: Mono,
    rng: Prng,
}

impl World {
    fn new(policy: Policy, children: Vec<ChildSpec>) -> Self {
        Self { machine: Supervisor::new(policy, children, Incarnation(0)), now: Mono::ZERO, rng: Prng::new(1) }
    }

    fn step(&mut self, input: SupervisorInput) -> Vec<SupervisorEffect> {
        let mut effects = Vec::new();
        self.machine.step(self.now, Wall(0), input, &mut self.rng, &mut effects);
        effects
    }

    fn advance(&mut self, by: Duration) -> Vec<SupervisorEffect> {
        self.now = self.now + by;
        self.step(SupervisorInput::Tick)
    }

    fn exit(&mut self, id: &str, reason: ExitReason) -> Vec<SupervisorEffect> {
        let status = self.machine.child(&id.into()).unwrap();
        self.step(SupervisorInput::ChildExited { id: id.into(), incarnation: status.incarnation, reason })
    }

    fn started(&mut self, id: &str) -> Vec<SupervisorEffect> {
        let incarnation = self.machine.child(&id.into()).unwrap().incarnation;
        self.step(SupervisorInput::Started { id: id.into(), incarnation })
    }

    /// Steps, and answers every start and stop at once until nothing more is asked.
    fn settle(&mut self, input: SupervisorInput) -> Vec<SupervisorEffect> {
        let (mut all, mut inputs) = (Vec::new(), vec![input]);
        while let Some(input) = inputs.pop() {
            for effect in self.step(input) {
                match &effect {
                    SupervisorEffect::Start { id, incarnation } => {
                        inputs.insert(0, SupervisorInput::Started { id: id.clone(), incarnation: *incarnation });
                    }
                    SupervisorEffect::Stop { id, incarnation, .. } => {
                        let (id, reason) = (id.clone(), ExitReason::Shutdown);
                        inputs.insert(0, SupervisorInput::ChildExited { id, incarnation: *incarnation, reason });
                    }
                    _ => {}
                }
                all.push(effect);
            }
        }
        all
    }

    fn settle_exit(&mut self, id: &str, reason: ExitReason) -> Vec<SupervisorEffect> {
        let incarnation = self.machine.child(&id.into()).unwrap().incarnation;
        self.settle(SupervisorInput::ChildExited { id: id.into(), incarnation, reason })
    }

    fn state(&self, id: &str) -> Option<ChildState> {
        self.machine.child(&id.into()).map(|child| child.state)
    }
}

fn actions(effects: &[SupervisorEffect]) -> Vec<Action> {
    let number = |id: &ChildId| id.as_str().parse().unwrap();
    let action = |effect: &SupervisorEffect| match effect {
        SupervisorEffect::Start { id, .. } => Some(Action::Start(number(id))),
        SupervisorEffect::Stop { id, .. } => Some(Action::Stop(number(id))),
        SupervisorEffect::Escalate { .. } => Some(Action::GiveUp),
        _ => None,
    };
    effects.iter().filter_map(action).collect()
}

#[test]
fn every_strategy_and_restart_kind_acts_as_otp_does() {
    for seed in 0..3000 {
        let mut rng = Prng::new(seed);
        let strategy = *rng.pick(&[Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne]).unwrap();
        let kinds = [Restart::Permanent, Restart::Transient, Restart::Temporary];
        let restarts: Vec<_> = (0..=rng.below(5)).map(|_| *rng.pick(&kinds).unwrap()).collect();
        let (max, window) = (rng.below(5) as usize, Duration::from_secs(5));
        let specs = restarts.iter().enumerate().map(|(n, restart)| spec(n, *restart)).collect();
        let mut world = World::new(Policy::Static { strategy, intensity: Intensity { max, window } }, specs);
        let (mut otp, expected) = Reference::start(strategy, max, window, &restarts);
        assert_eq!(actions(&world.settle(SupervisorInput::Begin)), expected, "seed {seed}");
        while let Some(number) = rng.pick(&otp.alive()).copied() {
            world.now = world.now + Duration::from_millis(500 * rng.below(5));
            if rng.chance(1, 20) {
                let effects = world.settle(SupervisorInput::Shutdown);
                assert_eq!(actions(&effects), otp.shutdown(), "seed {seed}");
                assert_eq!(effects.last(), Some(&SupervisorEffect::Stopped), "seed {seed}");
                break;
            }
            let normal = rng.chance(1, 3);
            let reason = if normal { ExitReason::Normal } else { ExitReason::Killed };
            let effects = world.settle_exit(&number.to_string(), reason);
            assert_eq!(actions(&effects), otp.exit(world.now.since_start(), number, normal), "seed {seed}");
            if otp.is_gone() {
                break;
            }
        }
    }
}

/// Children that take their time: starts and stops are answered late, in any order, or never; children die meanwhile.
#[test]
fn under_any_order_of_events_lives_never_overlap_and_order_holds() {
    for seed in 0..2000 {
        let mut rng = Prng::new(seed);
        let strategy = *rng.pick(&[Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne]).unwrap();
        let intensity = Intensity { max: 20, window: Duration::from_secs(1000) };
        let count = 1 + rng.below(4) as usize;
        let specs = (0..count).map(|n| spec(n, Restart::Permanent)).collect();
        let mut world = World::new(Policy::Static { strategy, intensity }, specs);
        let mut lives = Lives::new(strategy, seed);
        lives.observe(world.step(SupervisorInput::Begin));
        for _ in 0..200 {
            let input = lives.next(&mut world, &mut rng);
            lives.observe(world.step(input));
            if lives.ended {
                break;
            }
        }
        if !lives.ended {
            lives.observe(world.step(SupervisorInput::Shutdown));
        }
        for _ in 0..count {
            lives.observe(world.advance(Duration::from_secs(3600))); // Whoever will not stop is abandoned.
        }
        assert!(lives.ended && lives.live.is_empty(), "seed {seed}: {lives:?}");
    }
}

#[derive(Debug)]
struct Lives {
    strategy: Strategy,
    seed: u64,
    live: BTreeMap<usize, Incarnation>,
    stopping: BTreeSet<usize>,
    highest: Incarnation,
    ended: bool,
}

impl Lives {
    fn new(strategy: Strategy, seed: u64) -> Self {
        let (live, stopping) = (BTreeMap::new(), BTreeSet::new());
        Self { strategy, seed, live, stopping, highest: Incarnation(0), ended: false }
    }

    fn next(&mut self, world: &mut World, rng: &mut Prng) -> SupervisorInput {
        let ids: Vec<usize> = self.live.keys().copied().collect();
        let Some(number) = rng.pick(&ids).copied() else { return SupervisorInput::Tick };
        let (id, incarnation) = (ChildId::from(number.to_string()), self.live[&number]);
        match rng.below(6) {
            0 => {
                world.now = world.now + Duration::from_secs(rng.below(15));
                SupervisorInput::Tick
            }
            1 => SupervisorInput::ChildExited { id, incarnation: Incarnation(0), reason: ExitReason::Killed },
            2 if !self.stopping.contains(&number) => {
                self.gone(number);
                SupervisorInput::ChildExited { id, incarnation, reason: ExitReason::Killed }
            }
            3 if self.stopping.contains(&number) => {
                self.gone(number);
                SupervisorInput::ChildExited { id, incarnation, reason: ExitReason::Shutdown }
            }
            _ => SupervisorInput::Started { id, incarnation },
        }
    }

    fn gone(&mut self, number: usize) {
        self.live.remove(&number);
        self.stopping.remove(&number);
    }

    fn observe(&mut self, effects: Vec<SupervisorEffect>) {
        let (seed, strategy) = (self.seed, self.strategy);
        for effect in effects {
            assert!(!self.ended, "seed {seed}: {effect:?} after the end");
            match effect {
                SupervisorEffect::Start { id, incarnation } => {
                    let number: usize = id.as_str().parse().unwrap();
                    assert!(self.stopping.is_empty(), "seed {seed}: {number} starts while {:?} stop", self.stopping);
                    assert!(incarnation > self.highest, "seed {seed}: an incarnation is used twice");
                    self.highest = incarnation;
                    assert_eq!(self.live.insert(number, incarnation), None, "seed {seed}: two lives of {number}");
                    let later = self.live.keys().any(|other| *other > number);
                    assert!(
                        strategy == Strategy::OneForOne || !later,
                        "seed {seed}: {number} starts after a later one"
                    );
                }
                SupervisorEffect::Stop { id, incarnation, .. } => {
                    let number: usize = id.as_str().parse().unwrap();
                    assert_eq!(self.live.get(&number), Some(&incarnation), "seed {seed}: the dead are stopped");
                    assert!(self.stopping.insert(number), "seed {seed}: {number} is stopped twice");
                }
                SupervisorEffect::Abandon { id, .. } => self.gone(id.as_str().parse().unwrap()),
                SupervisorEffect::Escalate { .. } | SupervisorEffect::Stopped => {
                    assert!(self.live.is_empty(), "seed {seed}: the end before the children's");
                    self.ended = true;
                }
                _ => {}
            }
        }
    }
}

#[test]
fn intensity_is_exact_at_its_boundary() {
    let window = Duration::from_secs(10);
    let policy = Policy::Static { strategy: Strategy::OneForOne, intensity: Intensity { max: 3, window } };
    let begin = || {
        let mut world = World::new(policy, vec![spec("a", Restart::Permanent)]);
        world.settle(SupervisorInput::Begin);
        world
    };
    let escalates = |effects: &[SupervisorEffect]| matches!(effects.last(), Some(SupervisorEffect::Escalate { .. }));
    let mut world = begin();
    assert!((0..3).all(|_| !escalates(&world.settle_exit("a", ExitReason::Killed))), "three are borne");
    world.now = world.now + window;
    assert!(escalates(&world.settle_exit("a", ExitReason::Killed)), "one exactly a window old still counts");
    let mut world = begin();
    assert!((0..3).all(|_| !escalates(&world.settle_exit("a", ExitReason::Killed))));
    world.now = world.now + window + Duration::from_nanos(1);
    assert!(!escalates(&world.settle_exit("a", ExitReason::Killed)), "one older than the window does not");
}

#[test]
fn a_child_that_will_not_stop_is_abandoned_at_its_deadline() {
    let policy = Policy::fixed(Strategy::OneForAll);
    let mut world = World::new(policy, vec![spec("a", Restart::Permanent), spec("b", Restart::Permanent)]);
    world.settle(SupervisorInput::Begin);
    let effects = world.step(SupervisorInput::Shutdown);
    let deadline = world.now + Duration::from_secs(10);
    let stop = |id: &str, n, deadline| SupervisorEffect::Stop {
        id: id.into(),
        incarnation: Incarnation(n),
        deadline: Some(deadline),
    };
    assert_eq!(effects, [stop("b", 2, deadline)], "in reverse order, one at a time");
    assert_eq!(world.machine.deadline(), Some(deadline));
    assert_eq!(world.advance(Duration::from_millis(9_999)), []);
    let effects = world.advance(Duration::from_millis(1));
    assert!(effects.contains(&SupervisorEffect::Abandon { id: "b".into(), incarnation: Incarnation(2) }));
    assert_eq!(effects.last(), Some(&stop("a", 1, world.now + Duration::from_secs(10))));
    assert_eq!(world.exit("a", ExitReason::Shutdown).last(), Some(&SupervisorEffect::Stopped));
}

#[test]
fn a_start_past_its_deadline_is_a_failed_start() {
    let mut world = World::new(Policy::fixed(Strategy::RestForOne), vec![spec("a", Restart::Permanent)]);
    world.step(SupervisorInput::Begin);
    let effects = world.advance(Duration::from_secs(60));
    assert!(effects.contains(&SupervisorEffect::Abandon { id: "a".into(), incarnation: Incarnation(1) }));
    assert!(effects.contains(&SupervisorEffect::Start { id: "a".into(), incarnation: Incarnation(2) }));
    let late = SupervisorInput::Started { id: "a".into(), incarnation: Incarnation(1) };
    assert_eq!(world.step(late), [], "the late report of an abandoned life is ignored");
    assert_eq!(world.state("a"), Some(ChildState::Starting));
}

#[test]
fn one_bad_child_of_one_for_one_does_not_hold_up_the_others_or_readiness() {
    let slow = Backoff::default();
    let specs = ["a", "b"].map(|id| ChildSpec { backoff: slow, ..spec(id, Restart::Permanent) }).to_vec();
    let mut world = World::new(Policy::fixed(Strategy::OneForOne), specs);
    world.step(SupervisorInput::Begin);
    let failed = ExitReason::StartFailed { message: "no disk".into(), site: None };
    let effects = world.exit("a", failed);
    assert!(effects.contains(&SupervisorEffect::Start { id: "b".into(), incarnation: Incarnation(2) }));
    assert!(world.started("b").contains(&SupervisorEffect::Ready));
}

#[test]
fn a_pause_delays_the_whole_group_and_doubles() {
    let backoff = Backoff { initial: Duration::from_millis(100), ..Backoff::default() };
    let specs = ["a", "b"].map(|id| ChildSpec { backoff, ..spec(id, Restart::Permanent) }).to_vec();
    let mut world = World::new(Policy::fixed(Strategy::OneForAll), specs);
    world.settle(SupervisorInput::Begin);
    let effects = world.settle_exit("a", ExitReason::Killed);
    assert_eq!(actions_by_name(&effects), ["stop b"]);
    assert_eq!(actions_by_name(&world.advance(Duration::from_millis(74))), Vec::<String>::new());
    world.now = world.now + Duration::from_millis(26);
    assert_eq!(actions_by_name(&world.settle(SupervisorInput::Tick)), ["start a", "start b"]);
    world.settle_exit("a", ExitReason::Killed);
    assert_eq!(actions_by_name(&world.advance(Duration::from_millis(149))), Vec::<String>::new());
    assert_eq!(actions_by_name(&world.advance(Duration::from_millis(51))), ["start a"]);
}

#[test]
fn a_child_keeps_its_own_longer_pause_and_those_behind_it_wait() {
    let backoff = Backoff { initial: Duration::from_millis(100), ..Backoff::default() };
    let specs = ["a", "b", "c"].map(|id| ChildSpec { backoff, ..spec(id, Restart::Permanent) }).to_vec();
    let mut world = World::new(Policy::fixed(Strategy::RestForOne), specs);
    world.settle(SupervisorInput::Begin);
    world.settle_exit("b", ExitReason::Killed);
    world.now = world.now + Duration::from_millis(100);
    world.settle(SupervisorInput::Tick);
    world.settle_exit("b", ExitReason::Killed); // Pauses for at least 150 ms.
    world.settle_exit("a", ExitReason::Killed); // Pauses for at most 100 ms.
    world.now = world.now + Duration::from_millis(100);
    assert_eq!(actions_by_name(&world.settle(SupervisorInput::Tick)), ["start a"]);
    world.now = world.now + Duration::from_millis(100);
    assert_eq!(actions_by_name(&world.settle(SupervisorInput::Tick)), ["start b", "start c"]);
}

fn actions_by_name(effects: &[SupervisorEffect]) -> Vec<String> {
    let name = |effect: &SupervisorEffect| match effect {
        SupervisorEffect::Start { id, .. } => Some(format!("start {id}")),
        SupervisorEffect::Stop { id, .. } => Some(format!("stop {id}")),
        _ => None,
    };
    effects.iter().filter_map(name).collect()
}

fn dynamic(max: usize) -> World {
    let mut world = World::new(
        Policy::Dynamic {
            max_concurrent_starts: 2,
            distinct_failures: Intensity { max, window: Duration::from_secs(10) },
            panics_to_quarantine: 3,
        },
        vec![],
    );
    assert_eq!(world.step(SupervisorInput::Begin), [SupervisorEffect::Ready]);
    world
}

fn add(world: &mut World, id: &str) {
    world.settle(SupervisorInput::AddChild(spec(id, Restart::Permanent)));
}

#[test]
fn one_dynamic_child_never_escalates() {
    let mut world = dynamic(3);
    add(&mut world, "a");
    for n in 0..1000 {
        let effects = world.settle_exit("a", panic_at(&format!("line {n}")));
        assert_eq!(actions_by_name(&effects), ["start a"], "panic {n}");
    }
}

#[test]
fn the_third_panic_at_one_site_sets_a_dynamic_child_aside() {
    let mut world = dynamic(3);
    add(&mut world, "a");
    add(&mut world, "b");
    world.settle_exit("a", panic_at("x:1:1"));
    world.settle_exit("a", panic_at("y:2:2"));
    world.settle_exit("a", panic_at("x:1:1"));
    let effects = world.settle_exit("a", panic_at("x:1:1"));
    assert_eq!(effects, [SupervisorEffect::Quarantined { id: "a".into(), reason: panic_at("x:1:1") }]);
    assert_eq!(world.state("a"), Some(ChildState::Quarantined));
    assert_eq!(world.state("b"), Some(ChildState::Running));
    assert_eq!(actions_by_name(&world.settle(SupervisorInput::Release("a".into()))), ["start a"]);
}

#[test]
fn panics_are_forgotten_after_a_quiet_period() {
    let mut world = dynamic(3);
    add(&mut world, "a");
    for _ in 0..10 {
        let effects = world.settle_exit("a", panic_at("x:1:1"));
        assert_eq!(actions_by_name(&effects), ["start a"]);
        world.now = world.now + Duration::from_secs(300);
    }
}

#[test]
fn several_distinct_failures_escalate_and_temporary_ones_do_not() {
    let mut world = dynamic(3);
    (0..5).for_each(|n| add(&mut world, &format!("p{n}")));
    for n in 0..20 {
        world.settle(SupervisorInput::AddChild(spec(format!("c{n}"), Restart::Temporary)));
        let effects = world.settle_exit(&format!("c{n}"), panic_at("conn:1:1"));
        assert!(matches!(effects[..], [SupervisorEffect::Ended { .. }]), "{effects:?}");
    }
    assert!((0..3).all(|n| actions_by_name(&world.settle_exit(&format!("p{n}"), ExitReason::Killed)).len() == 1));
    world.settle_exit("p0", ExitReason::Killed); // Not a fourth child.
    let effects = world.settle_exit("p3", ExitReason::Killed);
    assert!(matches!(effects.last(), Some(SupervisorEffect::Escalate { .. })), "{effects:?}");
}

#[test]
fn at_most_k_dynamic_children_start_at_once() {
    let mut world = dynamic(100);
    let mut starts = Vec::new();
    for n in 0..5 {
        starts.extend(actions_by_name(&world.step(SupervisorInput::AddChild(spec(n, Restart::Permanent)))));
    }
    assert_eq!(starts, ["start 0", "start 1"]);
    assert_eq!(actions_by_name(&world.started("1")), ["start 2"]);
    let failed = ExitReason::StartFailed { message: String::new(), site: None };
    assert_eq!(actions_by_name(&world.exit("0", failed)), ["start 3"], "the one that failed goes to the back");
}

#[test]
fn a_removed_child_is_stopped_and_forgotten_and_its_name_is_free_again() {
    let mut world = dynamic(3);
    add(&mut world, "a");
    let first = world.machine.child(&"a".into()).unwrap().incarnation;
    assert_eq!(
        world.step(SupervisorInput::AddChild(spec("a", Restart::Permanent))),
        [SupervisorEffect::Refused("a".into())]
    );
    let effects = world.settle(SupervisorInput::RemoveChild("a".into()));
    assert!(matches!(effects.last(), Some(SupervisorEffect::Ended { .. })));
    assert_eq!(world.state("a"), None);
    add(&mut world, "a");
    assert!(world.machine.child(&"a".into()).unwrap().incarnation > first);
    let effects = world.settle(SupervisorInput::RemoveChild("nobody".into()));
    assert!(matches!(effects[..], [SupervisorEffect::Ended { .. }]), "one that is not there has ended");
}

#[test]
fn a_dynamic_supervisor_stops_all_at_once() {
    let mut world = dynamic(3);
    ["a", "b", "c"].iter().for_each(|id| add(&mut world, id));
    assert_eq!(actions_by_name(&world.step(SupervisorInput::Shutdown)), ["stop a", "stop b", "stop c"]);
    world.exit("b", ExitReason::Shutdown);
    world.exit("a", ExitReason::Shutdown);
    let effects = world.advance(Duration::from_secs(10));
    assert!(effects.contains(&SupervisorEffect::Abandon { id: "c".into(), incarnation: Incarnation(3) }));
    assert_eq!(effects.last(), Some(&SupervisorEffect::Stopped));
}

#[test]
fn equal_histories_have_equal_digests() {
    let run = |seed| {
        let mut world = dynamic(3);
        world.rng = Prng::new(seed);
        let backoff = Backoff::default();
        world.settle(SupervisorInput::AddChild(ChildSpec { backoff, ..spec("a", Restart::Permanent) }));
        world.settle_exit("a", ExitReason::Killed);
        world.machine.digest()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6), "the jitter differs");
}
