//! How a follower's log is cut: what is lowered before, and what waits until the cut is on the device.

use super::*;

impl Fixture {
    /// The number of the cut whose recovery point is to be lowered, and where.
    fn lowered(&mut self) -> (u64, i64) {
        match self.asked.pop() {
            Some(ReplicationEffect::LowerRecoveryPoint { number, recovery_point, .. }) => (number, recovery_point.0),
            other => panic!("{other:?}"),
        }
    }

    fn end(&self) -> i64 {
        self.replica.log().expect("open").log_end_offset().0
    }
}

/// A follower whose log ends at 2, all of it confirmed, and which has to cut at 1.
fn about_to_cut() -> Fixture {
    let mut follower = Fixture::new(Durability::Fsync);
    follower.assign(assignment(2, 5, 7, &[1, 2]));
    follower.follow(records(&[(0, 4), (1, 5)], 0));
    follower.sync();
    follower.asked.clear();
    follower.follow(FetchBody::Diverging { epoch: LeaderEpoch(4), end_offset: Offset(1) });
    follower
}

#[test]
fn nothing_stored_says_more_than_a_log_will_hold_before_it_is_cut() {
    let mut follower = about_to_cut();
    let snapshot = follower.snapshot.clone().expect("published");
    assert_eq!(snapshot.view.log_end_offset(), Offset(2), "nothing is cut yet");
    let note = snapshot.note();
    assert_eq!((note.log_end_offset, note.confirmed_end, note.unsettled), (Offset(1), Offset(1), true));
    assert_eq!(snapshot.recovery_point(), Offset(1));
    let (number, recovery_point) = follower.lowered();
    assert_eq!(recovery_point, 1);
    follower.replicate(ReplicationInput::Lowered(number + 1));
    assert_eq!(follower.end(), 2, "of another cut");
    follower.replicate(ReplicationInput::Lowered(number));
    assert_eq!(follower.end(), 1);
}

#[test]
fn a_recovery_point_is_lowered_to_no_more_than_is_on_the_device() {
    let mut follower = Fixture::new(Durability::PageCache);
    follower.assign(assignment(2, 5, 7, &[1, 2]));
    follower.follow(records(&[(0, 4), (1, 5)], 0));
    follower.asked.clear();
    follower.follow(FetchBody::Diverging { epoch: LeaderEpoch(4), end_offset: Offset(1) });
    let (number, recovery_point) = follower.lowered();
    assert_eq!(recovery_point, 0, "nothing was synced");
    follower.replicate(ReplicationInput::Lowered(number));
    assert_eq!(follower.end(), 1);
}

#[test]
fn what_is_fetched_next_waits_for_the_cut_to_be_on_the_device() {
    let mut follower = about_to_cut();
    let (number, _) = follower.lowered();
    follower.follow(FetchBody::Diverging { epoch: LeaderEpoch(4), end_offset: Offset(1) });
    assert!(follower.asked.is_empty(), "one cut at a time");
    follower.replicate(ReplicationInput::Lowered(number));
    assert!(follower.asked.is_empty());
    assert!(follower.snapshot.as_ref().expect("published").note().unsettled);
    follower.sync();
    assert_eq!(follower.next_fetch().fetch_offset, Offset(1));
    assert!(!follower.snapshot.as_ref().expect("published").note().unsettled);
}

#[test]
fn a_life_that_ends_around_a_cut_is_missed_nothing_of() {
    for is_cut in [false, true] {
        let mut follower = about_to_cut();
        let (number, _) = follower.lowered();
        if is_cut {
            follower.replicate(ReplicationInput::Lowered(number));
        }
        follower.restart().expect("nothing is lost that was not given up");
        follower.assign(assignment(2, 5, 7, &[1, 2]));
        assert!(follower.asked.is_empty(), "the cut may be on no device");
        follower.sync();
        assert_eq!(follower.next_fetch().fetch_offset, Offset(if is_cut { 1 } else { 2 }));
    }
}

#[test]
fn a_cut_is_given_up_with_its_leadership_and_a_leader_appends_only_after_it() {
    let mut replica = about_to_cut();
    let (number, _) = replica.lowered();
    replica.assign(assignment(2, 6, 8, &[1, 2]));
    assert_eq!(replica.snapshot.as_ref().expect("published").cut_to, None);
    replica.replicate(ReplicationInput::Lowered(number));
    assert_eq!(replica.end(), 2);
    replica.asked.clear();
    replica.follow(FetchBody::Diverging { epoch: LeaderEpoch(4), end_offset: Offset(1) });
    let (number, _) = replica.lowered();
    replica.replicate(ReplicationInput::Lowered(number));
    replica.assign(assignment(1, 7, 9, &[1, 2]));
    let early = replica.append();
    assert_eq!(replica.answered(early), Some(Err(ErrorCode::NotLeaderOrFollower)));
    replica.sync();
    let later = replica.append();
    assert_eq!((replica.answered(later), replica.end()), (None, 2));
}
