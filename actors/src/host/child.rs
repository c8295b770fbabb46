//! Children as the host starts them: actors, plain tasks, and branches of further children. One line declares one.
//! Invariant: a declaration can be launched any number of times; each launch is a new life built by its factory.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_channel::{mpsc, oneshot};

use super::arbiter::Placement;
use super::guard::{ExitGuard, Guarded, Leash};
use super::panics::catch;
use super::shell::{Behavior, ShellContext, StartResult, live};
use super::supervise::{self, Event, Observer, SupervisorHandle};
use crate::actor_ref::ActorRef;
use crate::child_spec::{Backoff, ChildId, ChildSpec, ExitReason, Incarnation, Intensity, Restart, Strategy};
use crate::mailbox::{ActorState, Depth};
use crate::supervisor::Policy;

/// What a launch is told.
pub(crate) struct Launch {
    pub(crate) path: Arc<str>,
    pub(crate) id: ChildId,
    pub(crate) incarnation: Incarnation,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) observer: Arc<dyn Observer>,
}

impl Launch {
    fn guard(&self, close: Option<Box<dyn FnOnce() + Send>>) -> ExitGuard {
        ExitGuard::new(self.events.clone(), self.id.clone(), self.incarnation, close)
    }
}

/// Starts lives of one child.
pub(crate) trait Launcher: Send + Sync {
    fn launch(&self, launch: Launch) -> Leash;
    /// Says why the child is down, to those who would send to it.
    fn closed(&self, _state: ActorState) {}
    fn depth(&self) -> Option<Depth> {
        None
    }
    fn kind(&self) -> &'static str;
    fn branch(&self) -> Option<&Branch> {
        None
    }
}

/// The declaration of one child.
#[derive(Clone)]
pub struct Child {
    pub(crate) spec: ChildSpec,
    pub(crate) launcher: Arc<dyn Launcher>,
}

impl Child {
    /// An actor reached through `actor`, whose id it takes. `factory` runs on the arbiter at every start and builds the
    /// behavior from durable state; its error or panic is a failed start.
    pub fn actor<B, F>(actor: &ActorRef<B::Message>, placement: impl Into<Placement>, factory: F) -> Self
    where
        B: Behavior,
        F: Fn(&mut ShellContext<B::Message>) -> StartResult<B> + Send + Sync + 'static,
    {
        let launcher = ActorLauncher { actor: actor.clone(), placement: placement.into(), factory: Arc::new(factory) };
        Self { spec: ChildSpec::new(actor.id()), launcher: Arc::new(launcher) }
    }

    /// A plain task: a listener's accept loop, a connection. It counts as started when `factory` has returned; its output
    /// is its normal end. Unlike an actor's, its locals are dropped while a panic unwinds.
    pub fn task<F, T>(id: impl Into<ChildId>, placement: impl Into<Placement>, factory: F) -> Self
    where
        F: Fn(TaskContext) -> T + Send + Sync + 'static,
        T: Future<Output = ()> + 'static,
    {
        let launcher = TaskLauncher { placement: placement.into(), factory: Arc::new(factory) };
        Self { spec: ChildSpec::new(id), launcher: Arc::new(launcher) }
    }

    /// When it is started again; [`Restart::Permanent`] unless said.
    #[must_use]
    pub const fn restart(mut self, restart: Restart) -> Self {
        self.spec.restart = restart;
        self
    }

    /// How long its orderly stop may take; `None` waits for ever.
    #[must_use]
    pub fn shutdown_deadline(mut self, deadline: impl Into<Option<Duration>>) -> Self {
        self.spec.shutdown_deadline = deadline.into();
        self
    }

    /// How long its start may take; `None` waits for ever.
    #[must_use]
    pub fn start_deadline(mut self, deadline: impl Into<Option<Duration>>) -> Self {
        self.spec.start_deadline = deadline.into();
        self
    }

