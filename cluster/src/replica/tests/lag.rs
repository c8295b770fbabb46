//! Who counts as caught up while the log grows, and what time alone brings.

use super::*;

const STEP: Duration = Duration::from_millis(10);

#[test]
fn one_that_is_always_a_sync_behind_stays_in_sync() {
    let mut leader = Fixture::leader(Durability::Fsync, &[1, 2]);
    leader.append();
    leader.sync();
    for end in 1..(2 * LAG.as_millis() / STEP.as_millis()) as i64 {
        leader.append();
        leader.sync();
        leader.fetch(2, end, end - 1);
        leader.now = leader.now + STEP;
        leader.input(ReplicaInput::Tick);
        assert_eq!(leader.proposed(), Vec::<Vec<i32>>::new(), "at record {end}");
    }
    // And one that stops is dropped a lag after it last had what there was.
    let stopped = leader.now;
    leader.now = leader.replica.deadline().expect("one may lag");
    assert!(leader.now > stopped && leader.now <= stopped + LAG + Duration::from_millis(1));
    leader.input(ReplicaInput::Tick);
    assert_eq!(leader.proposed(), [[1]]);
}

#[test]
fn one_that_was_dropped_joins_only_when_it_is_heard_again() {
    let mut leader = Fixture::leader(Durability::Fsync, &[1, 2, 3]);
    for node in [2, 3] {
        leader.fetch(node, 0, 0);
    }
    leader.append();
    leader.sync();
    leader.now = leader.now + LAG + STEP;
    leader.input(ReplicaInput::Tick);
    assert_eq!(leader.proposed(), [[1]]);
    // One alone is too few, so the high watermark stands where all of them have what is below it.
    leader.assign(assignment(1, 5, 8, &[1]));
    leader.input(ReplicaInput::Tick);
    assert_eq!(leader.proposed(), Vec::<Vec<i32>>::new());
    leader.fetch(3, 0, 0);
    assert_eq!(leader.proposed(), [[1, 3]]);
}

#[test]
fn one_that_joins_under_load_is_not_dropped_at_once() {
    let mut leader = Fixture::leader(Durability::Fsync, &[1, 2]);
    for _ in 0..5 {
        leader.append();
    }
    leader.sync();
    leader.now = leader.now + LAG + STEP;
    leader.fetch(2, 5, 5);
    leader.append();
    leader.sync();
    leader.fetch(3, 5, 5);
    assert_eq!(leader.proposed(), [[1, 2, 3]], "it has all that is acknowledged");
    leader.assign(assignment(1, 5, 8, &[1, 2, 3]));
    assert_eq!(leader.proposed(), Vec::<Vec<i32>>::new());
    leader.now = leader.now + STEP;
    leader.input(ReplicaInput::Tick);
    assert_eq!(leader.proposed(), Vec::<Vec<i32>>::new());
}

#[test]
fn a_refused_proposal_that_nobody_wants_any_more_wakes_nobody() {
    let mut leader = Fixture::leader(Durability::Fsync, &[1, 2, 3]);
    leader.replicate(ReplicationInput::Silent { node_id: NodeId(3), session: Duration::ZERO });
    let number = leader.proposals().pop().expect("proposed").number;
    leader.replicate(ReplicationInput::ProposalEnded {
        number,
        outcome: ProposalOutcome::Refused(ErrorCode::InvalidRequest),
    });
    leader.fetch(3, 0, 0);
    for _ in 0..3 {
        if let Some(at) = leader.replica.deadline().filter(|at| *at < leader.now + LAG / 2) {
            leader.now = at + STEP;
        }
        leader.input(ReplicaInput::Tick);
        assert_eq!(leader.proposed(), Vec::<Vec<i32>>::new());
    }
    let next = leader.replica.deadline();
    assert!(next.is_none_or(|at| at > leader.now), "{next:?} is not after {:?}", leader.now);
}

/// The outcome of a sync from before the cut says nothing of what is left.
#[test]
fn a_cut_while_a_sync_is_under_way_is_followed_by_another() {
    let mut follower = Fixture::new(Durability::Fsync);
    follower.assign(assignment(2, 5, 7, &[1, 2, 3]));
    follower.next_fetch();
    follower.follow(records(&[(0, 4), (1, 5)], 0));
    assert_eq!(follower.syncs.len(), 1);
    follower.next_fetch();
    follower.assign(assignment(2, 6, 8, &[1, 2, 3]));
    follower.next_fetch();
    follower.cut(4, 1);
    assert_eq!(follower.snapshot.as_ref().expect("published").confirmed_end, Offset(1));
}

#[test]
fn time_alone_ends_the_wait_for_one_that_was_about_to_join() {
    let mut leader = Fixture::leader(Durability::PageCache, &[1, 2]);
    leader.append();
    leader.fetch(2, 1, 0);
    leader.fetch(3, 0, 0);
    leader.append();
    leader.fetch(2, 2, 0);
    leader.now = leader.now + STEP;
    leader.fetch(3, 1, 0);
    let waiting = leader.append();
    leader.fetch(2, 3, 0);
    assert_eq!((leader.high_watermark(), leader.answered(waiting)), (2, None), "node 3 was caught up lately");
    let due = leader.replica.deadline().expect("it does not wait for ever");
    leader.now = due;
    leader.input(ReplicaInput::Tick);
    assert_eq!((leader.high_watermark(), leader.answered(waiting)), (3, Some(Ok(2))));
    assert!(leader.replica.deadline().is_none_or(|next| next > due), "once");
}

#[test]
fn a_new_registration_was_never_caught_up() {
    let mut leader = Fixture::leader(Durability::PageCache, &[1, 2]);
    leader.append();
    leader.fetch(2, 1, 0);
    leader.fetch(3, 1, 0);
    let proposal = leader.proposals().pop().expect("node 3 may join");
    let outcome = ProposalOutcome::Refused(ErrorCode::InvalidRequest);
    leader.replicate(ReplicationInput::ProposalEnded { number: proposal.number, outcome });
    let mut registered = *assignment(1, 5, 7, &[1, 2]);
    registered.broker_epochs.insert(NodeId(3), 20);
    leader.assign(Box::new(registered));
    leader.fetch_of(3, 1, 20, 0, 0);
    leader.append();
    leader.fetch(2, 2, 0);
    assert_eq!(leader.high_watermark(), 2, "nobody waits for an empty log");
}
