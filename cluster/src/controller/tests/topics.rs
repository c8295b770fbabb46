//! Topics and their partitions: what is created, refused and deleted.

use super::*;

#[test]
#[expect(clippy::too_many_lines, reason = "one table of cases")]
fn topics_are_refused_with_kafkas_codes_and_words() {
    let mut world = World::new();
    world.create(topic("a.b", 1)).expect("created");
    let manual = |partitions, factor, assignments| NewTopic {
        name: "m".into(),
        partitions,
        replication_factor: factor,
        assignments,
        configs: vec![],
    };
    let with = |key: &str, value: Option<&str>| NewTopic {
        configs: vec![(key.into(), value.map(Into::into))],
        ..topic("c", 1)
    };
    let long = "x".repeat(250);
    for (topic, error, message) in [
        (topic("", 1), ErrorCode::InvalidTopicException, "Topic name is invalid: the empty string is not allowed"),
        (topic("..", 1), ErrorCode::InvalidTopicException, "Topic name is invalid: '..' is not allowed"),
        (
            topic("a b", 1),
            ErrorCode::InvalidTopicException,
            "Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
        ),
        (
            topic(&long, 1),
            ErrorCode::InvalidTopicException,
            &format!("Topic name is invalid: the length of '{long}' is longer than the max allowed length 249"),
        ),
        (topic("a_b", 1), ErrorCode::InvalidTopicException, "Topic 'a_b' collides with existing topic: a.b"),
        (topic("a.b", 1), ErrorCode::TopicAlreadyExists, "Topic 'a.b' already exists."),
        (topic("p", 0), ErrorCode::InvalidPartitions, "Number of partitions was set to an invalid non-positive value."),
        (topic("p", 100_001), ErrorCode::PolicyViolation, "Excessively large number of partitions per request."),
        (
            NewTopic { replication_factor: 0, ..topic("p", 1) },
            ErrorCode::InvalidReplicationFactor,
            "Replication factor must be larger than 0, or -1 to use the default value.",
        ),
        (
            NewTopic { replication_factor: 3, ..topic("p", 1) },
            ErrorCode::InvalidReplicationFactor,
            "Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because only 1 broker(s) are registered or some brokers have all their log directories cordoned.",
        ),
        (
            manual(1, -1, vec![(0, vec![NODE])]),
            ErrorCode::InvalidRequest,
            "A manual partition assignment was specified, but numPartitions was not set to -1.",
        ),
        (
            manual(-1, 1, vec![(0, vec![NODE])]),
            ErrorCode::InvalidRequest,
            "A manual partition assignment was specified, but replication factor was not set to -1.",
        ),
        (
            manual(-1, -1, vec![(1, vec![NODE])]),
            ErrorCode::InvalidReplicaAssignment,
            "partitions should be a consecutive 0-based integer sequence",
        ),
        (
            manual(-1, -1, vec![(0, vec![NodeId(9)])]),
            ErrorCode::InvalidReplicaAssignment,
            "The manual partition assignment includes broker 9, but no such broker is registered.",
        ),
        (
            manual(-1, -1, vec![(0, vec![NODE, NODE])]),
            ErrorCode::InvalidReplicaAssignment,
            "The manual partition assignment includes the broker 1 more than once.",
        ),
        (with("nope", Some("1")), ErrorCode::InvalidConfig, "Unknown topic config name: nope"),
        (
            with("message.format.version", Some("3.0")),
            ErrorCode::InvalidConfig,
            "Unknown topic config name: message.format.version",
        ),
        (
            with("retention.ms", None),
            ErrorCode::InvalidConfig,
            "Null value not supported for topic configs: retention.ms",
        ),
        (
            with("retention.ms", Some("x")),
            ErrorCode::InvalidConfig,
            "Invalid value x for configuration retention.ms: Not a number of type LONG",
        ),
    ] {
        assert_eq!(world.create(topic), Err(ApiError::new(error, message)));
    }
    let created = world.create(manual(-1, -1, vec![(1, vec![NODE]), (0, vec![NODE])])).expect("created");
    assert_eq!((created.partitions, created.replication_factor), (2, 1));
}

#[test]
fn validation_changes_nothing_and_duplicates_are_refused() {
    let mut world = World::new();
    let before = world.controller.image().digest();
    let result = world.call(Proposal::CreateTopics {
        topics: vec![topic("a", -1), topic("b", 3), topic("b", 3)],
        validate_only: true,
    });
    let Ok(Outcome::CreateTopics(results)) = result else { panic!("answered") };
    assert!(results[0].as_ref().is_ok_and(|created| !created.topic_id.is_zero() && created.partitions == 1));
    assert_eq!(results[1], Err(ApiError::new(ErrorCode::InvalidRequest, "Duplicate topic name.")));
    assert_eq!((results[1].clone(), before), (results[2].clone(), world.controller.image().digest()));
}

#[test]
fn partitions_only_grow_and_deleted_topics_leave_a_tombstone() {
    let mut world = World::new();
    let id = world.create(topic("a", 2)).expect("created").topic_id;
    for (count, message) in [
        (2, Some("Topic already has 2 partition(s).")),
        (1, Some("The topic a currently has 2 partition(s); 1 would not be an increase.")),
        (5, None),
    ] {
        let more = MorePartitions { name: "a".into(), count, assignments: None };
        let result = world.call(Proposal::CreatePartitions { topics: vec![more], validate_only: false });
        let expected = message.map_or(Ok(()), |message| Err(ApiError::new(ErrorCode::InvalidPartitions, message)));
        assert_eq!(result, Ok(Outcome::CreatePartitions(vec![expected])));
    }
    assert_eq!(world.controller.image().partition_count(), 5);
    let delete = |world: &mut World| world.call(Proposal::DeleteTopics(vec![TopicRef::Id(id)]));
    assert_eq!(
        delete(&mut world),
        Ok(Outcome::DeleteTopics(vec![Ok(DeletedTopic { name: "a".into(), topic_id: id })]))
    );
    assert_eq!(delete(&mut world), Ok(Outcome::DeleteTopics(vec![Err(ErrorCode::UnknownTopicId.into())])));
    let world = world.reopen(Crash::Power);
    assert!(world.controller.image().is_deleted(id) && world.controller.image().topic("a").is_none());
}

#[test]
fn the_topic_of_offsets_has_its_settings_and_as_many_replicas_as_there_are_brokers() {
    let mut world = World::new();
    world.call(Proposal::CreateInternalTopic(InternalTopic::ConsumerOffsets)).expect("created");
    let image = world.controller.image();
    let topic = image.topic("__consumer_offsets").expect("created");
    assert_eq!((topic.partitions.len(), topic.replication_factor(), topic.is_internal()), (50, 1, true));
    let config = image.topic_config("__consumer_offsets").expect("configured");
    assert_eq!((&*config["cleanup.policy"], &*config["segment.bytes"]), ("compact", "104857600"));
}

/// Else whoever asks while the other nodes start would have one replica for ever.
#[test]
fn the_topic_of_offsets_waits_for_the_voters_that_have_not_come_yet() {
    let mut config = config();
    config.broker.quorum_voters = (1..=3).map(|node| (NodeId(node), format!("host-{node}:1"))).collect();
    let mut world = World::open_with(Arc::new(FaultDisk::new()), 7, config);
    world.register();
    let ask = |world: &mut World| world.call(Proposal::CreateInternalTopic(InternalTopic::ConsumerOffsets));
    assert_eq!(ask(&mut world).map_err(|refused| refused.error), Err(ErrorCode::InvalidReplicationFactor));
    assert!(world.controller.image().topic("__consumer_offsets").is_none());
}
