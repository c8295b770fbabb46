//! Long because Kafka's answers are tables of cases: the controller against a disk that fails, and what clients are told.

use std::collections::BTreeMap;
use std::path::Path;

use madang_storage::{Crash, FaultDisk};

use super::*;
use crate::metadata::{ConfigResource, Endpoint, SecurityProtocol};

const NODE: NodeId = NodeId(1);

pub(super) struct World {
    pub(super) disk: Arc<FaultDisk>,
    controller: Controller,
    rng: Prng,
    syncs: VecDeque<(SyncTicket, Arc<dyn DiskFile>)>,
    replies: BTreeMap<RequestId, ApiResult<Outcome>>,
    next_request: u64,
}

fn config() -> ControllerConfig {
    let broker = BrokerConfig::default();
    ControllerConfig { node_id: NODE, voters: vec![NODE], broker, directory: "/metadata".into() }
}

impl World {
    fn open(disk: Arc<FaultDisk>, seed: u64) -> Self {
        let controller = Controller::open(config(), Arc::clone(&disk) as Arc<dyn Disk>).expect("an intact log");
        let (syncs, replies) = (VecDeque::new(), BTreeMap::new());
        let mut world = Self { disk, controller, rng: Prng::new(seed), syncs, replies, next_request: 0 };
        world.step(ControllerInput::Start);
        world
    }

    pub(super) fn new() -> Self {
        let mut world = Self::open(Arc::new(FaultDisk::new()), 7);
        world.register();
        world
    }

    fn step(&mut self, input: ControllerInput) {
        let mut effects = Vec::new();
        self.controller.step(Mono::ZERO, Wall(0), input, &mut self.rng, &mut effects);
        self.controller.check();
        for effect in effects {
            match effect {
                ControllerEffect::Sync { ticket, file } => self.syncs.push_back((ticket, file)),
                ControllerEffect::Reply { request, result } => {
                    assert!(self.replies.insert(request, result).is_none(), "one answer each");
                }
                ControllerEffect::Publish { image, .. } => image.check(),
                ControllerEffect::Send { .. } => panic!("a lone voter talks to nobody"),
                ControllerEffect::Fatal(why) => panic!("{why}"),
            }
        }
    }

