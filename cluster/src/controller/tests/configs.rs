//! Configurations of topics and brokers.

use super::*;

#[test]
#[expect(clippy::too_many_lines, reason = "one table of cases")]
fn configurations_are_set_appended_subtracted_and_taken_back() {
    let mut world = World::new();
    world.create(topic("t", 1)).expect("created");
    world.alter(2, "t", "cleanup.policy", AlterOp::Append, Some("compact")).expect("a list");
    let policy = |world: &World| {
        world.controller.image().topic_config("t").and_then(|config| config.get("cleanup.policy").cloned())
    };
    assert_eq!(policy(&world).as_deref(), Some("delete,compact"));
    world.alter(2, "t", "cleanup.policy", AlterOp::Subtract, Some("delete")).expect("a list");
    assert_eq!(policy(&world).as_deref(), Some("compact"));
    world.alter(2, "t", "cleanup.policy", AlterOp::Delete, None).expect("set");
    assert_eq!(policy(&world), None);
    world.alter(4, "", "log.retention.ms", AlterOp::Set, Some("5")).expect("dynamic");
    assert!(world.controller.image().config(&ConfigResource::default_broker()).is_some());
    for (kind, name, key, op, value, error, message) in [
        (
            2,
            "u",
            "retention.ms",
            AlterOp::Set,
            Some("1"),
            ErrorCode::UnknownTopicOrPartition,
            "The topic 'u' does not exist.",
        ),
        (
            2,
            "t",
            "retention.ms",
            AlterOp::Append,
            Some("1"),
            ErrorCode::InvalidConfig,
            "Can't APPEND to key retention.ms because its type is not LIST.",
        ),
        (
            2,
            "t",
            "retention.ms",
            AlterOp::Set,
            None,
            ErrorCode::InvalidRequest,
            "Null value not supported for : retention.ms",
        ),
        (
            4,
            "x",
            "log.retention.ms",
            AlterOp::Set,
            Some("1"),
            ErrorCode::InvalidRequest,
            "Unable to parse broker name as a base 10 number.",
        ),
        (
            4,
            "1",
            "num.partitions",
            AlterOp::Set,
            Some("3"),
            ErrorCode::InvalidRequest,
            "Cannot update these configs dynamically: [num.partitions]",
        ),
        (
            4,
            "1",
            "listeners",
            AlterOp::Set,
            Some("PLAINTEXT://:9"),
            ErrorCode::InvalidRequest,
            "Cannot update these configs dynamically: [listeners]",
        ),
        (
            4,
            "1",
            "log.segment.bytes",
            AlterOp::Set,
            Some("5"),
            ErrorCode::InvalidRequest,
            "Invalid value 5 for configuration log.segment.bytes: Value must be at least 1048576",
        ),
        (
            32,
            "g",
            "consumer.session.timeout.ms",
            AlterOp::Set,
            Some("5"),
            ErrorCode::InvalidRequest,
            "Unknown resource type 32",
        ),
    ] {
        assert_eq!(world.alter(kind, name, key, op, value), Err(ApiError::new(error, message)));
    }
    let replacement = ResourceReplacement {
        resource_type: 2,
        name: "t".into(),
        configs: vec![("retention.ms".into(), Some("9".into()))],
    };
    let result = world.call(Proposal::AlterConfigs { resources: vec![replacement], validate_only: false });
    assert_eq!(result, Ok(Outcome::AlterConfigs(vec![Ok(())])));
    assert_eq!(world.controller.image().topic_config("t").map(|config| config.len()), Some(1));
}
