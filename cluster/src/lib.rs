//! Who holds what and how it is copied: metadata, controller, replicas, coordinators. Pure state machines with thin actor shells.

pub mod configs;
pub mod controller;
pub mod coordinator;
pub mod metadata;
pub mod peers;
pub mod replica;
pub mod request;
