//! What a life of a replica takes over from the one before it in its process.

use super::*;

#[test]
fn a_restarted_leader_keeps_its_epoch_high_watermark_and_the_proposal_in_flight() {
    let mut leader = Fixture::leader(Durability::PageCache, &[1, 2]);
    leader.append();
    leader.fetch(2, 1, 0);
    leader.fetch(3, 1, 0);
    assert_eq!((leader.high_watermark(), leader.proposed()), (1, vec![vec![1, 2, 3]]));
    leader.append();
    leader.restart().expect("nothing is lost");
    leader.assign(assignment(1, 5, 7, &[1, 2]));
    let snapshot = leader.snapshot.clone().expect("published");
    assert_eq!((snapshot.leader_epoch, leader.high_watermark()), (Some(LeaderEpoch(5)), 1));
    assert_eq!(leader.maximal(), set(&[1, 2, 3]));
    leader.fetch(2, 2, 0);
    assert_eq!(leader.high_watermark(), 1, "3 has not fetched from this life");
    assert_eq!(leader.proposed(), [[1, 2]], "it asks what of its last proposal is in force");
    leader.assign(assignment(1, 5, 8, &[1, 2]));
    assert_eq!((leader.maximal(), leader.high_watermark()), (set(&[1, 2]), 2));
}

#[test]
fn a_life_that_dies_before_it_has_a_role_passes_the_proposal_in_flight_on() {
    let mut leader = Fixture::leader(Durability::PageCache, &[1, 2]);
    leader.append();
    leader.fetch(2, 1, 0);
    leader.fetch(3, 1, 0);
    assert_eq!(leader.proposed(), [vec![1, 2, 3]]);
    for _ in 0..2 {
        leader.restart().expect("nothing is lost");
        leader.input(ReplicaInput::Tick);
    }
    leader.assign(assignment(1, 5, 7, &[1, 2]));
    assert_eq!(leader.maximal(), set(&[1, 2, 3]));
}

#[test]
fn a_restarted_replica_drops_a_state_that_is_older_than_the_one_it_knew() {
    let mut leader = Fixture::leader(Durability::PageCache, &[1, 2]);
    leader.assign(assignment(1, 5, 8, &[1, 2, 3]));
    leader.restart().expect("nothing is lost");
    leader.assign(assignment(1, 5, 7, &[1, 2]));
    assert_eq!(leader.replica.leader_epoch(), None, "a state from before");
    leader.assign(assignment(1, 5, 8, &[1, 2, 3]));
    assert_eq!(leader.maximal(), set(&[1, 2, 3]));
}

/// A replica of epoch 5 that has lost the second of two acknowledged records in its process.
fn lost() -> Fixture {
    let mut replica = Fixture::leader(Durability::PageCache, &[1, 2]);
    replica.append();
    replica.append();
    replica.fetch(2, 2, 0);
    replica.syncs.clear();
    let path = Path::new("/data/orders-0/00000000000000000000.log");
    let file = replica.disk.open(path, madang_storage::OpenMode::Existing).expect("there");
    file.truncate(file.len().expect("a length") - 5).expect("tears the last record");
    let lost = replica.restart().expect_err("one record is gone");
    let log = open(&replica.disk, Start::SameProcess, 3, None);
    replica.replica = Replica::after_loss(3, log, replica.config.clone(), lost);
    replica.asked.clear();
    replica
}

#[test]
fn a_loss_that_a_process_finds_at_its_start_reaches_the_controller_before_it_leads() {
    let mut replica = Fixture::leader(Durability::Fsync, &[1, 2]);
    replica.append();
    replica.sync();
    let known = OpenLog { recovery_point: Some(Offset(3)), ..OpenLog::default() };
    let path = Path::new("/data/orders-0");
    let opened = Log::open(Arc::new(replica.disk.clone()), path, LogConfig::default(), &known);
    let (log, recovery) = opened.expect("opens");
    let lost = LostRecords::at_start(&recovery, Offset(2)).expect("two records are gone");
    replica.replica = Replica::after_loss(1, log, replica.config.clone(), lost);
    replica.asked.clear();
    replica.assign(assignment(1, 5, 7, &[1, 2]));
    let loss = Loss { incarnation: 1, published: Offset(3), found: Offset(1) };
    assert_eq!(replica.asked, [ReplicationEffect::ReportLoss(loss)]);
    assert_eq!((replica.replica.leader_epoch(), replica.high_watermark()), (None, 1));
    assert_eq!(LostRecords::at_start(&Recovery { known_end: None, ..recovery }, Offset(2)), None);
}

