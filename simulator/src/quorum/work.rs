//! What is asked of the quorum: brokers register, are unfenced and beat; clients create and delete topics and take producer ids.
//! Invariant: a request is forgotten only with the life that it was given to, and then its outcome is unknown for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use madang_actors::clock::Mono;
use madang_cluster::controller::{
    ApiResult, ControllerInput, MemberChange, NewTopic, Outcome, PRODUCER_ID_BLOCK, Proposal, RegisterBroker, TopicRef,
};
use madang_cluster::metadata::{Endpoint, MetadataImage, SecurityProtocol};
use madang_cluster::request::RequestId;
use madang_protocol::ErrorCode;
use madang_protocol::types::{NodeId, Uuid};

use super::{Event, World, growing, node, place};
use crate::sim::Violation;

/// Topics that clients speak of.
const TOPICS: u64 = 12;
/// Time between two heartbeats of a broker.
const BEAT: Duration = Duration::from_millis(500);
/// Answers have to come within this, once everything has healed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a request wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Ids,
    /// And how often its deletion was asked for before.
    Create(String, u64),
    Delete(String),
    Register(NodeId),
    Unfence(NodeId),
    Beat(NodeId),
    Join(NodeId),
    Change(Vec<MemberChange>),
}

#[derive(Debug)]
struct Asked {
    voter: usize,
    want: Want,
    at: Mono,
}

/// A broker as it knows itself.
#[derive(Clone, Copy, Debug, Default)]
struct Broker {
    broker_epoch: Option<i64>,
    /// The voter that it takes for the leader.
    leader: usize,
    /// Whether it waits for an answer.
    waits: bool,
}

/// Requests under way, and what was acknowledged.
#[derive(Debug)]
pub(super) struct Work {
    next: u64,
    asked: BTreeMap<RequestId, Asked>,
    brokers: Vec<Broker>,
    acknowledged: u64,
    /// First ids of the blocks that were given out.
    blocks: BTreeSet<i64>,
    broker_epochs: BTreeSet<i64>,
    /// Topics whose creation was acknowledged and whose deletion was not asked for since the creation was.
    topics: BTreeSet<String>,
    /// How often each topic's deletion was asked for.
    deletions: BTreeMap<String, u64>,
    /// Acknowledged after everything had healed.
    since_healed: u64,
}

impl Work {
    pub(super) fn new(brokers: usize) -> Self {
        Self {
            next: 1,
            asked: BTreeMap::new(),
            brokers: vec![Broker::default(); brokers],
            acknowledged: 0,
            blocks: BTreeSet::new(),
            broker_epochs: BTreeSet::new(),
            topics: BTreeSet::new(),
            deletions: BTreeMap::new(),
            since_healed: 0,
        }
    }

    pub(super) const fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// A voter's process has ended: what it was asked has no answer any more.
    pub(super) fn forget(&mut self, voter: usize) {
        for asked in self.asked.values().filter(|asked| asked.voter == voter) {
            if let Want::Register(node) | Want::Unfence(node) | Want::Beat(node) = asked.want {
                self.brokers[place(node)].waits = false;
                self.brokers[place(node)].leader += 1;
            }
        }
        self.asked.retain(|_, asked| asked.voter != voter);
    }

    fn ask(&mut self, voter: usize, want: Want, at: Mono) -> RequestId {
        let request = RequestId(self.next);
        self.next += 1;
        self.asked.insert(request, Asked { voter, want, at });
        request
    }

    fn deletions_of(&self, topic: &str) -> u64 {
        self.deletions.get(topic).copied().unwrap_or_default()
    }

