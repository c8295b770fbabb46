//! The leader's side of a follower's fetch: answered from what the replica has published, so that no reader waits behind the writer.
//! Invariant: a fetch that was found valid is counted before anybody waits; a parked one leaves every list of waiters with its answer, however
//! it ends.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use madang_actors::clock::Mono;
use madang_actors::mailbox::{Admission, SendError};
use madang_actors::waiters::{ListFull, Waiter};
use madang_protocol::error_code::ErrorCode;
use madang_protocol::types::{LeaderEpoch, Offset, TopicPartition};
use madang_storage::mutants::mutant;

use super::links::{CoalescedFetch, FetchAnswers};
use super::replication::{Confirmed, FetchAnswer, FetchBody, FetchPosition, Fetched, FollowerFetch, Known};
use super::throttle::Throttle;
use super::{Durability, ReplicaHandle, ReplicaMessage, ReplicaSnapshot};

/// A parked fetch does not outlive its asker's patience by more than that.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The most bytes of records that one answer holds in memory, whatever was asked for.
const MOST_BYTES: usize = 64 << 20;

/// A future that stays on its thread.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// The surroundings of a leader that answers followers.
pub trait ServingEnv {
    /// The monotonic clock.
    fn now(&self) -> Mono;
    /// Resolves at `at`.
    fn sleep_until(&self, at: Mono) -> LocalFuture<()>;
    /// The replica of a partition on this node, if it has one.
    fn replica(&self, partition: &TopicPartition) -> Option<ReplicaHandle>;
    /// The throttle of followers of this partition that are not in sync, and its rate in bytes a second; none if there is none.
    fn throttle(&self, _: &TopicPartition) -> Option<(Arc<Throttle>, u64)> {
        None
    }
    /// Runs work that may wait for a disk where it holds nobody up. None if it panicked.
    fn read<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> LocalFuture<Option<T>>;
}

/// Answers the fetches of one node's followers, at once if any of them is told something new, else when one is or the wait is over. Those that
/// have nothing to hear are left out. Whoever calls this has checked that the fetches carry the id of the node that sent them.
pub async fn answer<E: ServingEnv>(env: &E, asked: CoalescedFetch) -> FetchAnswers {
    let deadline = env.now() + asked.max_wait.min(LONGEST_WAIT);
    let mut parked = Parked::new(env, asked);
    let all: Vec<usize> = (0..parked.parts.len()).collect();
    parked.look(env, &all).await;
    // A list that is full: the follower asks again, as after an empty wait.
    if parked.is_enough() || env.now() >= deadline || parked.register().is_err() {
        return parked.finish();
    }
    // Registered first, looked again after: what came in between is not missed.
    parked.look(env, &all).await;
    let mut over = env.sleep_until(deadline);
    while !parked.is_enough() && env.now() < deadline {
        let woken = parked.woken(&mut over).await;
        parked.look(env, &woken).await;
    }
    parked.finish()
}

/// Takes word of followers' durable ends. What a replica cannot take now is told again by the follower's next fetch.
pub fn take_confirmed<E: ServingEnv>(env: &E, confirmed: Vec<(TopicPartition, Confirmed)>) {
    for (partition, confirmed) in confirmed {
        if let Some(replica) = env.replica(&partition) {
            drop(replica.actor().try_send(ReplicaMessage::Confirmed(confirmed)));
        }
    }
}

/// One partition of a request.
struct Part {
    partition: TopicPartition,
    fetch: FollowerFetch,
    replica: Option<ReplicaHandle>,
    /// The high watermark that the follower knows from an earlier answer: as it says itself, or else as far as is known here.
    told: Option<Offset>,
    /// The life of the leader that has counted this fetch, or will.
    counted: Option<u64>,
    answer: FetchAnswer,
}

impl Part {
    fn snapshot(&self) -> Result<Arc<ReplicaSnapshot>, ErrorCode> {
        let replica = self.replica.as_ref().ok_or(ErrorCode::UnknownTopicOrPartition)?;
        replica.led_snapshot(LeaderEpoch::NONE)
    }

