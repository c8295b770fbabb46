//! A shard with a log, a clock and clients that remember their answers.
//! Invariant: every request is answered at most once, and never before the append it waits for is committed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use madang_actors::clock::{Mono, Wall};
use madang_actors::machine::Machine;
use madang_actors::prng::Prng;
use madang_cluster::coordinator::request::{
    CommitPartition, CommitTopic, FetchTopic, Heartbeat, JoinGroup, LeaveGroup, LeavingMember, OffsetCommit,
    OffsetFetch, SyncGroup,
};
use madang_cluster::coordinator::response::{
    FetchedOffset, JoinGroupResponse, LeaveGroupResponse, OffsetFetchResponse, SyncGroupResponse,
};
use madang_cluster::coordinator::{Effect, ErrorCode, GroupConfig, Input, Record, Request, Response, Shard, Ticket};
use madang_cluster::request::RequestId;

pub(crate) struct World {
    pub(crate) shard: Shard,
    pub(crate) config: GroupConfig,
    pub(crate) now: Mono,
    pub(crate) wall: Wall,
    pub(crate) rng: Prng,
    pub(crate) log: Vec<Record>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) answers: BTreeMap<RequestId, Response>,
    pub(crate) manual_commit: bool,
    pub(crate) asked: u64,
    held: BTreeMap<RequestId, (Ticket, Response)>,
    pub(crate) appended: Ticket,
    committed: Ticket,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(GroupConfig { initial_rebalance_delay: Duration::ZERO, ..GroupConfig::default() })
    }

    pub(crate) fn with(config: GroupConfig) -> Self {
        let mut world = Self {
            shard: Shard::new(config.clone()),
            config,
            now: Mono::ZERO,
            wall: Wall(1_700_000_000_000),
            rng: Prng::new(7),
            log: Vec::new(),
            effects: Vec::new(),
            answers: BTreeMap::new(),
            manual_commit: false,
            asked: 0,
            held: BTreeMap::new(),
            appended: Ticket(0),
            committed: Ticket(0),
        };
        world.step(Input::LoadFinished);
        world
    }

    /// Gives an input, appends what is asked for and, unless told otherwise, commits it.
    pub(crate) fn step(&mut self, input: Input) {
        self.feed(input);
        if !self.manual_commit {
            self.commit_all();
        }
    }

    fn feed(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.shard.step(self.now, self.wall, input, &mut self.rng, &mut effects);
        self.shard.check();
        for effect in &effects {
            match effect {
                Effect::Append { ticket, records } => {
                    assert_eq!(ticket.0, self.appended.0 + 1, "tickets are in order");
                    assert!(!records.is_empty());
                    self.appended = *ticket;
                    self.log.extend(records.iter().cloned());
                }
                Effect::Reply { request, response, after } => match after {
                    Some(ticket) if *ticket > self.committed => {
                        assert!(*ticket <= self.appended, "a reply waits for an append that was not asked for");
                        assert!(self.held.insert(*request, (*ticket, response.clone())).is_none());
                    }
                    _ => self.deliver(*request, response.clone()),
                },
                Effect::Stop { .. } | Effect::Report { .. } => {}
            }
        }
        self.effects.extend(effects);
    }

    fn deliver(&mut self, request: RequestId, response: Response) {
        assert!(self.answers.insert(request, response).is_none(), "{request:?} is answered twice");
    }

    pub(crate) fn commit_all(&mut self) {
        if self.committed < self.appended {
            self.commit_through(self.appended);
        }
    }

    /// Appends that wait for their commit.
    pub(crate) fn in_flight(&self) -> u64 {
        self.appended.0 - self.committed.0
    }

    /// Requests that the shard has not answered, or whose answer is held back.
    pub(crate) fn unanswered(&self) -> usize {
        self.shard.open_requests() + self.held.len()
    }

    pub(crate) fn commit_through(&mut self, through: Ticket) {
        self.committed = through;
        self.feed(Input::Committed { through });
        let ready = self.held.iter().filter(|(_, (ticket, _))| *ticket <= through).map(|(request, _)| *request);
        for request in ready.collect::<Vec<_>>() {
            let (_, response) = self.held.remove(&request).expect("a held answer");
            self.deliver(request, response);
        }
    }

    /// Lets time pass, serving every deadline on the way.
    pub(crate) fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        while let Some(deadline) = self.shard.deadline().filter(|deadline| *deadline <= until) {
            let to = deadline.max(self.now);
            self.wall = Wall(self.wall.0 + i64::try_from((to - self.now).as_millis()).expect("a time that fits"));
            self.now = to;
            self.step(Input::Tick);
        }
        self.wall = Wall(self.wall.0 + i64::try_from((until - self.now).as_millis()).expect("a time that fits"));
        self.now = until;
        self.step(Input::Tick);
    }

    pub(crate) fn ask(&mut self, body: Request) -> RequestId {
        self.asked += 1;
        let request = RequestId(self.asked);
        self.step(Input::Request { request, body });
        request
    }

    pub(crate) fn answer(&self, request: RequestId) -> &Response {
        self.answers.get(&request).expect("an answer")
    }

    pub(crate) fn is_waiting(&self, request: RequestId) -> bool {
        !self.answers.contains_key(&request)
    }

    /// A shard that has loaded this world's log.
    pub(crate) fn reload(&mut self) -> Shard {
        let mut shard = Shard::new(self.config.clone());
        for slice in self.log.chunks(7) {
            let input = Input::Loaded { records: slice.to_vec() };
            shard.step(self.now, self.wall, input, &mut self.rng, &mut self.effects);
        }
        shard.step(self.now, self.wall, Input::LoadFinished, &mut self.rng, &mut Vec::new());
        shard.check_all();
        shard
    }

    pub(crate) fn restart(&mut self) {
        self.commit_all();
        self.shard = self.reload();
        self.appended = Ticket(0);
        self.committed = Ticket(0);
    }

    pub(crate) fn joined(&self, request: RequestId) -> &JoinGroupResponse {
        match self.answer(request) {
            Response::JoinGroup(join) => join,
            other => panic!("{other:?} is no join"),
        }
    }

    pub(crate) fn synced(&self, request: RequestId) -> &SyncGroupResponse {
        match self.answer(request) {
            Response::SyncGroup(sync) => sync,
            other => panic!("{other:?} is no sync"),
        }
    }

    pub(crate) fn join(&mut self, join: JoinGroup) -> RequestId {
        self.ask(Request::JoinGroup(join))
    }

    pub(crate) fn sync(&mut self, member: &str, generation_id: i32, assignments: &[(&str, &str)]) -> RequestId {
        let assignments = assignments.iter().map(|(id, what)| (Arc::from(*id), blob(what))).collect();
        let (group, member) = (Arc::from("g"), Arc::from(member));
        self.ask(Request::SyncGroup(SyncGroup { group, member, generation_id, assignments, ..SyncGroup::default() }))
    }

    pub(crate) fn heartbeat(&mut self, member: &str, generation_id: i32) -> ErrorCode {
        let (group, member) = (Arc::from("g"), Arc::from(member));
        let request = self.ask(Request::Heartbeat(Heartbeat { group, member, generation_id, group_instance_id: None }));
        match self.answer(request) {
            Response::Heartbeat(error) => *error,
            other => panic!("{other:?} is no heartbeat"),
        }
    }

    pub(crate) fn leave(&mut self, member: &str, instance: Option<&str>) -> LeaveGroupResponse {
        let member = LeavingMember { member: member.into(), group_instance_id: instance.map(Arc::from) };
        let leave = LeaveGroup { version: 5, group: "g".into(), members: vec![member] };
        let request = self.ask(Request::LeaveGroup(leave));
        match self.answer(request) {
            Response::LeaveGroup(left) => left.clone(),
            other => panic!("{other:?} is no leave"),
        }
    }

    pub(crate) fn commit(&mut self, commit: OffsetCommit) -> ErrorCode {
        let request = self.ask(Request::OffsetCommit(commit));
        match self.answer(request) {
            Response::OffsetCommit(topics) => topics[0].1[0].1,
            other => panic!("{other:?} is no commit"),
        }
    }

    pub(crate) fn fetch(&mut self, group: &str, topic: &str) -> FetchedOffset {
        let topics = vec![FetchTopic { name: topic.into(), partitions: vec![0], ..FetchTopic::default() }];
        let request = self.ask(Request::OffsetFetch(OffsetFetch { group: group.into(), topics: Some(topics) }));
        self.fetched(request).topics[0].1[0].clone()
    }

    pub(crate) fn fetched(&self, request: RequestId) -> &OffsetFetchResponse {
        match self.answer(request) {
            Response::OffsetFetch(fetched) => fetched,
            other => panic!("{other:?} is no fetch"),
        }
    }

    /// Two members of `g` in generation 1, synced: their ids, the leader first.
    pub(crate) fn stable_pair(&mut self) -> (Arc<str>, Arc<str>) {
        let (first, second) = (self.join(v3("one")), self.join(v3("two")));
        self.advance(self.config.initial_rebalance_delay * 2);
        let generation = self.joined(second).generation_id;
        let (one, two) = (self.joined(first).member.clone(), self.joined(second).member.clone());
        let (leader, follower) = if self.joined(first).leader == one { (one, two) } else { (two, one) };
        let lead = self.sync(&leader, generation, &[(&leader, "L"), (&follower, "F")]);
        let follow = self.sync(&follower, generation, &[]);
        assert_eq!((&self.synced(lead).assignment[..], &self.synced(follow).assignment[..]), (&b"L"[..], &b"F"[..]));
        (leader, follower)
    }

    pub(crate) fn generation(&mut self, member: &str) -> i32 {
        (0..100)
            .find(|generation| self.heartbeat(member, *generation) != ErrorCode::IllegalGeneration)
            .expect("a low generation")
    }
}

