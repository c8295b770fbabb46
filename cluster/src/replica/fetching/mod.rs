//! What a node's followers want of each remote leader, and whom the answers are for.
//! Invariant: a want is kept until it is answered, replaced or taken back, or the life that wants is over: it outlives the fetcher that asks
//! for it, so no follower waits on a fetcher that has died.

#[cfg(feature = "host")]
pub mod actor;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use madang_actors::actor_ref::{ActorRef, IncarnationRef};
use madang_actors::child_spec::Incarnation;
use madang_actors::mailbox::Capacity;
use madang_actors::messages;
use madang_protocol::types::{NodeId, TopicPartition};

use super::ReplicaMessage;
use super::fetcher::answers_to;
use super::replication::{Confirmed, FetchAnswer, FetchPosition};

messages! {
    /// What a fetcher's actor is sent.
    #[derive(Debug)]
    pub enum FetcherMessage {
        control {
            /// Somebody wants something else, or has something to tell the leader.
            Changed,
            /// What the leader was told has reached it, or is lost.
            Told,
        }
        data {
            /// The leader has answered.
            Answered {
                /// Which request.
                request: u64,
                /// An answer for each partition that it is about.
                answers: Vec<(TopicPartition, FetchAnswer)>,
            } => answers.iter().map(|(_, answer)| size_of::<FetchAnswer>() + answer.size_in_bytes()).sum::<usize>(),
            /// The request, or its answer, is lost.
            Failed {
                /// Which request.
                request: u64,
            },
        }
    }
}

/// What one life of a replica wants.
#[derive(Clone, Debug)]
struct Wanted {
    position: FetchPosition,
    replica: IncarnationRef<ReplicaMessage>,
}

#[derive(Debug, Default)]
struct Desk {
    wanted: BTreeMap<TopicPartition, Wanted>,
    /// Partitions of which the fetcher does not know yet what is wanted.
    changed: BTreeSet<TopicPartition>,
    /// Durable ends that the leader is to be told, the newest of each partition.
    confirmed: BTreeMap<TopicPartition, Confirmed>,
    /// Whether the fetcher knows that there is something new: one message is enough.
    called: bool,
}

/// The fetcher of one remote leader, as its followers reach it. Cheap to clone, valid before the fetcher starts and across its restarts.
#[derive(Clone, Debug)]
pub struct FetcherRef {
    leader: NodeId,
    desk: Arc<Mutex<Desk>>,
    actor: ActorRef<FetcherMessage>,
}

impl FetcherRef {
    /// The fetcher of `leader`, not started yet.
    #[must_use]
    pub fn new(leader: NodeId) -> Self {
        let actor = ActorRef::new(format!("fetcher-{leader}"), Capacity::default());
        Self { leader, desk: Arc::default(), actor }
    }

    /// The leader that it asks.
    #[must_use]
    pub const fn leader(&self) -> NodeId {
        self.leader
    }

    /// Its mailbox.
    #[must_use]
    pub const fn actor(&self) -> &ActorRef<FetcherMessage> {
        &self.actor
    }

    fn lock(&self) -> MutexGuard<'_, Desk> {
        // No user code runs under the lock, so a poisoned one is still whole.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The partition's follower wants this next; it replaces what it wanted before. The answer goes to that life of the replica alone.
    pub fn want(&self, partition: TopicPartition, position: FetchPosition, replica: IncarnationRef<ReplicaMessage>) {
        let mut desk = self.lock();
        desk.wanted.insert(partition, Wanted { position, replica });
        desk.changed.insert(partition);
        self.call(desk);
    }

    /// That life of the partition's replica wants nothing more. What a later one wants stays.
    pub fn forget(&self, partition: TopicPartition, incarnation: Incarnation) {
        let mut desk = self.lock();
        if desk.wanted.get(&partition).is_some_and(|wanted| wanted.replica.incarnation() == incarnation) {
            desk.wanted.remove(&partition);
            desk.changed.insert(partition);
            self.call(desk);
        }
    }

