//! Proposals and their outcomes: one of each variant, with its bytes at level 1.

use std::collections::BTreeMap;
use std::fmt::Debug;

use madang_protocol::ErrorCode;
use madang_protocol::node::{NodeError, NodeMessage};
use madang_protocol::types::{LeaderEpoch, NodeId, TopicId, TopicPartition, Uuid};
use madang_storage::RestartKind;

use super::super::{Propose, ProposeAnswer, ProposeResult};
use crate::controller::{
    AlterOp, AlterPartition, ApiError, ConfigAlteration, CreatedTopic, DeletedTopic, InternalTopic, LogDirStart,
    MemberChange, MemberRole, MorePartitions, NamedPartition, NewTopic, Outcome, Proposal, QuorumDescription,
    QuorumMember, Reassignment, RegisterBroker, ReportLoss, ResourceAlteration, ResourceReplacement, TopicRef,
};
use crate::metadata::{Endpoint, SecurityProtocol};
use crate::replica::replication::{IsrMember, ProposalOutcome};

const NODE: NodeId = NodeId(1);
const TOPIC: TopicId = Uuid([7; 16]);
const PARTITION: TopicPartition = TopicPartition { topic_id: TOPIC, partition: 1 };

fn text(text: &str) -> String {
    text.to_owned()
}

fn named(topic: &str, partition: i32) -> NamedPartition {
    NamedPartition { topic: text(topic), partition }
}

fn pairs() -> Vec<(String, Option<String>)> {
    vec![(text("k"), Some(text("v"))), (text("l"), None)]
}

fn altered() -> ResourceAlteration {
    let operations = [AlterOp::Set, AlterOp::Delete, AlterOp::Append, AlterOp::Subtract];
    let alteration = |op| {
        let value = (op != AlterOp::Delete).then(|| text("v"));
        ConfigAlteration { key: text("k"), op, value }
    };
    let alterations = operations.into_iter().map(alteration).collect();
    ResourceAlteration { resource_type: 2, name: text("a"), alterations }
}

fn registration() -> RegisterBroker {
    let directory = Uuid([8; 16]);
    let kinds = [RestartKind::Clean, RestartKind::Durable, RestartKind::SameBoot, RestartKind::Lossy];
    let starts = kinds.into_iter().zip(-1..);
    let endpoint =
        Endpoint { listener: "L".into(), host: "h".into(), port: 9092, security_protocol: SecurityProtocol::SaslSsl };
    RegisterBroker {
        node_id: NODE,
        incarnation_id: Uuid([9; 16]),
        endpoints: vec![endpoint],
        rack: Some(text("r")),
        log_dirs: vec![directory],
        starts: starts.map(|(kind, broker_epoch)| LogDirStart { directory, kind, broker_epoch }).collect(),
    }
}

fn alter_partition() -> AlterPartition {
    let stays = IsrMember { node_id: NodeId(2), broker_epoch: -1, incarnation: 0 };
    AlterPartition {
        partition: PARTITION,
        node_id: NODE,
        broker_epoch: 2,
        leader_epoch: LeaderEpoch(3),
        partition_epoch: 4,
        in_sync_replicas: vec![IsrMember { node_id: NODE, broker_epoch: 2, incarnation: 5 }, stays],
    }
}

