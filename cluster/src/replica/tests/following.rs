//! What a follower takes, tells and hears.

use super::*;

#[test]
fn a_follower_takes_records_tells_its_durable_end_at_once_and_hears_the_high_watermark() {
    let mut follower = Fixture::new(Durability::Fsync);
    follower.assign(assignment(2, 5, 7, &[1, 2, 3]));
    let fetch = follower.next_fetch();
    assert_eq!((fetch.fetch_offset, fetch.last_fetched_epoch), (Offset(0), LeaderEpoch::NONE));
    follower.follow(records(&[(0, 4), (1, 5)], 1));
    let fetch = follower.next_fetch();
    assert_eq!(
        (fetch.fetch_offset, fetch.last_fetched_epoch, fetch.confirmed_offset.0),
        (Offset(2), LeaderEpoch(5), 0)
    );
    assert_eq!(follower.high_watermark(), 0, "no more than it has on its device");
    follower.sync();
    let confirmed_offset = Offset(2);
    let told = ReplicationEffect::Confirm { leader: NodeId(2), leader_epoch: LeaderEpoch(5), confirmed_offset };
    assert_eq!((follower.asked.pop(), follower.high_watermark()), (Some(told), 1));
    let refused = follower.append();
    assert_eq!(follower.answered(refused), Some(Err(ErrorCode::NotLeaderOrFollower)));
}

#[test]
fn a_follower_confirms_nothing_before_its_log_is_found_to_agree() {
    let mut replica = Fixture::leader(Durability::Fsync, &[1, 2]);
    replica.append();
    replica.assign(assignment(2, 6, 8, &[1, 2]));
    replica.asked.clear();
    replica.sync();
    assert!(replica.asked.is_empty(), "its record of epoch 5 may not be the leader's");
    replica.cut(4, 0);
    assert_eq!(replica.next_fetch().fetch_offset, Offset(0));
}

#[test]
fn a_leader_that_steps_down_leaves_open_what_waits() {
    let mut leader = Fixture::leader(Durability::Fsync, &[1, 2]);
    let request = leader.append();
    leader.assign(assignment(2, 6, 8, &[1, 2]));
    assert_eq!(leader.answered(request), Some(Err(ErrorCode::NotLeaderOrFollower)));
    leader.assign(assignment(1, 5, 7, &[1, 2]));
    assert_eq!(leader.snapshot.as_ref().expect("published").leader_epoch, None, "an older state is dropped");
}

#[test]
fn a_follower_is_never_cut_below_its_high_watermark_unless_an_unclean_election_is_on_record() {
    let mut follower = Fixture::new(Durability::PageCache);
    follower.assign(assignment(2, 5, 7, &[1, 2]));
    follower.follow(records(&[(0, 5), (1, 5)], 2));
    follower.follow(records(&[], 2));
    assert_eq!(follower.high_watermark(), 2);
    follower.assign(assignment(3, 6, 8, &[3]));
    follower.asked.clear();
    follower.follow(FetchBody::Diverging { epoch: LeaderEpoch(5), end_offset: Offset(1) });
    let expected = Loss { incarnation: 1, published: Offset(2), found: Offset(1) };
    assert!(
        matches!(follower.asked[..], [ReplicationEffect::ReportLoss(loss), ReplicationEffect::Halt(_)] if loss == expected)
    );
    assert_eq!(follower.replica.log().expect("open").log_end_offset(), Offset(2), "nothing was cut");
    let unclean = Assignment { unclean_epoch: LeaderEpoch(7), ..*assignment(3, 7, 9, &[3]) };
    follower.assign(Box::new(unclean));
    follower.asked.clear();
    follower.cut(5, 1);
    assert_eq!(follower.next_fetch().fetch_offset, Offset(1));
}

