//! The shell of a fetcher: feeds the machine what followers want and what the leader answers, and performs what it asks. It decides nothing.

use std::sync::Arc;
use std::time::Duration;

use madang_actors::clock::Mono;
use madang_actors::host::{Behavior, ShellContext, clock};
use madang_actors::machine::Machine;
use madang_actors::prng::Prng;
use madang_protocol::types::TopicPartition;

use super::super::fetcher::{Fetcher, FetcherConfig, FetcherEffect, FetcherInput};
use super::super::links::{CoalescedFetch, Links};
use super::super::replication::{FetchPosition, FollowerFetch};
use super::{FetcherMessage, FetcherRef};

/// How long a word of durable ends may take: the next fetch tells them too.
const TELL_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks one remote leader for all of this node's followers.
pub struct FetcherActor {
    fetcher: Fetcher,
    config: FetcherConfig,
    followers: FetcherRef,
    links: Arc<dyn Links>,
    rng: Prng,
    started: bool,
    /// Whether the leader is being told of durable ends; what moves meanwhile goes together afterwards.
    telling: bool,
}

impl FetcherActor {
    /// A life of the fetcher of `followers`' leader.
    #[must_use]
    pub fn new(followers: FetcherRef, links: Arc<dyn Links>, config: FetcherConfig) -> Self {
        let fetcher = Fetcher::new(config.clone());
        Self { fetcher, config, followers, links, rng: Prng::new(0), started: false, telling: false }
    }

    fn step(&mut self, input: FetcherInput, context: &mut ShellContext<FetcherMessage>) {
        let mut effects = Vec::new();
        self.fetcher.step(context.now(), context.wall(), input, &mut self.rng, &mut effects);
        for effect in effects {
            match effect {
                FetcherEffect::Send { request, partitions, max_wait } => {
                    self.send(request, partitions, max_wait, context);
                }
                FetcherEffect::Deliver(partition, answer) => {
                    let bytes = answer.size_in_bytes();
                    let throttle = if bytes > 0 { self.links.throttle(&partition) } else { None };
                    if let Some((throttle, rate)) = throttle {
                        throttle.sent(context.now(), rate, bytes);
                    }
                    self.followers.deliver(partition, answer);
                }
            }
        }
    }

    fn send(
        &self,
        request: u64,
        partitions: Vec<(TopicPartition, FetchPosition)>,
        max_wait: Duration,
        context: &mut ShellContext<FetcherMessage>,
    ) {
        let me = self.links.registration();
        let of = |position| FollowerFetch { node_id: me.node_id, broker_epoch: me.broker_epoch, position };
        let partitions = partitions.into_iter().map(|(partition, position)| (partition, of(position))).collect();
        let max_bytes = self.config.max_bytes;
        let deadline = context.now() + self.config.timeout;
        let answered =
            self.links.fetch(self.followers.leader(), CoalescedFetch { partitions, max_wait, max_bytes }, deadline);
        let actor = context.me().clone();
        context.spawn(async move {
            let message = match clock::until(deadline, answered).await.flatten() {
                Some(answers) => FetcherMessage::Answered { request, answers },
                None => FetcherMessage::Failed { request },
            };
            // This future ends with this life, so no other one hears of it.
            drop(actor.admit(message).await);
        });
    }

    /// Which of these have to wait for their throttle, and until when.
    fn held(&self, now: Mono, wanted: &[(TopicPartition, Option<FetchPosition>)]) -> Vec<(TopicPartition, Mono)> {
        let wanted = wanted.iter().filter(|(_, position)| position.is_some());
        let held = |(partition, _): &(TopicPartition, _)| {
            let (throttle, rate) = self.links.throttle(partition)?;
            Some((*partition, throttle.room_at(now, rate)?))
        };
        wanted.filter_map(held).collect()
    }

    fn tell(&mut self, context: &mut ShellContext<FetcherMessage>) {
        if self.telling {
            return;
        }
        let confirmed: Vec<_> = self.followers.confirmed().into_iter().collect();
        if confirmed.is_empty() {
            return;
        }
        self.telling = true;
        let deadline = context.now() + TELL_TIMEOUT;
        let told = self.links.confirm(self.followers.leader(), confirmed, deadline);
        let actor = context.me().clone();
        context.spawn(async move {
            clock::until(deadline, told).await;
            drop(actor.admit(FetcherMessage::Told).await);
        });
    }
}

impl Behavior for FetcherActor {
    type Message = FetcherMessage;

    fn handle(&mut self, message: FetcherMessage, context: &mut ShellContext<FetcherMessage>) {
        match message {
            // The end of the batch looks.
            FetcherMessage::Changed => {}
            FetcherMessage::Told => self.telling = false,
            FetcherMessage::Answered { request, answers } => {
                self.step(FetcherInput::Answered { request, answers }, context);
            }
            FetcherMessage::Failed { request } => {
                self.followers.forget_gone();
                self.step(FetcherInput::Failed { request }, context);
            }
        }
    }

    fn end_batch(&mut self, context: &mut ShellContext<FetcherMessage>) {
        let changes = self.followers.changes();
        if !changes.is_empty() {
            let held = self.held(context.now(), &changes);
            if !held.is_empty() {
                self.step(FetcherInput::Hold(held), context);
            }
            self.step(FetcherInput::Changed(changes), context);
        }
        self.tell(context);
        self.fetcher.check();
    }

    fn deadline(&self) -> Option<Mono> {
        if self.started { self.fetcher.deadline() } else { Some(Mono::ZERO) }
    }

    fn on_deadline(&mut self, context: &mut ShellContext<FetcherMessage>) {
        if self.started {
            return self.step(FetcherInput::Tick, context);
        }
        // Only now, as the mailbox is open: who wants something from here on is heard.
        self.started = true;
        self.followers.begin();
    }
}
