//! What a replica tells every other thread of itself, when it has changed.
//! Invariant: a snapshot leaves before any reply or message that follows from it.

use std::collections::BTreeSet;
use std::sync::Arc;

use madang_protocol::types::{LeaderEpoch, NodeId, Offset};

use super::core::Role;
use super::replication::Loss;
use super::{Replica, ReplicaEffect, ReplicaSnapshot};

/// What of a snapshot can change without the log's view changing in a way that the offsets do not show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Published {
    loss: Option<Loss>,
    known_epoch: LeaderEpoch,
    partition_epoch: i32,
    maximal: Vec<NodeId>,
    leader_epoch: Option<LeaderEpoch>,
    high_watermark: Offset,
    confirmed_end: Offset,
    cut_to: Option<Offset>,
    log_start_offset: Offset,
    log_end_offset: Offset,
    segments: usize,
}

impl Replica {
    pub(super) fn publish_if_changed(&mut self, effects: &mut Vec<ReplicaEffect>) {
        let Some(log) = &self.log else { return };
        if self.resumes && matches!(self.role, Role::Idle) {
            // Else a life that dies before it has a role would take what the one before had proposed to its grave.
            return;
        }
        let (maximal, partition_epoch, epoch_start) = match &self.role {
            Role::Leader(leader) => (leader.isr().maximal(), leader.partition_epoch(), leader.epoch_start()),
            Role::Idle | Role::Follower(_) | Role::Lost(_) => (BTreeSet::new(), self.known.1, Offset::ZERO),
        };
        let loss = match &self.role {
            Role::Lost(loss) => Some(*loss),
            Role::Idle | Role::Leader(_) | Role::Follower(_) => None,
        };
        let cutting = match &self.role {
            Role::Follower(follower) => follower.cutting(),
            Role::Idle | Role::Leader(_) | Role::Lost(_) => None,
        };
        let now = Published {
            loss,
            cut_to: cutting.or(self.unsettled_cut),
            known_epoch: self.known.0,
            partition_epoch,
            maximal: maximal.into_iter().collect(),
            leader_epoch: self.leader_epoch(),
            high_watermark: self.high_watermark,
            confirmed_end: log.confirmed_offset(),
            log_start_offset: log.log_start_offset(),
            log_end_offset: log.log_end_offset(),
            segments: log.segment_count(),
        };
        if self.published.as_ref() == Some(&now) {
            return;
        }
        effects.push(ReplicaEffect::Publish(Arc::new(ReplicaSnapshot {
            incarnation: self.incarnation,
            leader_epoch: now.leader_epoch,
            loss,
            known_epoch: now.known_epoch,
            partition_epoch,
            maximal_isr: now.maximal.as_slice().into(),
            epoch_start,
            high_watermark: self.high_watermark,
            last_stable_offset: self.high_watermark,
            confirmed_end: now.confirmed_end,
            cut_to: now.cut_to,
            view: log.view(),
        })));
        self.published = Some(now);
    }
}
