//! Runs one supervisor machine: hears its children, performs its effects, answers those who add and remove.
//! Invariant: nothing is decided here; every decision is the machine's.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_channel::{mpsc, oneshot};
use futures_util::StreamExt;

use super::child::{Branch, Child, Launch, Launcher};
use super::clock;
use super::guard::Leash;
use crate::child_spec::{ChildId, ExitReason, Incarnation};
use crate::machine::Machine;
use crate::mailbox::{ActorState, Depth};
use crate::prng::Prng;
use crate::supervisor::{ChildState, ChildStatus, Supervisor, SupervisorEffect, SupervisorInput};

/// Hears what supervision does; for metrics. Called on supervisors' threads; must not block.
pub trait Observer: Send + Sync + 'static {
    /// The child at `path` ended for `reason` and will be started again.
    fn restarted(&self, _path: &str, _reason: &ExitReason) {}
    /// The supervisor at `path` gave up.
    fn escalated(&self, _path: &str, _reason: &str) {}
    /// The child at `path` was set aside.
    fn quarantined(&self, _path: &str, _reason: &ExitReason) {}
    /// The child at `path` did not stop, or start, by its deadline.
    fn abandoned(&self, _path: &str) {}
}

impl Observer for () {}

/// Why a child could not be added or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChildError {
    /// The supervisor is static or ending, or the id is taken.
    Refused,
    /// The child ended before it had started, or was set aside.
    Failed(ExitReason),
    /// The supervisor does not run now.
    NoSupervisor,
}

impl fmt::Display for ChildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("the supervisor refused the child"),
            Self::Failed(reason) => write!(f, "the child did not start: {reason}"),
            Self::NoSupervisor => f.write_str("the supervisor does not run"),
        }
    }
}

impl std::error::Error for ChildError {}

/// What a supervisor's task hears. The queue is bounded by the number of children and of callers who wait.
pub(crate) enum Event {
    Started { id: ChildId, incarnation: Incarnation },
    Exited { id: ChildId, incarnation: Incarnation, reason: ExitReason },
    Add { child: Child, done: oneshot::Sender<Result<(), ChildError>> },
    Remove { id: ChildId, done: oneshot::Sender<Result<(), ChildError>> },
    Release { id: ChildId },
    Snapshot { done: oneshot::Sender<Vec<ChildSnapshot>> },
}

pub(crate) struct ChildSnapshot {
    pub(crate) status: ChildStatus,
    pub(crate) kind: &'static str,
    pub(crate) depth: Option<Depth>,
    pub(crate) branch: Option<Branch>,
}

struct Slot {
    id: ChildId,
    sender: Mutex<Option<mpsc::UnboundedSender<Event>>>,
    last_incarnation: AtomicU64,
}

/// A handle to a supervisor. Cheap to clone, sendable anywhere, valid across the supervisor's restarts.
#[derive(Clone)]
pub struct SupervisorHandle {
    slot: Arc<Slot>,
}

impl SupervisorHandle {
    pub(crate) fn new(id: ChildId) -> Self {
        Self { slot: Arc::new(Slot { id, sender: Mutex::new(None), last_incarnation: AtomicU64::new(0) }) }
    }

    fn sender(&self) -> MutexGuard<'_, Option<mpsc::UnboundedSender<Event>>> {
        self.slot.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: Event) -> bool {
        self.sender().as_ref().is_some_and(|sender| sender.unbounded_send(event).is_ok())
    }

    /// Adds a child to a dynamic supervisor and waits until it runs. A failed start is tried again with back-off, which
    /// this keeps waiting for; dropping the future leaves the child.
    ///
    /// # Errors
    /// [`ChildError`].
    pub async fn add(&self, child: Child) -> Result<(), ChildError> {
        let (done, answer) = oneshot::channel();
        if !self.tell(Event::Add { child, done }) {
            return Err(ChildError::NoSupervisor);
        }
        answer.await.unwrap_or(Err(ChildError::NoSupervisor))
    }

    /// Stops and forgets a child of a dynamic supervisor and waits until it has ended or been abandoned. A child that is
    /// not there has.
    ///
    /// # Errors
    /// [`ChildError::Refused`] by a static supervisor, [`ChildError::NoSupervisor`].
    pub async fn remove(&self, id: impl Into<ChildId>) -> Result<(), ChildError> {
        let (done, answer) = oneshot::channel();
        if !self.tell(Event::Remove { id: id.into(), done }) {
            return Err(ChildError::NoSupervisor);
        }
        answer.await.unwrap_or(Err(ChildError::NoSupervisor))
    }

    /// Starts a child again that was set aside; false if the supervisor does not run.
    pub fn release(&self, id: impl Into<ChildId>) -> bool {
        self.tell(Event::Release { id: id.into() })
    }

    pub(crate) async fn children(&self) -> Option<Vec<ChildSnapshot>> {
        let (done, answer) = oneshot::channel();
        if !self.tell(Event::Snapshot { done }) {
            return None;
        }
        tokio::time::timeout(Duration::from_secs(1), answer).await.ok()?.ok()
    }
}