    /// The pauses between its restarts.
    #[must_use]
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.spec.backoff = backoff;
        self
    }

    /// Its declaration as data.
    #[must_use]
    pub const fn spec(&self) -> &ChildSpec {
        &self.spec
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Child({} {})", self.launcher.kind(), self.spec.id)
    }
}

struct ActorLauncher<B: Behavior, F> {
    actor: ActorRef<B::Message>,
    placement: Placement,
    factory: Arc<F>,
}

impl<B, F> Launcher for ActorLauncher<B, F>
where
    B: Behavior,
    F: Fn(&mut ShellContext<B::Message>) -> StartResult<B> + Send + Sync + 'static,
{
    fn launch(&self, launch: Launch) -> Leash {
        let (leash, stop, killed) = Leash::new();
        let (actor, factory, incarnation) = (self.actor.clone(), Arc::clone(&self.factory), launch.incarnation);
        let mailbox = Arc::clone(actor.mailbox());
        let guard = launch.guard(Some(Box::new(move || mailbox.close(incarnation, ActorState::Restarting))));
        let path = launch.path;
        self.placement.run(move || {
            let mut context = ShellContext::new(path, incarnation, actor.clone());
            let life = match build(|| (*factory)(&mut context)) {
                Ok(behavior) => live(behavior, context, stop),
                Err(reason) => return guard.end(reason),
            };
            actor.mailbox().open(incarnation);
            guard.started();
            actix_rt::spawn(Guarded::new(guard, life, killed));
        });
        leash
    }

    fn closed(&self, state: ActorState) {
        self.actor.mailbox().set_closed_state(state);
    }

    fn depth(&self) -> Option<Depth> {
        Some(self.actor.depth())
    }

    fn kind(&self) -> &'static str {
        "actor"
    }
}

/// Runs a factory; a panic is a failed start with a site.
fn build<B>(factory: impl FnOnce() -> StartResult<B>) -> Result<B, ExitReason> {
    match catch(factory) {
        Ok(Ok(built)) => Ok(built),
        Ok(Err(error)) => Err(ExitReason::StartFailed { message: error.to_string(), site: None }),
        Err(caught) => Err(ExitReason::StartFailed { message: caught.message, site: Some(caught.site) }),
    }
}

/// Ready once the supervisor asks for an orderly stop. For ever pending otherwise.
#[derive(Debug)]
pub struct StopSignal {
    receiver: oneshot::Receiver<()>,
    asked: bool,
}

