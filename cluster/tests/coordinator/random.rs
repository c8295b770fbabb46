//! Random clients against one shard: they join, sync, heartbeat, commit, leave, crash and come back, while time passes, appends
//! commit late and the shard reloads. A failure prints its seed: `MADANG_SEED=<seed> cargo test -p madang-cluster --test coordinator random`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use madang_actors::machine::Machine;
use madang_actors::prng::Prng;
use madang_cluster::coordinator::records::{self, Key, Value};
use madang_cluster::coordinator::request::{
    DeleteGroups, Heartbeat, JoinGroup, LeaveGroup, LeavingMember, ListGroups, OffsetCommit, SyncGroup,
};
use madang_cluster::coordinator::response::JoinGroupResponse;
use madang_cluster::coordinator::{ErrorCode, GroupConfig, Input, Request, Response, Ticket};
use madang_cluster::request::RequestId;

use crate::world::{World, blob, simple, subscription, v3};

const CLIENTS: u64 = 12;
const GROUPS: [&str; 3] = ["g0", "g1", "g2"];

#[derive(Default)]
struct Client {
    group: &'static str,
    instance: Option<Arc<str>>,
    version: i16,
    member: Arc<str>,
    generation: i32,
    leads: Vec<Arc<str>>,
    waiting: Option<RequestId>,
    synced: bool,
    rejoins: bool,
}

struct Run {
    world: World,
    dice: Prng,
    clients: Vec<Client>,
    /// The highest generation any client was told, for each life of a group.
    generations: BTreeMap<&'static str, i32>,
    /// G1: what each generation gave to whom.
    assigned: BTreeMap<(&'static str, i32, String), Arc<str>>,
    assignments: usize,
    committed: i64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut world = World::with(GroupConfig { max_group_size: 5, ..GroupConfig::default() });
        world.rng = Prng::new(seed ^ 1);
        world.manual_commit = true;
        let mut dice = Prng::new(seed);
        let clients = (0..CLIENTS).map(|index| {
            let instance = dice.chance(1, 3).then(|| Arc::from(format!("i{index}")));
            let version = if instance.is_some() { 5 + dice.below(5) } else { dice.below(10) };
            let group = dice.pick(&GROUPS).copied().unwrap_or("g0");
            Client { group, instance, version: i16::try_from(version).unwrap_or(0), ..Client::default() }
        });
        let clients = clients.collect();
        Self {
            world,
            clients,
            dice,
            generations: BTreeMap::new(),
            assigned: BTreeMap::new(),
            assignments: 0,
            committed: 0,
        }
    }

    fn turn(&mut self) {
        match self.dice.below(100) {
            0..60 => self.client_turn(),
            60..75 => self.commit_some(),
            75..95 => {
                let wait = Duration::from_millis(self.dice.below(600));
                self.world.advance(wait);
            }
            95..97 => self.flap(),
            97 => self.administer(),
            _ if self.dice.chance(1, 20) => self.reload(),
            _ => {}
        }
        self.world.shard.check_all();
    }

    fn client_turn(&mut self) {
        let index = usize::try_from(self.dice.below(CLIENTS)).unwrap_or(0);
        if let Some(request) = self.clients[index].waiting {
            if let Some(response) = self.world.answers.remove(&request) {
                self.clients[index].waiting = None;
                self.learn(index, response);
            } else if self.dice.chance(1, 20) {
                // The connection is lost: the client forgets the request, and perhaps itself.
                self.clients[index].waiting = None;
                if self.dice.chance(1, 2) {
                    self.crash(index);
                }
            }
            return;
        }
        let joined = self.clients[index].generation > 0;
        let body = match self.dice.below(20) {
            0..8 if joined && !self.clients[index].synced => self.sync(index),
            0..4 if joined => self.heartbeat(index),
            4..8 if joined => self.commit(index),
            8 if self.dice.chance(1, 3) => return self.crash(index),
            9 if self.dice.chance(1, 3) => self.leave(index),
            10..16 if !joined || self.clients[index].rejoins || self.dice.chance(1, 20) => self.join(index),
            _ => return,
        };
        self.world.asked += 1;
        let request = RequestId(self.world.asked);
        self.clients[index].waiting = Some(request);
        self.world.step(Input::Request { request, body });
    }

