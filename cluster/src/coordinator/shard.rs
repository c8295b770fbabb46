//! The coordinator of one partition of `__consumer_offsets`: loads it, serves its groups, stops.
//! Invariant: exactly one answer per request; nothing is served before the load ends or after a stop.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use madang_actors::clock::{Mono, Wall};
use madang_actors::machine::Machine;
use madang_actors::prng::Prng;
use madang_protocol::types::Uuid;

use super::ErrorCode;
use super::config::GroupConfig;
use super::group::{Context, Group, append_error, topic_deleted};
use super::message::{Effect, Input, Record};
use super::request::Request;
use super::requests::Requests;
use super::response::Response;
use super::store::{Loaded, Store};
use super::timers::{Timer, Timers};
use crate::request::RequestId;

/// Groups that one round of the retention check looks at; the next round follows at once.
const GROUPS_PER_ROUND: usize = 200;
/// Timers that one tick serves; the deadline stays in the past if there are more.
const TIMERS_PER_TICK: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Loading,
    Serving,
    Stopped(ErrorCode),
}

/// One group coordinator shard. New shards load: give `Loaded` slices and `LoadFinished` first.
#[derive(Debug)]
pub struct Shard {
    pub(super) config: GroupConfig,
    phase: Phase,
    pub(super) groups: BTreeMap<Arc<str>, Group>,
    pub(super) store: Store,
    timers: Timers,
    requests: Requests,
    writable: Result<(), ErrorCode>,
    pub(super) quarantined: BTreeSet<Arc<str>>,
    current: Option<Arc<str>>,
    last: Option<Arc<str>>,
    retention_cursor: Option<Arc<str>>,
    /// Deleted topics whose offsets wait to be removed: the load runs, or the partition takes no appends.
    deleted_topics: BTreeSet<(Arc<str>, Uuid)>,
}

/// What one step was given.
pub(super) struct Step<'a> {
    pub(super) now: Mono,
    pub(super) wall: Wall,
    pub(super) rng: &'a mut Prng,
    pub(super) effects: &'a mut Vec<Effect>,
}

impl Shard {
    /// A shard that waits for its load.
    #[must_use]
    pub fn new(config: GroupConfig) -> Self {
        Self {
            config,
            phase: Phase::Loading,
            groups: BTreeMap::new(),
            store: Store::default(),
            timers: Timers::default(),
            requests: Requests::default(),
            writable: Ok(()),
            quarantined: BTreeSet::new(),
            current: None,
            last: None,
            retention_cursor: None,
            deleted_topics: BTreeSet::new(),
        }
    }

    /// The group whose step runs: read after a panic, it says whom to charge.
    #[must_use]
    pub fn current_group(&self) -> Option<&str> {
        self.current.as_deref()
    }

