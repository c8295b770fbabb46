//! Which replica a consumer reads from: the leader, or a follower in its rack (KIP-392).
//! Invariant: a consumer is sent only to a replica that is in sync and that it can reach on its own listener.

use std::sync::Arc;

use madang_cluster::metadata::PartitionImage;
use madang_cluster::replica::{ReplicaHandle, ReplicaSnapshot};
use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::fetch::FetchRequest;
use madang_protocol::types::{LeaderEpoch, NodeId};

use crate::apis::locate::{self, Place};
use crate::env::{Client, Env};
use crate::fetch_sessions::PartitionKey;

/// The first version in which a consumer says where it stands, and may read from followers.
const RACKS: i16 = 11;

/// Who reads: on which listener, and where it stands.
pub(super) struct Reader {
    pub(super) listener: Arc<str>,
    rack: String,
    /// Whether followers serve it.
    from_followers: bool,
}

impl Reader {
    pub(super) fn of(client: &Client, request: &FetchRequest<'_>, version: i16) -> Self {
        let (listener, rack) = (Arc::clone(&client.listener), request.rack_id.to_string());
        Self { listener, rack, from_followers: version >= RACKS }
    }

    /// Where the partition is read from.
    pub(super) fn source<E: Env>(&self, env: &E, key: &PartitionKey) -> Result<Source, ErrorCode> {
        let Place { replica, leads, state } = locate::place(env, &key.topic, key.partition)?;
        if !leads && !self.from_followers {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        let sends_on = leads && self.from_followers && !self.rack.is_empty() && env.config().rack_aware_reads;
        let nearer = if sends_on { self.nearer(env, key.partition, &state) } else { None };
        Ok(Source { replica, leads, nearer })
    }

    /// A replica in the reader's rack, where the leader is in another one. It has to be in sync: all below the high watermark it has then.
    fn nearer<E: Env>(&self, env: &E, partition: i32, state: &PartitionImage) -> Option<NodeId> {
        let (image, gone) = (env.image(), env.gone());
        let is_near = |node: &NodeId| {
            locate::serving(&image, &gone, *node).is_some_and(|broker| {
                broker.rack.as_deref() == Some(&*self.rack) && broker.endpoint(&self.listener).is_some()
            })
        };
        if is_near(&state.leader) {
            return None;
        }
        let near: Vec<NodeId> = state.in_sync_replicas.iter().copied().filter(is_near).collect();
        // Several of them share the partitions.
        let turn = usize::try_from(partition).unwrap_or(0).checked_rem(near.len())?;
        near.get(turn).copied()
    }
}

/// What a partition is read from.
pub(super) struct Source {
    pub(super) replica: ReplicaHandle,
    leads: bool,
    /// A nearer replica that the reader may be sent to.
    pub(super) nearer: Option<NodeId>,
}

impl Source {
    pub(super) fn snapshot(&self, believed: LeaderEpoch) -> Result<Arc<ReplicaSnapshot>, ErrorCode> {
        if self.leads { self.replica.snapshot_for(believed) } else { self.replica.snapshot_of_follower(believed) }
    }
}
