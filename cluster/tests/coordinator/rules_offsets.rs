//! Committing, reading, deleting and expiring offsets, rule by rule.

use std::time::Duration;

use bytes::Bytes;
use madang_cluster::coordinator::request::{FetchTopic, OffsetCommit, OffsetDelete, OffsetFetch};
use madang_cluster::coordinator::{Effect, ErrorCode, Input, Record, Request, Response, Ticket};
use madang_protocol::types::Uuid;

use crate::world::{World, simple};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[test]
fn a_simple_commit_makes_the_group_and_round_trips_metadata_and_epoch() {
    let mut world = World::new();
    assert_eq!(world.commit(simple("g", "t", 42)), ErrorCode::None);
    let fetched = world.fetch("g", "t");
    assert_eq!((fetched.offset, fetched.leader_epoch, &*fetched.metadata), (42, 3, "note"));
    let digest = world.shard.persisted_digest();
    world.restart();
    assert_eq!(world.shard.persisted_digest(), digest);
    assert_eq!(world.fetch("g", "t"), fetched);
}

#[test]
fn what_was_never_committed_is_minus_one_without_an_error() {
    let mut world = World::new();
    let fetched = world.fetch("nobody", "t");
    assert_eq!((fetched.offset, fetched.leader_epoch, fetched.error), (-1, -1, ErrorCode::None));
    let request = world.ask(Request::OffsetFetch(OffsetFetch { group: "nobody".into(), topics: None }));
    assert!(world.fetched(request).topics.is_empty());
}

#[test]
fn a_commit_is_visible_and_answered_only_when_it_is_committed_and_commits_pipeline() {
    let mut world = World::new();
    world.manual_commit = true;
    let first = world.ask(Request::OffsetCommit(simple("g", "t", 1)));
    let second = world.ask(Request::OffsetCommit(simple("g", "t", 2)));
    assert!(world.is_waiting(first) && world.is_waiting(second));
    assert_eq!(world.fetch("g", "t").offset, -1);
    world.commit_through(Ticket(1));
    assert!(!world.is_waiting(first) && world.is_waiting(second));
    assert_eq!(world.fetch("g", "t").offset, 1);
    world.commit_through(Ticket(2));
    assert_eq!(world.fetch("g", "t").offset, 2);
}

#[test]
fn a_members_commit_is_checked_for_group_member_generation_and_state() {
    let mut world = World::new();
    let commit =
        |member: &str, generation_id| OffsetCommit { member: member.into(), generation_id, ..simple("g", "t", 1) };
    assert_eq!(world.commit(commit("x", 1)), ErrorCode::IllegalGeneration);
    assert_eq!(world.commit(OffsetCommit { version: 9, ..commit("x", 1) }), ErrorCode::GroupIdNotFound);
    let (leader, _) = world.stable_pair();
    let generation = world.generation(&leader);
    assert_eq!(world.commit(commit("x", generation)), ErrorCode::UnknownMemberId);
    assert_eq!(world.commit(commit(&leader, generation - 1)), ErrorCode::IllegalGeneration);
    assert_eq!(world.commit(commit("", -1)), ErrorCode::UnknownMemberId);
    assert_eq!(world.commit(commit(&leader, generation)), ErrorCode::None);
    let fenced = OffsetCommit { group_instance_id: Some("i".into()), ..commit(&leader, generation) };
    assert_eq!(world.commit(fenced), ErrorCode::UnknownMemberId);
}

#[test]
fn a_commit_while_the_group_completes_a_rebalance_is_refused() {
    let mut world = World::new();
    let request = world.join(crate::world::v3("a"));
    world.advance(Duration::ZERO);
    let member = world.joined(request).member.clone();
    let commit = OffsetCommit { member, generation_id: 1, ..simple("g", "t", 1) };
    assert_eq!(world.commit(commit), ErrorCode::RebalanceInProgress);
}

#[test]
fn metadata_beyond_the_limit_is_refused_for_its_partition() {
    let mut world = World::new();
    let mut commit = simple("g", "t", 1);
    commit.topics[0].partitions[0].metadata = "x".repeat(4097).into();
    assert_eq!(world.commit(commit), ErrorCode::OffsetMetadataTooLarge);
    let mut commit = simple("g", "t", 1);
    commit.topics[0].partitions[0].metadata = "é".repeat(4096).into();
    assert_eq!(world.commit(commit), ErrorCode::None);
}

#[test]
fn offsets_of_a_group_with_members_expire_seven_days_after_it_empties() {
    let mut world = World::new();
    let (leader, follower) = world.stable_pair();
    let generation = world.generation(&leader);
    let commit = OffsetCommit { member: leader.clone(), generation_id: generation, ..simple("g", "t", 5) };
    assert_eq!(world.commit(commit), ErrorCode::None);
    for _ in 0..8 * 24 * 3600 / 9 {
        world.advance(Duration::from_secs(9));
        world.heartbeat(&leader, generation);
        world.heartbeat(&follower, generation);
    }
    assert_eq!(world.fetch("g", "t").offset, 5, "the group reads the topic");
    world.leave(&leader, None);
    world.leave(&follower, None);
    world.advance(6 * DAY);
    assert_eq!(world.fetch("g", "t").offset, 5);
    world.advance(DAY + Duration::from_secs(700));
    assert_eq!(world.fetch("g", "t").offset, -1);
    assert_eq!(world.shard.group_count(), 0, "nothing is left of the group");
    assert_eq!(world.reload().group_count(), 0);
}