    /// Whether requests are served.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.phase == Phase::Serving
    }

    /// Requests without an answer: the parked ones, between steps.
    #[must_use]
    pub fn open_requests(&self) -> usize {
        self.requests.len()
    }

    /// Groups held.
    #[must_use]
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// A canonical hash of what the log gives: equal to that of a shard that has loaded the same records.
    #[must_use]
    pub fn persisted_digest(&self) -> u64 {
        let mut hasher = Fnv::default();
        self.store.hash_log_view(&mut hasher);
        hasher.finish()
    }

    /// Checks every group, at a cost that grows with their number; `check()` looks at the last one stepped.
    pub fn check_all(&self) {
        let mut parked = 0;
        for group in self.groups.values() {
            self.check_group(group);
            parked += group.parked().count();
        }
        assert_eq!(parked, self.requests.len(), "an open request is parked nowhere");
        self.check();
    }

    fn check_group(&self, group: &Group) {
        group.check();
        for request in group.parked() {
            assert!(self.requests.is_parked_in(request, group.id()), "{request:?} is parked but not open");
        }
    }

    /// Runs `run` on a group with its tools, noting the group for the length of it.
    pub(super) fn with_group<R>(
        &mut self,
        step: &mut Step<'_>,
        id: &str,
        run: impl FnOnce(&mut Group, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let group = self.groups.get_mut(id)?;
        self.current = Some(group.id().clone());
        let mut context = Context {
            now: step.now,
            wall: step.wall,
            rng: step.rng,
            effects: step.effects,
            timers: &mut self.timers,
            store: &mut self.store,
            requests: &mut self.requests,
            config: &self.config,
            writable: self.writable,
        };
        let result = run(group, &mut context);
        self.last = self.current.take();
        Some(result)
    }

    /// Forgets a group that nothing is left of. Until the retention check does so it is an empty group like any other, as in Kafka.
    pub(super) fn forget_if_void(&mut self, id: &str) {
        if self.groups.get(id).is_some_and(|group| group.is_void(&self.store)) {
            self.groups.remove(id);
        }
    }

    /// A context that belongs to no group.
    pub(super) fn context<'a>(&'a mut self, step: &'a mut Step<'_>) -> Context<'a> {
        Context {
            now: step.now,
            wall: step.wall,
            rng: step.rng,
            effects: step.effects,
            timers: &mut self.timers,
            store: &mut self.store,
            requests: &mut self.requests,
            config: &self.config,
            writable: self.writable,
        }
    }

    pub(super) fn reply(&mut self, step: &mut Step<'_>, request: RequestId, response: Response) {
        self.requests.reply(request, response, None, step.effects);
    }

    fn request(&mut self, step: &mut Step<'_>, request: RequestId, body: Request) {
        self.requests.open(request);
        let refused = match self.phase {
            Phase::Loading => Some(ErrorCode::CoordinatorLoadInProgress),
            Phase::Stopped(error) => Some(error),
            Phase::Serving => None,
        };
        match refused {
            Some(error) => self.reply(step, request, body.refusal(error)),
            None => self.serve(step, request, body),
        }
        assert!(!self.requests.is_lost(request), "{request:?} has neither an answer nor a place to wait");
    }

    fn load(&mut self, step: &mut Step<'_>, records: &[Record]) {
        assert_eq!(self.phase, Phase::Loading, "records are loaded into a serving shard");
        for record in records {
            if let Loaded::Corrupt(group) = self.store.load(record) {
                let group = group.map(|group| group.to_string()).unwrap_or_default();
                step.effects.push(Effect::Report { group, what: "a stored record cannot be read" });
            }
        }
    }

    fn finish_load(&mut self, step: &mut Step<'_>) {
        assert_eq!(self.phase, Phase::Loading, "a load ends twice");
        self.phase = Phase::Serving;
        for id in self.store.group_ids() {
            self.revive(step, id);
        }
        self.timers.arm(Timer::Retention, step.now + self.config.offsets_retention_check_interval);
        self.remove_deleted_topics(step);
    }

    /// Builds a group's live half from what is persisted of it.
    fn revive(&mut self, step: &mut Step<'_>, id: Arc<str>) {
        let group = match self.store.group(&id) {
            Some(record) => Group::from_record(id.clone(), record),
            None => Group::new(id.clone(), None),
        };
        self.groups.insert(id.clone(), group);
        self.with_group(step, &id, |group, context| group.loaded(context));
    }

    fn stop(&mut self, step: &mut Step<'_>, error: ErrorCode, why: &'static str) {
        if matches!(self.phase, Phase::Stopped(_)) {
            return;
        }
        let ids: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        for id in ids {
            self.with_group(step, &id, |group, context| group.abandon(context, error));
        }
        self.phase = Phase::Stopped(append_error(error));
        self.groups.clear();
        self.deleted_topics.clear();
        self.timers.cancel_all();
        step.effects.push(Effect::Stop { why });
    }

    fn kill_group(&mut self, step: &mut Step<'_>, id: &str) {
        self.with_group(step, id, |group, context| group.abandon(context, ErrorCode::CoordinatorNotAvailable));
        let dropped = self.groups.remove(id).map(|group| group.id().clone());
        if let Some(id) = dropped.filter(|id| self.store.group_ids().contains(id)) {
            self.revive(step, id);
        }
    }

    /// Removes the offsets of deleted topics, if that can be stored now.
    fn remove_deleted_topics(&mut self, step: &mut Step<'_>) {
        if self.phase != Phase::Serving || self.writable.is_err() {
            return;
        }
        let ids: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        for (name, id) in std::mem::take(&mut self.deleted_topics) {
            for group in &ids {
                self.with_group(step, group, |group, context| topic_deleted(context, group.id(), &name, id));
            }
        }
    }

    fn tick(&mut self, step: &mut Step<'_>) {
        for _ in 0..TIMERS_PER_TICK {
            match self.timers.pop_due(step.now) {
                None => return,
                Some(Timer::Member { group, member }) => {
                    self.with_group(step, &group, |group, context| group.member_timeout(context, &member));
                }
                Some(Timer::Join { group }) => {
                    self.with_group(step, &group, |group, context| group.join_timeout(context));
                }
                Some(Timer::Sync { group }) => {
                    self.with_group(step, &group, |group, context| group.sync_timeout(context));
                }
                Some(Timer::Retention) => self.check_retention(step),
            }
        }
    }

    /// Looks at some groups for expired offsets; a round that does not reach the last group goes on at the next tick.
    fn check_retention(&mut self, step: &mut Step<'_>) {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = self.retention_cursor.take().map_or(Unbounded, Excluded);
        let range = self.groups.range::<Arc<str>, _>((from, Unbounded));
        let ids: Vec<Arc<str>> = range.take(GROUPS_PER_ROUND).map(|(id, _)| id.clone()).collect();
        for id in &ids {
            self.with_group(step, id, |group, context| group.expire_offsets(context));
            self.forget_if_void(id);
        }
        let more = ids.len() == GROUPS_PER_ROUND;
        self.retention_cursor = ids.into_iter().next_back().filter(|_| more);
        let wait =
            if more { std::time::Duration::from_millis(1) } else { self.config.offsets_retention_check_interval };
        self.timers.arm(Timer::Retention, step.now + wait);
    }

    fn set_writable(&mut self, step: &mut Step<'_>, writable: Result<(), ErrorCode>) {
        self.writable = writable;
        if writable.is_err() || self.phase != Phase::Serving {
            return;
        }
        self.remove_deleted_topics(step);
        let late = self.groups.values().filter(|group| group.is_unpersisted()).map(|group| group.id().clone());
        for id in late.collect::<Vec<_>>() {
            self.with_group(step, &id, |group, context| group.persist_empty(context));
        }
    }
}

