//! Messages of the control lane: small, and never behind data. Who sends one is what its certificate says.

use speedy::{Readable, Writable};

use super::{NodeRequest, Tag};
use crate::error_code::ErrorCode;
use crate::node_message;
use crate::types::{LeaderEpoch, NodeId, Offset, TopicPartition, Uuid};

node_message! {
    /// The request has arrived. What becomes of it is not said.
    pub struct Received = Tag::Received {}
}

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Readable, Writable)]
#[speedy(tag_type = u16)]
pub enum Refusal {
    /// Its tag is not known here, or is no request's.
    #[speedy(tag = 0)]
    UnknownTag,
    /// It cannot be read.
    #[speedy(tag = 1)]
    Malformed,
    /// It is not served on this lane, or not by this node.
    #[speedy(tag = 2)]
    NotServed,
}

node_message! {
    /// The request was not looked into; nothing was done.
    pub struct Rejected = Tag::Rejected {
        /// Why.
        refusal: Refusal,
    }
}

node_message! {
    /// One voter's Raft message to another. It is the frame's payload, as it may be longer than a head.
    pub struct Raft = Tag::Raft {}
}

impl NodeRequest for Raft {
    type Answer = Received;
}

node_message! {
    /// A broker is there.
    pub struct Heartbeat = Tag::Heartbeat {
        /// The broker: whoever its certificate names, or the heartbeat is refused.
        node_id: NodeId,
        /// Its registration.
        broker_epoch: i64,
        /// Index of the last entry of the metadata log that it has applied.
        metadata_index: u64,
        /// Log directories that have failed since it started.
        offline_log_dirs: Vec<Uuid>,
    }
}

impl NodeRequest for Heartbeat {
    type Answer = HeartbeatAnswer;
}

/// What a heartbeat met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Readable, Writable)]
#[speedy(tag_type = u16)]
pub enum HeartbeatResult {
    /// The controller has heard it.
    #[speedy(tag = 0)]
    Heard {
        /// Whether the broker is fenced.
        fenced: bool,
    },
    /// This node is not the controller.
    #[speedy(tag = 1)]
    NotController {
        /// Who is, if that is known.
        leader: Option<NodeId>,
    },
    /// The controller does not know this broker, or not under this registration.
    #[speedy(tag = 2)]
    Refused(ErrorCode),
}

node_message! {
    /// The answer to a heartbeat.
    pub struct HeartbeatAnswer = Tag::HeartbeatAnswer {
        /// What it met.
        result: HeartbeatResult,
    }
}

node_message! {
    /// The process of a broker is dead: whoever ran it has reaped it, so that nothing living is fenced by this.
    pub struct Death = Tag::Death {
        /// The broker: whoever's supervisor its certificate names, or this is refused.
        node_id: NodeId,
        /// The registration that the process had.
        broker_epoch: i64,
    }
}

impl NodeRequest for Death {
    type Answer = HeartbeatAnswer;
}

/// A follower's durable end of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Readable, Writable)]
pub struct PartitionConfirm {
    /// The partition.
    pub partition: TopicPartition,
    /// The leadership under which the follower's log was found to match.
    pub leader_epoch: LeaderEpoch,
    /// The follower's life within its process.
    pub incarnation: u64,
    /// Its durable end.
    pub confirmed_offset: Offset,
}

node_message! {
    /// Syncs have moved a follower's durable ends, of partitions that the receiver leads.
    pub struct Confirm = Tag::Confirm {
        /// The follower's registration.
        broker_epoch: i64,
        /// The partitions, each once.
        partitions: Vec<PartitionConfirm>,
    }
}

impl NodeRequest for Confirm {
    type Answer = Received;
}
