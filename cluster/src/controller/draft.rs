//! A proposal in the making: the metadata as it would be, and the records that make it so.
//! Invariant: the image is the one the draft began with after `replay` of the records.

use madang_actors::prng::Prng;
use madang_protocol::ErrorCode;
use madang_protocol::types::NodeId;

use super::api::{ApiError, ApiResult, Outcome, Proposal};
use super::records::MetadataRecord;
use super::{brokers, configs, elections, partitions, reassignments, replay, topics};
use crate::configs::BrokerConfig;
use crate::metadata::{MetadataDelta, MetadataImage};

/// The metadata as it would be after `records`.
pub(super) struct Draft<'a> {
    pub(super) image: MetadataImage,
    pub(super) records: Vec<MetadataRecord>,
    pub(super) defaults: &'a BrokerConfig,
    pub(super) rng: &'a mut Prng,
}

impl<'a> Draft<'a> {
    pub(super) fn new(image: &MetadataImage, defaults: &'a BrokerConfig, rng: &'a mut Prng) -> Self {
        Self { image: image.clone(), records: Vec::new(), defaults, rng }
    }

    pub(super) fn push(&mut self, record: MetadataRecord) {
        replay(&mut self.image, &mut MetadataDelta::default(), record.clone());
        self.records.push(record);
    }

    /// Nodes that may hold new replicas, sorted.
    pub(super) fn live_nodes(&self) -> Vec<NodeId> {
        self.image.live_brokers().map(|broker| broker.node_id).collect()
    }

    /// Works a proposal out. The records are those to commit: none for a mere validation.
    pub(super) fn propose(&mut self, proposal: Proposal) -> ApiResult<Outcome> {
        match proposal {
            Proposal::CreateTopics { topics, validate_only } => {
                let results = topics::create(self, topics);
                self.finish(validate_only);
                Ok(Outcome::CreateTopics(results))
            }
            Proposal::DeleteTopics(topics) => Ok(Outcome::DeleteTopics(topics::delete(self, topics))),
            Proposal::CreatePartitions { topics, validate_only } => {
                let results = partitions::create(self, topics);
                self.finish(validate_only);
                Ok(Outcome::CreatePartitions(results))
            }
            Proposal::IncrementalAlterConfigs { resources, validate_only } => {
                let results = configs::alter(self, resources);
                self.follow_rules();
                self.finish(validate_only);
                Ok(Outcome::AlterConfigs(results))
            }
            Proposal::AlterConfigs { resources, validate_only } => {
                let results = configs::replace(self, resources);
                self.follow_rules();
                self.finish(validate_only);
                Ok(Outcome::AlterConfigs(results))
            }
            Proposal::CreateInternalTopic(topic) => topics::create_internal(self, topic).map(Outcome::InternalTopic),
            Proposal::RegisterBroker(broker) => Ok(Outcome::Registered(brokers::register(self, broker))),
            Proposal::AllocateProducerIds { node_id, broker_epoch } => {
                brokers::allocate_producer_ids(self, node_id, broker_epoch)
            }
            Proposal::FenceBroker { node_id, broker_epoch } => brokers::set_fenced(self, node_id, broker_epoch, true),
            Proposal::UnfenceBroker { node_id, broker_epoch } => {
                brokers::set_fenced(self, node_id, broker_epoch, false)
            }
            Proposal::AlterPartition(asked) => elections::alter_partition(self, &asked)
                .map(|partition_epoch| Outcome::AlterPartition { partition_epoch }),
            Proposal::AlterPartitions(asked) => {
                let results = asked.iter().map(|one| elections::alter_partition(self, one));
                Ok(Outcome::AlterPartitions(results.collect()))
            }
            Proposal::ReportLoss(report) => elections::report_loss(self, &report),
            Proposal::GiveUpReplicas { node_id, broker_epoch, partitions } => {
                elections::give_up(self, node_id, broker_epoch, &partitions)
            }
            Proposal::ElectPreferredLeaders(partitions) => {
                Ok(Outcome::PreferredLeaders(elections::elect_preferred(self, &partitions)))
            }
            Proposal::ElectLeaders { unclean, partitions } => {
                Ok(Outcome::ElectedLeaders(elections::elect(self, unclean, partitions)))
            }
            Proposal::AlterReassignments { reassignments, allow_factor_change } => {
                Ok(Outcome::Reassigned(reassignments::alter(self, reassignments, allow_factor_change)))
            }
            Proposal::UnregisterBroker(node_id) => brokers::unregister(self, node_id),
            // They are of the quorum and not of the metadata: its leader takes them before they come here.
            Proposal::DescribeQuorum | Proposal::JoinQuorum { .. } | Proposal::ChangeQuorum(_) => {
                Err(ErrorCode::InvalidRequest.into())
            }
        }
    }

    /// A leader learns of a smaller minimum only together with what it does to the partitions.
    pub(super) fn follow_rules(&mut self) {
        let decides = |key: &str| elections::RULES.contains(&key);
        let rule = |record: &MetadataRecord| match record {
            MetadataRecord::Config(config) => decides(&config.key),
            MetadataRecord::Default(default) => decides(&default.key),
            _ => false,
        };
        if self.records.iter().any(rule) {
            elections::rules_changed(self).into_iter().for_each(|record| self.push(record));
        }
    }

    fn finish(&mut self, validate_only: bool) {
        if validate_only {
            self.records.clear();
        }
    }
}

/// What becomes of a proposal.
#[derive(Debug)]
pub struct Decision {
    /// What to commit, in one entry; empty if nothing changes.
    pub records: Vec<MetadataRecord>,
    /// The metadata after that.
    pub image: MetadataImage,
    /// What to answer once it is committed.
    pub result: ApiResult<Outcome>,
}

/// Works a proposal out on the metadata `image`. Changes nothing.
#[must_use]
pub fn decide(image: &MetadataImage, defaults: &BrokerConfig, rng: &mut Prng, proposal: Proposal) -> Decision {
    let mut draft = Draft::new(image, defaults, rng);
    let result = draft.propose(proposal);
    Decision { records: draft.records, image: draft.image, result }
}

/// The error of the second and later mention of one thing in one request.
pub(super) fn duplicate(message: &'static str) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, message)
}