#[test]
fn an_answer_to_an_older_question_changes_nothing_and_a_refusal_is_asked_again_later() {
    let mut follower = Fixture::new(Durability::PageCache);
    follower.assign(assignment(2, 5, 7, &[1, 2]));
    follower.asked.clear();
    let stale = |leader_epoch, incarnation, fetch_offset| FetchAnswer {
        leader_epoch: LeaderEpoch(leader_epoch),
        incarnation,
        fetch_offset: Offset(fetch_offset),
        body: records(&[(0, 4)], 0),
    };
    for answer in [stale(4, 1, 0), stale(5, 0, 0), stale(5, 1, 1)] {
        follower.replicate(ReplicationInput::Answered(answer));
    }
    assert!(follower.asked.is_empty());
    follower.follow(FetchBody::Error(ErrorCode::UnknownLeaderEpoch));
    assert!(follower.next_fetch().after_error);
    follower.follow(records(&[(3, 7)], 0));
    assert!(follower.next_fetch().after_error, "an epoch above the leader's is not appended");
    assert_eq!(follower.replica.log().expect("open").log_end_offset(), Offset(0));
}

#[test]
fn a_log_that_was_compacted_once_is_followed_over_its_gaps() {
    let mut follower = Fixture::new(Durability::PageCache);
    assert!(follower.config.compaction.is_none(), "its policy is another now");
    follower.assign(assignment(2, 5, 7, &[1, 2]));
    follower.follow(records(&[(0, 4), (3, 4)], 0));
    assert_eq!(follower.next_fetch().fetch_offset, Offset(4));
}

#[test]
fn one_that_ends_below_the_leaders_start_starts_anew_there() {
    for durability in [Durability::Fsync, Durability::PageCache] {
        let mut follower = Fixture::new(durability);
        follower.assign(assignment(2, 5, 7, &[1, 2]));
        follower.follow(records(&[(0, 4), (1, 5)], 1));
        follower.sync();
        follower.asked.clear();
        let before = follower.snapshot.clone().expect("published").recovery_point();
        follower.follow(FetchBody::BelowStart { log_start_offset: Offset(9) });
        let snapshot = follower.snapshot.clone().expect("published");
        assert_eq!((snapshot.view.log_start_offset(), snapshot.view.log_end_offset()), (Offset(9), Offset(9)));
        assert!(snapshot.note().unsettled && snapshot.recovery_point() >= before);
        assert!(snapshot.recovery_point() <= Offset(2), "a power cut may bring back what there was");
        assert!(follower.asked.is_empty(), "not on the device yet");
        follower.restart().expect("nothing is lost that was not given up");
        follower.assign(assignment(2, 5, 7, &[1, 2]));
        let again = follower.snapshot.as_ref().expect("published");
        assert_eq!((again.recovery_point(), again.high_watermark), (snapshot.recovery_point(), Offset(9)));
        follower.sync();
        let position = follower.next_fetch();
        assert_eq!((position.fetch_offset, position.last_fetched_epoch), (Offset(9), LeaderEpoch::NONE));
        follower.follow(records(&[(9, 5)], 10));
        assert_eq!(follower.high_watermark(), if durability == Durability::Fsync { 9 } else { 10 });
    }
}

#[test]
fn a_leader_tells_one_below_its_start_where_it_starts() {
    let mut leader = Fixture::leader(Durability::PageCache, &[1, 2]);
    leader.append();
    leader.append();
    leader.fetch(2, 2, 0);
    leader.input(ReplicaInput::DeleteRecords { request: RequestId(99), before: Offset(2) });
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
    let judged = leader.snapshot.as_ref().expect("published").judge(&position);
    assert_eq!(judged, Err(FetchBody::BelowStart { log_start_offset: Offset(2) }));
}

#[test]
fn a_first_life_begins_at_the_stored_high_watermark_unless_an_election_was_unclean_since() {
    for (unclean, known) in [(LeaderEpoch::NONE, 1), (LeaderEpoch(5), 1), (LeaderEpoch(6), 0)] {
        let mut follower = Fixture::new(Durability::PageCache);
        follower.assign(assignment(2, 5, 7, &[1, 2]));
        follower.follow(records(&[(0, 4), (1, 5)], 1));
        let log = open(&follower.disk, Start::Unclean, 1, None);
        follower.replica = Replica::new(1, log, follower.config.clone(), None).expect("new");
        follower.replica.starts_at(Offset(1));
        let state = Assignment { unclean_epoch: unclean, ..*assignment(3, 7, 9, &[1, 3]) };
        follower.assign(Box::new(state));
        assert_eq!(follower.high_watermark(), known, "{unclean}");
        follower.replica.starts_at(Offset(100));
        assert_eq!(follower.replica.high_watermark(), Offset(2), "as far as the log reaches");
    }
}
