//! Joining, syncing, heartbeats and leaving, rule by rule.

use std::time::Duration;

use madang_cluster::coordinator::request::{JoinGroup, SyncGroup};
use madang_cluster::coordinator::{ErrorCode, GroupConfig, Input, Request};

use crate::world::{World, blob, fixed, subscription, v3};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_join_is_refused_for_its_session_its_group_id_its_protocols_and_an_unknown_group() {
    let mut world = World::new();
    let cases = [
        (JoinGroup { session_timeout: 5 * SECOND, ..v3("c") }, ErrorCode::InvalidSessionTimeout),
        (JoinGroup { session_timeout: 1801 * SECOND, ..v3("c") }, ErrorCode::InvalidSessionTimeout),
        (JoinGroup { group: "".into(), ..v3("c") }, ErrorCode::InvalidGroupId),
        (JoinGroup { group: "g".repeat(1 << 16).into(), ..v3("c") }, ErrorCode::InvalidGroupId),
        (JoinGroup { client_id: "c".repeat(32_740).into(), ..v3("c") }, ErrorCode::InvalidRequest),
        (JoinGroup { protocols: vec![], ..v3("c") }, ErrorCode::InconsistentGroupProtocol),
        (JoinGroup { protocol_type: "".into(), ..v3("c") }, ErrorCode::InconsistentGroupProtocol),
        (JoinGroup { member: "me".into(), ..v3("c") }, ErrorCode::UnknownMemberId),
        (JoinGroup { protocols: vec![("p".into(), vec![0; 2 << 20].into())], ..v3("c") }, ErrorCode::InvalidRequest),
    ];
    for (join, error) in cases {
        let request = world.join(join);
        assert_eq!(world.joined(request).error, error);
    }
    assert_eq!(world.shard.group_count(), 0, "a refused join makes no group");
}

#[test]
fn a_member_with_another_protocol_type_or_no_common_protocol_is_refused() {
    let mut world = World::new();
    world.stable_pair();
    for join in [
        JoinGroup { protocol_type: "connect".into(), ..v3("c") },
        JoinGroup { protocols: vec![("sticky".into(), blob(""))], ..v3("c") },
    ] {
        let request = world.join(join);
        assert_eq!(world.joined(request).error, ErrorCode::InconsistentGroupProtocol);
    }
}

#[test]
fn from_version_4_a_new_dynamic_member_is_given_an_id_that_lives_one_session() {
    let mut world = World::new();
    let first = world.join(JoinGroup { version: 4, ..v3("client") });
    let given = world.joined(first).clone();
    assert_eq!(given.error, ErrorCode::MemberIdRequired);
    assert!(given.member.starts_with("client-") && given.member.len() == "client-".len() + 36, "{}", given.member);
    let again = world.join(JoinGroup { version: 4, member: given.member.clone(), ..v3("client") });
    world.advance(Duration::ZERO);
    assert_eq!((world.joined(again).error, world.joined(again).generation_id), (ErrorCode::None, 1));

    let mut world = World::new();
    let first = world.join(JoinGroup { version: 4, ..v3("client") });
    let member = world.joined(first).member.clone();
    world.advance(10 * SECOND);
    let late = world.join(JoinGroup { version: 4, member, ..v3("client") });
    assert_eq!(world.joined(late).error, ErrorCode::UnknownMemberId);
}

#[test]
fn the_first_rebalance_waits_and_each_newcomer_extends_the_wait_up_to_the_rebalance_timeout() {
    let mut world = World::with(GroupConfig::default());
    let timeout = |client| JoinGroup { rebalance_timeout: 7 * SECOND, ..v3(client) };
    let first = world.join(timeout("a"));
    world.advance(2 * SECOND);
    world.join(timeout("b"));
    world.advance(2 * SECOND);
    assert!(world.is_waiting(first), "extended once, to 6 s");
    world.join(timeout("c"));
    world.advance(2 * SECOND);
    assert!(world.is_waiting(first), "extended to the timeout of 7 s");
    world.join(timeout("d"));
    world.advance(SECOND);
    assert_eq!(world.joined(first).generation_id, 1);
}