    fn crash(&mut self, index: usize) {
        let client = &mut self.clients[index];
        (client.member, client.generation, client.synced) = (Arc::default(), 0, false);
        client.leads.clear();
    }

    fn join(&mut self, index: usize) -> Request {
        let topics: &[&str] = if self.dice.chance(1, 10) { &["t", "u"] } else { &["t"] };
        let client = &self.clients[index];
        Request::JoinGroup(JoinGroup {
            version: client.version,
            group: client.group.into(),
            member: client.member.clone(),
            group_instance_id: client.instance.clone(),
            rebalance_timeout: Duration::from_secs(20),
            protocols: vec![("range".into(), subscription(topics)), ("rr".into(), subscription(topics))],
            ..v3(&format!("c{index}"))
        })
    }

    fn sync(&mut self, index: usize) -> Request {
        let client = &self.clients[index];
        let give = |(place, member): (usize, &Arc<str>)| (member.clone(), blob(&format!("part-{place}")));
        Request::SyncGroup(SyncGroup {
            group: client.group.into(),
            member: client.member.clone(),
            group_instance_id: client.instance.clone(),
            generation_id: client.generation,
            assignments: client.leads.iter().enumerate().map(give).collect(),
            ..SyncGroup::default()
        })
    }

    fn heartbeat(&mut self, index: usize) -> Request {
        let client = &self.clients[index];
        Request::Heartbeat(Heartbeat {
            group: client.group.into(),
            member: client.member.clone(),
            group_instance_id: client.instance.clone(),
            generation_id: client.generation,
        })
    }

    fn commit(&mut self, index: usize) -> Request {
        self.committed += 1;
        let client = &self.clients[index];
        Request::OffsetCommit(OffsetCommit {
            member: client.member.clone(),
            group_instance_id: client.instance.clone(),
            generation_id: client.generation,
            ..simple(client.group, "t", self.committed)
        })
    }

    fn leave(&mut self, index: usize) -> Request {
        let client = &self.clients[index];
        let member = LeavingMember { member: client.member.clone(), group_instance_id: client.instance.clone() };
        Request::LeaveGroup(LeaveGroup { version: 5, group: client.group.into(), members: vec![member] })
    }

    fn learn(&mut self, index: usize, response: Response) {
        match response {
            Response::JoinGroup(join) => self.learn_join(index, join),
            Response::SyncGroup(sync) if sync.error == ErrorCode::None => {
                let client = &mut self.clients[index];
                client.synced = true;
                if sync.assignment.is_empty() {
                    return;
                }
                self.assignments += 1;
                let part = String::from_utf8_lossy(&sync.assignment).into_owned();
                let owner: Arc<str> = client.instance.clone().unwrap_or_else(|| client.member.clone());
                let before = self.assigned.insert((client.group, client.generation, part), owner.clone());
                assert!(before.is_none_or(|before| before == owner), "two members were given the same part");
            }
            Response::SyncGroup(sync) => self.learn_error(index, sync.error),
            Response::Heartbeat(error) => self.learn_error(index, error),
            Response::OffsetCommit(topics) => self.learn_error(index, topics[0].1[0].1),
            Response::LeaveGroup(_) => self.crash(index),
            other => panic!("{other:?} was not asked for"),
        }
    }

    fn learn_join(&mut self, index: usize, join: JoinGroupResponse) {
        if join.error == ErrorCode::MemberIdRequired {
            self.clients[index].member = join.member;
            return;
        }
        if join.error != ErrorCode::None {
            return self.learn_error(index, join.error);
        }
        let client = &mut self.clients[index];
        assert!(join.generation_id >= client.generation, "a member's generation fell");
        (client.synced, client.rejoins) = (false, false);
        client.generation = join.generation_id;
        client.leads = join.members.iter().map(|member| member.member.clone()).collect();
        client.member = join.member;
        let highest = self.generations.entry(client.group).or_default();
        *highest = join.generation_id.max(*highest);
    }

    fn learn_error(&mut self, index: usize, error: ErrorCode) {
        match error {
            ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId | ErrorCode::IllegalGeneration => {
                self.crash(index)
            }
            ErrorCode::RebalanceInProgress => self.clients[index].rejoins = true,
            ErrorCode::None
            | ErrorCode::GroupMaxSizeReached
            | ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorNotAvailable => {}
            other => panic!("a good client was told {other:?}"),
        }
    }

