//! One classic group: membership, rebalances and what its requests are answered.
//! Invariant: a parked request belongs to exactly one member; the generation never falls while the group lives.

mod admin;
mod classic;
mod heartbeat;
mod join;
mod leave;
mod offsets;
mod rebalance;
mod subscription;
mod sync;

use std::time::Duration;

use madang_actors::clock::{Mono, Wall};
use madang_actors::prng::Prng;

use super::ErrorCode;
use super::config::GroupConfig;
use super::message::{Effect, Ticket};
use super::requests::Requests;
use super::response::Response;
use super::store::{Change, Store};
use super::timers::{Timer, Timers};
use crate::request::RequestId;

pub(crate) use classic::Group;
pub(crate) use leave::left;
pub(crate) use offsets::{fetch, topic_deleted};

/// What a group's step may use of its shard.
pub(crate) struct Context<'a> {
    pub(crate) now: Mono,
    pub(crate) wall: Wall,
    pub(crate) rng: &'a mut Prng,
    pub(crate) effects: &'a mut Vec<Effect>,
    pub(crate) timers: &'a mut Timers,
    pub(crate) store: &'a mut Store,
    pub(crate) requests: &'a mut Requests,
    pub(crate) config: &'a GroupConfig,
    pub(crate) writable: Result<(), ErrorCode>,
}

impl Context<'_> {
    pub(crate) fn reply(&mut self, request: RequestId, response: Response, after: Option<Ticket>) {
        self.requests.reply(request, response, after, self.effects);
    }

    pub(crate) fn append(&mut self, changes: Vec<Change>) -> Option<Ticket> {
        self.store.append(changes, self.config.max_append_bytes, self.effects)
    }

    pub(crate) fn arm(&mut self, timer: Timer, after: Duration) {
        self.timers.arm(timer, self.now + after);
    }

    /// Whether an append may be tried now; if not, the error that tells the client to try again or elsewhere.
    pub(crate) fn may_append(&self) -> Result<(), ErrorCode> {
        self.writable.map_err(append_error)?;
        if self.store.appends_in_flight() >= self.config.max_appends_in_flight as u64 {
            return Err(ErrorCode::CoordinatorLoadInProgress);
        }
        Ok(())
    }
}

/// What a group's client is told when the partition refuses or fails an append.
pub(crate) fn append_error(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError | ErrorCode::NotCoordinator => {
            ErrorCode::NotCoordinator
        }
        ErrorCode::CoordinatorLoadInProgress => ErrorCode::CoordinatorLoadInProgress,
        _ => ErrorCode::CoordinatorNotAvailable,
    }
}