#[test]
fn a_full_group_turns_newcomers_away() {
    let mut world =
        World::with(GroupConfig { max_group_size: 2, initial_rebalance_delay: SECOND, ..GroupConfig::default() });
    world.stable_pair();
    let third = world.join(v3("three"));
    assert_eq!(world.joined(third).error, ErrorCode::GroupMaxSizeReached);
}

#[test]
fn an_id_that_was_given_out_and_not_used_takes_no_members_place() {
    let mut world = World::with(GroupConfig { max_group_size: 1, max_pending_members: 2, ..GroupConfig::default() });
    let mut ask = || {
        let request = world.join(JoinGroup { version: 4, ..v3("m") });
        world.joined(request).error
    };
    assert_eq!(
        (ask(), ask(), ask()),
        (ErrorCode::MemberIdRequired, ErrorCode::MemberIdRequired, ErrorCode::GroupMaxSizeReached)
    );
}

#[test]
fn the_protocol_all_support_with_most_first_preferences_wins() {
    let mut world = World::with(GroupConfig::default());
    let speaks = |client, names: &[&str]| JoinGroup {
        protocols: names.iter().map(|name| ((*name).into(), blob(client))).collect(),
        ..v3(client)
    };
    let first = world.join(speaks("a", &["mine", "range", "sticky"]));
    world.join(speaks("b", &["sticky", "range"]));
    world.join(speaks("c", &["sticky", "range"]));
    world.advance(10 * SECOND);
    assert_eq!(world.joined(first).protocol_name.as_deref(), Some("sticky"));
}

#[test]
fn only_the_leader_gets_the_members_and_only_its_assignments_count() {
    let mut world = World::with(GroupConfig::default());
    let requests = [world.join(v3("a")), world.join(v3("b"))];
    world.advance(10 * SECOND);
    let joins = requests.map(|request| world.joined(request).clone());
    let (leader, follower) =
        if joins[0].leader == joins[0].member { (&joins[0], &joins[1]) } else { (&joins[1], &joins[0]) };
    assert_eq!((leader.members.len(), follower.members.len()), (2, 0));
    let follow = world.sync(&follower.member, 1, &[(&follower.member, "stolen")]);
    assert!(world.is_waiting(follow));
    let lead = world.sync(&leader.member, 1, &[(&leader.member, "L"), ("stranger", "X")]);
    assert_eq!(&world.synced(lead).assignment[..], b"L");
    assert!(world.synced(follow).assignment.is_empty(), "left out, so nothing");
}

#[test]
fn a_follower_that_joins_again_unchanged_gets_its_generation_and_the_leader_rebalances() {
    let mut world = World::new();
    let (leader, follower) = world.stable_pair();
    let generation = world.generation(&leader);
    let same = world.join(JoinGroup { member: follower.clone(), ..v3("f") });
    assert_eq!(world.joined(same).generation_id, generation);
    assert_eq!(world.heartbeat(&leader, generation), ErrorCode::None);
    let again = world.join(JoinGroup { member: leader, ..v3("l") });
    assert!(world.is_waiting(again));
    assert_eq!(world.heartbeat(&follower, generation), ErrorCode::RebalanceInProgress);
}

#[test]
fn a_follower_with_changed_metadata_rebalances() {
    let mut world = World::new();
    let (_, follower) = world.stable_pair();
    let protocols = vec![("range".into(), subscription(&["other"]))];
    let changed = world.join(JoinGroup { member: follower, protocols, ..v3("f") });
    assert!(world.is_waiting(changed));
}

#[test]
fn in_completing_the_same_join_gets_the_same_answer() {
    let mut world = World::new();
    let first = world.join(v3("a"));
    world.advance(Duration::ZERO);
    let member = world.joined(first).member.clone();
    let again = world.join(JoinGroup { member, ..v3("a") });
    assert_eq!(world.joined(again), world.joined(first));
}