#[test]
fn a_loss_that_nobody_knows_of_stays_below_its_note() {
    let mut replica = lost();
    replica.assign(assignment(1, 5, 7, &[1, 2]));
    replica.now = replica.replica.deadline().expect("it does not leave it at one report");
    replica.input(ReplicaInput::Tick);
    assert!(matches!(replica.asked[..], [ReplicationEffect::ReportLoss(_), ReplicationEffect::ReportLoss(_)]));
    let snapshot = replica.snapshot.clone().expect("published");
    assert_eq!((snapshot.view.log_end_offset(), snapshot.note().log_end_offset), (Offset(1), Offset(2)));
    let known = Assignment { reported_loss: Some(3), ..*assignment(2, 6, 8, &[2]) };
    replica.assign(Box::new(known));
    assert_eq!(replica.snapshot.as_ref().expect("published").note().log_end_offset, Offset(1));
    assert_eq!(replica.replica.deadline(), None, "it knows");
}

#[test]
fn an_unclean_election_is_heeded_by_one_that_was_reporting_its_loss() {
    let mut replica = lost();
    assert_eq!(replica.replica.high_watermark(), Offset(1));
    let unclean = |state: Box<Assignment>| Assignment { unclean_epoch: LeaderEpoch(6), ..*state };
    replica.assign(Box::new(unclean(assignment(2, 6, 8, &[2]))));
    assert!(matches!(replica.asked[..], [ReplicationEffect::ReportLoss(_)]));
    let known = Assignment { reported_loss: Some(3), ..unclean(assignment(2, 7, 9, &[2])) };
    replica.assign(Box::new(known));
    assert_eq!(replica.replica.high_watermark(), Offset(0), "what was acknowledged before may be gone");
}

#[test]
fn a_replica_that_found_less_serves_nobody_until_the_controller_knows() {
    let mut leader = Fixture::leader(Durability::PageCache, &[1, 2]);
    leader.append();
    leader.append();
    leader.fetch(2, 2, 0);
    assert_eq!(leader.high_watermark(), 2);
    leader.syncs.clear();
    let path = Path::new("/data/orders-0/00000000000000000000.log");
    let file = leader.disk.open(path, madang_storage::OpenMode::Existing).expect("there");
    file.truncate(file.len().expect("a length") - 5).expect("tears the last record");
    let lost = leader.restart().expect_err("one record is gone");
    let log = open(&leader.disk, Start::SameProcess, 3, None);
    leader.replica = Replica::after_loss(3, log, leader.config.clone(), lost);
    leader.asked.clear();
    leader.assign(assignment(1, 5, 7, &[1, 2]));
    let loss = Loss { incarnation: 3, published: Offset(2), found: Offset(1) };
    assert_eq!(leader.asked, [ReplicationEffect::ReportLoss(loss)]);
    let refused = leader.append();
    assert_eq!(leader.answered(refused), Some(Err(ErrorCode::KafkaStorageError)));
    leader.asked.clear();
    leader.restart().expect("nothing is lost again");
    leader.assign(assignment(1, 5, 7, &[1, 2]));
    assert_eq!(leader.asked, [ReplicationEffect::ReportLoss(loss)], "dying forgets no loss");
    leader.asked.clear();
    leader.assign(assignment(2, 6, 7, &[2]));
    assert_eq!(leader.asked, [ReplicationEffect::ReportLoss(loss)], "a state without it in sync proves nothing");
    leader.asked.clear();
    let sole = Assignment { reported_loss: Some(3), ..*assignment(1, 7, 8, &[1]) };
    leader.assign(Box::new(sole));
    let leads = leader.snapshot.as_ref().expect("published");
    assert_eq!(
        (leads.leader_epoch, leads.loss),
        (Some(LeaderEpoch(7)), None),
        "the controller knows, and has nobody else"
    );
    assert!(leader.asked.is_empty());
}