    fn commit_some(&mut self) {
        let missing = self.world.in_flight();
        let some = self.dice.below(missing + 1);
        if some > 0 {
            self.world.commit_through(Ticket(self.world.appended.0 - missing + some));
        }
    }

    fn flap(&mut self) {
        let writable = if self.dice.chance(1, 4) { Err(ErrorCode::NotEnoughReplicas) } else { Ok(()) };
        self.world.step(Input::Writable(writable));
    }

    fn administer(&mut self) {
        let group = self.dice.pick(&GROUPS).copied().unwrap_or("g0");
        match self.dice.below(4) {
            0 => self.world.step(Input::KillGroup { group: group.into() }),
            1 => {
                let request = self.world.ask(Request::DeleteGroups(DeleteGroups { groups: vec![group.into()] }));
                self.world.commit_all();
                if *self.world.answer(request) == Response::DeleteGroups(vec![(group.into(), ErrorCode::None)]) {
                    self.forget(group);
                }
            }
            2 => {
                let id = madang_protocol::types::Uuid::default();
                self.world.step(Input::TopicDeleted { name: "t".into(), id });
            }
            _ => {
                self.world.ask(Request::ListGroups(ListGroups::default()));
            }
        }
        // A group that was rebuilt may give a lost generation's number again.
        self.forget(group);
    }

    fn forget(&mut self, group: &str) {
        self.assigned.retain(|(of, ..), _| *of != group);
        for index in 0..self.clients.len() {
            if self.clients[index].group == group {
                self.crash(index);
            }
        }
    }

    /// The log gives the same persisted state again, and a new shard goes on from it.
    fn reload(&mut self) {
        self.world.commit_all();
        GROUPS.iter().for_each(|group| self.check_offset(group));
        let digest = self.world.shard.persisted_digest();
        assert_eq!(self.world.reload().persisted_digest(), digest, "a reload gives another state");
        self.world.step(Input::Resign);
        self.world.restart();
        assert_eq!(self.world.shard.persisted_digest(), digest);
        GROUPS.iter().for_each(|group| self.forget(group));
    }

    /// G5: the committed offset is the last one in the log.
    fn check_offset(&mut self, group: &str) {
        let key = Key::Offset { group: group.into(), topic: "t".into(), partition: 0 };
        let stored = self.world.log.iter().rfind(|record| records::decode_key(&record.key) == Ok(key.clone()));
        let value = stored.and_then(|record| record.value.clone());
        let expected = match value.map(|value| records::decode_value(&key, &value)) {
            None => -1,
            Some(Ok(Value::Offset(offset))) => offset.offset,
            Some(other) => panic!("{other:?} was appended"),
        };
        assert_eq!(self.world.fetch(group, "t").offset, expected);
    }

    /// Everybody falls silent: every request is answered, and in the end nothing is left.
    fn wind_down(&mut self) {
        self.world.step(Input::Writable(Ok(())));
        self.world.manual_commit = false;
        self.world.advance(Duration::from_secs(3600));
        assert_eq!(self.world.shard.open_requests(), 0, "a request is parked for ever");
        assert_eq!(self.world.unanswered(), 0, "a request has no answer");
        self.world.advance(Duration::from_secs(8 * 24 * 3600));
        assert_eq!(self.world.shard.group_count(), 0, "a group outlives its members and offsets");
        self.world.shard.check_all();
    }
}

fn run(seed: u64, turns: usize) -> u64 {
    let mut run = Run::new(seed);
    for _ in 0..turns {
        run.turn();
    }
    let highest = run.generations.values().max().copied().unwrap_or(0);
    assert!(turns < 5000 || highest > 5 && run.assignments > 20, "the run tries little: {highest} {}", run.assignments);
    let digest = run.world.shard.digest();
    run.wind_down();
    digest
}

#[test]
fn random_clients_never_break_an_invariant() {
    let seeds = match std::env::var("MADANG_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => (1..=20).collect(),
    };
    for seed in seeds {
        eprintln!("seed {seed}"); // Shown when it fails.
        run(seed, 5000);
    }
}

#[test]
fn the_same_seed_gives_the_same_digest() {
    assert_eq!(run(99, 2000), run(99, 2000));
}