impl Machine for Shard {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, now: Mono, wall: Wall, input: Input, rng: &mut Prng, effects: &mut Vec<Effect>) {
        let step = &mut Step { now, wall, rng, effects };
        match input {
            Input::Request { request, body } => self.request(step, request, body),
            Input::Writable(writable) => self.set_writable(step, writable),
            Input::Loaded { records } => self.load(step, &records),
            Input::LoadFinished => self.finish_load(step),
            Input::Committed { through } => self.store.commit(through),
            Input::AppendFailed { error, .. } => self.stop(step, error, "an append failed"),
            Input::Resign => self.stop(step, ErrorCode::NotCoordinator, "the partition is led elsewhere"),
            Input::QuarantineGroup { group } => {
                self.quarantined.insert(group.as_str().into());
                self.kill_group(step, &group);
            }
            Input::KillGroup { group } => self.kill_group(step, &group),
            Input::TopicDeleted { name, id } => {
                self.deleted_topics.insert((name.into(), id));
                self.remove_deleted_topics(step);
            }
            Input::Tick if self.is_serving() => self.tick(step),
            Input::Tick => {}
        }
    }

    fn deadline(&self) -> Option<Mono> {
        self.timers.next()
    }

    fn check(&self) {
        self.timers.check();
        self.store.check();
        if let Some(group) = self.last.as_ref().and_then(|id| self.groups.get(id)) {
            self.check_group(group);
        }
        if self.phase != Phase::Serving {
            assert_eq!(self.requests.len(), 0, "a request waits in a shard that does not serve");
        }
    }

    fn digest(&self) -> u64 {
        let mut hasher = Fnv::default();
        self.phase.hash(&mut hasher);
        self.groups.hash(&mut hasher);
        self.store.hash(&mut hasher);
        self.timers.hash(&mut hasher);
        self.requests.hash(&mut hasher);
        self.writable.hash(&mut hasher);
        self.quarantined.hash(&mut hasher);
        self.retention_cursor.hash(&mut hasher);
        self.deleted_topics.hash(&mut hasher);
        hasher.finish()
    }
}

/// FNV-1a, so that a digest is the same in every build.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