    /// Has the fetch counted by the life of the leader that would serve it, once, if it is valid; answers the message if it has to wait for room.
    ///
    /// # Errors
    /// The leader does not run now, although what it has published can be read: the follower has to ask again, or the next life would not hear of
    /// it before the wait is over.
    fn count(&mut self, now: Mono, snapshot: &ReplicaSnapshot) -> Result<Option<Admission<ReplicaMessage>>, ErrorCode> {
        let leader_incarnation = snapshot.incarnation;
        let Some(replica) = &self.replica else { return Ok(None) };
        if self.counted == Some(leader_incarnation) || snapshot.judge(&self.fetch.position).is_err() {
            return Ok(None);
        }
        let (actor, fetch) = (replica.actor(), self.fetch);
        if replica.shared().has_counted(now, &fetch, leader_incarnation) {
            self.counted = Some(leader_incarnation);
            return Ok(None);
        }
        let admission = match actor.try_send(ReplicaMessage::Fetched(Fetched { fetch, leader_incarnation })) {
            Ok(()) => {
                replica.shared().counts(now, fetch, leader_incarnation);
                None
            }
            Err(SendError::Full(fetched)) => Some(actor.admit(fetched)),
            Err(_) => return Err(ErrorCode::NotLeaderOrFollower),
        };
        self.counted = Some(leader_incarnation);
        Ok(admission)
    }

    /// The throttle that the follower is under, if it is not in sync.
    fn throttle<E: ServingEnv>(&self, env: &E, snapshot: &ReplicaSnapshot) -> Option<(Arc<Throttle>, u64)> {
        let in_sync = snapshot.maximal_isr.contains(&self.fetch.node_id);
        if in_sync { None } else { env.throttle(&self.partition) }
    }

    fn is_held_back<E: ServingEnv>(&self, env: &E, snapshot: &Result<Arc<ReplicaSnapshot>, ErrorCode>) -> bool {
        let throttle = snapshot.as_ref().ok().and_then(|snapshot| self.throttle(env, snapshot));
        throttle.is_some_and(|(throttle, rate)| !throttle.has_room(env.now(), rate))
    }

    /// Counts what goes out against the throttle.
    fn sends<E: ServingEnv>(&self, env: &E, bytes: usize) {
        let snapshot = if bytes > 0 { self.snapshot().ok() } else { None };
        if let Some((throttle, rate)) = snapshot.and_then(|snapshot| self.throttle(env, &snapshot)) {
            throttle.sent(env.now(), rate, bytes);
        }
    }

    /// Whether the follower has all that the answer says, as it says itself, and nothing to add: then it need not even be told that there is nothing.
    fn is_idle(&self) -> bool {
        let FetchBody::Records { records, high_watermark, log_start_offset } = &self.answer.body else { return false };
        let known = Known { high_watermark: *high_watermark, log_start_offset: *log_start_offset };
        let position = &self.fetch.position;
        // Word of a durable end may get lost; the next fetch tells it, and that comes from the replica.
        let is_confirmed = || position.confirmed_offset >= position.fetch_offset;
        let by_pages = |replica: &ReplicaHandle| replica.shared().config().durability == Durability::PageCache;
        records.is_empty()
            && position.known == Some(known)
            && (is_confirmed() || self.replica.as_ref().is_some_and(by_pages))
    }

    /// Whether the follower is to hear of it now.
    fn is_news(&self) -> bool {
        match &self.answer.body {
            FetchBody::Records { records, high_watermark, .. } => {
                !records.is_empty() || self.told != Some(*high_watermark)
            }
            FetchBody::Diverging { .. } | FetchBody::BelowStart { .. } | FetchBody::Error(_) => true,
        }
    }
}

/// What is read of one partition.
struct Job {
    /// Its place in the request.
    at: usize,
    position: FetchPosition,
    /// From where.
    snapshot: Result<Arc<ReplicaSnapshot>, ErrorCode>,
    /// Whether the follower is held back now.
    held_back: bool,
}

/// A request that is being answered.
struct Parked {
    parts: Vec<Part>,
    max_bytes: usize,
    waiter: Waiter,
    /// Fetches that count and for which a mailbox has no room yet.
    admissions: Vec<Admission<ReplicaMessage>>,
}

