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
