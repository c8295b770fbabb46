//! Describing, listing and deleting groups, rule by rule, and the bytes of the stored records.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use madang_cluster::coordinator::records::{self, GroupRecord, Key, MemberRecord, OffsetRecord, Value};
use madang_cluster::coordinator::request::{
    DeleteGroups, DescribeGroup, JoinGroup, ListGroups, OffsetCommit, OffsetDelete,
};
use madang_cluster::coordinator::response::DescribedGroup;
use madang_cluster::coordinator::{ErrorCode, GroupConfig, Input, Request, Response};
use madang_protocol::types::Uuid;

use crate::world::{World, simple, v3};

fn describe(world: &mut World, group: &str, version: i16) -> DescribedGroup {
    let request = world.ask(Request::DescribeGroup(DescribeGroup { version, group: group.into() }));
    match world.answer(request) {
        Response::DescribeGroup(group) => group.clone(),
        other => panic!("{other:?}"),
    }
}

fn list(world: &mut World, states: &[&str], types: &[&str]) -> Vec<Arc<str>> {
    let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
    let request = world.ask(Request::ListGroups(ListGroups { states: names(states), types: names(types) }));
    match world.answer(request) {
        Response::ListGroups(list) => list.groups.iter().map(|group| group.group.clone()).collect(),
        other => panic!("{other:?}"),
    }
}