pub(super) fn proposals() -> Vec<(Proposal, &'static str)> {
    let nodes = vec![NODE, NodeId(2)];
    let new_topic = NewTopic {
        name: text("a"),
        partitions: -1,
        replication_factor: -1,
        assignments: vec![(0, nodes.clone())],
        configs: pairs(),
    };
    let more = vec![
        MorePartitions { name: text("a"), count: 4, assignments: Some(vec![nodes]) },
        MorePartitions { name: text("b"), count: 2, assignments: None },
    ];
    let (altered, registration, alter_partition) = (altered(), registration(), alter_partition());
    let replaced = ResourceReplacement { resource_type: 4, name: text("1"), configs: pairs()[..1].to_vec() };
    let loss = ReportLoss { partition: PARTITION, node_id: NODE, broker_epoch: 2, incarnation: 5 };
    vec![
        (
            Proposal::CreateTopics { topics: vec![new_topic], validate_only: true },
            "0000010000000100000061ffffffffffff010000000000000002000000010000000200000002000000010000006b010100000076010000006c0001",
        ),
        (
            Proposal::DeleteTopics(vec![TopicRef::Name(text("a")), TopicRef::Id(TOPIC)]),
            "01000200000000000100000061010007070707070707070707070707070707",
        ),
        (
            Proposal::CreatePartitions { topics: more, validate_only: false },
            "02000200000001000000610400000001010000000200000001000000020000000100000062020000000000",
        ),
        (
            Proposal::IncrementalAlterConfigs { resources: vec![altered], validate_only: false },
            "03000100000002010000006104000000010000006b0000010100000076010000006b010000010000006b0200010100000076010000006b030001010000007600",
        ),
        (
            Proposal::AlterConfigs { resources: vec![replaced], validate_only: true },
            "04000100000004010000003101000000010000006b01010000007601",
        ),
        (Proposal::CreateInternalTopic(InternalTopic::ConsumerOffsets), "05000000"),
        (Proposal::CreateInternalTopic(InternalTopic::TransactionState), "05000100"),
        (
            Proposal::RegisterBroker(registration),
            "0600010000000909090909090909090909090909090901000000010000004c0100000068842303000101000000720100000008080808080808080808080808080808040000000808080808080808080808080808080800ffffffffffffffff080808080808080808080808080808080100000000000000000808080808080808080808080808080802010000000000000008080808080808080808080808080808030200000000000000",
        ),
        (Proposal::AllocateProducerIds { node_id: NODE, broker_epoch: 2 }, "0700010000000200000000000000"),
        (Proposal::FenceBroker { node_id: NODE, broker_epoch: 2 }, "0800010000000200000000000000"),
        (Proposal::UnfenceBroker { node_id: NODE, broker_epoch: 2 }, "0900010000000200000000000000"),
        (
            Proposal::AlterPartition(alter_partition.clone()),
            "0a000707070707070707070707070707070701000000010000000200000000000000030000000400000002000000010000000200000000000000050000000000000002000000ffffffffffffffff0000000000000000",
        ),
        (
            Proposal::ReportLoss(loss),
            "0b0007070707070707070707070707070707010000000100000002000000000000000500000000000000",
        ),
        (Proposal::ElectPreferredLeaders(vec![PARTITION]), "0c00010000000707070707070707070707070707070701000000"),
        (
            Proposal::AlterPartitions(vec![alter_partition]),
            "0d00010000000707070707070707070707070707070701000000010000000200000000000000030000000400000002000000010000000200000000000000050000000000000002000000ffffffffffffffff0000000000000000",
        ),
    ]
}

/// What operators ask for.
fn administrative() -> Vec<(Proposal, &'static str)> {
    let to = |partition: NamedPartition, replicas| Reassignment { partition, replicas };
    let moves = vec![to(named("a", 1), Some(vec![NODE, NodeId(2)])), to(named("b", 0), None)];
    vec![
        (
            Proposal::ElectLeaders { unclean: true, partitions: Some(vec![named("a", 1)]) },
            "0e00010101000000010000006101000000",
        ),
        (Proposal::ElectLeaders { unclean: false, partitions: None }, "0e000000"),
        (
            Proposal::AlterReassignments { reassignments: moves, allow_factor_change: false },
            "0f0002000000010000006101000000010200000001000000020000000100000062000000000000",
        ),
        (Proposal::UnregisterBroker(NodeId(2)), "100002000000"),
        (Proposal::DescribeQuorum, "1100"),
        (
            Proposal::GiveUpReplicas { node_id: NODE, broker_epoch: 2, partitions: vec![(PARTITION, 3)] },
            "12000100000002000000000000000100000007070707070707070707070707070707010000000300000000000000",
        ),
        (Proposal::JoinQuorum { node_id: NODE, address: "a:1".into() }, "13000100000003000000613a31"),
        (
            Proposal::ChangeQuorum(vec![MemberChange { node_id: NODE, role: MemberRole::Observer }]),
            "1400010000000100000001",
        ),
    ]
}

