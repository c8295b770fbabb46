//! Replicas as actors on three nodes in one process: their fetchers, leaders that answer followers, links that can be cut, and the
//! controller's real decisions.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod failures;
mod fetching;
mod rules;
mod serving;
mod wire;
mod world;
