//! The whole tree: started from its declaration, drawn as declared and as it lives, ended in order.
//! Invariant: an end of the root that nobody asked for reaches the escalation callback, once.

use std::fmt;
use std::sync::Arc;

use futures_channel::mpsc;
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use tokio::sync::watch;

use super::child::{Branch, BranchLauncher, Launch, Launcher};
use super::guard::Leash;
use super::panics::{assert_panics_unwind, install_panic_hook};
use super::supervise::{Event, Observer, SupervisorHandle};
use crate::child_spec::{ChildId, ExitReason, Incarnation};
use crate::mailbox::Depth;
use crate::supervisor::{ChildState, Policy};

/// How a tree reports.
pub struct TreeOptions {
    /// Called when the root gives up; the node fences itself and exits with its own code.
    pub on_escalation: Box<dyn FnOnce(ExitReason)>,
    /// Hears restarts, escalations and quarantines.
    pub observer: Arc<dyn Observer>,
}

impl fmt::Debug for TreeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeOptions").finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Progress {
    Starting,
    Ready,
    Ended(ExitReason),
}

/// A running tree. Dropping it kills all of it; [`Tree::shutdown`] ends it in order.
pub struct Tree {
    branch: Branch,
    leash: Leash,
    progress: watch::Receiver<Progress>,
}

impl Tree {
    /// Starts the tree on this thread, which must run an actix system (or a tokio `LocalSet`).
    #[must_use]
    pub fn start(branch: Branch, options: TreeOptions) -> Self {
        assert_panics_unwind();
        install_panic_hook();
        // One start and one end, of the root.
        let (events, mut heard) = mpsc::unbounded();
        let (report, progress) = watch::channel(Progress::Starting);
        let launch = Launch {
            path: Arc::from(branch.id.as_str()),
            id: branch.id.clone(),
            incarnation: Incarnation(1),
            events,
            observer: options.observer,
        };
        let leash = BranchLauncher { branch: branch.clone() }.launch(launch);
        let on_escalation = options.on_escalation;
        actix_rt::spawn(async move {
            while let Some(event) = heard.next().await {
                match event {
                    Event::Started { .. } => drop(report.send(Progress::Ready)),
                    Event::Exited { reason, .. } => {
                        drop(report.send(Progress::Ended(reason.clone())));
                        if reason.is_abnormal() {
                            on_escalation(reason);
                        }
                        return;
                    }
                    _ => {}
                }
            }
        });
        Self { branch, leash, progress }
    }

    /// Waits until every child has been started once.
    ///
    /// # Errors
    /// How the tree ended, if it ended first.
    pub async fn ready(&mut self) -> Result<(), ExitReason> {
        match self.progress.wait_for(|progress| *progress != Progress::Starting).await.as_deref() {
            Ok(Progress::Ended(reason)) => Err(reason.clone()),
            Ok(_) => Ok(()),
            Err(_) => Err(ExitReason::Killed),
        }
    }

    /// Waits until the tree has ended, and says how.
    pub async fn ended(&mut self) -> ExitReason {
        match self.progress.wait_for(|progress| matches!(progress, Progress::Ended(_))).await.as_deref() {
            Ok(Progress::Ended(reason)) => reason.clone(),
            _ => ExitReason::Killed,
        }
    }

    /// Stops everything in reverse order, each child within its deadline, and says how it ended.
    pub async fn shutdown(mut self) -> ExitReason {
        self.leash.stop();
        self.ended().await
    }

    /// The root's handle, from which the live tree can be seen on any thread.
    #[must_use]
    pub fn handle(&self) -> SupervisorHandle {
        self.branch.handle()
    }

    /// A way to see the live tree from any thread with a tokio runtime.
    #[must_use]
    pub fn viewer(&self) -> TreeViewer {
        TreeViewer { root: self.branch.clone() }
    }

    /// The live tree.
    pub async fn snapshot(&self) -> TreeSnapshot {
        self.viewer().snapshot().await
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").field("progress", &*self.progress.borrow()).finish_non_exhaustive()
    }
}

/// Sees the live tree. Cheap to clone, sendable anywhere.
#[derive(Clone, Debug)]
pub struct TreeViewer {
    root: Branch,
}

