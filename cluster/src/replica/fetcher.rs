//! All fetches of this node's followers from one remote leader, coalesced: few requests, each of many partitions.
//! Invariant: a partition is in one request at most; an answer reaches its replica only if it answers what the replica wants now.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use madang_actors::clock::{Mono, Wall};
use madang_actors::machine::Machine;
use madang_actors::prng::Prng;
use madang_protocol::types::TopicPartition;

use super::replication::{FetchAnswer, FetchPosition};

/// What a fetcher is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetcherConfig {
    /// Requests of few partitions on their way at once: one may be parked at the leader while another brings what is there.
    pub requests: usize,
    /// Requests of many partitions beside them: those that nobody writes to are spread over them, so that a write brings back its own part alone.
    pub large_requests: usize,
    /// From so many partitions on a request is one of many.
    pub large: usize,
    /// Partitions in one request.
    pub partitions: usize,
    /// A request that has no answer for so long counts as lost.
    pub timeout: Duration,
    /// The first wait after an error.
    pub back_off: Duration,
    /// The longest.
    pub back_off_max: Duration,
    /// How long the leader may keep a request while it has nothing new.
    pub max_wait: Duration,
    /// The same of the request that takes the last place: whatever is wanted next waits for one that comes back.
    pub last_wait: Duration,
    /// The most bytes of records in one answer, a first batch that is longer aside.
    pub max_bytes: usize,
}

impl Default for FetcherConfig {
    fn default() -> Self {
        Self {
            requests: 4,
            large_requests: 16,
            large: 32,
            partitions: 10_000,
            timeout: Duration::from_secs(5),
            back_off: Duration::from_millis(50),
            back_off_max: Duration::from_secs(1),
            max_wait: Duration::from_millis(500),
            last_wait: Duration::from_millis(25),
            max_bytes: 10 << 20,
        }
    }
}

/// What can happen to a fetcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetcherInput {
    /// A follower wants this next; it replaces what it wanted before.
    Want(TopicPartition, FetchPosition),
    /// Nothing more is wanted of the partition.
    Forget(TopicPartition),
    /// What each of the partitions wants next is not asked for before then.
    Hold(Vec<(TopicPartition, Mono)>),
    /// Several of both at once, which then go together: what each of the partitions wants from now on, or that it wants nothing.
    Changed(Vec<(TopicPartition, Option<FetchPosition>)>),
    /// The leader has answered.
    Answered {
        /// Which request.
        request: u64,
        /// An answer for each partition that it is about.
        answers: Vec<(TopicPartition, FetchAnswer)>,
    },
    /// The request, or its answer, is lost.
    Failed {
        /// Which request.
        request: u64,
    },
    /// Time alone has passed.
    Tick,
}

