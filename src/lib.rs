//! The node: Kafka's APIs over the cluster's machines, the supervision tree, the command line.

pub mod admin;
pub mod apis;
pub mod applier;
pub mod boot;
pub mod broker;
pub mod certificates;
pub mod changes;
mod cleaner;
pub mod cli;
mod cluster_page;
mod connections;
pub mod directory;
pub mod env;
#[cfg(feature = "failpoints")]
mod failpoints;
pub mod fetch_sessions;
pub mod follower;
pub mod found;
pub mod group_placement;
pub mod node_env;
pub mod outer;
pub mod peers;
pub mod producer_ids;
pub mod quic_listener;
mod quorum_page;
pub mod replicas;
pub mod server;
pub mod supervise;
pub mod supervision;
