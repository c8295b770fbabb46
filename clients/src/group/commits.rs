//! Commits of a member: awaited, started, and of their own accord.
//! Invariant: commits reach the coordinator in the order in which they were made.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};

use super::coordinator::{Committed, Coordinator, Identified};
use super::membership::Member;
use crate::admin::CommittedOffsets;
use crate::backoff::Backoff;
use crate::client::Client;
use crate::error::{GroupError, means_rejoin};

/// A commit on its way: a future. It goes on if this is dropped.
#[derive(Debug)]
pub struct PendingCommit {
    answer: oneshot::Receiver<Result<(), GroupError>>,
    group: String,
}

impl Future for PendingCommit {
    type Output = Result<(), GroupError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(context));
        // Its task ended with the runtime.
        let code = madang_protocol::ErrorCode::NetworkException;
        Poll::Ready(answer.unwrap_or_else(|_| Err(GroupError::Broker { group: self.group.clone(), code })))
    }
}

/// Where a member's commits go.
#[derive(Debug)]
pub(super) struct Commits {
    client: Client,
    /// Not the connection that joining parks. One commit at a time.
    coordinator: Arc<Mutex<Coordinator>>,
    group: String,
    group_instance_id: Option<String>,
    /// Time between commits of their own accord, and when the last one began.
    interval: Option<Duration>,
    last: Instant,
    automatic: Option<JoinHandle<()>>,
}

impl Commits {
    pub(super) fn new(client: &Client, config: &super::GroupConfig) -> Self {
        Self {
            client: client.clone(),
            coordinator: Arc::new(Mutex::new(Coordinator::new(client.clone(), &config.group))),
            group: config.group.clone(),
            group_instance_id: config.group_instance_id.clone(),
            interval: config.auto_commit,
            last: Instant::now(),
            automatic: None,
        }
    }

    pub(super) const fn is_automatic(&self) -> bool {
        self.interval.is_some()
    }

    /// Whether it is time to commit of one's own accord.
    pub(super) fn is_due(&self) -> bool {
        let is_idle = self.automatic.as_ref().is_none_or(JoinHandle::is_finished);
        is_idle && self.interval.is_some_and(|interval| self.last.elapsed() >= interval)
    }

    fn on_behalf(&self, turn: OwnedMutexGuard<Coordinator>, member: &Member, offsets: CommittedOffsets) -> Commit {
        Commit {
            retry_timeout: self.client.config().retry_timeout,
            coordinator: turn,
            member_id: member.id.clone(),
            generation_id: member.generation_id,
            group_instance_id: self.group_instance_id.clone(),
            offsets,
        }
    }

    async fn turn(&self) -> OwnedMutexGuard<Coordinator> {
        Arc::clone(&self.coordinator).lock_owned().await
    }

    /// Commits and waits until it is done.
    pub(super) async fn commit(&mut self, member: &Member, offsets: CommittedOffsets) -> Result<(), GroupError> {
        self.last = Instant::now();
        if offsets.is_empty() {
            return Ok(());
        }
        let turn = self.turn().await;
        self.on_behalf(turn, member, offsets).run().await
    }

    /// Starts to commit as soon as the one before is done, for which this waits.
    pub(super) async fn start(&mut self, member: &Member, offsets: CommittedOffsets) -> PendingCommit {
        self.last = Instant::now();
        let turn = self.turn().await;
        let commit = self.on_behalf(turn, member, offsets);
        let (done, answer) = oneshot::channel();
        tokio::spawn(async move {
            let outcome = if commit.offsets.is_empty() { Ok(()) } else { commit.run().await };
            // Whoever dropped the future is not told.
            drop(done.send(outcome));
        });
        PendingCommit { answer, group: self.group.clone() }
    }

    /// Commits of one's own accord, beside what the member does. What fails is in the next commit.
    pub(super) fn start_automatic(&mut self, member: &Member, offsets: CommittedOffsets) {
        self.last = Instant::now();
        if offsets.is_empty() {
            return;
        }
        let Ok(turn) = Arc::clone(&self.coordinator).try_lock_owned() else { return };
        let commit = self.on_behalf(turn, member, offsets);
        self.automatic = Some(tokio::spawn(async move { drop(commit.run().await) }));
    }
}

/// One commit, with its turn.
struct Commit {
    coordinator: OwnedMutexGuard<Coordinator>,
    retry_timeout: Duration,
    member_id: String,
    generation_id: i32,
    group_instance_id: Option<String>,
    offsets: CommittedOffsets,
}

impl Commit {
    async fn run(self) -> Result<(), GroupError> {
        let by = Identified {
            member_id: &self.member_id,
            group_instance_id: self.group_instance_id.as_deref(),
            generation_id: self.generation_id,
        };
        let offsets: &Committed = &self.offsets;
        let mut backoff = Backoff::within(self.retry_timeout);
        loop {
            match self.coordinator.commit(&by, offsets).await {
                Err(error) if is_retried(&error) && backoff.wait().await => {}
                outcome => return outcome,
            }
        }
    }
}

fn is_retried(error: &GroupError) -> bool {
    !matches!(error, GroupError::Broker { code, .. } if means_rejoin(*code)) && error.is_retriable()
}