impl fmt::Debug for SupervisorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SupervisorHandle").field(&self.slot.id).finish()
    }
}

struct Held {
    launcher: Arc<dyn Launcher>,
    leash: Option<Leash>,
}

struct Host {
    path: Arc<str>,
    machine: Supervisor,
    rng: Prng,
    held: BTreeMap<ChildId, Held>,
    events: mpsc::UnboundedSender<Event>,
    handle: SupervisorHandle,
    observer: Arc<dyn Observer>,
    adding: BTreeMap<ChildId, oneshot::Sender<Result<(), ChildError>>>,
    removing: BTreeMap<ChildId, Vec<oneshot::Sender<Result<(), ChildError>>>>,
    /// Whom to tell that all children have started.
    parent: Option<(mpsc::UnboundedSender<Event>, ChildId, Incarnation)>,
    effects: Vec<SupervisorEffect>,
}

impl Drop for Host {
    fn drop(&mut self) {
        // A later life of this supervisor may have put its own sender there.
        let mut sender = self.handle.sender();
        if sender.as_ref().is_some_and(|sender| sender.same_receiver(&self.events)) {
            *sender = None;
        }
    }
}

/// One life of a supervisor.
pub(crate) async fn supervise(
    branch: Branch,
    path: Arc<str>,
    observer: Arc<dyn Observer>,
    stop: oneshot::Receiver<()>,
    parent: (mpsc::UnboundedSender<Event>, ChildId, Incarnation),
) -> ExitReason {
    // A child's end is told from its guard's drop, which can neither wait nor be refused. It holds a start and an end for each life of a
    // child, and a call for each caller that waits: never more than there are of these.
    let (events, mut heard) = mpsc::unbounded();
    let mut host = Host::new(branch, path, observer, events, parent);
    if let Some(end) = host.step(SupervisorInput::Begin) {
        return end;
    }
    let mut stop = Some(stop);
    loop {
        let input = match next(&mut heard, &mut stop, host.machine.deadline()).await {
            Some(event) => host.hear(event),
            None => Some(if stop.is_none() { SupervisorInput::Shutdown } else { SupervisorInput::Tick }),
        };
        // A second `Shutdown` means nothing to the machine, so a tick after the first may as well be one.
        if let Some(input) = input
            && let Some(end) = host.step(input)
        {
            return end;
        }
    }
}

/// The next event; or `None` if the machine's time has come or, with `stop` taken, the end was asked for.
async fn next(
    heard: &mut mpsc::UnboundedReceiver<Event>,
    stop: &mut Option<oneshot::Receiver<()>>,
    deadline: Option<crate::clock::Mono>,
) -> Option<Event> {
    let asked = async {
        match stop.as_mut() {
            Some(stop) => drop(stop.await),
            None => std::future::pending().await,
        }
    };
    let timer = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(clock::instant(deadline)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = asked => {}
        event = heard.next() => return event,
        () = timer => return None,
    }
    *stop = None;
    None
}

impl Host {
    fn new(
        branch: Branch,
        path: Arc<str>,
        observer: Arc<dyn Observer>,
        events: mpsc::UnboundedSender<Event>,
        parent: (mpsc::UnboundedSender<Event>, ChildId, Incarnation),
    ) -> Self {
        let mut children = branch.children;
        children.extend(branch.repopulate.iter().flat_map(|repopulate| repopulate()));
        let specs = children.iter().map(|child| child.spec.clone()).collect();
        let after = Incarnation(branch.handle.slot.last_incarnation.load(Ordering::Acquire));
        let mut hasher = DefaultHasher::new();
        (&path, parent.2).hash(&mut hasher);
        *branch.handle.sender() = Some(events.clone());
        Self {
            path,
            machine: Supervisor::new(branch.policy, specs, after),
            rng: Prng::new(hasher.finish()),
            held: children
                .into_iter()
                .map(|child| (child.spec.id, Held { launcher: child.launcher, leash: None }))
                .collect(),
            events,
            handle: branch.handle,
            observer,
            adding: BTreeMap::new(),
            removing: BTreeMap::new(),
            parent: Some(parent),
            effects: Vec::new(),
        }
    }

    /// The machine's input that an event is, if it is one.
    fn hear(&mut self, event: Event) -> Option<SupervisorInput> {
        match event {
            Event::Started { id, incarnation } => {
                let started = SupervisorInput::Started { id: id.clone(), incarnation };
                if self.machine.child(&id).is_some_and(|child| child.incarnation == incarnation)
                    && let Some(done) = self.adding.remove(&id)
                {
                    drop(done.send(Ok(())));
                }
                Some(started)
            }
            Event::Exited { id, incarnation, reason } => Some(SupervisorInput::ChildExited { id, incarnation, reason }),
            Event::Add { child, done } => {
                let (id, spec) = (child.spec.id.clone(), child.spec.clone());
                if self.held.contains_key(&id) {
                    drop(done.send(Err(ChildError::Refused)));
                    return None;
                }
                self.held.insert(id.clone(), Held { launcher: child.launcher, leash: None });
                self.adding.insert(id, done);
                Some(SupervisorInput::AddChild(spec))
            }
            Event::Remove { id, done } => {
                self.removing.entry(id.clone()).or_default().push(done);
                Some(SupervisorInput::RemoveChild(id))
            }
            Event::Release { id } => Some(SupervisorInput::Release(id)),
            Event::Snapshot { done } => {
                drop(done.send(self.snapshot()));
                None
            }
        }
    }