fn delete(world: &mut World, group: &str) -> ErrorCode {
    let request = world.ask(Request::DeleteGroups(DeleteGroups { groups: vec![group.into()] }));
    match world.answer(request) {
        Response::DeleteGroups(groups) => groups[0].1,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_unknown_group_is_dead_and_from_version_6_not_found() {
    let mut world = World::new();
    let old = describe(&mut world, "g", 5);
    assert_eq!((old.error, old.state), (ErrorCode::None, "Dead"));
    let new = describe(&mut world, "g", 6);
    assert_eq!((new.error, new.state), (ErrorCode::GroupIdNotFound, "Dead"));
    assert!(new.error_message.is_some());
}

#[test]
fn metadata_is_shown_only_while_the_group_is_stable_and_the_last_assignment_always() {
    let mut world = World::new();
    let (leader, _) = world.stable_pair();
    let stable = describe(&mut world, "g", 6);
    assert_eq!((stable.state, &*stable.protocol_type, &*stable.protocol_data), ("Stable", "consumer", "range"));
    assert!(stable.members.iter().all(|member| !member.metadata.is_empty() && !member.assignment.is_empty()));
    world.join(JoinGroup { member: leader, ..v3("l") });
    let preparing = describe(&mut world, "g", 6);
    assert_eq!((preparing.state, &*preparing.protocol_data), ("PreparingRebalance", ""));
    assert!(preparing.members.iter().all(|member| member.metadata.is_empty() && !member.assignment.is_empty()));
}

#[test]
fn a_list_is_filtered_by_state_and_type_whatever_their_case() {
    let mut world = World::new();
    world.stable_pair();
    world.commit(simple("simple", "t", 1));
    assert_eq!(list(&mut world, &[], &[]).len(), 2);
    assert_eq!(list(&mut world, &["stable"], &["Classic"]), [Arc::from("g")]);
    assert_eq!(list(&mut world, &["Empty"], &[]), [Arc::from("simple")]);
    assert!(list(&mut world, &[], &["consumer"]).is_empty());
}

#[test]
fn only_an_empty_group_is_deleted_and_nothing_of_it_stays() {
    let mut world = World::new();
    assert_eq!(delete(&mut world, "g"), ErrorCode::GroupIdNotFound);
    let (leader, follower) = world.stable_pair();
    let generation = world.generation(&leader);
    world.commit(OffsetCommit { member: leader.clone(), generation_id: generation, ..simple("g", "t", 5) });
    assert_eq!(delete(&mut world, "g"), ErrorCode::NonEmptyGroup);
    world.leave(&leader, None);
    world.leave(&follower, None);
    world.advance(Duration::from_secs(1));
    assert_eq!(delete(&mut world, "g"), ErrorCode::None);
    assert_eq!(world.fetch("g", "t").offset, -1);
    assert_eq!((world.shard.group_count(), world.reload().group_count()), (0, 0));
}

#[test]
fn a_group_whose_last_offset_has_gone_is_an_empty_group_until_the_retention_check() {
    let mut world = World::new();
    for group in ["", "deleted", "forgotten"] {
        world.commit(simple(group, "t", 1));
    }
    world.step(Input::TopicDeleted { name: "t".into(), id: Uuid::default() });
    assert_eq!(describe(&mut world, "forgotten", 6).state, "Empty");
    assert_eq!(list(&mut world, &["Empty"], &[]).len(), 3);
    assert_eq!((delete(&mut world, ""), delete(&mut world, "deleted")), (ErrorCode::None, ErrorCode::None));
    assert_eq!(delete(&mut world, "deleted"), ErrorCode::GroupIdNotFound);
    world.advance(GroupConfig::default().offsets_retention_check_interval);
    assert_eq!((describe(&mut world, "forgotten", 5).state, world.shard.group_count()), ("Dead", 0));
}

#[test]
fn offsets_are_deleted_of_a_group_with_a_name() {
    let mut world = World::new();
    let request = world.ask(Request::OffsetDelete(OffsetDelete::default()));
    let Response::OffsetDelete(answer) = world.answer(request) else { panic!("another answer") };
    assert_eq!(answer.error, ErrorCode::InvalidGroupId);
}

#[test]
fn records_have_the_bytes_that_kafka_writes() {
    let mut world = World::new();
    let mut commit = simple("g", "t", 5);
    commit.topics[0].id = Uuid([9; 16]);
    world.commit(commit);
    let record = world.log[0].clone();
    assert_eq!(&record.key[..], b"\0\x01\0\x01g\0\x01t\0\0\0\0");
    let value = record.value.unwrap();
    assert_eq!(&value[..19], b"\0\x04\0\0\0\0\0\0\0\x05\0\0\0\x03\x05note");
    assert_eq!(&value[27..30], &[1, 0, 16]);
    assert_eq!((value.len(), &value[30..]), (46, &[9; 16][..]));
    world.stable_pair();
    let group = world.log.iter().rfind(|record| record.key[..2] == [0, 2]).unwrap();
    assert_eq!(&group.key[..], b"\0\x02\0\x01g");
    assert_eq!(&group.value.as_ref().unwrap()[..12], b"\0\x03\0\x08consumer");
}

#[test]
fn every_older_version_of_a_stored_offset_is_read_and_cut_values_are_errors() {
    let key = Key::Offset { group: "g".into(), topic: "t".into(), partition: 0 };
    let old: &[&'static [u8]] = &[
        b"\0\0\0\0\0\0\0\0\0\x05\0\x01m\0\0\0\0\0\0\0\x07",
        b"\0\x01\0\0\0\0\0\0\0\x05\0\x01m\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x09",
        b"\0\x02\0\0\0\0\0\0\0\x05\0\x01m\0\0\0\0\0\0\0\x07",
        b"\0\x03\0\0\0\0\0\0\0\x05\0\0\0\x02\0\x01m\0\0\0\0\0\0\0\x07",
        b"\0\x04\0\0\0\0\0\0\0\x05\0\0\0\x02\x02m\0\0\0\0\0\0\0\x07\0",
    ];
    for (version, bytes) in old.iter().enumerate() {
        let Ok(Value::Offset(offset)) = records::decode_value(&key, &Bytes::from_static(bytes)) else {
            panic!("version {version}")
        };
        assert_eq!((offset.offset, &*offset.metadata, offset.commit_timestamp), (5, "m", 7));
        assert_eq!(
            (offset.expire_timestamp, offset.leader_epoch),
            ((version == 1).then_some(9), if version > 2 { 2 } else { -1 })
        );
        assert!((0..bytes.len()).all(|cut| records::decode_value(&key, &Bytes::from_static(&bytes[..cut])).is_err()));
    }
    assert!(records::decode_value(&key, &Bytes::from_static(b"\0\x05\0\0\0\0\0\0\0\x05")).is_err());
}

/// What Kafka 4.3.1's own generated classes write for the values of the test below.
const KAFKA: [(&str, &str); 7] = [
    ("offset key", "000100016700017400000002"),
    ("group key", "0002000167"),
    ("offset", "0004000000000000000500000003056e6f74650000018bcfe5680001001009090909090909090909090909090909"),
    ("offset without topic id", "0004000000000000000500000003056e6f74650000018bcfe5680000"),
    ("offset that expires", "0001000000000000000500046e6f74650000018bcfe568000000018bcfe65260"),
    (
        "group",
        "00030008636f6e73756d657200000007000572616e676500016d0000018bcfe568000000000100016d00016900016300022f68\
         0000ea60000027100000000201020000000103",
    ),
    (
        "group, flexible",
        "000409636f6e73756d6572000000070672616e6765026d0000018bcfe5680002026d02690263032f680000ea60000027100301\
         0202030000",
    ),
];

fn kafka(name: &str) -> Bytes {
    let hex = KAFKA.iter().find(|(known, _)| *known == name).expect("a known value").1;
    let digits: Vec<u32> = hex.chars().map(|digit| digit.to_digit(16).expect("a hex digit")).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).expect("a byte")).collect()
}

