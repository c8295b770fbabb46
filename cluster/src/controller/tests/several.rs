//! Members of a quorum on disks that can lose what was not synced, and a clock that the test moves. Messages arrive at once.

use std::time::Duration;

use super::*;

struct Member {
    controller: Controller,
    rng: Prng,
    disk: Arc<FaultDisk>,
    config: ControllerConfig,
}

/// See the file's head.
pub(super) struct Several {
    members: BTreeMap<NodeId, Member>,
    /// What is left of members that are down.
    down: BTreeMap<NodeId, (Arc<FaultDisk>, ControllerConfig)>,
    now: Mono,
    next_request: u64,
    replies: BTreeMap<RequestId, ApiResult<Outcome>>,
}

/// What a start asks for: terms of messages, and syncs.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    pub(super) sent: Vec<u64>,
    pub(super) tickets: Vec<SyncTicket>,
}

impl Several {
    /// Nodes 1 to `nodes`, all of whose files name `voters`.
    pub(super) fn new(nodes: i32, voters: &[i32]) -> Self {
        let (members, down, replies) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut several = Self { members, down, now: Mono::ZERO, next_request: 0, replies };
        for node_id in (1..=nodes).map(NodeId) {
            let voters = voters.iter().copied().map(NodeId).collect();
            several.down.insert(node_id, (Arc::default(), ControllerConfig { node_id, voters, ..config() }));
            several.start(node_id);
        }
        several
    }

    pub(super) fn start(&mut self, node: NodeId) {
        let (disk, config) = self.down.remove(&node).expect("it is down");
        let controller = Controller::open(config.clone(), Arc::clone(&disk) as Arc<dyn Disk>).expect("opens");
        let rng = Prng::new(node.0.unsigned_abs().into());
        self.members.insert(node, Member { controller, rng, disk, config });
        self.give(node, ControllerInput::Start);
    }

    /// Starts it, and answers what it sends and asks to be synced before any sync has ended.
    pub(super) fn start_unsynced(&mut self, node: NodeId) -> Unsynced {
        let (disk, config) = self.down.remove(&node).expect("it is down");
        let mut controller = Controller::open(config.clone(), Arc::clone(&disk) as Arc<dyn Disk>).expect("opens");
        let (mut rng, mut effects) = (Prng::new(7), Vec::new());
        controller.step(self.now, Wall(0), ControllerInput::Start, &mut rng, &mut effects);
        self.members.insert(node, Member { controller, rng, disk, config });
        let mut unsynced = Unsynced::default();
        for effect in effects {
            match effect {
                ControllerEffect::Sync { ticket, .. } => unsynced.tickets.push(ticket),
                ControllerEffect::Send { message, .. } => unsynced.sent.push(message.term),
                _ => {}
            }
        }
        unsynced
    }

    /// Its syncs have succeeded.
    pub(super) fn complete(&mut self, node: NodeId, tickets: Vec<SyncTicket>) {
        for ticket in tickets {
            self.give(node, ControllerInput::Synced { ticket, result: Ok(()) });
        }
    }

    /// Ends it; a power cut takes what was not synced.
    pub(super) fn end(&mut self, node: NodeId, crash: Crash) {
        let Member { controller, mut rng, disk, config } = self.members.remove(&node).expect("it runs");
        drop(controller);
        disk.crash(crash, &mut rng);
        self.down.insert(node, (disk, config));
    }