    /// Has the leader told of a durable end; a later one of the same partition replaces it.
    pub fn confirm(&self, partition: TopicPartition, confirmed: Confirmed) {
        let mut desk = self.lock();
        desk.confirmed.insert(partition, confirmed);
        self.call(desk);
    }

    /// How many partitions want something of the leader.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.lock().wanted.len()
    }

    fn call(&self, mut desk: MutexGuard<'_, Desk>) {
        if !std::mem::replace(&mut desk.called, true) {
            drop(desk);
            // A fetcher that does not run looks for itself when it starts.
            drop(self.actor.try_send(FetcherMessage::Changed));
        }
    }

    /// For whoever runs the fetcher: a life of it begins, and all that is wanted is new to it.
    pub fn begin(&self) {
        let mut desk = self.lock();
        desk.changed = desk.wanted.keys().copied().collect();
    }

    /// What has changed since the last call: what each of the partitions wants now, or that it wants nothing.
    #[must_use]
    pub fn changes(&self) -> Vec<(TopicPartition, Option<FetchPosition>)> {
        let mut desk = self.lock();
        desk.called = false;
        let changed = std::mem::take(&mut desk.changed);
        let wanted = |partition| desk.wanted.get(&partition).map(|wanted| wanted.position);
        changed.into_iter().map(|partition| (partition, wanted(partition))).collect()
    }

    /// What the leader is to be told; it is given out once.
    #[must_use]
    pub fn confirmed(&self) -> BTreeMap<TopicPartition, Confirmed> {
        std::mem::take(&mut self.lock().confirmed)
    }

    /// Hands the answer to the life that wants it, if it still does. One that cannot take it now is asked for again, after a while.
    pub fn deliver(&self, partition: TopicPartition, answer: FetchAnswer) {
        let mut desk = self.lock();
        if !desk.wanted.get(&partition).is_some_and(|wanted| answers_to(&answer, &wanted.position)) {
            return;
        }
        let Some(Wanted { position, replica }) = desk.wanted.remove(&partition) else { return };
        drop(desk);
        if replica.try_send(ReplicaMessage::Answered { answer }).is_ok() || replica.is_over() {
            return;
        }
        let mut desk = self.lock();
        let position = FetchPosition { after_error: true, ..position };
        // It may want something else by now.
        desk.wanted.entry(partition).or_insert(Wanted { position, replica });
        desk.changed.insert(partition);
    }

    /// Forgets what lives want that are over.
    pub fn forget_gone(&self) {
        let mut desk = self.lock();
        let over = desk.wanted.iter().filter(|(_, wanted)| wanted.replica.is_over());
        let over: Vec<TopicPartition> = over.map(|(partition, _)| *partition).collect();
        for partition in over {
            desk.wanted.remove(&partition);
            desk.changed.insert(partition);
        }
    }
}

/// The fetchers of a node, one for each leader that it has ever followed.
pub struct Fetchers {
    known: Mutex<BTreeMap<NodeId, FetcherRef>>,
    start: Box<dyn Fn(&FetcherRef) + Send + Sync>,
}

impl Fetchers {
    /// No fetchers yet. `start` is called once for each, by whoever wants something of its leader first, and must not block: it has the
    /// fetcher's actor started under a supervisor.
    pub fn new(start: impl Fn(&FetcherRef) + Send + Sync + 'static) -> Self {
        Self { known: Mutex::default(), start: Box::new(start) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, FetcherRef>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fetcher of `leader`.
    pub fn of(&self, leader: NodeId) -> FetcherRef {
        let mut known = self.lock();
        if let Some(fetcher) = known.get(&leader) {
            return fetcher.clone();
        }
        let fetcher = FetcherRef::new(leader);
        known.insert(leader, fetcher.clone());
        drop(known);
        (self.start)(&fetcher);
        fetcher
    }

    /// All of them, for a supervisor that starts again.
    #[must_use]
    pub fn all(&self) -> Vec<FetcherRef> {
        self.lock().values().cloned().collect()
    }
}

impl fmt::Debug for Fetchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetchers").field("known", &self.lock().keys().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}