impl Parked {
    fn new<E: ServingEnv>(env: &E, asked: CoalescedFetch) -> Self {
        let part = |(partition, fetch): (TopicPartition, FollowerFetch)| {
            let replica = env.replica(&partition);
            let told = || replica.as_ref().and_then(|replica| replica.shared().told(&fetch));
            let told = fetch.position.known.map(|known| known.high_watermark).or_else(told);
            let answer = FetchAnswer::refused(&fetch.position, ErrorCode::KafkaStorageError);
            Part { partition, fetch, replica, told, counted: None, answer }
        };
        Self {
            parts: asked.partitions.into_iter().map(part).collect(),
            max_bytes: asked.max_bytes.min(MOST_BYTES),
            waiter: Waiter::new(),
            admissions: Vec::new(),
        }
    }

    fn is_enough(&self) -> bool {
        self.parts.is_empty() || self.parts.iter().any(Part::is_news)
    }

    fn register(&mut self) -> Result<(), ListFull> {
        for (at, part) in self.parts.iter().enumerate() {
            if let Some(replica) = &part.replica {
                self.waiter.register(replica.waiters(), at as u64)?;
            }
        }
        Ok(())
    }

    /// Has those fetches counted that are valid, and then reads, each partition through one snapshot.
    async fn look<E: ServingEnv>(&mut self, env: &E, which: &[usize]) {
        let mut jobs: Vec<Job> = Vec::with_capacity(which.len());
        for at in which {
            let Some(part) = self.parts.get_mut(*at) else { continue };
            let mut snapshot = part.snapshot();
            if let Ok(published) = &snapshot {
                match part.count(env.now(), published) {
                    Ok(admission) => self.admissions.extend(admission),
                    Err(error) => snapshot = Err(error),
                }
            }
            let held_back = part.is_held_back(env, &snapshot);
            jobs.push(Job { at: *at, position: part.fetch.position, snapshot, held_back });
        }
        let max_bytes = self.max_bytes;
        let found = if jobs.iter().all(finds_without_waiting) {
            Some(read(jobs, max_bytes))
        } else {
            env.read(move || read(jobs, max_bytes)).await
        };
        // A read that panicked leaves the answers as they were.
        for (at, answer) in found.unwrap_or_default() {
            if let Some(part) = self.parts.get_mut(at) {
                part.sends(env, answer.size_in_bytes());
                part.answer = answer;
            }
        }
    }

    /// The places of the partitions that have published something; none once `over` is ready.
    async fn woken(&mut self, over: &mut LocalFuture<()>) -> Vec<usize> {
        poll_fn(|context| {
            self.admissions.retain_mut(|admission| Pin::new(admission).poll(context).is_pending());
            if !mutant(40)
                && let Poll::Ready(tags) = self.waiter.poll_woken(context)
            {
                return Poll::Ready(tags.into_iter().filter_map(|tag| usize::try_from(tag).ok()).collect());
            }
            over.as_mut().poll(context).map(|()| Vec::new())
        })
        .await
    }

    fn finish(self) -> FetchAnswers {
        let mut answers = Vec::with_capacity(self.parts.len());
        for part in self.parts.into_iter().filter(|part| !part.is_idle()) {
            if let (FetchBody::Records { high_watermark, .. }, Some(replica)) = (&part.answer.body, &part.replica) {
                replica.shared().tell(&part.fetch, *high_watermark);
            }
            answers.push((part.partition, part.answer));
        }
        // Whom the limit has left without records asks again first.
        answers.sort_by_key(|(_, answer)| answer.size_in_bytes() > 0);
        answers
    }
}

fn finds_without_waiting(job: &Job) -> bool {
    let found = |snapshot: &Arc<ReplicaSnapshot>| snapshot.view.finds_without_waiting(job.position.fetch_offset);
    job.snapshot.as_ref().map_or(true, found)
}

fn read(jobs: Vec<Job>, max_bytes: usize) -> Vec<(usize, FetchAnswer)> {
    let (mut left, mut anything) = (max_bytes, false);
    let mut found = Vec::with_capacity(jobs.len());
    for Job { at, position, snapshot, held_back } in jobs {
        let answer = match snapshot {
            // Told of the high watermark all the same.
            Ok(snapshot) if held_back => snapshot.answer_within(&position, 0, false).0,
            Ok(snapshot) => snapshot.answer_within(&position, left, !anything).0,
            Err(error) => FetchAnswer::refused(&position, error),
        };
        let size = answer.size_in_bytes();
        left = left.saturating_sub(size);
        anything |= size > 0;
        found.push((at, answer));
    }
    found
}