pub(crate) fn blob(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// A join of a new dynamic member that needs no second round.
pub(crate) fn v3(client: &str) -> JoinGroup {
    JoinGroup {
        version: 3,
        group: "g".into(),
        client_id: client.into(),
        client_host: "/127.0.0.1".into(),
        session_timeout: Duration::from_secs(10),
        rebalance_timeout: Duration::from_secs(60),
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), subscription(&["t"]))],
        ..JoinGroup::default()
    }
}

/// A join of a static member.
pub(crate) fn fixed(instance: &str) -> JoinGroup {
    JoinGroup { version: 9, group_instance_id: Some(instance.into()), ..v3(instance) }
}

/// The consumer protocol's metadata for a subscription.
pub(crate) fn subscription(topics: &[&str]) -> Bytes {
    let mut out = vec![0, 0];
    out.extend(i32::try_from(topics.len()).expect("a short list").to_be_bytes());
    for topic in topics {
        out.extend(i16::try_from(topic.len()).expect("a short list").to_be_bytes());
        out.extend(topic.as_bytes());
    }
    out.extend((-1i32).to_be_bytes());
    out.into()
}

/// A commit of offset `offset` of partition 0 by a consumer without membership.
pub(crate) fn simple(group: &str, topic: &str, offset: i64) -> OffsetCommit {
    let partition = CommitPartition { partition: 0, offset, leader_epoch: 3, metadata: "note".into() };
    let topic = CommitTopic { name: topic.into(), partitions: vec![partition], ..CommitTopic::default() };
    OffsetCommit { version: 8, group: group.into(), generation_id: -1, topics: vec![topic], ..OffsetCommit::default() }
}
