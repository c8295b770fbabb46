//! `madang-load-tests chaos`: three nodes as processes, real clients, faults of every kind in a seeded order, and the judgement of what the clients saw.
//! Invariant: whatever happens, the processes, mounts and sockets of a run end with it; a fault that is required and never happened fails it.

mod cluster;
mod disk;
mod faults;
mod links;
mod load;
mod names;
mod patience;
mod ports;
mod processes;
mod proxy;
mod readers;
mod recorder;
mod report;
mod run;

pub(crate) use self::run::{Chaos, run};
