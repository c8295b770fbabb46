//! The clients' way to the node and back: a request travels, is handled in the process, its answer travels back; the process may die
//! or the connection break between any two of these.
//! Invariant: every request that reaches a process is answered, or its connection ends (U1).

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_channel::oneshot;
use futures_util::future::{Either, LocalBoxFuture, select};
use madang_actors::reply::{Answer, Reply};
use madang_actors::waiters::Waiter;
use madang_cluster::coordinator::{Request, Response};
use madang_cluster::replica::{AppendResult, Appended, ReplicaHandle, ReplicaMessage, RequiredAcks};
use madang_protocol::error_code::ErrorCode;
use madang_protocol::record_batch::validate_produced;
use madang_protocol::types::{LeaderEpoch, Offset, TopicPartition};
use madang_storage::ReadError;

use crate::cover;
use crate::invariants::supervision;
use crate::node::Node;
use crate::sim::OUTSIDE;
use crate::swarm::FaultClass;

/// The newest Produce.
const PRODUCE_VERSION: i16 = 13;

/// Why a client has no answer from the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The connection ended. The request may have been executed.
    Disconnected,
    /// Kafka's code.
    Code(ErrorCode),
}

/// What a fetch of one partition gave.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Whole batches.
    pub records: Bytes,
    /// Its high watermark.
    pub high_watermark: i64,
    /// Where its log starts.
    pub log_start_offset: i64,
}

impl Node {
    /// Runs `work` in the process and brings its result to the client, unless the connection ends.
    async fn call<T: 'static>(
        self: &Rc<Self>,
        what: &'static str,
        work: impl FnOnce(Rc<Self>) -> LocalBoxFuture<'static, T>,
    ) -> Result<T, Failure> {
        let sim = &self.sim;
        sim.pause(50, sim.swarm.network_us).await;
        let Some(process) = self.process.borrow().clone() else { return Err(Failure::Disconnected) };
        let (answer, answered) = oneshot::channel();
        let work = work(Rc::clone(self));
        sim.executor.detach(process.scope, async move {
            drop(answer.send(work.await));
        });
        drop(process);
        let timer = sim.executor.sleep(supervision::LONGEST_REQUEST);
        let answered = match select(answered, timer).await {
            Either::Left((answered, _)) => answered.map_err(|_| Failure::Disconnected),
            Either::Right(_) => {
                supervision::unanswered(sim, what);
                Err(Failure::Disconnected)
            }
        }?;
        sim.pause(50, sim.swarm.network_us).await;
        if self.breaks_connection() {
            cover!("connection lost");
            return Err(Failure::Disconnected);
        }
        Ok(answered)
    }

    fn breaks_connection(&self) -> bool {
        let sim = &self.sim;
        let on = sim.swarm.classes.iter().any(|(class, _)| *class == FaultClass::ConnectionLoss);
        let breaks = on && !sim.is_healed() && sim.chance(1, 60);
        if breaks {
            sim.fault(FaultClass::ConnectionLoss);
        }
        breaks
    }

    /// Produces batches to one partition over one connection, each admitted once the one before it is. One answer a batch.
    pub async fn produce(
        self: &Rc<Self>,
        partition: TopicPartition,
        batches: Vec<Bytes>,
        acks: RequiredAcks,
        timeout: Duration,
    ) -> Vec<Result<Appended, Failure>> {
        let count = batches.len();
        let mut answers = Vec::with_capacity(count);
        let (turns, mut turn) = (self.sim.executor.clone(), None::<oneshot::Receiver<()>>);
        let mut pending = Vec::with_capacity(count);
        for batch in batches {
            let (done, next) = oneshot::channel();
            let before = turn.replace(next);
            let node = Rc::clone(self);
            let (reply, answer) = oneshot::channel();
            turns.detach(OUTSIDE, async move {
                let result = node
                    .call("a produce", move |node| {
                        Box::pin(async move {
                            if let Some(before) = before
                                && before.await.is_err()
                            {
                                // One connection carries them all: what follows a lost request is lost as well.
                                return Err(ErrorCode::NotLeaderOrFollower);
                            }
                            let admitted = admit(&node, partition, batch, acks, timeout).await;
                            let _ = done.send(());
                            match admitted {
                                Ok(answer) => answer.await.map_err(|refused| refused.error),
                                Err(error) => Err(error),
                            }
                        })
                    })
                    .await;
                let _ = reply.send(result);
            });
            pending.push(answer);
        }
        for answer in pending {
            answers.push(match answer.await {
                Ok(Ok(Ok(appended))) => Ok(appended),
                Ok(Ok(Err(error))) => Err(Failure::Code(error)),
                Ok(Err(failure)) => Err(failure),
                Err(_) => Err(Failure::Disconnected),
            });
        }
        answers
    }

    /// Fetches one partition, waiting for one byte at most `max_wait`.
    pub async fn fetch(
        self: &Rc<Self>,
        partition: TopicPartition,
        offset: i64,
        max_bytes: usize,
        max_wait: Duration,
    ) -> Result<Fetched, Failure> {
        let deadline = self.sim.now() + max_wait;
        let work = move |node: Rc<Self>| -> LocalBoxFuture<'static, Result<Fetched, ErrorCode>> {
            Box::pin(async move {
                let handle = replica(&node, partition)?;
                let mut waiter = Waiter::new();
                let mut first = true;
                loop {
                    let fetched = read(&handle, offset, max_bytes)?;
                    if !fetched.records.is_empty() || node.sim.now() >= deadline {
                        if !first && !fetched.records.is_empty() {
                            cover!("long poll woken");
                        }
                        return Ok(fetched);
                    }
                    if first {
                        let _ = waiter.register(handle.waiters(), 0);
                        first = false;
                        continue;
                    }
                    let timer = node.sim.executor.sleep_until(deadline);
                    drop(select(std::pin::pin!(waiter.woken()), timer).await);
                }
            })
        };
        self.call("a fetch", work).await?.map_err(Failure::Code)
    }

    /// Earliest (-2) or latest (-1) offset.
    pub async fn list_offset(self: &Rc<Self>, partition: TopicPartition, which: i64) -> Result<i64, Failure> {
        let work = move |node: Rc<Self>| -> LocalBoxFuture<'static, Result<i64, ErrorCode>> {
            Box::pin(async move {
                let snapshot = replica(&node, partition)?.snapshot_for(LeaderEpoch::NONE)?;
                Ok(if which == -2 { snapshot.view.log_start_offset().0 } else { snapshot.high_watermark.0 })
            })
        };
        self.call("a list-offsets", work).await?.map_err(Failure::Code)
    }

    /// Deletes the records below `before`.
    pub async fn delete_records(self: &Rc<Self>, partition: TopicPartition, before: i64) -> Result<i64, Failure> {
        let work = move |node: Rc<Self>| -> LocalBoxFuture<'static, Result<Offset, ErrorCode>> {
            Box::pin(async move {
                let handle = replica(&node, partition)?;
                let (reply, answer) = Reply::new(|| Err(ErrorCode::NotLeaderOrFollower));
                handle.admit(ReplicaMessage::DeleteRecords { before: Offset(before), reply }).await?;
                answer.await
            })
        };
        self.call("a delete-records", work).await?.map(|offset| offset.0).map_err(Failure::Code)
    }

    /// Asks the shard of the only partition of the offsets topic.
    pub async fn group(self: &Rc<Self>, request: Request) -> Result<Response, Failure> {
        let work = move |node: Rc<Self>| -> LocalBoxFuture<'static, Result<Response, ErrorCode>> {
            Box::pin(async move {
                let shard = node.shard().ok_or(ErrorCode::CoordinatorNotAvailable)?;
                let (reply, answer) = Reply::new(|| Err(ErrorCode::CoordinatorNotAvailable));
                shard.ask(request, reply);
                answer.await
            })
        };
        self.call("a group request", work).await?.map_err(Failure::Code)
    }
}