/// What a fetcher asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetcherEffect {
    /// Send to the leader, and return how it ended.
    Send {
        /// Number of the request.
        request: u64,
        /// What to fetch, the one that has waited longest first.
        partitions: Vec<(TopicPartition, FetchPosition)>,
        /// How long the leader may keep it while it has nothing new.
        max_wait: Duration,
    },
    /// Hand this to the partition's replica.
    Deliver(TopicPartition, FetchAnswer),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Want {
    position: FetchPosition,
    /// Its turn: the lowest first.
    turn: u64,
    not_before: Mono,
    /// The request it is in.
    request: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct InFlight {
    /// With the turn that each had when it was sent.
    partitions: BTreeMap<TopicPartition, u64>,
    sent: Mono,
}

/// The fetches from one leader.
#[derive(Debug)]
pub struct Fetcher {
    config: FetcherConfig,
    wants: BTreeMap<TopicPartition, Want>,
    in_flight: BTreeMap<u64, InFlight>,
    next_request: u64,
    next_turn: u64,
    failures: u32,
    /// Until when the leader is left alone.
    quiet_until: Mono,
    /// Until when partitions wait whose next want is not known yet.
    held: BTreeMap<TopicPartition, Mono>,
}

impl Fetcher {
    /// Checks every want, at a cost that grows with their number.
    ///
    /// # Panics
    /// If one is wrong.
    pub fn check_all(&self) {
        for (partition, want) in &self.wants {
            let there = want.request.is_none_or(|request| {
                self.in_flight.get(&request).is_some_and(|request| request.partitions.contains_key(partition))
            });
            assert!(there, "a want is in a request that is on its way");
        }
        self.check();
    }

    /// A fetcher that wants nothing yet.
    #[must_use]
    pub const fn new(config: FetcherConfig) -> Self {
        Self {
            config,
            wants: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            next_request: 1,
            next_turn: 0,
            failures: 0,
            quiet_until: Mono::ZERO,
            held: BTreeMap::new(),
        }
    }

    fn want(&mut self, now: Mono, partition: TopicPartition, position: FetchPosition) {
        // The request with what was wanted before is still on its way; its answer will not fit, and then this one has its turn.
        let request = self.wants.get(&partition).and_then(|want| want.request);
        let turn = self.next_turn;
        self.next_turn += 1;
        let not_before = if position.after_error { now + self.config.back_off } else { now };
        let not_before = self.held.remove(&partition).map_or(not_before, |held| not_before.max(held));
        self.wants.insert(partition, Want { position, turn, not_before, request });
    }

    fn forget(&mut self, partition: TopicPartition) {
        self.wants.remove(&partition);
        self.held.remove(&partition);
    }

    /// Takes the partitions of an ended request out of it, and answers them; none if there was no such request.
    fn end(&mut self, request: u64) -> Option<BTreeMap<TopicPartition, u64>> {
        let ended = self.in_flight.remove(&request)?.partitions;
        for partition in ended.keys() {
            if let Some(want) = self.wants.get_mut(partition).filter(|want| want.request == Some(request)) {
                want.request = None;
            }
        }
        Some(ended)
    }

    fn answered(
        &mut self,
        now: Mono,
        request: u64,
        answers: Vec<(TopicPartition, FetchAnswer)>,
        effects: &mut Vec<FetcherEffect>,
    ) {
        let sent = self.in_flight.get(&request).map(|request| request.sent);
        let (Some(asked), Some(sent)) = (self.end(request), sent) else { return };
        self.failures = 0;
        // A leader that says nothing at all, and sooner than it was asked to, is not asked without end.
        let again = if answers.is_empty() { now.max(sent + self.config.back_off) } else { now };
        for (partition, answer) in answers {
            let wanted = self.wants.get(&partition).is_some_and(|want| answers_to(&answer, &want.position));
            if wanted && asked.contains_key(&partition) {
                // What it wants next comes from the replica.
                self.wants.remove(&partition);
                effects.push(FetcherEffect::Deliver(partition, answer));
            }
        }
        // Of what the leader left out it has nothing new: it is wanted as before.
        for (partition, turn) in asked {
            if let Some(want) = self.wants.get_mut(&partition).filter(|want| want.turn == turn) {
                want.not_before = again;
            }
        }
    }

    fn failed(&mut self, now: Mono, request: u64) {
        if self.end(request).is_some() {
            let wait = self.config.back_off.saturating_mul(1 << self.failures.min(16)).min(self.config.back_off_max);
            self.failures += 1;
            self.quiet_until = self.quiet_until.max(now + wait);
        }
    }

    fn expire(&mut self, now: Mono) {
        let late = |request: &InFlight| now.saturating_since(request.sent) >= self.config.timeout;
        let expired: Vec<u64> =
            self.in_flight.iter().filter(|(_, request)| late(request)).map(|(number, _)| *number).collect();
        expired.into_iter().for_each(|request| self.failed(now, request));
    }

    fn is_large(&self, partitions: usize) -> bool {
        partitions >= self.config.large
    }

    /// How many more requests of few partitions, and of many, may be on their way.
    fn room(&self) -> (usize, usize) {
        let large = self.in_flight.values().filter(|request| self.is_large(request.partitions.len())).count();
        let small = self.in_flight.len() - large;
        // One of many takes the place of one of few if there is no other.
        let over = large.saturating_sub(self.config.large_requests);
        (self.config.requests.saturating_sub(small + over), self.config.large_requests.saturating_sub(large))
    }

    fn send(&mut self, now: Mono, effects: &mut Vec<FetcherEffect>) {
        if now < self.quiet_until || self.room() == (0, 0) {
            return;
        }
        let idle = |want: &Want| want.request.is_none() && want.not_before <= now;
        let mut due: Vec<(u64, TopicPartition)> =
            self.wants.iter().filter(|(_, want)| idle(want)).map(|(partition, want)| (want.turn, *partition)).collect();
        due.sort_unstable();
        let part = self.wants.len() / self.config.large_requests.max(1);
        let part = part.max(self.config.large).min(self.config.partitions.max(1));
        for asked in due.chunks(part) {
            let (small, large) = self.room();
            let takes_small = !self.is_large(asked.len()) || large == 0;
            if takes_small && small == 0 {
                return;
            }
            let is_last = takes_small && small == 1 && self.config.requests > 1;
            let max_wait = if is_last { self.config.last_wait } else { self.config.max_wait };
            self.ask(now, asked, max_wait, effects);
        }
    }

    fn ask(
        &mut self,
        now: Mono,
        asked: &[(u64, TopicPartition)],
        max_wait: Duration,
        effects: &mut Vec<FetcherEffect>,
    ) {
        let request = self.next_request;
        self.next_request += 1;
        let mut partitions = Vec::with_capacity(asked.len());
        for (_, partition) in asked {
            if let Some(want) = self.wants.get_mut(partition) {
                want.request = Some(request);
                partitions.push((*partition, want.position));
            }
        }
        let asked = asked.iter().map(|(turn, partition)| (*partition, *turn)).collect();
        self.in_flight.insert(request, InFlight { partitions: asked, sent: now });
        effects.push(FetcherEffect::Send { request, partitions, max_wait });
    }
}

/// Whether the answer is to what is wanted: same leadership, same life, same place.
pub(super) fn answers_to(answer: &FetchAnswer, position: &FetchPosition) -> bool {
    answer.leader_epoch == position.leader_epoch
        && answer.incarnation == position.incarnation
        && answer.fetch_offset == position.fetch_offset
}

impl Machine for Fetcher {
    type Input = FetcherInput;
    type Effect = FetcherEffect;

    fn step(&mut self, now: Mono, _: Wall, input: FetcherInput, _: &mut Prng, effects: &mut Vec<FetcherEffect>) {
        match input {
            FetcherInput::Want(partition, position) => self.want(now, partition, position),
            FetcherInput::Forget(partition) => self.forget(partition),
            FetcherInput::Hold(held) => self.held.extend(held),
            FetcherInput::Changed(changes) => {
                for (partition, wanted) in changes {
                    match wanted {
                        Some(position) => self.want(now, partition, position),
                        None => self.forget(partition),
                    }
                }
            }
            FetcherInput::Answered { request, answers } => self.answered(now, request, answers, effects),
            FetcherInput::Failed { request } => self.failed(now, request),
            FetcherInput::Tick => {}
        }
        self.expire(now);
        self.send(now, effects);
    }

    fn deadline(&self) -> Option<Mono> {
        let lost = self.in_flight.values().map(|request| request.sent + self.config.timeout).min();
        let free = self.room().0 > 0;
        let idle = self.wants.values().filter(|want| free && want.request.is_none());
        let due = idle.map(|want| want.not_before.max(self.quiet_until)).min();
        [lost, due].into_iter().flatten().min()
    }

    fn check(&self) {
        let most = self.config.requests + self.config.large_requests;
        assert!(self.in_flight.len() <= most, "requests on their way are bounded");
    }

    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        // Numbers of requests and turns only name and order things.
        let mut turns: Vec<_> = self.wants.iter().map(|(partition, want)| (want.turn, partition)).collect();
        turns.sort_unstable();
        for (_, partition) in turns {
            let want = self.wants.get(partition).map(|want| (want.position, want.not_before, want.request.is_some()));
            (partition, want).hash(&mut hasher);
        }
        for request in self.in_flight.values() {
            (request.partitions.keys().collect::<Vec<_>>(), request.sent).hash(&mut hasher);
        }
        (self.failures, self.quiet_until).hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use madang_protocol::types::{LeaderEpoch, NodeId, Offset, Uuid};

    use super::super::replication::FetchBody;
    use super::*;

    struct World {
        fetcher: Fetcher,
        now: Mono,
    }

    fn partition(index: i32) -> TopicPartition {
        TopicPartition { topic_id: Uuid([1; 16]), partition: index }
    }

    fn position(offset: i64) -> FetchPosition {
        FetchPosition {
            leader: NodeId(2),
            leader_epoch: LeaderEpoch(5),
            incarnation: 1,
            fetch_offset: Offset(offset),
            last_fetched_epoch: LeaderEpoch(5),
            confirmed_offset: Offset::ZERO,
            known: None,
            after_error: false,
        }
    }

    fn answer(offset: i64) -> FetchAnswer {
        let (high_watermark, log_start_offset) = (Offset::ZERO, Offset::ZERO);
        let body = FetchBody::Records { records: Bytes::new(), high_watermark, log_start_offset };
        FetchAnswer { leader_epoch: LeaderEpoch(5), incarnation: 1, fetch_offset: Offset(offset), body }
    }

    impl World {
        fn new(requests: usize) -> Self {
            let config = FetcherConfig { requests, partitions: 2, ..FetcherConfig::default() };
            Self { fetcher: Fetcher::new(config), now: Mono::ZERO }
        }

        fn step(&mut self, input: FetcherInput) -> Vec<FetcherEffect> {
            let mut effects = Vec::new();
            self.fetcher.step(self.now, Wall(0), input, &mut Prng::new(0), &mut effects);
            self.fetcher.check_all();
            effects
        }

        fn want(&mut self, index: i32, offset: i64) -> Vec<FetcherEffect> {
            self.step(FetcherInput::Want(partition(index), position(offset)))
        }
    }

    fn sent(effects: &[FetcherEffect]) -> Vec<(u64, Vec<i32>)> {
        let send = |effect: &FetcherEffect| match effect {
            FetcherEffect::Send { request, partitions, .. } => {
                Some((*request, partitions.iter().map(|(partition, _)| partition.partition).collect()))
            }
            FetcherEffect::Deliver(..) => None,
        };
        effects.iter().filter_map(send).collect()
    }

    #[test]
    fn what_waits_while_a_request_is_on_its_way_goes_together_longest_first() {
        let mut world = World::new(1);
        assert_eq!(sent(&world.want(7, 0)), [(1, vec![7])]);
        for index in [9, 3, 5] {
            assert!(world.want(index, 0).is_empty());
        }
        let effects = world.step(FetcherInput::Answered { request: 1, answers: vec![(partition(7), answer(0))] });
        assert_eq!(effects[0], FetcherEffect::Deliver(partition(7), answer(0)));
        assert_eq!(sent(&effects), [(2, vec![9, 3])], "no more than two at once");
        assert!(world.want(7, 1).is_empty());
        let effects = world.step(FetcherInput::Answered { request: 2, answers: vec![(partition(9), answer(0))] });
        assert_eq!(effects[0], FetcherEffect::Deliver(partition(9), answer(0)));
        assert_eq!(sent(&effects), [(3, vec![3, 5])], "what the leader left out is wanted as before, and in its turn");
    }

    /// A write to one of many partitions brings back the request that it is in, and no more of them than that has.
    #[test]
    fn many_partitions_are_spread_over_requests_and_few_find_a_place_beside_them() {
        let mut world = World::new(2);
        world.fetcher.config = FetcherConfig { requests: 2, ..FetcherConfig::default() };
        let all = (0..1000).map(|index| (partition(index), Some(position(0)))).collect();
        let requests = sent(&world.step(FetcherInput::Changed(all)));
        assert_eq!(requests.len(), 17, "sixteen of many, and what is left");
        assert_eq!(requests.iter().map(|(_, partitions)| partitions.len()).sum::<usize>(), 1000);
        let effects = world.step(FetcherInput::Answered { request: 1, answers: vec![(partition(0), answer(0))] });
        let again = sent(&effects);
        assert_eq!((again.len(), again[0].1.len()), (1, 61), "those that were asked for with it, but for the one");
        assert_eq!(sent(&world.want(0, 1)).len(), 1, "beside those of many");
        assert!(world.want(2000, 0).is_empty(), "two of few, and no more");
        assert_eq!(world.fetcher.deadline(), Some(Mono::ZERO + Duration::from_secs(5)));
    }

    #[test]
    fn a_leader_that_says_nothing_at_once_is_not_asked_without_end() {
        let mut world = World::new(1);
        assert_eq!(sent(&world.want(7, 0)), [(1, vec![7])]);
        let nothing = |request| FetcherInput::Answered { request, answers: Vec::new() };
        assert!(world.step(nothing(1)).is_empty());
        world.now = world.fetcher.deadline().expect("its turn comes");
        assert_eq!(world.now, Mono::ZERO + Duration::from_millis(50));
        assert_eq!(sent(&world.step(FetcherInput::Tick)), [(2, vec![7])]);
        world.now = world.now + Duration::from_millis(500);
        assert_eq!(sent(&world.step(nothing(2))), [(3, vec![7])], "one that has waited for news is asked at once");
    }

    #[test]
    fn what_is_wanted_at_once_goes_in_one_request() {
        let mut world = World::new(2);
        let wanted = |index, offset| (partition(index), Some(position(offset)));
        let effects = world.step(FetcherInput::Changed(vec![wanted(4, 0), wanted(2, 0)]));
        assert_eq!(sent(&effects), [(1, vec![4, 2])]);
        assert!(world.step(FetcherInput::Changed(vec![(partition(4), None), wanted(2, 1)])).is_empty());
        let effects = world.step(FetcherInput::Answered { request: 1, answers: vec![(partition(4), answer(0))] });
        assert_eq!(effects.len(), 1, "nobody wants the answer any more");
        assert_eq!(sent(&effects), [(2, vec![2])]);
    }

    #[test]
    fn an_answer_to_what_is_no_longer_wanted_is_dropped() {
        let mut world = World::new(2);
        world.want(1, 0);
        let newer = FetchPosition { leader_epoch: LeaderEpoch(6), ..position(0) };
        assert!(world.step(FetcherInput::Want(partition(1), newer)).is_empty(), "in one request at most");
        let effects = world.step(FetcherInput::Answered { request: 1, answers: vec![(partition(1), answer(0))] });
        assert_eq!(sent(&effects), [(2, vec![1])], "asked again under the new leadership, nothing delivered");
        assert_eq!(effects.len(), 1);
        world.step(FetcherInput::Forget(partition(1)));
        let late = FetchAnswer { leader_epoch: LeaderEpoch(6), ..answer(0) };
        assert!(world.step(FetcherInput::Answered { request: 2, answers: vec![(partition(1), late)] }).is_empty());
        assert!(world.step(FetcherInput::Answered { request: 2, answers: Vec::new() }).is_empty(), "answered once");
    }

    #[test]
    fn a_lost_request_is_sent_again_after_a_wait_that_grows_to_its_bound() {
        let mut world = World::new(1);
        world.want(1, 0);
        let mut waits = Vec::new();
        for request in 1..8 {
            assert!(world.step(FetcherInput::Failed { request }).is_empty());
            let due = world.fetcher.deadline().expect("sent again");
            waits.push(due.saturating_since(world.now).as_millis());
            world.now = due;
            assert_eq!(sent(&world.step(FetcherInput::Tick)), [(request + 1, vec![1])]);
        }
        assert_eq!(waits, [50, 100, 200, 400, 800, 1000, 1000]);
        world.now = world.now + Duration::from_secs(5);
        assert!(world.step(FetcherInput::Tick).is_empty(), "no answer in time: lost as well");
        world.now = world.fetcher.deadline().expect("sent again");
        assert_eq!(sent(&world.step(FetcherInput::Tick)), [(9, vec![1])]);
    }

    #[test]
    fn a_partition_that_was_refused_waits_and_holds_no_other_up() {
        let mut world = World::new(2);
        let refused = FetchPosition { after_error: true, ..position(0) };
        assert!(world.step(FetcherInput::Want(partition(1), refused)).is_empty());
        assert_eq!(sent(&world.want(2, 0)), [(1, vec![2])]);
        world.now = world.fetcher.deadline().expect("its turn comes");
        assert_eq!(world.now, Mono::ZERO + Duration::from_millis(50));
        assert_eq!(sent(&world.step(FetcherInput::Tick)), [(2, vec![1])]);
    }

    #[test]
    fn what_is_held_waits_for_its_time_and_what_is_wanted_after_it_does_not() {
        let mut world = World::new(2);
        let until = Mono::ZERO + Duration::from_secs(3);
        assert!(world.step(FetcherInput::Hold(vec![(partition(1), until)])).is_empty());
        assert!(world.want(1, 0).is_empty());
        assert_eq!(sent(&world.want(2, 0)), [(1, vec![2])], "no other waits");
        world.step(FetcherInput::Answered { request: 1, answers: vec![(partition(2), answer(0))] });
        assert_eq!(world.fetcher.deadline(), Some(until));
        world.now = until;
        assert_eq!(sent(&world.step(FetcherInput::Tick)), [(2, vec![1])]);
        world.step(FetcherInput::Answered { request: 2, answers: vec![(partition(1), answer(0))] });
        assert_eq!(sent(&world.want(1, 1)), [(3, vec![1])], "once");
        world.step(FetcherInput::Hold(vec![(partition(5), until + Duration::from_secs(9))]));
        world.step(FetcherInput::Forget(partition(5)));
        assert_eq!(sent(&world.want(5, 0)), [(4, vec![5])], "nothing is held of what is forgotten");
    }

    /// A write to a partition that comes back while every request is parked must not wait until one of them has waited in vain.
    #[test]
    fn the_request_that_takes_the_last_place_comes_back_soon() {
        let mut world = World::new(3);
        let config = world.fetcher.config.clone();
        let mut waits = Vec::new();
        for index in 0..4 {
            for effect in world.step(FetcherInput::Want(partition(index), position(0))) {
                if let FetcherEffect::Send { max_wait, .. } = effect {
                    waits.push(max_wait);
                }
            }
        }
        assert_eq!(waits, [config.max_wait, config.max_wait, config.last_wait]);
        assert!(config.last_wait * 10 < config.max_wait);
    }
}