#[test]
fn dynamic_laggards_are_dropped_at_the_largest_rebalance_timeout_and_static_ones_stay() {
    let mut world = World::with(GroupConfig::default());
    let long = Duration::from_secs(100);
    let slow = |join: JoinGroup| JoinGroup { session_timeout: 3 * long, ..join };
    let requests = [
        world.join(slow(v3("a"))),
        world.join(slow(JoinGroup { rebalance_timeout: long, ..fixed("s") })),
        world.join(slow(v3("b"))),
    ];
    world.advance(10 * SECOND);
    let [a, s, b] = requests.map(|request| world.joined(request).member.clone());
    for member in [&a, &s, &b] {
        world.sync(member, 1, &[]);
    }
    let protocols = vec![("range".into(), subscription(&["new"]))];
    let next = world.join(JoinGroup { member: a, protocols, ..slow(v3("a")) });
    world.advance(99 * SECOND);
    assert!(world.is_waiting(next));
    world.advance(SECOND);
    assert_eq!(world.joined(next).generation_id, 2);
    assert_eq!(world.heartbeat(&b, 1), ErrorCode::UnknownMemberId);
    assert_eq!(world.heartbeat(&s, 2), ErrorCode::None);
}

#[test]
fn a_new_members_join_waits_five_minutes_at_most() {
    let mut world = World::new();
    let forever = Duration::from_secs(1800);
    let patient = |client| JoinGroup { session_timeout: forever, rebalance_timeout: forever, ..v3(client) };
    let first = world.join(patient("a"));
    world.advance(Duration::ZERO);
    let member = world.joined(first).member.clone();
    world.sync(&member, 1, &[]);
    let newcomer = world.join(patient("b"));
    world.advance(299 * SECOND);
    assert!(world.is_waiting(newcomer));
    world.advance(SECOND);
    assert_eq!(world.joined(newcomer).error, ErrorCode::UnknownMemberId);
}

#[test]
fn members_that_never_sync_are_dropped_at_the_rebalance_timeout() {
    let mut world = World::with(GroupConfig::default());
    let slow = |client| JoinGroup { session_timeout: 1000 * SECOND, ..v3(client) };
    let requests = [world.join(slow("a")), world.join(slow("b"))];
    world.advance(6 * SECOND);
    let leader = world.joined(requests[0]).leader.clone();
    let [a, b] = requests.map(|request| world.joined(request).member.clone());
    let follower = if a == leader { b } else { a };
    let parked = world.sync(&follower, 1, &[]);
    world.advance(59 * SECOND);
    assert!(world.is_waiting(parked));
    world.advance(SECOND);
    assert_eq!(world.synced(parked).error, ErrorCode::RebalanceInProgress);
    assert_eq!(world.heartbeat(&leader, 1), ErrorCode::UnknownMemberId);
}

#[test]
fn a_sync_is_refused_for_member_generation_state_and_protocol() {
    let mut world = World::new();
    let (leader, follower) = world.stable_pair();
    let generation = world.generation(&leader);
    let wrong = world.sync("nobody", generation, &[]);
    assert_eq!(world.synced(wrong).error, ErrorCode::UnknownMemberId);
    let wrong = world.sync(&leader, generation - 1, &[]);
    assert_eq!(world.synced(wrong).error, ErrorCode::IllegalGeneration);
    for (kind, name) in [(Some("connect"), None), (None, Some("sticky"))] {
        let wrong = world.ask(Request::SyncGroup(SyncGroup {
            group: "g".into(),
            member: leader.clone(),
            generation_id: generation,
            protocol_type: kind.map(Into::into),
            protocol_name: name.map(Into::into),
            ..SyncGroup::default()
        }));
        assert_eq!(world.synced(wrong).error, ErrorCode::InconsistentGroupProtocol);
    }
    world.join(JoinGroup { member: leader, ..v3("l") });
    let wrong = world.sync(&follower, generation, &[]);
    assert_eq!(world.synced(wrong).error, ErrorCode::RebalanceInProgress);
}

