//! Incremental fetch sessions (KIP-227): what a client asked for last, and what it was told last.
//! Invariant: at most `slots` sessions, each under one lock that is never held across an await.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use madang_actors::clock::Mono;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::types::TopicId;

/// The epoch of a full fetch that opens a session.
const INITIAL_EPOCH: i32 = 0;
/// The epoch of a full fetch that closes its session, or wants none.
const FINAL_EPOCH: i32 = -1;
/// A session that was not used for this long makes room for a new one (`min.incremental.fetch.session.eviction.ms`).
const EVICTION_AGE: Duration = Duration::from_secs(120);

/// A topic as the request named it: by id from version 13, by name before.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TopicKey {
    /// Versions up to 12.
    Name(Arc<str>),
    /// Version 13 and later.
    Id(TopicId),
}

/// One partition of a fetch, by what the request calls it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionKey {
    /// The topic.
    pub topic: TopicKey,
    /// The partition's index.
    pub partition: i32,
}

/// What a client asks of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionFetch {
    /// The offset it wants next.
    pub fetch_offset: i64,
    /// The leader epoch it believes in, -1 for none.
    pub current_leader_epoch: i32,
    /// The epoch of the last record it has, -1 for none.
    pub last_fetched_epoch: i32,
    /// The most bytes it wants from this partition.
    pub max_bytes: i32,
}

/// What a client was last told of one partition; an incremental answer leaves out what has not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    high_watermark: i64,
    log_start_offset: i64,
}

const NOTHING_TOLD: Told = Told { high_watermark: -1, log_start_offset: -1 };

/// What an answer says of one partition, as far as the session must know it.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// Whether it carries records.
    pub has_records: bool,
    /// Whether it must be sent whatever it says: an error, a diverging epoch, a preferred replica.
    pub must_be_sent: bool,
    /// The high watermark it tells.
    pub high_watermark: i64,
    /// The log start offset it tells.
    pub log_start_offset: i64,
}

#[derive(Debug)]
struct Entry {
    key: PartitionKey,
    fetch: PartitionFetch,
    told: Told,
}

#[derive(Debug)]
struct Session {
    uses_topic_ids: bool,
    epoch: i32,
    last_used: Mono,
    /// In the order in which partitions are served: one that gave records goes to the end.
    entries: BTreeMap<u64, Entry>,
    places: HashMap<PartitionKey, u64>,
    next_place: u64,
}

impl Session {
    fn new(uses_topic_ids: bool, now: Mono) -> Self {
        Self {
            uses_topic_ids,
            epoch: 1,
            last_used: now,
            entries: BTreeMap::new(),
            places: HashMap::new(),
            next_place: 0,
        }
    }

    fn set(&mut self, key: PartitionKey, fetch: PartitionFetch) {
        if let Some(entry) = self.places.get(&key).and_then(|place| self.entries.get_mut(place)) {
            entry.fetch = fetch;
            return;
        }
        let place = self.next_place;
        self.next_place += 1;
        self.places.insert(key.clone(), place);
        self.entries.insert(place, Entry { key, fetch, told: NOTHING_TOLD });
    }

    fn forget(&mut self, key: &PartitionKey) {
        if let Some(place) = self.places.remove(key) {
            self.entries.remove(&place);
        }
    }

    fn move_to_the_end(&mut self, key: &PartitionKey) {
        let Some(place) = self.places.get_mut(key) else { return };
        if let Some(entry) = self.entries.remove(place) {
            *place = self.next_place;
            self.entries.insert(self.next_place, entry);
            self.next_place += 1;
        }
    }

    /// Whether the partition belongs into an incremental answer; remembers what it tells.
    fn tell(&mut self, key: &PartitionKey, answered: Answered) -> bool {
        let Some(entry) = self.places.get(key).and_then(|place| self.entries.get_mut(place)) else { return true };
        let now = Told { high_watermark: answered.high_watermark, log_start_offset: answered.log_start_offset };
        let changed = entry.told != now;
        // After an error the client must be told the state again, whatever it was told before.
        entry.told = if answered.must_be_sent { NOTHING_TOLD } else { now };
        if answered.has_records {
            self.move_to_the_end(key);
        }
        changed || answered.must_be_sent || answered.has_records
    }
}

/// The partitions that one fetch is about.
#[derive(Debug)]
pub struct FetchPlan {
    /// What to read, in the order in which to read it.
    pub partitions: Vec<(PartitionKey, PartitionFetch)>,
    kind: PlanKind,
}

#[derive(Debug)]
enum PlanKind {
    Sessionless,
    /// A full fetch that opens a session if there is room.
    Opening {
        uses_topic_ids: bool,
    },
    Incremental {
        id: i32,
        session: Arc<Mutex<Session>>,
    },
}