    fn ask(&mut self, proposal: Proposal) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.step(ControllerInput::Propose { request, proposal });
        request
    }

    fn sync_one(&mut self) -> bool {
        let Some((ticket, file)) = self.syncs.pop_front() else { return false };
        let result = file.sync().map_err(|error| error.to_string());
        self.step(ControllerInput::Synced { ticket, result });
        true
    }

    fn call(&mut self, proposal: Proposal) -> ApiResult<Outcome> {
        let request = self.ask(proposal);
        while self.sync_one() {}
        self.replies.remove(&request).expect("answered once everything is synced")
    }

    fn register(&mut self) -> i64 {
        let endpoint = Endpoint {
            listener: "PLAINTEXT".into(),
            host: "localhost".into(),
            port: 9092,
            security_protocol: SecurityProtocol::Plaintext,
        };
        let broker = RegisterBroker {
            node_id: NODE,
            incarnation_id: Uuid([1; 16]),
            endpoints: vec![endpoint],
            rack: None,
            log_dirs: vec![Uuid([2; 16])],
            starts: Vec::new(),
        };
        match self.call(Proposal::RegisterBroker(broker)) {
            Ok(Outcome::Registered(epoch)) => epoch,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn create(&mut self, topic: NewTopic) -> ApiResult<CreatedTopic> {
        match self.call(Proposal::CreateTopics { topics: vec![topic], validate_only: false }) {
            Ok(Outcome::CreateTopics(mut results)) => results.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn alter(&mut self, resource_type: i8, name: &str, key: &str, op: AlterOp, value: Option<&str>) -> ApiResult<()> {
        let alterations = vec![ConfigAlteration { key: key.into(), op, value: value.map(Into::into) }];
        let resources = vec![ResourceAlteration { resource_type, name: name.into(), alterations }];
        match self.call(Proposal::IncrementalAlterConfigs { resources, validate_only: false }) {
            Ok(Outcome::AlterConfigs(mut results)) => results.remove(0),
            other => panic!("{other:?}"),
        }
    }

    /// Ends the process and starts the next one on what is left.
    fn reopen(self, crash: Crash) -> Self {
        let Self { disk, controller, mut rng, syncs, .. } = self;
        drop((controller, syncs));
        disk.crash(crash, &mut rng);
        let mut world = Self::open(disk, rng.next_u64());
        while world.sync_one() {}
        world
    }
}

pub(super) fn topic(name: &str, partitions: i32) -> NewTopic {
    NewTopic { name: name.into(), partitions, replication_factor: -1, ..NewTopic::default() }
}

/// The image as it comes out of a snapshot of it.
fn rebuilt(image: &MetadataImage) -> MetadataImage {
    let mut bytes = Vec::new();
    encode_records(&dump(image), &mut bytes).unwrap();
    let meta = SnapshotMeta { index: image.version(), term: 1, voters: vec![] };
    let mut copy = MetadataImage::default();
    load_snapshot(&mut copy, &StoredSnapshot { meta, records: bytes }).unwrap();
    copy
}

#[test]
fn a_lone_voter_leads_at_once_and_answers_only_after_the_sync() {
    let mut world = World::open(Arc::new(FaultDisk::new()), 1);
    assert!(world.controller.is_leader() && world.controller.deadline().is_none());
    let request = world.ask(Proposal::CreateInternalTopic(InternalTopic::ConsumerOffsets));
    assert!(world.replies.is_empty(), "nothing is durable yet");
    while world.sync_one() {}
    assert!(world.replies.contains_key(&request));
    assert!(!world.controller.image().cluster_id().is_zero());
}

#[test]
fn the_answer_to_a_bad_request_waits_for_what_it_rests_on() {
    let mut world = World::new();
    let first = world.ask(Proposal::CreateTopics { topics: vec![topic("a", 1)], validate_only: false });
    let second = world.ask(Proposal::CreateTopics { topics: vec![topic("a", 1)], validate_only: false });
    assert!(!world.replies.contains_key(&first) && !world.replies.contains_key(&second));
    while world.sync_one() {}
    let Some(Ok(Outcome::CreateTopics(results))) = world.replies.get(&second) else { panic!("answered") };
    assert_eq!(results[0], Err(ApiError::new(ErrorCode::TopicAlreadyExists, "Topic 'a' already exists.")));
}

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

#[test]
fn a_registration_ends_the_old_one_and_every_leadership_of_it() {
    let mut world = World::new();
    world.create(topic("a", 3)).expect("created");
    let first = world.controller.image().broker(NODE).expect("registered").broker_epoch;
    let mut world = world.reopen(Crash::Power);
    let second = world.register();
    assert!(second > first);
    let image = world.controller.image();
    let topic = image.topic("a").expect("still there");
    assert!(
        topic
            .partitions
            .values()
            .all(|state| state.leader == NODE && state.leader_epoch.0 == 1 && state.partition_epoch == 1)
    );
    let stale = Proposal::AllocateProducerIds { node_id: NODE, broker_epoch: first };
    assert_eq!(world.call(stale), Err(ErrorCode::StaleBrokerEpoch.into()));
}

#[test]
fn no_producer_id_is_given_twice_even_across_a_power_cut() {
    let mut world = World::new();
    let mut next = 0;
    for _ in 0..3 {
        let broker_epoch = world.controller.image().broker(NODE).expect("registered").broker_epoch;
        let result = world.call(Proposal::AllocateProducerIds { node_id: NODE, broker_epoch });
        assert_eq!(result, Ok(Outcome::ProducerIds { first: next, count: PRODUCER_ID_BLOCK }));
        next += PRODUCER_ID_BLOCK;
        world = world.reopen(Crash::Power);
    }
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

fn random_proposal(world: &mut World) -> Proposal {
    let name = format!("t{}", world.rng.below(6));
    match world.rng.below(7) {
        0 | 1 => {
            Proposal::CreateTopics { topics: vec![topic(&name, 1 + world.rng.below(4) as i32)], validate_only: false }
        }
        2 => Proposal::DeleteTopics(vec![TopicRef::Name(name)]),
        3 => {
            let more = MorePartitions { name, count: world.rng.below(9) as i32, assignments: None };
            Proposal::CreatePartitions { topics: vec![more], validate_only: world.rng.chance(1, 4) }
        }
        4 => {
            let configs = vec![("retention.ms".to_owned(), Some(world.rng.below(99).to_string()))];
            let resources = vec![ResourceReplacement { resource_type: 2, name, configs }];
            Proposal::AlterConfigs { resources, validate_only: false }
        }
        5 => Proposal::AllocateProducerIds { node_id: NODE, broker_epoch: world.rng.below(2) as i64 },
        _ => Proposal::CreateInternalTopic(InternalTopic::TransactionState),
    }
}

#[test]
fn the_image_is_what_the_log_says_after_any_proposals_syncs_and_power_cuts() {
    for seed in 0..40 {
        let mut world = World::open(Arc::new(FaultDisk::new()), seed);
        world.register();
        for _ in 0..world.rng.below(40) {
            let proposal = random_proposal(&mut world);
            world.ask(proposal);
            while world.rng.chance(1, 2) && world.sync_one() {}
        }
        let answered = world.controller.image().clone();
        answered.check();
        assert_eq!(rebuilt(&answered).digest(), answered.digest(), "seed {seed}");
        let crash = if world.rng.chance(1, 2) { Crash::Power } else { Crash::Kill };
        let after = world.reopen(crash);
        let recovered = after.controller.image();
        recovered.check();
        assert!(recovered.version() >= answered.version(), "seed {seed}: what was answered is there");
        assert!(recovered.next_producer_id() >= answered.next_producer_id(), "seed {seed}");
        let digest = recovered.digest();
        assert_eq!(rebuilt(recovered).digest(), digest, "seed {seed}");
    }
}

#[test]
fn everything_synced_comes_back_exactly_and_the_log_stays_bounded() {
    let mut world = World::new();
    for round in 0..20 {
        let name = format!("t{}", round % 3);
        world.create(topic(&name, 700)).expect("created");
        world.call(Proposal::DeleteTopics(vec![TopicRef::Name(name)])).expect("deleted");
    }
    world.create(topic("last", 3)).expect("created");
    let before = world.controller.image().clone();
    let disk = Arc::clone(&world.disk);
    assert_eq!(disk.list(Path::new("/metadata")).expect("a directory").len(), 2, "one snapshot and one log");
    let name = disk.list(Path::new("/metadata")).expect("a directory").remove(0);
    assert!(!name.starts_with("00000000000000000000"), "the log was rolled");
    let after = world.reopen(Crash::Power);
    let mut recovered = after.controller.image().clone();
    assert!(recovered.version() > before.version(), "the new leader's own entry");
    recovered.version = before.version();
    assert_eq!(recovered.digest(), before.digest());
}

#[test]
fn a_failed_sync_ends_the_controller_and_answers_what_waits() {
    let mut world = World::new();
    let request = world.ask(Proposal::CreateTopics { topics: vec![topic("a", 1)], validate_only: false });
    let (ticket, _) = world.syncs.pop_front().expect("a sync");
    let mut effects = Vec::new();
    let failure = ControllerInput::Synced { ticket, result: Err("EIO".to_owned()) };
    world.controller.step(Mono::ZERO, Wall(0), failure, &mut world.rng, &mut effects);
    assert!(
        matches!(&effects[0], ControllerEffect::Reply { request: answered, result: Err(_) } if *answered == request)
    );
    assert!(matches!(effects.last(), Some(ControllerEffect::Fatal(_))));
}