#[test]
fn offsets_of_a_simple_group_expire_seven_days_after_their_commit_or_when_the_client_said() {
    let mut world = World::new();
    world.commit(simple("g", "old", 1));
    let short = OffsetCommit { retention: Some(Duration::from_secs(60)), ..simple("g", "short", 1) };
    world.commit(short);
    world.advance(Duration::from_secs(1300));
    assert_eq!((world.fetch("g", "short").offset, world.fetch("g", "old").offset), (-1, 1));
    world.advance(6 * DAY);
    world.commit(simple("g", "new", 1));
    world.advance(DAY);
    assert_eq!((world.fetch("g", "old").offset, world.fetch("g", "new").offset), (-1, 1));
}

#[test]
fn a_deleted_topic_takes_its_offsets_along_but_not_those_of_another_topic_of_its_name() {
    let mut world = World::new();
    let id = |n| Uuid([n; 16]);
    let mut commit = simple("g", "t", 1);
    commit.topics[0].id = id(1);
    world.commit(commit.clone());
    world.step(Input::TopicDeleted { name: "t".into(), id: id(2) });
    assert_eq!(world.fetch("g", "t").offset, 1);
    let topics = vec![FetchTopic { name: "t".into(), id: id(2), partitions: vec![0] }];
    let request = world.ask(Request::OffsetFetch(OffsetFetch { group: "g".into(), topics: Some(topics) }));
    assert_eq!(world.fetched(request).topics[0].1[0].offset, -1, "stored for another topic of this name");
    world.step(Input::Writable(Err(ErrorCode::NotEnoughReplicas)));
    world.step(Input::TopicDeleted { name: "t".into(), id: id(1) });
    assert_eq!(world.fetch("g", "t").offset, 1, "removed when that can be stored");
    world.step(Input::Writable(Ok(())));
    assert_eq!(world.fetch("g", "t").offset, -1);
}

#[test]
fn offset_delete_spares_subscribed_topics() {
    let mut world = World::new();
    let delete = |world: &mut World, topic: &str| {
        let topics = vec![(topic.into(), vec![0])];
        let request = world.ask(Request::OffsetDelete(OffsetDelete { group: "g".into(), topics }));
        match world.answer(request) {
            Response::OffsetDelete(deleted) => (deleted.error, deleted.topics.first().map(|topic| topic.1[0].1)),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(delete(&mut world, "t").0, ErrorCode::GroupIdNotFound);
    let (leader, _) = world.stable_pair();
    let generation = world.generation(&leader);
    for topic in ["t", "gone"] {
        world.commit(OffsetCommit { member: leader.clone(), generation_id: generation, ..simple("g", topic, 5) });
    }
    assert_eq!(delete(&mut world, "t"), (ErrorCode::None, Some(ErrorCode::GroupSubscribedToTopic)));
    assert_eq!(delete(&mut world, "gone"), (ErrorCode::None, Some(ErrorCode::None)));
    assert_eq!((world.fetch("g", "t").offset, world.fetch("g", "gone").offset), (5, -1));
}

#[test]
fn a_refusing_partition_is_told_before_anything_changes_and_a_failed_append_stops_the_shard() {
    let mut world = World::new();
    world.step(Input::Writable(Err(ErrorCode::NotLeaderOrFollower)));
    assert_eq!(world.commit(simple("g", "t", 1)), ErrorCode::NotCoordinator);
    assert_eq!(world.shard.group_count(), 0);
    world.step(Input::Writable(Ok(())));
    world.manual_commit = true;
    world.ask(Request::OffsetCommit(simple("g", "t", 1)));
    world.step(Input::AppendFailed { ticket: Ticket(1), error: ErrorCode::NotLeaderOrFollower });
    assert!(world.effects.iter().any(|effect| matches!(effect, Effect::Stop { .. })));
    assert_eq!(world.commit(simple("g", "t", 2)), ErrorCode::NotCoordinator);
}

#[test]
fn a_corrupt_value_fails_its_group_alone_until_it_is_deleted_or_overwritten() {
    let mut world = World::new();
    world.commit(simple("bad", "t", 1));
    world.commit(simple("good", "t", 1));
    world.log[0].value = Some(Bytes::from_static(&[0, 4, 1]));
    let odd = |key: &'static [u8]| Record { key: Bytes::from_static(key), value: Some(Bytes::from_static(&[0])) };
    world.log.extend([odd(&[0, 3, 0, 1, b'x']), odd(&[]), odd(&[0, 1, 0x7f, 0xff, b'x']), odd(&[0xff])]);
    world.restart();
    let request = world.ask(Request::OffsetFetch(OffsetFetch { group: "bad".into(), topics: None }));
    assert_eq!(world.fetched(request).error, ErrorCode::UnknownServerError);
    assert_eq!(world.fetch("good", "t").offset, 1);
    assert!(world.effects.iter().any(|e| matches!(e, Effect::Report { group, .. } if group == "bad")));
    let delete = madang_cluster::coordinator::request::DeleteGroups { groups: vec!["bad".into()] };
    let request = world.ask(Request::DeleteGroups(delete));
    assert_eq!(*world.answer(request), Response::DeleteGroups(vec![("bad".into(), ErrorCode::None)]));
    assert_eq!(world.commit(simple("bad", "t", 7)), ErrorCode::None);
    assert_eq!(world.fetch("bad", "t").offset, 7);
}