/// A fetch request, as far as sessions are concerned.
#[derive(Debug)]
pub struct SessionRequest {
    /// The session it names, 0 for none.
    pub session_id: i32,
    /// The session epoch it names.
    pub session_epoch: i32,
    /// Whether it names topics by id.
    pub uses_topic_ids: bool,
    /// The partitions it lists.
    pub partitions: Vec<(PartitionKey, PartitionFetch)>,
    /// The partitions it no longer wants.
    pub forgotten: Vec<PartitionKey>,
}

/// All sessions of a node.
#[derive(Debug)]
pub struct FetchSessions {
    slots: usize,
    sessions: Mutex<BTreeMap<i32, Arc<Mutex<Session>>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while the lock was held leaves a session that is whole: every change to it is a single insert or remove.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FetchSessions {
    /// Room for `slots` sessions (`max.incremental.fetch.session.cache.slots`).
    #[must_use]
    pub const fn new(slots: usize) -> Self {
        Self { slots, sessions: Mutex::new(BTreeMap::new()) }
    }

    /// How many sessions are open.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.sessions).len()
    }

    /// Whether no session is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Works out which partitions a fetch is about.
    ///
    /// # Errors
    /// `FETCH_SESSION_ID_NOT_FOUND`, `INVALID_FETCH_SESSION_EPOCH` or `FETCH_SESSION_TOPIC_ID_ERROR`: the client opens a new session.
    pub fn begin(&self, now: Mono, request: SessionRequest) -> Result<FetchPlan, ErrorCode> {
        let full = matches!(request.session_epoch, INITIAL_EPOCH | FINAL_EPOCH);
        if full {
            if request.session_id != 0 {
                lock(&self.sessions).remove(&request.session_id);
            }
            let kind = if request.session_epoch == FINAL_EPOCH {
                PlanKind::Sessionless
            } else {
                PlanKind::Opening { uses_topic_ids: request.uses_topic_ids }
            };
            return Ok(FetchPlan { partitions: request.partitions, kind });
        }
        self.begin_incremental(now, request)
    }

