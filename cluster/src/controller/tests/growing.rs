//! A quorum whose members come and go.

use super::several::Several;
use super::*;
use MemberRole::{Gone, Observer, Voter};

fn error(result: ApiResult<Outcome>) -> ErrorCode {
    result.expect_err("refused").error
}

/// One voter that two more nodes have joined, and vote in one change.
fn grown() -> Several {
    let mut several = Several::new(3, &[1]);
    assert_eq!(several.leader(), Some(NodeId(1)), "alone it leads at once");
    for node in [2, 3] {
        assert_eq!(several.join(node), Ok(Outcome::QuorumChanged));
    }
    assert_eq!(several.members_at(3), (vec![1], vec![2, 3]));
    assert_eq!(several.change(&[(2, Voter), (3, Voter)]), Ok(Outcome::QuorumChanged));
    for node in [1, 2, 3] {
        assert_eq!(several.members_at(node), (vec![1, 2, 3], vec![]), "node {node}");
    }
    several
}

#[test]
fn a_lone_voter_grows_to_three_and_the_first_may_die() {
    let mut several = grown();
    let cluster_id = several.controller(1).image().cluster_id();
    several.end(NodeId(1), Crash::Kill);
    let leader = several.elect();
    assert_ne!(leader, NodeId(1));
    several.commit();
    let image = several.controller(leader.0).image();
    assert_eq!(image.cluster_id(), cluster_id, "it is the same cluster");
    let addresses: Vec<_> = image.quorum_addresses().iter().map(|(node, at)| (node.0, at.to_string())).collect();
    assert_eq!(addresses, [(2, "host-2:1".to_owned()), (3, "host-3:1".to_owned())]);
    assert_eq!(several.change(&[(1, Gone)]), Ok(Outcome::QuorumChanged));
    assert_eq!(several.members_at(2), (vec![2, 3], vec![]));
}

#[test]
fn who_once_was_alone_does_not_lead_alone_after_a_power_cut() {
    let mut several = grown();
    for node in [1, 2, 3] {
        several.end(NodeId(node), Crash::Power);
    }
    several.start(NodeId(1));
    several.pass(100);
    assert_eq!(several.leader(), None, "two of three have to agree");
    several.start(NodeId(2));
    several.elect();
    several.start(NodeId(3));
    several.pass(30);
    let versions = [1, 2, 3].map(|node| several.controller(node).image().digest());
    assert!(versions.iter().all(|digest| *digest == versions[0]), "all have the same");
}

#[test]
fn a_node_that_nobody_counts_elects_nobody_and_disturbs_nobody() {
    let mut several = Several::new(2, &[1]);
    several.pass(50);
    assert_eq!(several.controller(2).status().term, 0);
    assert_eq!(several.controller(2).image().version(), 0);
    let cut = Several::new(1, &[2]);
    assert_eq!((cut.leader(), cut.controller(1).deadline().is_some()), (None, true));
}

#[test]
fn a_member_that_was_down_while_it_was_counted_is_sent_a_snapshot() {
    let mut several = Several::new(2, &[1]);
    several.end(NodeId(2), Crash::Power);
    assert_eq!(several.join(2), Ok(Outcome::QuorumChanged));
    assert_eq!(error(several.change(&[(2, Voter)])), ErrorCode::NotEnoughReplicas, "it has not copied the log");
    several.commit();
    several.start(NodeId(2));
    several.pass(30);
    assert_eq!(several.members_at(2), (vec![1], vec![2]));
    assert_eq!(several.controller(2).image().digest(), several.controller(1).image().digest());
    several.end(NodeId(2), Crash::Power);
    several.start(NodeId(2));
    several.pass(30);
    assert_eq!(several.members_at(2), (vec![1], vec![2]), "a copy that does not vote is a copy all the same");
    assert_eq!(several.leader(), Some(NodeId(1)));
    assert_eq!(several.change(&[(2, Voter)]), Ok(Outcome::QuorumChanged));
}

#[test]
fn a_change_is_made_once_and_what_may_not_be_is_refused() {
    let mut several = grown();
    let leader = several.elect();
    assert_eq!(several.join(2), Ok(Outcome::QuorumChanged), "asked again");
    let before = several.controller(leader.0).status().last_index;
    assert_eq!(several.change(&[(2, Voter), (3, Voter)]), Ok(Outcome::QuorumChanged), "it is so already");
    assert_eq!(several.controller(leader.0).status().last_index, before, "nothing was written");
    assert_eq!(error(several.change(&[(7, Voter)])), ErrorCode::VoterNotFound);
    assert_eq!(error(several.change(&[(7, Observer)])), ErrorCode::VoterNotFound);
    assert_eq!(error(several.change(&[(2, Voter), (2, Gone)])), ErrorCode::InvalidRequest);
    let all = [1, 2, 3].map(|node| (node, Gone));
    assert_eq!(error(several.change(&all)), ErrorCode::InvalidRequest);
    let asked = Proposal::ChangeQuorum(vec![MemberChange { node_id: NodeId(2), role: Gone }]);
    let other = NodeId(leader.0 % 3 + 1);
    assert_eq!(error(several.ask(other, asked)), ErrorCode::NotController, "whoever does not lead decides nothing");
    assert_eq!(several.members_at(1), (vec![1, 2, 3], vec![]));
}