    /// Takes an acknowledged outcome into account.
    fn acknowledge(&mut self, want: &Want, outcome: &Outcome) -> Result<(), Violation> {
        let broken = |code, what: String| Err(Violation { code, what });
        match (want, outcome) {
            (_, Outcome::ProducerIds { first, .. }) if !self.blocks.insert(*first) => {
                return broken("C3", format!("producer ids from {first} were given out twice"));
            }
            (Want::Register(_), Outcome::Registered(epoch)) if !self.broker_epochs.insert(*epoch) => {
                return broken("C10", format!("broker epoch {epoch} was given out twice"));
            }
            (Want::Register(node), Outcome::Registered(epoch)) => {
                self.brokers[place(*node)].broker_epoch = Some(*epoch);
            }
            (Want::Create(name, deletions), Outcome::CreateTopics(results))
                if results.iter().all(Result::is_ok) && self.deletions_of(name) == *deletions =>
            {
                self.topics.insert(name.clone());
            }
            _ => {}
        }
        Ok(())
    }

    /// What was acknowledged is in the metadata.
    pub(super) fn kept_in(&self, image: &MetadataImage) -> Result<(), Violation> {
        let lost = |what: String| Err(Violation { code: "C3", what });
        if let Some(topic) = self.topics.iter().find(|topic| image.topic(topic).is_none()) {
            return lost(format!("topic {topic} was created and acknowledged, and is gone"));
        }
        if let Some(first) = self.blocks.iter().find(|first| image.next_producer_id() < **first + PRODUCER_ID_BLOCK) {
            return lost(format!("producer ids from {first} were acknowledged and will be given out again"));
        }
        Ok(())
    }

    /// Whatever was asked of a live voter a while ago has its answer, and work goes on.
    pub(super) fn all_answered(&self, now: Mono) -> Result<(), Violation> {
        let overdue = self.asked.values().find(|asked| asked.at + PATIENCE < now);
        if let Some(asked) = overdue {
            return Err(Violation { code: "L3", what: format!("{asked:?} has no answer") });
        }
        if self.since_healed == 0 {
            return Err(Violation { code: "L3", what: "nothing was acknowledged after everything had healed".into() });
        }
        Ok(())
    }
}

impl World {
    /// A client asks a voter that may well not lead.
    pub(super) fn propose(&mut self) -> Result<(), Violation> {
        self.after(self.swarm.pace, Event::Propose);
        let leader = self.voters.iter().position(|voter| voter.controller.as_ref().is_some_and(|one| one.is_leader()));
        let any = self.rng.below(self.voters.len() as u64) as usize;
        let voter = leader.filter(|_| self.rng.chance(9, 10)).unwrap_or(any);
        let name = format!("topic-{}", self.rng.below(TOPICS));
        let want = match self.rng.below(4) {
            0 | 1 => Want::Ids,
            2 => Want::Create(name.clone(), self.work.deletions_of(&name)),
            _ => Want::Delete(name),
        };
        self.ask(voter, want)
    }

    pub(super) fn ask(&mut self, voter: usize, want: Want) -> Result<(), Violation> {
        let Some(life) = self.voters[voter].life_now() else { return Ok(()) };
        let asked = want.clone();
        let request = self.work.ask(voter, want, self.now);
        let input = match self.proposal(asked) {
            Ok(proposal) => ControllerInput::Propose { request, proposal },
            Err((node_id, broker_epoch)) => ControllerInput::Heartbeat { request, node_id, broker_epoch },
        };
        self.step_alive(voter, life, input)
    }

    fn proposal(&mut self, want: Want) -> Result<Proposal, (NodeId, i64)> {
        let epoch_of = |world: &Self, node: NodeId| world.work.brokers[place(node)].broker_epoch.unwrap_or(-1);
        Ok(match want {
            Want::Ids => {
                let node_id = node(self.rng.below(self.voters.len() as u64) as usize);
                Proposal::AllocateProducerIds { node_id, broker_epoch: epoch_of(self, node_id) }
            }
            Want::Create(name, _) => {
                let partitions = [1, 10, 60][self.rng.below(3) as usize];
                let topic = NewTopic { name, partitions, replication_factor: -1, ..NewTopic::default() };
                Proposal::CreateTopics { topics: vec![topic], validate_only: false }
            }
            Want::Delete(name) => {
                self.work.topics.remove(&name);
                *self.work.deletions.entry(name.clone()).or_default() += 1;
                Proposal::DeleteTopics(vec![TopicRef::Name(name)])
            }
            Want::Register(node_id) => Proposal::RegisterBroker(registration(node_id, self.rng.next_u64())),
            Want::Unfence(node_id) => Proposal::UnfenceBroker { node_id, broker_epoch: epoch_of(self, node_id) },
            Want::Beat(node_id) => return Err((node_id, epoch_of(self, node_id))),
            Want::Join(_) | Want::Change(_) => growing::proposal(&want).unwrap_or(Proposal::DescribeQuorum),
        })
    }