#[test]
fn keys_and_values_are_byte_for_byte_those_of_kafkas_own_classes() {
    let offset_key = Key::Offset { group: "g".into(), topic: "t".into(), partition: 2 };
    let group_key = Key::Group { group: "g".into() };
    assert_eq!(records::decode_key(&kafka("offset key")), Ok(offset_key.clone()));
    assert_eq!(records::decode_key(&kafka("group key")), Ok(group_key.clone()));
    let same = |key: &Key, name: &str, value: Value| {
        let record = records::encode(key, Some(&value)).unwrap();
        assert_eq!((name, &record.value.unwrap()[..]), (name, &kafka(name)[..]));
        assert_eq!(records::decode_value(key, &kafka(name)), Ok(value));
        record.key
    };
    let offset = OffsetRecord {
        offset: 5,
        leader_epoch: 3,
        metadata: "note".into(),
        commit_timestamp: 1_700_000_000_000,
        expire_timestamp: None,
        topic_id: Uuid([9; 16]),
    };
    let nameless = OffsetRecord { topic_id: Uuid::default(), ..offset.clone() };
    let expiring = OffsetRecord { leader_epoch: -1, expire_timestamp: Some(1_700_000_060_000), ..nameless.clone() };
    assert_eq!(same(&offset_key, "offset", Value::Offset(offset)), kafka("offset key"));
    same(&offset_key, "offset without topic id", Value::Offset(nameless));
    same(&offset_key, "offset that expires", Value::Offset(expiring));
    let member = MemberRecord {
        member: "m".into(),
        group_instance_id: Some("i".into()),
        client_id: "c".into(),
        client_host: "/h".into(),
        rebalance_timeout_ms: 60_000,
        session_timeout_ms: 10_000,
        subscription: vec![1, 2].into(),
        assignment: vec![3].into(),
    };
    let group = Value::Group(GroupRecord {
        protocol_type: "consumer".into(),
        generation: 7,
        protocol: Some("range".into()),
        leader: Some("m".into()),
        state_timestamp: 1_700_000_000_000,
        members: vec![member],
    });
    assert_eq!(same(&group_key, "group", group.clone()), kafka("group key"));
    assert_eq!(records::decode_value(&group_key, &kafka("group, flexible")), Ok(group));
}