#[test]
fn a_leader_that_is_to_go_hands_over_first() {
    let mut several = grown();
    let leader = several.elect();
    assert_eq!(error(several.change(&[(leader.0, Observer)])), ErrorCode::NotController);
    several.pass(30);
    let next = several.elect();
    assert_ne!(next, leader);
    assert_eq!(several.change(&[(leader.0, Observer)]), Ok(Outcome::QuorumChanged));
    let voters: Vec<i32> = [1, 2, 3].into_iter().filter(|node| *node != leader.0).collect();
    assert_eq!(several.members_at(leader.0), (voters, vec![leader.0]));
    several.end(leader, Crash::Kill);
    several.commit();
    several.start(leader);
    several.pass(30);
    assert_eq!(several.controller(leader.0).image().digest(), several.controller(next.0).image().digest());
}

#[test]
fn a_change_whose_leader_died_within_it_is_ended_by_the_next() {
    let mut several = grown();
    let leader = several.elect();
    // Both others are down: the change is written here and nowhere else.
    let others: Vec<NodeId> = [1, 2, 3].map(NodeId).into_iter().filter(|node| *node != leader).collect();
    for node in &others {
        several.end(*node, Crash::Kill);
    }
    let go = MemberChange { node_id: others[0], role: Observer };
    several
        .give(leader, ControllerInput::Propose { request: RequestId(999), proposal: Proposal::ChangeQuorum(vec![go]) });
    several.end(leader, Crash::Power);
    for node in [1, 2, 3] {
        several.start(NodeId(node));
    }
    several.elect();
    several.pass(50);
    let members = several.members_at(1);
    assert!([2, 3].iter().all(|node| several.members_at(*node) == members), "made or not made, and the same for all");
    several.commit();
}

#[test]
fn a_log_that_names_voters_alone_is_read() {
    let disk = Arc::new(FaultDisk::new());
    let world = World::open(Arc::clone(&disk), 7);
    drop(world);
    let path = Path::new("/metadata/00000000000000000000.snapshot");
    let bytes = madang_storage::read_small(disk.as_ref(), path, 1 << 20).unwrap();
    let mut body = bytes[20..36].to_vec();
    body.extend_from_slice(&1_u32.to_le_bytes());
    body.extend_from_slice(&raft_id(NODE).to_le_bytes());
    body.extend_from_slice(&bytes[20 + 16 + 4 * 4 + 8 + 1..]);
    let mut older = b"MDNGSNP1".to_vec();
    older.extend_from_slice(&(body.len() as u64).to_le_bytes());
    older.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    older.extend_from_slice(&body);
    madang_storage::replace_file_durably(disk.as_ref(), path, &older).unwrap();
    let mut world = World::open(disk, 7);
    while world.sync_one() {}
    assert!(world.controller.is_leader() && !world.controller.image().cluster_id().is_zero());
}

#[test]
fn a_member_that_was_let_go_while_it_was_down_disturbs_nobody_and_may_be_counted_again() {
    let mut several = grown();
    let leader = several.elect();
    let gone = NodeId(leader.0 % 3 + 1);
    several.end(gone, Crash::Power);
    assert_eq!(several.change(&[(gone.0, Gone)]), Ok(Outcome::QuorumChanged));
    let term = several.controller(leader.0).status().term;
    several.start(gone);
    several.pass(100);
    assert_eq!((several.leader(), several.controller(leader.0).status().term), (Some(leader), term));
    assert_eq!(several.join(gone.0), Ok(Outcome::QuorumChanged));
    several.pass(30);
    assert_eq!(several.members_at(gone.0).1, [gone.0], "it copies, and knows that it does not vote");
}

#[test]
fn a_sole_voter_speaks_in_no_term_that_it_could_enter_again() {
    let mut several = Several::new(2, &[1]);
    assert_eq!(several.join(2), Ok(Outcome::QuorumChanged));
    several.end(NodeId(1), Crash::Kill);
    let terms = several.start_unsynced(NodeId(1));
    assert!(terms.sent.is_empty(), "{:?}", terms.sent);
    assert!(several.controller(1).is_leader(), "it leads for itself already");
    several.complete(NodeId(1), terms.tickets);
    several.pass(5);
    assert_eq!(several.controller(2).status().term, several.controller(1).status().term);
}

#[test]
fn an_observer_that_is_sent_away_knows_after_a_while_that_it_hears_nobody() {
    let mut several = Several::new(2, &[1]);
    assert_eq!(several.join(2), Ok(Outcome::QuorumChanged));
    assert_eq!(several.controller(2).status().leader, Some(NodeId(1)));
    assert_eq!(several.change(&[(2, Gone)]), Ok(Outcome::QuorumChanged));
    several.pass(30);
    assert_eq!(several.controller(2).status().leader, None);
    assert_eq!(several.join(2), Ok(Outcome::QuorumChanged));
    assert_eq!(several.controller(2).status().leader, Some(NodeId(1)));
}