#[test]
fn a_member_that_goes_silent_is_dropped_and_a_heartbeat_keeps_it() {
    let mut world = World::new();
    let (leader, follower) = world.stable_pair();
    let generation = world.generation(&leader);
    for _ in 0..3 {
        world.advance(6 * SECOND);
        assert_ne!(world.heartbeat(&leader, generation), ErrorCode::UnknownMemberId);
    }
    assert_eq!(world.heartbeat(&follower, generation), ErrorCode::UnknownMemberId);
    assert_eq!(world.heartbeat(&leader, generation), ErrorCode::RebalanceInProgress);
}

#[test]
fn a_member_parked_in_a_join_does_not_expire() {
    let mut world = World::new();
    let (leader, follower) = world.stable_pair();
    let generation = world.generation(&leader);
    let parked = world.join(JoinGroup { member: leader, ..v3("l") });
    for _ in 0..5 {
        world.advance(9 * SECOND);
        assert_eq!(world.heartbeat(&follower, generation), ErrorCode::RebalanceInProgress);
    }
    assert!(world.is_waiting(parked));
    world.join(JoinGroup { member: follower, ..v3("f") });
    assert_eq!(world.joined(parked).error, ErrorCode::None);
}

#[test]
fn a_second_try_of_a_parked_join_answers_the_first() {
    let mut world = World::new();
    let (leader, _) = world.stable_pair();
    let first = world.join(JoinGroup { member: leader.clone(), ..v3("l") });
    let second = world.join(JoinGroup { member: leader, ..v3("l") });
    assert_eq!(world.joined(first).error, ErrorCode::RebalanceInProgress);
    assert!(world.is_waiting(second));
}

#[test]
fn a_static_member_comes_back_under_a_new_id_without_a_rebalance_and_its_old_id_is_fenced() {
    let mut world = World::new();
    let first = world.join(fixed("s"));
    world.advance(Duration::ZERO);
    let old = world.joined(first).member.clone();
    world.sync(&old, 1, &[(&old, "A")]);
    let back = world.join(JoinGroup { session_timeout: 30 * SECOND, client_id: "moved".into(), ..fixed("s") });
    let joined = world.joined(back).clone();
    assert_eq!((joined.error, joined.generation_id, joined.skip_assignment), (ErrorCode::None, 1, true));
    assert_eq!((joined.leader == joined.member, joined.members.len()), (true, 1));
    assert_ne!(joined.member, old);
    let sync = world.sync(&joined.member, 1, &[]);
    assert_eq!(&world.synced(sync).assignment[..], b"A");
    let fenced = world.ask(Request::SyncGroup(SyncGroup {
        group: "g".into(),
        member: old,
        group_instance_id: Some("s".into()),
        generation_id: 1,
        ..SyncGroup::default()
    }));
    assert_eq!(world.synced(fenced).error, ErrorCode::FencedInstanceId);
    world.advance(29 * SECOND);
    assert_eq!(world.heartbeat(&joined.member, 1), ErrorCode::None, "the new session timeout holds");
}

#[test]
fn before_version_9_a_returning_static_leader_is_told_the_old_leader() {
    let mut world = World::new();
    let first = world.join(fixed("s"));
    world.advance(Duration::ZERO);
    let old = world.joined(first).member.clone();
    world.sync(&old, 1, &[(&old, "A")]);
    let back = world.join(JoinGroup { version: 8, ..fixed("s") });
    let joined = world.joined(back);
    assert_eq!((&joined.leader, joined.skip_assignment, joined.members.len()), (&old, false, 0));
}

#[test]
fn a_static_member_that_comes_back_in_completing_rebalances() {
    let mut world = World::new();
    let first = world.join(fixed("s"));
    world.advance(Duration::ZERO);
    assert_eq!(world.joined(first).generation_id, 1);
    let back = world.join(fixed("s"));
    assert_eq!(world.joined(back).generation_id, 2);
}