pub(super) fn outcomes() -> Vec<(Outcome, &'static str)> {
    let configs = BTreeMap::from([("k".into(), "v".into()), ("l".into(), "".into())]);
    let created = CreatedTopic { topic_id: TOPIC, partitions: 3, replication_factor: 2, configs };
    let member = QuorumMember { node_id: NODE, last_index: 3, heard_at: 4, caught_up_at: -1 };
    let (voters, observers) = (vec![member], Vec::new());
    let quorum = QuorumDescription { leader: NODE, term: 2, committed: 3, voters, observers };
    vec![
        (
            Outcome::CreateTopics(vec![Ok(created), Err(ApiError::new(ErrorCode::TopicAlreadyExists, "t"))]),
            "000002000000010707070707070707070707070707070703000000020002000000010000006b0100000076010000006c00000000002400010100000074",
        ),
        (
            Outcome::DeleteTopics(vec![Ok(DeletedTopic { name: "a".into(), topic_id: TOPIC })]),
            "01000100000001010000006107070707070707070707070707070707",
        ),
        (Outcome::CreatePartitions(vec![Ok(()), Err(ErrorCode::InvalidPartitions.into())]), "0200020000000100250000"),
        (Outcome::AlterConfigs(vec![Ok(())]), "03000100000001"),
        (Outcome::InternalTopic(TOPIC), "040007070707070707070707070707070707"),
        (Outcome::Registered(5), "05000500000000000000"),
        (Outcome::ProducerIds { first: 2000, count: 1000 }, "0600d007000000000000e803000000000000"),
        (Outcome::Fenced(true), "070001"),
        (Outcome::AlterPartition { partition_epoch: 6 }, "080006000000"),
        (Outcome::LossReported, "0900"),
        (Outcome::PreferredLeaders(vec![Err(ErrorCode::ElectionNotNeeded.into())]), "0a000100000000540000"),
        (
            Outcome::AlterPartitions(vec![Ok(6), Err(ErrorCode::InvalidUpdateVersion.into())]),
            "0b00020000000106000000005f0000",
        ),
        (
            Outcome::ElectedLeaders(vec![
                (named("a", 1), Ok(())),
                (named("a", 1), Err(ErrorCode::ElectionNotNeeded.into())),
            ]),
            "0c00020000000100000061010000000101000000610100000000540000",
        ),
        (Outcome::Reassigned(vec![Err(ErrorCode::NoReassignmentInProgress.into())]), "0d000100000000550000"),
        (Outcome::Unregistered, "0e00"),
        (
            Outcome::Quorum(quorum),
            "0f000100000002000000000000000300000000000000010000000100000003000000000000000400000000000000ffffffffffffffff00000000",
        ),
        (Outcome::ReplicasGivenUp, "1000"),
        (Outcome::QuorumChanged, "1100"),
    ]
}

