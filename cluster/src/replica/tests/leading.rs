//! What a leader acknowledges, whom it counts, and which in-sync set it proposes.

use super::*;

#[test]
fn the_high_watermark_waits_for_the_slowest_in_sync_replica_and_for_its_own_log() {
    let mut leader = Fixture::leader(Durability::Fsync, &[1, 2, 3]);
    let request = leader.append();
    leader.fetch(2, 1, 1);
    leader.fetch(3, 1, 1);
    assert_eq!((leader.high_watermark(), leader.answered(request)), (0, None), "its own sync is under way");
    leader.sync();
    assert_eq!((leader.high_watermark(), leader.answered(request)), (1, Some(Ok(0))));
    let request = leader.append();
    leader.sync();
    leader.fetch(2, 2, 2);
    leader.fetch(3, 2, 1);
    assert_eq!((leader.high_watermark(), leader.answered(request)), (1, None));
    leader.confirm(3, 5, 2);
    assert_eq!((leader.high_watermark(), leader.answered(request)), (2, Some(Ok(1))));
}

#[test]
fn page_cache_counts_what_was_fetched_and_fsync_only_what_is_confirmed() {
    for (durability, reached) in [(Durability::PageCache, 1), (Durability::Fsync, 0)] {
        let mut leader = Fixture::leader(durability, &[1, 2]);
        leader.append();
        leader.sync();
        leader.fetch(2, 1, 0);
        assert_eq!(leader.high_watermark(), reached, "{durability:?}");
    }
}

#[test]
fn under_min_in_sync_replicas_nothing_is_appended_and_the_high_watermark_stands() {
    let mut leader = Fixture::leader(Durability::Fsync, &[1, 2]);
    let written = leader.append();
    leader.sync();
    leader.assign(assignment(1, 5, 8, &[1]));
    let refused = leader.append();
    assert_eq!(leader.answered(refused), Some(Err(ErrorCode::NotEnoughReplicas)));
    assert_eq!((leader.high_watermark(), leader.answered(written)), (0, None), "alone it may not acknowledge");
    leader.now = leader.now + Duration::from_secs(61);
    leader.input(ReplicaInput::Tick);
    assert_eq!(leader.answered(written), Some(Err(ErrorCode::NotEnoughReplicasAfterAppend)));
}

#[test]
fn a_gap_that_a_refusal_left_is_not_out_of_order() {
    let mut leader = Fixture::leader(Durability::PageCache, &[1, 2]);
    let in_order = [leader.append_numbered(0), leader.append_numbered(1)];
    leader.fetch(2, 2, 2);
    assert_eq!(in_order.map(|request| leader.answered(request)), [Some(Ok(0)), Some(Ok(1))]);
    let gap = leader.append_numbered(3);
    assert_eq!(leader.answered(gap), Some(Err(ErrorCode::OutOfOrderSequenceNumber)), "nothing was refused");
    leader.assign(assignment(1, 5, 8, &[1]));
    let refused = leader.append_numbered(2);
    assert_eq!(leader.answered(refused), Some(Err(ErrorCode::NotEnoughReplicas)));
    leader.assign(assignment(1, 5, 9, &[1, 2]));
    let behind = leader.append_numbered(3);
    assert_eq!(leader.answered(behind), Some(Err(ErrorCode::NotLeaderOrFollower)), "it was on its way meanwhile");
    let again = leader.append_numbered(1);
    leader.fetch(2, 2, 2);
    assert_eq!(leader.answered(again), Some(Ok(1)), "what is there is a duplicate as ever");
    let (again, behind) = (leader.append_numbered(2), leader.append_numbered(3));
    leader.fetch(2, 4, 4);
    assert_eq!((leader.answered(again), leader.answered(behind)), (Some(Ok(2)), Some(Ok(3))));
    let gap = leader.append_numbered(5);
    assert_eq!(leader.answered(gap), Some(Err(ErrorCode::NotLeaderOrFollower)));
    leader.now = leader.now + Duration::from_secs(3);
    let gap = leader.append_numbered(5);
    assert_eq!(leader.answered(gap), Some(Err(ErrorCode::OutOfOrderSequenceNumber)), "that was no refusal's");
    let back = leader.append_numbered(0);
    leader.fetch(2, 4, 4);
    assert_eq!(leader.answered(back), Some(Ok(0)));
}

#[test]
fn a_gap_at_the_begin_of_a_leadership_is_what_the_last_leader_was_sent() {
    for (later, answer) in [(0, ErrorCode::NotLeaderOrFollower), (3, ErrorCode::OutOfOrderSequenceNumber)] {
        let mut leader = Fixture::new(Durability::PageCache);
        leader.assign(assignment(1, 3, 5, &[1, 2]));
        leader.append_numbered(0);
        leader.assign(assignment(2, 4, 6, &[1, 2]));
        leader.now = leader.now + Duration::from_secs(60);
        leader.assign(assignment(1, 5, 7, &[1, 2]));
        leader.now = leader.now + Duration::from_secs(later);
        let gap = leader.append_numbered(2);
        assert_eq!(leader.answered(gap), Some(Err(answer)), "{later} s later");
        let (first, second) = (leader.append_numbered(1), leader.append_numbered(2));
        leader.fetch(2, 3, 3);
        assert_eq!((leader.answered(first), leader.answered(second)), (Some(Ok(1)), Some(Ok(2))));
        let gap = leader.append_numbered(4);
        let answer = Some(Err(ErrorCode::OutOfOrderSequenceNumber));
        assert_eq!(leader.answered(gap), answer, "it has written under this leader");
    }
}