impl TreeViewer {
    /// The live tree. A supervisor that does not answer within a second is shown without its children.
    pub async fn snapshot(&self) -> TreeSnapshot {
        let mut root = TreeSnapshot {
            id: self.root.id.clone(),
            kind: "supervisor",
            policy: Some(policy_text(&self.root.policy)),
            state: ChildState::Running,
            incarnation: Incarnation(1),
            restarts: 0,
            last_reason: None,
            mailbox: None,
            children: Vec::new(),
        };
        match children_of(&self.root).await {
            Some(children) => root.children = children,
            None => root.state = ChildState::Ended,
        }
        root
    }
}

fn children_of(branch: &Branch) -> LocalBoxFuture<'_, Option<Vec<TreeSnapshot>>> {
    Box::pin(async move {
        let mut children = Vec::new();
        for child in branch.handle.children().await? {
            let nested = match &child.branch {
                Some(nested) => children_of(nested).await.unwrap_or_default(),
                None => Vec::new(),
            };
            children.push(TreeSnapshot {
                id: child.status.id,
                kind: child.kind,
                policy: child.branch.map(|branch| policy_text(&branch.policy)),
                state: child.status.state,
                incarnation: child.status.incarnation,
                restarts: child.status.restarts,
                last_reason: child.status.last_reason,
                mailbox: child.depth,
                children: nested,
            });
        }
        Some(children)
    })
}

/// One node of the live tree, with what stands under it. Prints as a drawing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeSnapshot {
    /// Its id.
    pub id: ChildId,
    /// `supervisor`, `actor` or `task`.
    pub kind: &'static str,
    /// A supervisor's policy.
    pub policy: Option<String>,
    /// How it is doing.
    pub state: ChildState,
    /// Its latest life.
    pub incarnation: Incarnation,
    /// How often it was started again.
    pub restarts: u64,
    /// Why its latest finished life ended.
    pub last_reason: Option<ExitReason>,
    /// What an actor's mailbox holds.
    pub mailbox: Option<Depth>,
    /// A supervisor's children.
    pub children: Vec<TreeSnapshot>,
}

impl fmt::Display for TreeSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        draw(f, self, "", &|node| node.children.iter().collect(), &|node| {
            let mut line = format!("{}  {}", node.id, node.policy.as_deref().unwrap_or(node.kind));
            line += &format!("  {}  incarnation {}", node.state.label(), node.incarnation);
            if let Some(depth) = node.mailbox {
                line += &format!("  mailbox {} items {} bytes", depth.items, depth.bytes);
            }
            if let (1.., Some(reason)) = (node.restarts, &node.last_reason) {
                line += &format!("  restarts {} (last: {reason})", node.restarts);
            }
            line
        })
    }
}

fn draw<T>(
    f: &mut impl fmt::Write,
    node: &T,
    indent: &str,
    children: &impl Fn(&T) -> Vec<&T>,
    line: &impl Fn(&T) -> String,
) -> fmt::Result {
    writeln!(f, "{}", line(node))?;
    let below = children(node);
    for (index, child) in below.iter().enumerate() {
        let last = index + 1 == below.len();
        write!(f, "{indent}{} ", if last { '└' } else { '├' })?;
        draw(f, *child, &format!("{indent}{} ", if last { ' ' } else { '│' }), children, line)?;
    }
    Ok(())
}

fn policy_text(policy: &Policy) -> String {
    match policy {
        Policy::Static { strategy, .. } => strategy.to_string(),
        Policy::Dynamic { .. } => "one_for_one dynamic".into(),
    }
}

struct Described {
    line: String,
    children: Vec<Described>,
}

pub(crate) fn describe(branch: &Branch) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = draw(&mut out, &described(branch), "", &|node| node.children.iter().collect(), &|node| node.line.clone());
    out
}

fn described(branch: &Branch) -> Described {
    let children = branch.children.iter().map(|child| match child.launcher.branch() {
        Some(branch) => described(branch),
        None => {
            let restart = format!("{:?}", child.spec.restart).to_lowercase();
            Described { line: format!("{}  {} {restart}", child.spec.id, child.launcher.kind()), children: Vec::new() }
        }
    });
    Described { line: format!("{}  {}", branch.id, policy_text(&branch.policy)), children: children.collect() }
}