    /// Steps the member, and whatever follows from that at once; one that is down gets nothing.
    pub(super) fn give(&mut self, node: NodeId, input: ControllerInput) {
        let mut inputs = VecDeque::from([(node, input)]);
        while let Some((node, input)) = inputs.pop_front() {
            let Some(member) = self.members.get_mut(&node) else { continue };
            let mut effects = Vec::new();
            member.controller.step(self.now, Wall(0), input, &mut member.rng, &mut effects);
            member.controller.check();
            for effect in effects {
                match effect {
                    ControllerEffect::Sync { ticket, file } => {
                        file.sync().expect("the disk works");
                        inputs.push_back((node, ControllerInput::Synced { ticket, result: Ok(()) }));
                    }
                    ControllerEffect::Send { to, message, is_snapshot } => {
                        let delivered = self.members.contains_key(&to);
                        inputs.push_back((to, ControllerInput::Message(message)));
                        if is_snapshot {
                            inputs.push_back((node, ControllerInput::SnapshotSent { to, delivered }));
                        } else if !delivered {
                            inputs.push_back((node, ControllerInput::Unreachable(to)));
                        }
                    }
                    ControllerEffect::Reply { request, result } => {
                        assert!(self.replies.insert(request, result).is_none(), "one answer each");
                    }
                    ControllerEffect::Fatal(why) => panic!("node {node}: {why}"),
                    ControllerEffect::Publish { .. } | ControllerEffect::Leader(_) | ControllerEffect::Voters(_) => {}
                }
            }
        }
    }

    pub(super) fn pass(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.now = self.now + Duration::from_millis(100);
            let nodes: Vec<NodeId> = self.members.keys().copied().collect();
            nodes.into_iter().for_each(|node| self.give(node, ControllerInput::Tick));
        }
    }

    pub(super) fn leader(&self) -> Option<NodeId> {
        let leads = |(_, member): &(&NodeId, &Member)| member.controller.is_leader();
        self.members
            .iter()
            .filter(leads)
            .max_by_key(|(_, member)| member.controller.status().term)
            .map(|(node, _)| *node)
    }

    /// Lets time pass until somebody leads.
    pub(super) fn elect(&mut self) -> NodeId {
        for _ in 0..100 {
            if let Some(leader) = self.leader() {
                return leader;
            }
            self.pass(1);
        }
        panic!("nobody leads")
    }

    /// Asks one node once, and waits for its answer.
    pub(super) fn ask(&mut self, node: NodeId, proposal: Proposal) -> ApiResult<Outcome> {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.give(node, ControllerInput::Propose { request, proposal });
        for _ in 0..100 {
            if let Some(result) = self.replies.remove(&request) {
                return result;
            }
            self.pass(1);
        }
        panic!("not answered in ten seconds")
    }

    pub(super) fn join(&mut self, node: i32) -> ApiResult<Outcome> {
        let leader = self.elect();
        let joined =
            self.ask(leader, Proposal::JoinQuorum { node_id: NodeId(node), address: format!("host-{node}:1") });
        self.pass(10);
        joined
    }

    pub(super) fn change(&mut self, changes: &[(i32, MemberRole)]) -> ApiResult<Outcome> {
        let leader = self.elect();
        let changes = changes.iter().map(|(node, role)| MemberChange { node_id: NodeId(*node), role: *role });
        let changed = self.ask(leader, Proposal::ChangeQuorum(changes.collect()));
        self.pass(10);
        changed
    }

    pub(super) fn controller(&self, node: i32) -> &Controller {
        &self.members[&NodeId(node)].controller
    }

    /// The voters and the others, as that node has them.
    pub(super) fn members_at(&self, node: i32) -> (Vec<i32>, Vec<i32>) {
        let members = self.controller(node).quorum.members();
        let nodes =
            |ids: &[u64]| ids.iter().filter_map(|id| Some(crate::controller::quorum::node_of(*id)?.0)).collect();
        assert!(!members.is_joint(), "the change has ended");
        (nodes(&members.voters), nodes(&members.learners))
    }

    /// Commits something and answers how much metadata there is then.
    pub(super) fn commit(&mut self) -> u64 {
        let leader = self.elect();
        let version = self.members[&leader].controller.image().version();
        let changed = self.ask(leader, Proposal::CreateInternalTopic(InternalTopic::ConsumerOffsets));
        assert!(
            changed.is_ok() || changed.as_ref().is_err_and(|why| why.error != ErrorCode::NotController),
            "{changed:?}"
        );
        version
    }
}
