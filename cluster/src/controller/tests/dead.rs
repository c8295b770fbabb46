//! What a leader's death is to the other voters.

use super::*;

/// Three voters whose messages arrive at once and whose syncs succeed, on a clock that the test moves.
struct Three {
    voters: BTreeMap<NodeId, (Controller, Prng)>,
    now: Mono,
}

impl Three {
    fn new() -> Self {
        let nodes = [1, 2, 3].map(NodeId);
        let open = |node_id: NodeId| {
            let config = ControllerConfig { node_id, voters: nodes.to_vec(), ..config() };
            let controller = Controller::open(config, Arc::new(FaultDisk::new())).expect("opens");
            (node_id, (controller, Prng::new(node_id.0.unsigned_abs().into())))
        };
        let mut three = Self { voters: nodes.into_iter().map(open).collect(), now: Mono::ZERO };
        nodes.into_iter().for_each(|node| three.give(node, ControllerInput::Start));
        three
    }

    /// Steps the voter, and whatever follows from that at once; a voter that is gone gets nothing.
    fn give(&mut self, node: NodeId, input: ControllerInput) {
        let mut inputs = VecDeque::from([(node, input)]);
        while let Some((node, input)) = inputs.pop_front() {
            let Some((controller, rng)) = self.voters.get_mut(&node) else { continue };
            let mut effects = Vec::new();
            controller.step(self.now, Wall(0), input, rng, &mut effects);
            controller.check();
            for effect in effects {
                match effect {
                    ControllerEffect::Sync { ticket, .. } => {
                        inputs.push_back((node, ControllerInput::Synced { ticket, result: Ok(()) }));
                    }
                    ControllerEffect::Send { to, message, .. } => {
                        inputs.push_back((to, ControllerInput::Message(message)));
                    }
                    _ => {}
                }
            }
        }
    }

    fn leader(&self) -> Option<NodeId> {
        self.voters.iter().find(|(_, (controller, _))| controller.is_leader()).map(|(node, _)| *node)
    }

    /// Lets time pass until somebody leads.
    fn elect(&mut self) -> NodeId {
        for _ in 0..100 {
            if let Some(leader) = self.leader() {
                return leader;
            }
            self.now = self.now + std::time::Duration::from_millis(100);
            let nodes: Vec<NodeId> = self.voters.keys().copied().collect();
            nodes.into_iter().for_each(|node| self.give(node, ControllerInput::Tick));
        }
        panic!("nobody leads")
    }

    fn tell(&mut self, dead: NodeId) {
        let others: Vec<NodeId> = self.voters.keys().copied().filter(|node| *node != dead).collect();
        others.into_iter().for_each(|node| self.give(node, ControllerInput::Dead(dead)));
    }
}

#[test]
fn voters_that_start_at_once_wait_for_the_lease_of_the_last_leader_and_no_longer() {
    let mut three = Three::new();
    assert_eq!(three.elect(), NodeId(1));
    assert_eq!(three.now, Mono::ZERO + std::time::Duration::from_millis(800));
    let mut three = Three::new();
    three.voters.remove(&NodeId(1));
    assert_eq!(three.elect(), NodeId(2), "the next one asks if the first does not");
    assert_eq!(three.now, Mono::ZERO + std::time::Duration::from_millis(900));
}

#[test]
fn voters_that_are_told_of_their_leaders_death_elect_another_without_waiting() {
    let mut three = Three::new();
    let dead = three.elect();
    three.voters.remove(&dead);
    three.tell(dead);
    // Who was told first has asked whoever still believed in the dead one.
    three.tell(dead);
    let next = three.leader().expect("another one leads, and no time has passed");
    assert_ne!(next, dead);
    three.tell(dead);
    assert_eq!(three.leader(), Some(next), "told late, it changes nothing");
}

#[test]
fn the_death_of_a_voter_that_does_not_lead_is_nothing_to_the_quorum() {
    let mut three = Three::new();
    let leader = three.elect();
    let dead = three.voters.keys().copied().find(|node| *node != leader).expect("another one");
    three.voters.remove(&dead);
    three.tell(dead);
    assert_eq!(three.leader(), Some(leader));
}

/// The one that would campaign first may lack an entry that the dead leader and the other voter have.
#[test]
fn a_voter_that_lacks_what_was_decided_holds_no_election_up() {
    let mut three = Three::new();
    let dead = three.elect();
    let others: Vec<NodeId> = three.voters.keys().copied().filter(|node| *node != dead).collect();
    let (behind, ahead) = (others[0], others[1]);
    let away = three.voters.remove(&behind).expect("it is there");
    let broker = RegisterBroker {
        node_id: dead,
        incarnation_id: Uuid([7; 16]),
        endpoints: Vec::new(),
        rack: None,
        log_dirs: Vec::new(),
        starts: Vec::new(),
    };
    let proposal = Proposal::RegisterBroker(broker);
    three.give(dead, ControllerInput::Propose { request: RequestId(1), proposal });
    three.voters.insert(behind, away);
    three.voters.remove(&dead);
    (0..4).for_each(|_| three.tell(dead));
    assert_eq!(three.leader(), Some(ahead), "and no time has passed");
}
