//! The explorer in its three-node form: the real replicas over faulty disks in memory and the controller's real decisions over an atomic log,
//! three records, every order of deliveries, syncs, panics, kills, power cuts, registrations, proposals and fencing, breadth first from named
//! situations, each state once.
//! Invariant: a path is replayed from its start, so a state depends on its path alone.

mod cluster;
mod controller;
mod faults;
mod fetching;
mod node;
pub mod planted;
mod search;
pub mod situations;

pub use self::cluster::{Cluster, Event};
pub use self::search::{Explored, run, run_all};

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use madang_cluster::replica::{Durability, ReplicaConfig};
use madang_protocol::record_batch::{BatchBuilder, BatchOptions, ProduceRules};
use madang_storage::LogConfig;

use crate::sim::Violation;

/// Nodes, which are numbered from 1.
pub const NODES: i32 = 3;
/// Records that clients send on one path.
const RECORDS: u8 = 3;
/// `min.insync.replicas`.
pub const MIN_IN_SYNC: usize = 2;

/// What is explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// When a record counts as stored.
    pub durability: Durability,
    /// Panics, kills, power cuts, losses, silences, fencings and lost answers on one path, those of the situation aside.
    pub faults: usize,
}

fn broken(code: &'static str, what: impl Into<String>) -> Violation {
    Violation { code, what: what.into() }
}

fn directory() -> PathBuf {
    PathBuf::from("/data/orders-0")
}

fn record(number: u8) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let added = builder.append(0, None, Some(&[number; 40]), &[]);
    assert!(added.is_ok(), "a record of the explorer fits");
    builder.build().unwrap_or_default()
}

fn config(durability: Durability) -> ReplicaConfig {
    ReplicaConfig {
        log: LogConfig::default(),
        produce: ProduceRules::default(),
        compaction: None,
        durability,
        min_in_sync_replicas: MIN_IN_SYNC,
        deletes_old_records: true,
        replication_factor: NODES as usize,
        in_sync_replicas: 1,
        replica_lag_time_max: Duration::from_secs(30),
    }
}
