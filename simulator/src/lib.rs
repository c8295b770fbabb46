//! A node and its clients in one seeded thread: the real machines over a disk that fails, under invariants.
//!
//! `world` runs a seed, `sweep` cuts a fixed scenario at each of its disk operations, `explorer` tries every order of a few events,
//! `planted` shows that planted bugs are found.

pub mod clients;
pub mod cluster;
pub mod coverage;
pub mod cuts;
pub mod executor;
pub mod explorer;
pub mod explorer_nodes;
pub mod faults;
pub mod history;
pub mod invariants;
pub mod metadata_size;
pub mod node;
pub mod planted;
pub mod quorum;
pub mod scenario;
pub mod sim;
pub mod swarm;
pub mod sweep;
pub mod world;