    fn begin_incremental(&self, now: Mono, request: SessionRequest) -> Result<FetchPlan, ErrorCode> {
        let id = request.session_id;
        let shared = lock(&self.sessions).get(&id).cloned().ok_or(ErrorCode::FetchSessionIdNotFound)?;
        let mut session = lock(&shared);
        if session.epoch != request.session_epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.uses_topic_ids != request.uses_topic_ids {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        for (key, fetch) in request.partitions {
            session.set(key, fetch);
        }
        for key in &request.forgotten {
            session.forget(key);
        }
        if session.entries.is_empty() {
            drop(session);
            lock(&self.sessions).remove(&id);
            return Ok(FetchPlan { partitions: Vec::new(), kind: PlanKind::Sessionless });
        }
        session.epoch = if session.epoch == i32::MAX { 1 } else { session.epoch + 1 };
        session.last_used = now;
        let partitions = session.entries.values().map(|entry| (entry.key.clone(), entry.fetch)).collect();
        drop(session);
        Ok(FetchPlan { partitions, kind: PlanKind::Incremental { id, session: shared } })
    }

    /// Ends a fetch: the session id to answer with, and for each partition of `answers`, in order, whether to send it.
    ///
    /// `random` names a new session; it is asked again while the name is taken.
    pub fn finish(
        &self,
        now: Mono,
        plan: &FetchPlan,
        answers: &[(PartitionKey, Answered)],
        random: impl FnMut() -> u64,
    ) -> (i32, Vec<bool>) {
        match &plan.kind {
            PlanKind::Sessionless => (0, vec![true; answers.len()]),
            PlanKind::Opening { uses_topic_ids } => {
                (self.open(now, *uses_topic_ids, plan, answers, random), vec![true; answers.len()])
            }
            PlanKind::Incremental { id, session } => {
                let mut session = lock(session);
                (*id, answers.iter().map(|(key, answered)| session.tell(key, *answered)).collect())
            }
        }
    }

    fn open(
        &self,
        now: Mono,
        uses_topic_ids: bool,
        plan: &FetchPlan,
        answers: &[(PartitionKey, Answered)],
        mut random: impl FnMut() -> u64,
    ) -> i32 {
        let mut sessions = lock(&self.sessions);
        if sessions.len() >= self.slots && !Self::evict(&mut sessions, now) {
            return 0;
        }
        let mut session = Session::new(uses_topic_ids, now);
        for (key, fetch) in &plan.partitions {
            session.set(key.clone(), *fetch);
        }
        for (key, answered) in answers {
            session.tell(key, *answered);
        }
        loop {
            let id = (random() & 0x7fff_ffff) as i32;
            if id != 0 && !sessions.contains_key(&id) {
                sessions.insert(id, Arc::new(Mutex::new(session)));
                return id;
            }
        }
    }

    fn evict(sessions: &mut BTreeMap<i32, Arc<Mutex<Session>>>, now: Mono) -> bool {
        let oldest = sessions.iter().map(|(&id, session)| (lock(session).last_used, id)).min();
        match oldest {
            Some((last_used, id)) if now - last_used >= EVICTION_AGE => sessions.remove(&id).is_some(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(partition: i32) -> PartitionKey {
        PartitionKey { topic: TopicKey::Name("t".into()), partition }
    }

    fn fetch(fetch_offset: i64) -> PartitionFetch {
        PartitionFetch { fetch_offset, current_leader_epoch: -1, last_fetched_epoch: -1, max_bytes: 1 << 20 }
    }

    fn request(session_id: i32, session_epoch: i32, partitions: &[i32]) -> SessionRequest {
        SessionRequest {
            session_id,
            session_epoch,
            uses_topic_ids: false,
            partitions: partitions.iter().map(|&p| (key(p), fetch(0))).collect(),
            forgotten: Vec::new(),
        }
    }

    fn answers(partitions: &[i32], high_watermark: i64, has_records: bool) -> Vec<(PartitionKey, Answered)> {
        let answered = Answered { has_records, must_be_sent: false, high_watermark, log_start_offset: 0 };
        partitions.iter().map(|&p| (key(p), answered)).collect()
    }

    fn opened(sessions: &FetchSessions, partitions: &[i32]) -> i32 {
        let plan = sessions.begin(Mono::ZERO, request(0, 0, partitions)).unwrap();
        sessions.finish(Mono::ZERO, &plan, &answers(partitions, 5, false), || 7 + sessions.slots as u64).0
    }

    #[test]
    fn an_incremental_answer_leaves_out_what_has_not_changed() {
        let sessions = FetchSessions::new(10);
        let id = opened(&sessions, &[0, 1]);
        let plan = sessions.begin(Mono::ZERO, request(id, 1, &[])).unwrap();
        assert_eq!(plan.partitions.len(), 2);
        let mut told = answers(&[0, 1], 5, false);
        told[1].1.high_watermark = 6;
        assert_eq!(sessions.finish(Mono::ZERO, &plan, &told, || 1), (id, vec![false, true]));
    }

    #[test]
    fn a_partition_that_gave_records_is_served_last_the_next_time() {
        let sessions = FetchSessions::new(10);
        let id = opened(&sessions, &[0, 1, 2]);
        let plan = sessions.begin(Mono::ZERO, request(id, 1, &[])).unwrap();
        sessions.finish(Mono::ZERO, &plan, &answers(&[0], 9, true), || 1);
        let plan = sessions.begin(Mono::ZERO, request(id, 2, &[])).unwrap();
        let order: Vec<i32> = plan.partitions.iter().map(|(key, _)| key.partition).collect();
        assert_eq!(order, [1, 2, 0]);
    }

    #[test]
    fn a_wrong_epoch_an_unknown_id_and_mixed_naming_are_refused() {
        let sessions = FetchSessions::new(10);
        let id = opened(&sessions, &[0]);
        let refused = |request| sessions.begin(Mono::ZERO, request).unwrap_err();
        assert_eq!(refused(request(id, 2, &[])), ErrorCode::InvalidFetchSessionEpoch);
        assert_eq!(refused(request(id + 1, 1, &[])), ErrorCode::FetchSessionIdNotFound);
        let by_id = SessionRequest { uses_topic_ids: true, ..request(id, 1, &[]) };
        assert_eq!(refused(by_id), ErrorCode::FetchSessionTopicIdError);
    }

    #[test]
    fn forgetting_the_last_partition_closes_the_session() {
        let sessions = FetchSessions::new(10);
        let id = opened(&sessions, &[0]);
        let plan =
            sessions.begin(Mono::ZERO, SessionRequest { forgotten: vec![key(0)], ..request(id, 1, &[]) }).unwrap();
        assert!(plan.partitions.is_empty());
        assert!(sessions.is_empty());
    }

    #[test]
    fn a_full_cache_gives_no_session_until_one_is_old() {
        let sessions = FetchSessions::new(1);
        assert_ne!(opened(&sessions, &[0]), 0);
        assert_eq!(opened(&sessions, &[0]), 0);
        let later = Mono::new(EVICTION_AGE);
        let plan = sessions.begin(later, request(0, 0, &[3])).unwrap();
        assert_ne!(sessions.finish(later, &plan, &answers(&[3], 0, false), || 99).0, 0);
        assert_eq!(sessions.len(), 1);
    }

    #[test]
    fn an_error_is_sent_and_the_state_told_again_after_it() {
        let sessions = FetchSessions::new(10);
        let id = opened(&sessions, &[0]);
        let plan = sessions.begin(Mono::ZERO, request(id, 1, &[])).unwrap();
        let mut told = answers(&[0], 5, false);
        told[0].1.must_be_sent = true;
        assert_eq!(sessions.finish(Mono::ZERO, &plan, &told, || 1).1, [true]);
        let plan = sessions.begin(Mono::ZERO, request(id, 2, &[])).unwrap();
        assert_eq!(sessions.finish(Mono::ZERO, &plan, &answers(&[0], 5, false), || 1).1, [true]);
    }
}