#[test]
fn the_second_batch_of_an_unknown_producer_is_not_taken_before_the_first() {
    let mut leader = Fixture::new(Durability::PageCache);
    leader.assign(assignment(1, 3, 5, &[1, 2]));
    leader.append();
    leader.assign(assignment(2, 4, 6, &[1, 2]));
    leader.assign(assignment(1, 5, 7, &[1, 2]));
    let second = leader.append_numbered(1);
    assert_eq!(leader.answered(second), Some(Err(ErrorCode::NotLeaderOrFollower)), "the first may be on its way again");
    let both = [leader.append_numbered(0), leader.append_numbered(1)];
    leader.fetch(2, 3, 3);
    assert_eq!(both.map(|request| leader.answered(request)), [Some(Ok(1)), Some(Ok(2))]);
    let mut leader = Fixture::leader(Durability::PageCache, &[1, 2]);
    leader.append();
    let forgotten = leader.append_numbered(9);
    leader.fetch(2, 2, 2);
    assert_eq!(leader.answered(forgotten), Some(Ok(1)), "a new log has refused nothing");
}

#[test]
fn what_another_life_refused_and_what_a_node_that_is_cut_off_refuses_leaves_gaps() {
    let mut leader = Fixture::leader(Durability::PageCache, &[1, 2]);
    leader.append_numbered(0);
    leader.restart().expect("starts");
    leader.assign(assignment(1, 5, 7, &[1, 2]));
    let behind = leader.append_numbered(2);
    assert_eq!(leader.answered(behind), Some(Err(ErrorCode::NotLeaderOrFollower)));
    leader.now = leader.now + Duration::from_secs(3);
    let gap = leader.append_numbered(2);
    assert_eq!(leader.answered(gap), Some(Err(ErrorCode::OutOfOrderSequenceNumber)));
    leader.input(ReplicaInput::Refuse(RequestId(1_000)));
    let behind = leader.append_numbered(2);
    let refused = [RequestId(1_000), behind].map(|request| leader.answered(request));
    assert_eq!(refused, [Some(Err(ErrorCode::NotLeaderOrFollower)); 2]);
}

#[test]
fn a_follower_joins_when_its_counted_offset_has_the_high_watermark_and_the_epochs_start() {
    let mut leader = Fixture::leader(Durability::Fsync, &[1, 2]);
    leader.append();
    leader.sync();
    leader.fetch(2, 1, 1);
    assert_eq!(leader.high_watermark(), 1);
    leader.fetch(3, 1, 0);
    assert!(leader.proposed().is_empty(), "it has the record and has not confirmed it");
    leader.confirm(3, 5, 1);
    assert_eq!(leader.maximal(), set(&[1, 2, 3]), "published before it is sent");
    let proposals = leader.proposals();
    let [proposal] = &proposals[..] else { panic!("{proposals:?}") };
    assert_eq!((proposal.partition_epoch, proposal.leader_epoch), (7, LeaderEpoch(5)));
    let member = proposal.members[2];
    assert_eq!((member.node_id, member.broker_epoch, member.incarnation), (NodeId(3), 13, 1));
    leader.append();
    leader.sync();
    leader.fetch(2, 2, 2);
    assert_eq!(leader.high_watermark(), 1, "the controller may count on 3 already");
}

#[test]
fn a_new_leader_lets_nobody_join_below_its_epochs_start() {
    let mut leader = Fixture::new(Durability::PageCache);
    leader.assign(assignment(2, 4, 6, &[1, 2]));
    leader.follow(records(&[(0, 4), (1, 4)], 0));
    leader.assign(assignment(1, 5, 7, &[1, 2]));
    let snapshot = leader.snapshot.clone().expect("published");
    assert_eq!((snapshot.epoch_start, snapshot.end_for_clients()), (Offset(2), Err(ErrorCode::OffsetNotAvailable)));
    leader.asked.clear();
    let position = FetchPosition {
        leader: NodeId(1),
        leader_epoch: LeaderEpoch(5),
        incarnation: 1,
        fetch_offset: Offset(1),
        last_fetched_epoch: LeaderEpoch(4),
        confirmed_offset: Offset(1),
        known: None,
        after_error: false,
    };
    let fetch = FollowerFetch { node_id: NodeId(3), broker_epoch: 13, position };
    leader.replicate(ReplicationInput::Fetched(Fetched { fetch, leader_incarnation: 1 }));
    assert!(leader.proposed().is_empty(), "it is above the high watermark, which may be stale");
    leader.fetch(2, 2, 0);
    let snapshot = leader.snapshot.clone().expect("published");
    assert_eq!(snapshot.end_for_clients(), Ok(Offset(2)));
    leader.fetch(3, 2, 0);
    assert_eq!(leader.proposed(), [[1, 2, 3]]);
}

