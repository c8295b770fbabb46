//! Appends that are written and wait for the high watermark.
//! Invariant: ordered by the offset they wait for; each leaves exactly once, by the high watermark or by its deadline.

use std::collections::{BTreeMap, BTreeSet};

use madang_actors::clock::Mono;
use madang_protocol::types::Offset;

use super::Appended;
use crate::request::RequestId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    appended: Appended,
    deadline: Mono,
}

/// The waiting appends of one partition.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// By the high watermark that answers them: the offset after their last record.
    waiting: BTreeMap<(Offset, RequestId), Waiting>,
    deadlines: BTreeSet<(Mono, Offset, RequestId)>,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn insert(&mut self, until: Offset, request: RequestId, appended: Appended, deadline: Mono) {
        self.waiting.insert((until, request), Waiting { appended, deadline });
        self.deadlines.insert((deadline, until, request));
    }

    /// Removes and returns what a high watermark at `high_watermark` answers, lowest offset first.
    pub(super) fn passed(&mut self, high_watermark: Offset) -> Vec<(RequestId, Appended)> {
        let mut passed = Vec::new();
        while let Some(first) = self.waiting.first_entry() {
            let (until, request) = *first.key();
            if until > high_watermark {
                break;
            }
            let waiting = first.remove();
            self.deadlines.remove(&(waiting.deadline, until, request));
            passed.push((request, waiting.appended));
        }
        passed
    }

    /// Removes and returns what has waited until its deadline.
    pub(super) fn expired(&mut self, now: Mono) -> Vec<RequestId> {
        let mut expired = Vec::new();
        while let Some(&(deadline, until, request)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            self.waiting.remove(&(until, request));
            expired.push(request);
        }
        expired
    }

    /// Removes and returns everything.
    pub(super) fn drain(&mut self) -> Vec<RequestId> {
        self.deadlines.clear();
        std::mem::take(&mut self.waiting).into_keys().map(|(_, request)| request).collect()
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        self.deadlines.first().map(|(deadline, _, _)| *deadline)
    }

    pub(super) fn check(&self, high_watermark: Offset) {
        assert_eq!(self.waiting.len(), self.deadlines.len(), "every waiting append has one deadline");
        if let Some(((until, _), _)) = self.waiting.first_key_value() {
            assert!(*until > high_watermark, "an append waits for a high watermark that has passed it");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(millis: u64) -> Mono {
        Mono::new(Duration::from_millis(millis))
    }

    fn appended(base: i64) -> Appended {
        Appended { base_offset: Offset(base), ..Appended::default() }
    }

    #[test]
    fn the_high_watermark_answers_in_offset_order_and_removes_the_deadlines() {
        let mut pending = Pending::default();
        pending.insert(Offset(9), RequestId(2), appended(5), at(10));
        pending.insert(Offset(5), RequestId(1), appended(0), at(20));
        assert_eq!(pending.passed(Offset(8)), [(RequestId(1), appended(0))]);
        assert_eq!(pending.deadline(), Some(at(10)));
        assert_eq!(pending.passed(Offset(9)), [(RequestId(2), appended(5))]);
        assert_eq!((pending.len(), pending.deadline()), (0, None));
    }

    #[test]
    fn an_expired_append_is_not_answered_again() {
        let mut pending = Pending::default();
        pending.insert(Offset(5), RequestId(1), appended(0), at(10));
        assert!(pending.expired(at(9)).is_empty());
        assert_eq!(pending.expired(at(10)), [RequestId(1)]);
        assert!(pending.passed(Offset(5)).is_empty());
    }
}