fn results() -> Vec<(ProposeResult, &'static str)> {
    vec![
        (
            ProposeResult::Refused(ApiError::new(ErrorCode::InvalidConfig, "no")),
            "0100280001020000006e6f0900000000000000",
        ),
        (ProposeResult::NotController { leader: Some(NodeId(2)) }, "020001020000000900000000000000"),
        (ProposeResult::NotController { leader: None }, "0200000900000000000000"),
        (ProposeResult::Unknown, "03000900000000000000"),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes and reads a message at level 1; answers its bytes.
fn round_trip<M: NodeMessage + Clone + Debug + PartialEq>(message: &M) -> String {
    let bytes = message.write(1).expect("written");
    assert_eq!(M::read(1, &bytes), Ok(message.clone()));
    hex(&bytes)
}

#[test]
fn the_bytes_of_a_proposal_never_change() {
    for (proposal, golden) in proposals().into_iter().chain(administrative()) {
        assert_eq!(round_trip(&Propose { proposal: proposal.clone() }), golden, "{proposal:?}");
    }
}

#[test]
fn the_bytes_of_an_answer_never_change() {
    for (outcome, golden) in outcomes() {
        let answer = ProposeAnswer { result: ProposeResult::Committed(outcome), metadata_index: 258 };
        assert_eq!(round_trip(&answer), format!("0000{golden}0201000000000000"), "{answer:?}");
    }
    for (result, golden) in results() {
        let answer = ProposeAnswer { result, metadata_index: 9 };
        assert_eq!(round_trip(&answer), golden, "{answer:?}");
    }
}

/// A new variant needs a new number here, and then a sample.
const fn number(proposal: &Proposal) -> usize {
    match proposal {
        Proposal::CreateTopics { .. } => 0,
        Proposal::DeleteTopics(_) => 1,
        Proposal::CreatePartitions { .. } => 2,
        Proposal::IncrementalAlterConfigs { .. } => 3,
        Proposal::AlterConfigs { .. } => 4,
        Proposal::CreateInternalTopic(_) => 5,
        Proposal::RegisterBroker(_) => 6,
        Proposal::AllocateProducerIds { .. } => 7,
        Proposal::FenceBroker { .. } => 8,
        Proposal::UnfenceBroker { .. } => 9,
        Proposal::AlterPartition(_) => 10,
        Proposal::ReportLoss(_) => 11,
        Proposal::ElectPreferredLeaders(_) => 12,
        Proposal::AlterPartitions(_) => 13,
        Proposal::ElectLeaders { .. } => 14,
        Proposal::AlterReassignments { .. } => 15,
        Proposal::UnregisterBroker(_) => 16,
        Proposal::DescribeQuorum => 17,
        Proposal::GiveUpReplicas { .. } => 18,
        Proposal::JoinQuorum { .. } => 19,
        Proposal::ChangeQuorum(_) => 20,
    }
}

const fn number_of_outcome(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::CreateTopics(_) => 0,
        Outcome::DeleteTopics(_) => 1,
        Outcome::CreatePartitions(_) => 2,
        Outcome::AlterConfigs(_) => 3,
        Outcome::InternalTopic(_) => 4,
        Outcome::Registered(_) => 5,
        Outcome::ProducerIds { .. } => 6,
        Outcome::Fenced(_) => 7,
        Outcome::AlterPartition { .. } => 8,
        Outcome::LossReported => 9,
        Outcome::PreferredLeaders(_) => 10,
        Outcome::AlterPartitions(_) => 11,
        Outcome::ElectedLeaders(_) => 12,
        Outcome::Reassigned(_) => 13,
        Outcome::Unregistered => 14,
        Outcome::Quorum(_) => 15,
        Outcome::ReplicasGivenUp => 16,
        Outcome::QuorumChanged => 17,
    }
}

#[test]
fn every_variant_has_a_sample() {
    let mut there: Vec<usize> =
        proposals().iter().chain(&administrative()).map(|(proposal, _)| number(proposal)).collect();
    there.dedup();
    assert_eq!(there, (0..=20).collect::<Vec<_>>());
    let there: Vec<usize> = outcomes().iter().map(|(outcome, _)| number_of_outcome(outcome)).collect();
    assert_eq!(there, (0..=17).collect::<Vec<_>>());
}

#[test]
fn what_a_broker_says_of_itself_it_says_itself() {
    for (proposal, _) in proposals().into_iter().chain(administrative()) {
        let (number, propose) = (number(&proposal), Propose { proposal });
        assert!(propose.may_come_from(NODE));
        assert_eq!(propose.may_come_from(NodeId(2)), ![6, 7, 9, 10, 11, 13, 18].contains(&number), "{propose:?}");
    }
}

#[test]
fn what_is_open_is_never_told_as_a_refusal() {
    let taken = |error: ErrorCode| ProposeResult::from(Err(error.into()));
    for open in [ErrorCode::NotController, ErrorCode::RequestTimedOut] {
        assert_eq!(taken(open), ProposeResult::Unknown);
    }
    assert_eq!(ProposeResult::Unknown.proposal_outcome(), ProposalOutcome::Unknown);
    assert_eq!(ProposeResult::Unknown.into_result(), Err(ErrorCode::NotController.into()));
    let refused = taken(ErrorCode::InvalidRequest);
    assert_eq!(refused.proposal_outcome(), ProposalOutcome::Refused(ErrorCode::InvalidRequest));
    assert_eq!(refused.into_result(), Err(ErrorCode::InvalidRequest.into()));
    let elsewhere = ProposeResult::NotController { leader: Some(NODE) };
    assert_eq!(elsewhere.proposal_outcome(), ProposalOutcome::Refused(ErrorCode::NotController));
    assert_eq!(elsewhere.into_result(), Err(ErrorCode::NotController.into()));
    let done = ProposeResult::from(Ok(Outcome::LossReported));
    assert_eq!(done.proposal_outcome(), ProposalOutcome::Committed);
    assert_eq!(done.into_result(), Ok(Outcome::LossReported));
}

#[test]
fn what_no_variant_has_is_an_error() {
    let malformed = |message: &str| {
        let bytes: Vec<u8> =
            (0..message.len()).step_by(2).map(|at| u8::from_str_radix(&message[at..at + 2], 16).unwrap()).collect();
        matches!(Propose::read(1, &bytes), Err(NodeError::Malformed(_)))
    };
    assert!(malformed("0d00"), "a proposal");
    assert!(malformed("05000200"), "an internal topic");
    let registration = proposals().into_iter().find(|(proposal, _)| number(proposal) == 6).expect("a sample").1;
    assert!(malformed(&registration.replace("84230300", "84230400")), "a security protocol");
    assert!(malformed(&registration.replace("0803", "0804")), "a kind of restart");
    assert!(malformed(&registration.replace("4c01000000", "4cffffffff")), "a length");
}