    /// A broker registers, is unfenced or beats, with whom it takes for the leader.
    pub(super) fn beat(&mut self, broker: usize) -> Result<(), Violation> {
        self.at(self.now + BEAT, Event::Beat { broker });
        let Broker { broker_epoch, leader, waits } = self.work.brokers[broker];
        let voter = leader % self.voters.len();
        if waits {
            return Ok(());
        }
        if self.voters[voter].life_now().is_none() {
            self.work.brokers[broker].leader += 1;
            return Ok(());
        }
        self.work.brokers[broker].waits = true;
        let own = node(broker);
        self.ask(voter, if broker_epoch.is_none() { Want::Register(own) } else { Want::Beat(own) })
    }

    pub(super) fn answered(
        &mut self,
        voter: usize,
        request: RequestId,
        result: ApiResult<Outcome>,
    ) -> Result<(), Violation> {
        let Some(asked) = self.work.asked.remove(&request) else {
            let what = format!("{request:?} is answered twice, or by another life than it was given to");
            return Err(Violation { code: "U1", what });
        };
        if asked.voter != voter {
            return Err(Violation { code: "U1", what: format!("{asked:?} is answered by voter {voter}") });
        }
        if let Ok(outcome) = &result {
            if let Want::Change(_) = asked.want {
                self.struck("members changed");
            }
            if !matches!(asked.want, Want::Beat(_) | Want::Join(_) | Want::Change(_)) {
                self.work.acknowledged += 1;
                self.work.since_healed += u64::from(!self.stormy);
            }
            self.work.acknowledge(&asked.want, outcome)?;
        }
        if let Want::Register(node) | Want::Unfence(node) | Want::Beat(node) = asked.want {
            self.work.brokers[place(node)].waits = false;
            self.beaten(node, &result);
        }
        Ok(())
    }

    /// What a broker makes of an answer.
    fn beaten(&mut self, node: NodeId, result: &ApiResult<Outcome>) {
        let broker = &mut self.work.brokers[place(node)];
        match result {
            Err(error) if error.error == ErrorCode::NotController => broker.leader += 1,
            Err(_) => broker.broker_epoch = None,
            Ok(Outcome::Fenced(true) | Outcome::Registered(_)) => {
                let voter = broker.leader % self.voters.len();
                let Some(life) = self.voters[voter].life_now() else { return };
                broker.waits = true;
                let request = self.work.ask(voter, Want::Unfence(node), self.now);
                if let Ok(proposal) = self.proposal(Want::Unfence(node)) {
                    let input = ControllerInput::Propose { request, proposal };
                    self.after(1000, Event::Input { voter, life, input });
                }
            }
            Ok(_) => {}
        }
    }
}

fn registration(node_id: NodeId, salt: u64) -> RegisterBroker {
    let endpoint = Endpoint {
        listener: "PLAINTEXT".into(),
        host: "localhost".into(),
        port: 9092,
        security_protocol: SecurityProtocol::Plaintext,
    };
    RegisterBroker {
        node_id,
        incarnation_id: Uuid::from_random(salt, 1),
        endpoints: vec![endpoint],
        rack: None,
        log_dirs: vec![Uuid::from_random(node_id.0.unsigned_abs().into(), 2)],
        starts: Vec::new(),
    }
}