fn replica(node: &Rc<Node>, partition: TopicPartition) -> Result<ReplicaHandle, ErrorCode> {
    node.slot(partition).map(|slot| slot.handle.clone()).ok_or(ErrorCode::NotLeaderOrFollower)
}

async fn admit(
    node: &Rc<Node>,
    partition: TopicPartition,
    batch: Bytes,
    acks: RequiredAcks,
    timeout: Duration,
) -> Result<Answer<AppendResult>, ErrorCode> {
    let handle = replica(node, partition)?;
    let rules = handle.produce_rules(PRODUCE_VERSION, node.sim.wall());
    let batch = validate_produced(&batch, &rules).map_err(|rejection| ErrorCode::from(rejection.error))?;
    let deadline = node.sim.now() + timeout;
    let (message, answer) = ReplicaHandle::append_message(batch, acks, deadline);
    let admission = std::pin::pin!(handle.admit(message));
    match select(admission, node.sim.executor.sleep_until(deadline)).await {
        Either::Left((Ok(()), _)) => Ok(answer),
        Either::Left((Err(error), _)) => Err(error),
        Either::Right(_) => Err(ErrorCode::RequestTimedOut),
    }
}

fn read(handle: &ReplicaHandle, offset: i64, max_bytes: usize) -> Result<Fetched, ErrorCode> {
    let snapshot = handle.snapshot_for(LeaderEpoch::NONE)?;
    let found = snapshot.view.read(Offset(offset), snapshot.high_watermark, max_bytes, true);
    let records = match found {
        Ok(found) => found.records.read().map_err(|_| ErrorCode::KafkaStorageError)?,
        Err(ReadError::OutOfRange { .. }) => return Err(ErrorCode::OffsetOutOfRange),
        Err(ReadError::Stale) => return Err(ErrorCode::NotLeaderOrFollower),
        Err(ReadError::Io(_)) => return Err(ErrorCode::KafkaStorageError),
    };
    let (high_watermark, log_start_offset) = (snapshot.high_watermark.0, snapshot.view.log_start_offset().0);
    Ok(Fetched { records, high_watermark, log_start_offset })
}