#[test]
fn a_static_member_is_removed_by_its_instance_id() {
    let mut world = World::new();
    let first = world.join(fixed("s"));
    world.advance(Duration::ZERO);
    let old = world.joined(first).member.clone();
    assert_eq!(world.leave("", Some("other")).members[0].error, ErrorCode::UnknownMemberId);
    assert_eq!(world.leave("stranger", Some("s")).members[0].error, ErrorCode::FencedInstanceId);
    assert_eq!(world.leave("", Some("s")).members[0].error, ErrorCode::None);
    assert_eq!(world.heartbeat(&old, 1), ErrorCode::UnknownMemberId);
}

#[test]
fn heartbeats_of_strangers_and_of_groups_that_are_not_are_unknown_members() {
    let mut world = World::new();
    assert_eq!(world.heartbeat("x", 0), ErrorCode::UnknownMemberId);
    let (leader, _) = world.stable_pair();
    assert_eq!(world.heartbeat("x", 1), ErrorCode::UnknownMemberId);
    for wrong in [-1, 77, i32::MAX] {
        assert_eq!(world.heartbeat(&leader, wrong), ErrorCode::IllegalGeneration);
    }
}

#[test]
fn a_loading_shard_says_so_and_a_resigned_one_answers_everybody() {
    let mut world = World::new();
    let (leader, _) = world.stable_pair();
    let parked = world.join(JoinGroup { member: leader.clone(), ..v3("l") });
    world.step(Input::Resign);
    assert_eq!(world.joined(parked).error, ErrorCode::NotCoordinator);
    assert_eq!(world.heartbeat(&leader, 1), ErrorCode::NotCoordinator);
    let mut world = World::new();
    world.shard = madang_cluster::coordinator::Shard::new(GroupConfig::default());
    assert_eq!(world.heartbeat("x", 1), ErrorCode::CoordinatorLoadInProgress);
}

#[test]
fn a_loaded_group_is_stable_and_its_members_go_on() {
    let mut world = World::new();
    let (leader, follower) = world.stable_pair();
    let generation = world.generation(&leader);
    let digest = world.shard.persisted_digest();
    world.restart();
    assert_eq!(world.shard.persisted_digest(), digest);
    assert_eq!(world.heartbeat(&leader, generation), ErrorCode::None);
    let sync = world.sync(&follower, generation, &[]);
    assert_eq!(&world.synced(sync).assignment[..], b"F");
    world.advance(10 * SECOND);
    assert_eq!(world.heartbeat(&follower, generation), ErrorCode::UnknownMemberId, "sessions start at the load");
}

#[test]
fn while_the_partition_takes_no_appends_the_leaders_sync_is_refused_and_a_later_one_works() {
    let mut world = World::new();
    let first = world.join(v3("a"));
    world.advance(Duration::ZERO);
    let member = world.joined(first).member.clone();
    world.step(Input::Writable(Err(ErrorCode::NotEnoughReplicas)));
    let refused = world.sync(&member, 1, &[(&member, "A")]);
    assert_eq!(world.synced(refused).error, ErrorCode::CoordinatorNotAvailable);
    world.step(Input::Writable(Ok(())));
    let sync = world.sync(&member, 1, &[(&member, "A")]);
    assert_eq!(&world.synced(sync).assignment[..], b"A");
}

#[test]
fn a_killed_group_answers_its_members_and_comes_back_from_the_log() {
    let mut world = World::new();
    let (leader, follower) = world.stable_pair();
    let generation = world.generation(&leader);
    let parked = world.join(JoinGroup { member: leader.clone(), ..v3("l") });
    world.step(Input::KillGroup { group: "g".into() });
    assert_eq!(world.joined(parked).error, ErrorCode::CoordinatorNotAvailable);
    assert_eq!(world.heartbeat(&follower, generation), ErrorCode::None);
    world.shard.check_all();
    world.step(Input::QuarantineGroup { group: "g".into() });
    assert_eq!(world.heartbeat(&follower, generation), ErrorCode::UnknownServerError);
}