impl Future for StopSignal {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.asked {
            return Poll::Ready(());
        }
        match Pin::new(&mut self.receiver).poll(context) {
            Poll::Ready(_) => {
                self.asked = true;
                Poll::Ready(())
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

/// What a task is told at its start.
#[derive(Debug)]
pub struct TaskContext {
    /// Its place in the tree.
    pub path: Arc<str>,
    /// Its life.
    pub incarnation: Incarnation,
    /// The request to end. A task that ignores it is dropped at its shutdown deadline.
    pub stop: StopSignal,
}

struct TaskLauncher<F> {
    placement: Placement,
    factory: Arc<F>,
}

impl<F, T> Launcher for TaskLauncher<F>
where
    F: Fn(TaskContext) -> T + Send + Sync + 'static,
    T: Future<Output = ()> + 'static,
{
    fn launch(&self, launch: Launch) -> Leash {
        let (leash, stop, killed) = Leash::new();
        let guard = launch.guard(None);
        let factory = Arc::clone(&self.factory);
        let (path, incarnation) = (launch.path, launch.incarnation);
        self.placement.run(move || {
            let stop = StopSignal { receiver: stop, asked: false };
            let task = match build(|| Ok((*factory)(TaskContext { path, incarnation, stop }))) {
                Ok(task) => task,
                Err(reason) => return guard.end(reason),
            };
            guard.started();
            let life = async move {
                task.await;
                ExitReason::Normal
            };
            actix_rt::spawn(Guarded::new(guard, life, killed));
        });
        leash
    }

    fn kind(&self) -> &'static str {
        "task"
    }
}

/// The declaration of a supervisor and of what stands under it.
#[derive(Clone)]
pub struct Branch {
    pub(crate) id: ChildId,
    pub(crate) policy: Policy,
    pub(crate) children: Vec<Child>,
    pub(crate) repopulate: Option<Arc<dyn Fn() -> Vec<Child> + Send + Sync>>,
    pub(crate) handle: SupervisorHandle,
    placement: Placement,
}

impl Branch {
    /// A supervisor of children known in advance, with the default [`Intensity`].
    pub fn new(id: impl Into<ChildId>, strategy: Strategy) -> Self {
        Self::with_policy(id, Policy::fixed(strategy))
    }

    /// A supervisor of many like children that come and go through [`Branch::handle`].
    pub fn dynamic(id: impl Into<ChildId>) -> Self {
        Self::with_policy(id, Policy::dynamic())
    }

    /// A supervisor with any policy.
    pub fn with_policy(id: impl Into<ChildId>, policy: Policy) -> Self {
        let id = id.into();
        let handle = SupervisorHandle::new(id.clone());
        Self { id, policy, children: Vec::new(), repopulate: None, handle, placement: Placement::Here }
    }

    /// One more child, started after those before it.
    #[must_use]
    pub fn child(mut self, child: impl Into<Child>) -> Self {
        self.children.push(child.into());
        self
    }

    /// How many restarts a static supervisor bears, or how many distinct failures a dynamic one.
    #[must_use]
    pub const fn intensity(mut self, bearable: Intensity) -> Self {
        match &mut self.policy {
            Policy::Static { intensity, .. } => *intensity = bearable,
            Policy::Dynamic { distinct_failures, .. } => *distinct_failures = bearable,
        }
        self
    }

    /// Runs the supervisor itself on an arbiter; unless said, it runs where its parent does.
    #[must_use]
    pub fn on(mut self, placement: impl Into<Placement>) -> Self {
        self.placement = placement.into();
        self
    }

    /// Says which children a restart of this dynamic supervisor begins with: those added at run time are lost with it.
    #[must_use]
    pub fn repopulate(mut self, children: impl Fn() -> Vec<Child> + Send + Sync + 'static) -> Self {
        self.repopulate = Some(Arc::new(children));
        self
    }

    /// The handle to the running supervisor; valid before it starts and across its restarts.
    #[must_use]
    pub fn handle(&self) -> SupervisorHandle {
        self.handle.clone()
    }

    /// The declared tree as a drawing: one line per supervisor and child, with the policy.
    #[must_use]
    pub fn describe(&self) -> String {
        super::tree::describe(self)
    }
}

impl fmt::Debug for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Branch").field("id", &self.id).field("children", &self.children).finish_non_exhaustive()
    }
}

impl From<Branch> for Child {
    /// A permanent child that takes as long as its own children to start and to stop.
    fn from(branch: Branch) -> Self {
        let mut spec = ChildSpec::new(branch.id.clone());
        spec.start_deadline = None;
        spec.shutdown_deadline = None;
        Self { spec, launcher: Arc::new(BranchLauncher { branch }) }
    }
}

pub(crate) struct BranchLauncher {
    pub(crate) branch: Branch,
}

impl Launcher for BranchLauncher {
    fn launch(&self, launch: Launch) -> Leash {
        let (leash, stop, killed) = Leash::new();
        let guard = launch.guard(None);
        let branch = self.branch.clone();
        let (path, observer) = (launch.path, launch.observer);
        self.branch.placement.run(move || {
            let started = guard.addressee();
            let life = supervise::supervise(branch, path, observer, stop, started);
            actix_rt::spawn(Guarded::new(guard, life, killed));
        });
        leash
    }

    fn kind(&self) -> &'static str {
        "supervisor"
    }

    fn branch(&self) -> Option<&Branch> {
        Some(&self.branch)
    }
}
