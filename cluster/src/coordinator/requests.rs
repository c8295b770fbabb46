//! The requests that have no answer yet.
//! Invariant: every request is answered exactly once; one that outlives its step is parked in a group.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::message::{Effect, Ticket};
use super::response::Response;
use crate::request::RequestId;

/// Unanswered requests, each with the group that parks it.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Requests {
    open: BTreeMap<RequestId, Option<Arc<str>>>,
}

impl Requests {
    pub(crate) fn open(&mut self, request: RequestId) {
        assert!(self.open.insert(request, None).is_none(), "request {request:?} is already open");
    }

    pub(crate) fn park(&mut self, request: RequestId, group: &Arc<str>) {
        let place = self.open.get_mut(&request);
        assert!(place.is_some(), "request {request:?} is parked after its answer");
        if let Some(place) = place {
            *place = Some(group.clone());
        }
    }

    pub(crate) fn reply(
        &mut self,
        request: RequestId,
        response: Response,
        after: Option<Ticket>,
        effects: &mut Vec<Effect>,
    ) {
        assert!(self.open.remove(&request).is_some(), "request {request:?} is answered twice");
        effects.push(Effect::Reply { request, response, after });
    }

    /// Whether `request` waits in `group`.
    pub(crate) fn is_parked_in(&self, request: RequestId, group: &str) -> bool {
        self.open.get(&request).is_some_and(|place| place.as_deref() == Some(group))
    }

    /// Whether `request` has no answer and waits nowhere.
    pub(crate) fn is_lost(&self, request: RequestId) -> bool {
        self.open.get(&request).is_some_and(Option::is_none)
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}