#[test]
fn the_high_watermark_waits_for_one_that_is_about_to_join() {
    let mut leader = Fixture::leader(Durability::Fsync, &[1, 2]);
    leader.fetch(2, 0, 0);
    leader.fetch(3, 0, 0);
    assert_eq!(leader.proposed(), [[1, 2, 3]], "nothing is acknowledged yet, so it has all of it");
    let mut leader = Fixture::leader(Durability::Fsync, &[1, 2]);
    leader.append();
    leader.sync();
    leader.fetch(2, 1, 1);
    leader.fetch(3, 1, 0);
    leader.confirm(3, 5, 1);
    let number = leader.proposals()[0].number;
    let outcome = ProposalOutcome::Refused(ErrorCode::InvalidRequest);
    leader.replicate(ReplicationInput::ProposalEnded { number, outcome });
    assert_eq!(leader.maximal(), set(&[1, 2]));
    leader.append();
    leader.sync();
    leader.fetch(2, 2, 2);
    assert_eq!(leader.high_watermark(), 1, "3 was caught up a moment ago");
    leader.now = leader.now + LAG + Duration::from_millis(1);
    leader.fetch(2, 2, 2);
    assert_eq!(leader.high_watermark(), 2);
}

#[test]
fn one_that_lags_or_is_silent_is_dropped_and_counts_until_that_is_committed() {
    let mut leader = Fixture::leader(Durability::Fsync, &[1, 2, 3]);
    leader.append();
    leader.sync();
    leader.fetch(2, 1, 1);
    leader.fetch(3, 0, 0);
    assert_eq!(leader.replica.deadline(), Some(Mono::ZERO + LAG + Duration::from_millis(1)));
    leader.now = leader.replica.deadline().expect("one lags");
    leader.input(ReplicaInput::Tick);
    assert_eq!(leader.proposed(), [[1, 2]]);
    leader.fetch(2, 1, 1);
    assert_eq!(leader.high_watermark(), 0, "3 may still be asked to lead");
    leader.assign(assignment(1, 5, 8, &[1, 2]));
    assert_eq!(leader.high_watermark(), 1);
    let session = LAG / 2;
    leader.now = Mono::ZERO + (session - Duration::from_millis(1));
    leader.replicate(ReplicationInput::Silent { node_id: NodeId(2), session });
    assert_eq!(leader.proposed(), Vec::<Vec<i32>>::new(), "the leadership is younger than the silence");
    leader.now = Mono::ZERO + session;
    leader.replicate(ReplicationInput::Silent { node_id: NodeId(2), session });
    assert_eq!(leader.proposed(), [[1]]);
}

#[test]
fn a_fetch_of_another_epoch_life_or_leader_counts_for_nothing() {
    let mut leader = Fixture::leader(Durability::PageCache, &[1, 2]);
    leader.append();
    leader.fetch_of(2, 2, 12, 0, 0);
    leader.fetch_of(2, 1, 12, 1, 1);
    assert_eq!(leader.high_watermark(), 0, "an older life of the follower");
    leader.fetch_of(2, 9, 11, 1, 1);
    assert_eq!(leader.high_watermark(), 0, "an older registration");
    leader.restart().expect("nothing is lost");
    leader.assign(assignment(1, 5, 7, &[1, 2]));
    let position = FetchPosition {
        leader: NodeId(1),
        leader_epoch: LeaderEpoch(5),
        incarnation: 2,
        fetch_offset: Offset(1),
        last_fetched_epoch: LeaderEpoch(5),
        confirmed_offset: Offset(1),
        known: None,
        after_error: false,
    };
    let fetch = FollowerFetch { node_id: NodeId(2), broker_epoch: 12, position };
    leader.replicate(ReplicationInput::Fetched(Fetched { fetch, leader_incarnation: 1 }));
    assert_eq!(leader.high_watermark(), 0, "judged by a snapshot of the leader's last life");
    leader.confirm(2, 4, 1);
    assert_eq!(leader.high_watermark(), 0, "another epoch");
    leader.replicate(ReplicationInput::Fetched(Fetched { fetch, leader_incarnation: 2 }));
    assert_eq!(leader.high_watermark(), 1);
}

#[test]
fn whoever_waits_at_a_leader_without_a_controller_is_told_to_look_elsewhere_and_the_leader_leads_on() {
    let mut leader = Fixture::leader(Durability::Fsync, &[1, 2]);
    let waits = leader.append();
    leader.sync();
    leader.replicate(ReplicationInput::CutOff);
    assert_eq!(leader.answered(waits), Some(Err(ErrorCode::NotLeaderOrFollower)));
    leader.fetch(2, 1, 1);
    assert_eq!(leader.high_watermark(), 1, "nobody has said that another leads");
}
