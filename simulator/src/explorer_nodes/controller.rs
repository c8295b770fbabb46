//! The controller of the explored cluster: its real decisions, on a log that is committed as it is written.
//! Invariant: every image is the one before it after the records of one decision.

use std::sync::{Arc, OnceLock};

use madang_actors::prng::Prng;
use madang_cluster::configs::BrokerConfig;
use madang_cluster::controller::{
    AlterPartition, ApiResult, Decision, LogDirStart, NewTopic, Outcome, Proposal, RegisterBroker, decide,
};
use madang_cluster::metadata::{MetadataImage, PartitionImage};
use madang_cluster::replica::replication::ProposalOutcome;
use madang_protocol::types::{NodeId, TopicPartition, Uuid};
use madang_storage::RestartKind;

use super::{MIN_IN_SYNC, NODES, broken};
use crate::invariants::cluster;
use crate::sim::Violation;

/// Where a leader's proposal is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// On its way to the controller.
    Asked(AlterPartitionAsked),
    /// On its way back.
    Answered(ProposalOutcome),
}

/// What is hashed of a proposal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct AlterPartitionAsked {
    pub(super) members: Vec<madang_cluster::replica::replication::IsrMember>,
    pub(super) leader_epoch: i32,
    pub(super) partition_epoch: i32,
}

/// A proposal that is not done with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct InFlight {
    pub(super) from: NodeId,
    pub(super) broker_epoch: i64,
    /// The life that asked, if it still wants to know.
    pub(super) incarnation: Option<u64>,
    pub(super) number: u64,
    pub(super) place: Place,
}

/// The controller.
pub(super) struct Controller {
    defaults: &'static BrokerConfig,
    rng: Prng,
    /// All that was committed, oldest first.
    pub(super) log: Vec<Arc<MetadataImage>>,
    pub(super) in_flight: Vec<InFlight>,
    topic_id: Uuid,
}

fn directory_id(node: NodeId) -> Uuid {
    Uuid([node.0.unsigned_abs() as u8; 16])
}

impl Controller {
    pub(super) fn new() -> Self {
        static DEFAULTS: OnceLock<BrokerConfig> = OnceLock::new();
        let (defaults, rng) = (DEFAULTS.get_or_init(BrokerConfig::default), Prng::new(1));
        Self { defaults, rng, log: vec![Arc::default()], in_flight: Vec::new(), topic_id: Uuid::ZERO }
    }

    pub(super) fn image(&self) -> &Arc<MetadataImage> {
        let last = self.log.last();
        last.unwrap_or_else(|| unreachable!("the log begins with an empty image"))
    }

    pub(super) const fn partition(&self) -> TopicPartition {
        TopicPartition { topic_id: self.topic_id, partition: 0 }
    }

    pub(super) fn state(&self) -> Option<&Arc<PartitionImage>> {
        self.image().partition_by_id(self.partition())
    }

    pub(super) fn create_topic(&mut self) -> Result<(), Violation> {
        let topic = NewTopic {
            name: "orders".into(),
            partitions: -1,
            replication_factor: -1,
            assignments: vec![(0, (1..=NODES).map(NodeId).collect())],
            configs: vec![("min.insync.replicas".into(), Some(MIN_IN_SYNC.to_string()))],
        };
        self.propose(Proposal::CreateTopics { topics: vec![topic], validate_only: false })?
            .map_err(|error| broken("R16", format!("{error:?}")))?;
        self.topic_id = self.image().topic_id("orders").unwrap_or_default();
        Ok(())
    }

    pub(super) fn propose(&mut self, proposal: Proposal) -> Result<ApiResult<Outcome>, Violation> {
        let before = Arc::clone(self.image());
        let Decision { records, image, result } = decide(&before, self.defaults, &mut self.rng, proposal);
        if !records.is_empty() {
            image.check();
            cluster::decided(&before, &image, self.partition())?;
            self.log.push(Arc::new(image));
        }
        Ok(result)
    }

    pub(super) fn register(&mut self, node: NodeId, kind: RestartKind, broker_epoch: i64) -> Result<i64, Violation> {
        let directory = directory_id(node);
        let result = self.propose(Proposal::RegisterBroker(RegisterBroker {
            node_id: node,
            incarnation_id: Uuid::from_random(self.log.len() as u64, 1),
            endpoints: Vec::new(),
            rack: None,
            log_dirs: vec![directory],
            starts: vec![LogDirStart { directory, kind, broker_epoch }],
        }))?;
        match result {
            Ok(Outcome::Registered(broker_epoch)) => {
                // The node's directory names it now.
                self.propose(Proposal::UnfenceBroker { node_id: node, broker_epoch })?
                    .map_err(|error| broken("C10", format!("{node} is not unfenced: {error:?}")))?;
                Ok(broker_epoch)
            }
            other => Err(broken("C10", format!("registration of {node}: {other:?}"))),
        }
    }

    /// The proposal at `at` arrives.
    pub(super) fn deliver(&mut self, at: usize) -> Result<(), Violation> {
        let Some(flight) = self.in_flight.get(at).cloned() else { return Ok(()) };
        let Place::Asked(asked) = flight.place else { return Ok(()) };
        let result = self.propose(Proposal::AlterPartition(AlterPartition {
            partition: self.partition(),
            node_id: flight.from,
            broker_epoch: flight.broker_epoch,
            leader_epoch: madang_protocol::types::LeaderEpoch(asked.leader_epoch),
            partition_epoch: asked.partition_epoch,
            in_sync_replicas: asked.members,
        }))?;
        let outcome = match result {
            Ok(_) => ProposalOutcome::Committed,
            Err(refused) => ProposalOutcome::Refused(refused.error),
        };
        if flight.incarnation.is_none() {
            self.in_flight.remove(at);
        } else if let Some(flight) = self.in_flight.get_mut(at) {
            flight.place = Place::Answered(outcome);
        }
        Ok(())
    }
}