    fn snapshot(&self) -> Vec<ChildSnapshot> {
        let with_launcher = |status: ChildStatus| {
            let launcher = &self.held.get(&status.id)?.launcher;
            let branch = launcher.branch().cloned();
            Some(ChildSnapshot { status, kind: launcher.kind(), depth: launcher.depth(), branch })
        };
        self.machine.children().into_iter().filter_map(with_launcher).collect()
    }

    /// Steps the machine and performs its effects; the reason if the supervisor has ended.
    fn step(&mut self, input: SupervisorInput) -> Option<ExitReason> {
        let mut effects = std::mem::take(&mut self.effects);
        self.machine.step(clock::now(), clock::wall(), input, &mut self.rng, &mut effects);
        self.handle.slot.last_incarnation.store(self.machine.last_incarnation().0, Ordering::Release);
        let mut end = None;
        for effect in effects.drain(..) {
            end = self.perform(effect).or(end);
        }
        self.effects = effects;
        end
    }

    fn child_path(&self, id: &ChildId) -> String {
        format!("{}/{id}", self.path)
    }

    fn perform(&mut self, effect: SupervisorEffect) -> Option<ExitReason> {
        match effect {
            SupervisorEffect::Start { id, incarnation } => self.start(&id, incarnation),
            SupervisorEffect::Stop { id, .. } => {
                if let Some(leash) = self.held.get_mut(&id).and_then(|held| held.leash.as_mut()) {
                    leash.stop();
                }
            }
            SupervisorEffect::Abandon { id, .. } => {
                let path = self.child_path(&id);
                tracing::error!(path, "abandoned: it did not start or stop by its deadline");
                self.observer.abandoned(&path);
                if let Some(held) = self.held.get_mut(&id) {
                    held.leash = None;
                }
            }
            SupervisorEffect::Restarting { id, reason, pause } => {
                let path = self.child_path(&id);
                tracing::warn!(path, %reason, ?pause, "restarts");
                self.observer.restarted(&path, &reason);
            }
            SupervisorEffect::Quarantined { id, reason } => self.quarantined(&id, reason),
            SupervisorEffect::Ended { id, reason } => self.ended(&id, reason),
            SupervisorEffect::Refused(id) => self.refused(&id),
            SupervisorEffect::Ready => {
                if let Some((events, id, incarnation)) = self.parent.take() {
                    drop(events.unbounded_send(Event::Started { id, incarnation }));
                }
            }
            SupervisorEffect::Escalate { reason } => {
                tracing::error!(path = &*self.path, reason, "escalates");
                self.observer.escalated(&self.path, &reason);
                return Some(ExitReason::Escalated { reason });
            }
            SupervisorEffect::Stopped => return Some(ExitReason::Shutdown),
        }
        None
    }

    fn start(&mut self, id: &ChildId, incarnation: Incarnation) {
        let path = Arc::from(self.child_path(id));
        let Some(held) = self.held.get_mut(id) else { return };
        let (events, observer) = (self.events.clone(), Arc::clone(&self.observer));
        let launch = Launch { path, id: id.clone(), incarnation, events, observer };
        held.leash = Some(held.launcher.launch(launch));
    }

    fn quarantined(&mut self, id: &ChildId, reason: ExitReason) {
        let path = self.child_path(id);
        tracing::error!(path, %reason, "quarantined");
        self.observer.quarantined(&path, &reason);
        if let Some(held) = self.held.get_mut(id) {
            held.leash = None;
            held.launcher.closed(ActorState::Quarantined);
        }
        if let Some(done) = self.adding.remove(id) {
            drop(done.send(Err(ChildError::Failed(reason))));
        }
    }

    fn ended(&mut self, id: &ChildId, reason: ExitReason) {
        if let Some(held) = self.held.get_mut(id) {
            held.leash = None;
            held.launcher.closed(ActorState::Stopped);
        }
        if self.machine.child(id).is_none_or(|child| child.state != ChildState::Ended) {
            self.held.remove(id); // A dynamic child is forgotten; a static one keeps its place.
        }
        if let Some(done) = self.adding.remove(id) {
            drop(done.send(Err(ChildError::Failed(reason))));
        }
        for done in self.removing.remove(id).unwrap_or_default() {
            drop(done.send(Ok(())));
        }
    }

    fn refused(&mut self, id: &ChildId) {
        if let Some(done) = self.adding.remove(id) {
            self.held.remove(id);
            drop(done.send(Err(ChildError::Refused)));
        }
        for done in self.removing.remove(id).unwrap_or_default() {
            drop(done.send(Err(ChildError::Refused)));
        }
    }
}
