//! Registrations, and the log under all of it: what is answered when, and what a crash leaves.

use super::*;

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
fn the_leader_tells_of_its_quorum_at_once_and_changes_nothing_by_it() {
    let mut world = World::new();
    let before = world.controller.status().last_index;
    let request = world.ask(Proposal::DescribeQuorum);
    let Some(Ok(Outcome::Quorum(quorum))) = world.replies.get(&request) else { panic!("{:?}", world.replies) };
    assert_eq!((quorum.leader, quorum.committed, quorum.observers.len()), (NODE, before, 0));
    let member = QuorumMember { node_id: NODE, last_index: before, heard_at: 0, caught_up_at: 0 };
    assert_eq!(quorum.voters, [member]);
    assert_eq!(world.controller.status().last_index, before);
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
            .all(|state| state.leader == NODE && state.leader_epoch.0 == 2 && state.partition_epoch == 2)
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
