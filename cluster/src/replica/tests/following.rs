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
    assert!(matches!(follower.asked[..], [ReplicationEffect::Halt(_)]));
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
    follower.follow(records(&[(3, 4)], 0));
    assert!(follower.next_fetch().after_error, "a gap is not appended");
    assert_eq!(follower.replica.log().expect("open").log_end_offset(), Offset(0));
}
