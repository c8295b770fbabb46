//! Committed offsets: storing, reading, deleting and expiring them.
//! Invariant: a reader sees committed appends only; a stale generation stores nothing.

use std::sync::Arc;
use std::time::Duration;

use madang_actors::clock::Wall;
use madang_protocol::types::Uuid;
use madang_storage::mutants::mutant;

use super::Context;
use super::classic::{Group, State};
use crate::coordinator::ErrorCode;
use crate::coordinator::message::Ticket;
use crate::coordinator::records::{Key, OffsetRecord, Value};
use crate::coordinator::request::{CommitPartition, CommitTopic, FetchTopic, OffsetCommit, OffsetDelete, OffsetFetch};
use crate::coordinator::response::{FetchedOffset, OffsetDeleteResponse, OffsetFetchResponse, Response};
use crate::coordinator::store::{Change, Slot, Store};
use crate::request::RequestId;

impl Group {
    /// Stores offsets for a member, or for a consumer that assigns partitions itself.
    pub(crate) fn commit(&mut self, ctx: &mut Context<'_>, request: RequestId, commit: &OffsetCommit) {
        let allowed = self.validate_commit(commit).and_then(|()| ctx.may_append());
        if let Err(error) = allowed {
            return ctx.reply(request, refuse_commit(commit, error), None);
        }
        if commit.generation_id >= 0 {
            self.touch(ctx, &commit.member);
        }
        let mut changes = Vec::new();
        let mut answer = Vec::with_capacity(commit.topics.len());
        for topic in &commit.topics {
            let store = |partition: &CommitPartition| {
                let error = self.accept(ctx, topic, partition, changes.len());
                if error == ErrorCode::None {
                    changes.push(self.stored(ctx.wall, commit.retention, topic, partition));
                }
                (partition.partition, error)
            };
            answer.push((topic.name.clone(), topic.partitions.iter().map(store).collect()));
        }
        let empty = changes.is_empty();
        let ticket = ctx.append(changes);
        if ticket.is_none() && !empty {
            return ctx.reply(request, refuse_commit(commit, ErrorCode::UnknownServerError), None);
        }
        ctx.reply(request, Response::OffsetCommit(answer), ticket);
    }

    fn validate_commit(&self, commit: &OffsetCommit) -> Result<(), ErrorCode> {
        if commit.generation_id < 0 && self.state == State::Empty {
            return Ok(());
        }
        if commit.generation_id < 0 && commit.member.is_empty() && commit.group_instance_id.is_none() {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.validate(&commit.member, commit.group_instance_id.as_deref())?;
        if commit.generation_id != self.generation && !mutant(21) {
            return Err(ErrorCode::IllegalGeneration);
        }
        if self.state == State::CompletingRebalance {
            // The leader may have read the offsets already: what is committed now could be read twice.
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(())
    }

    fn accept(&self, ctx: &Context<'_>, topic: &CommitTopic, partition: &CommitPartition, more: usize) -> ErrorCode {
        if partition.metadata.encode_utf16().count() > ctx.config.offset_metadata_max {
            return ErrorCode::OffsetMetadataTooLarge;
        }
        let known = || slot(ctx.store, &self.id, &topic.name, partition.partition).is_some();
        if ctx.store.offset_count() + more >= ctx.config.max_offsets && !known() {
            return ErrorCode::UnknownServerError;
        }
        ErrorCode::None
    }

    fn stored(&self, wall: Wall, keep: Option<Duration>, topic: &CommitTopic, partition: &CommitPartition) -> Change {
        let keep = keep.map(|keep| i64::try_from(keep.as_millis()).unwrap_or(i64::MAX));
        let record = OffsetRecord {
            offset: partition.offset,
            // The schema that carries an expiry has no place for these two.
            leader_epoch: if keep.is_some() { -1 } else { partition.leader_epoch },
            topic_id: if keep.is_some() { Uuid::default() } else { topic.id },
            metadata: partition.metadata.clone(),
            commit_timestamp: wall.as_millis(),
            expire_timestamp: keep.map(|keep| wall.as_millis().saturating_add(keep)),
        };
        (self.key(&topic.name, partition.partition), Some(Value::Offset(record)))
    }

    fn key(&self, topic: &Arc<str>, partition: i32) -> Key {
        Key::Offset { group: self.id.clone(), topic: topic.clone(), partition }
    }

    /// Deletes offsets of topics that no member reads.
    pub(crate) fn delete_offsets(&mut self, ctx: &mut Context<'_>, request: RequestId, delete: &OffsetDelete) {
        let whole = if self.state != State::Empty && !self.is_consumer_group() {
            Err(ErrorCode::NonEmptyGroup) // Its subscriptions cannot be read.
        } else {
            ctx.may_append()
        };
        if let Err(error) = whole {
            let refusal = OffsetDeleteResponse { error, topics: Vec::new() };
            return ctx.reply(request, Response::OffsetDelete(refusal), None);
        }
        let mut changes = Vec::new();
        let mut topics = Vec::with_capacity(delete.topics.len());
        for (topic, partitions) in &delete.topics {
            let subscribed = self.is_subscribed(topic);
            let error = if subscribed { ErrorCode::GroupSubscribedToTopic } else { ErrorCode::None };
            for partition in partitions.iter().filter(|_| !subscribed) {
                if slot(ctx.store, &self.id, topic, *partition).and_then(Slot::latest).is_some() {
                    changes.push((self.key(topic, *partition), None));
                }
            }
            topics.push((topic.clone(), partitions.iter().map(|partition| (*partition, error)).collect()));
        }
        let ticket = ctx.append(changes);
        ctx.reply(request, Response::OffsetDelete(OffsetDeleteResponse { error: ErrorCode::None, topics }), ticket);
    }

    /// Removes offsets past their retention, and the group itself if nothing is left of it.
    pub(crate) fn expire_offsets(&mut self, ctx: &mut Context<'_>) {
        if ctx.may_append().is_err() {
            return; // The next round finds them again.
        }
        let mut left = false;
        let mut changes: Vec<Change> = Vec::new();
        for (topic, partition, offset) in ctx.store.latest_offsets(&self.id) {
            if !self.is_subscribed(topic) && self.is_expired(ctx, offset) {
                changes.push((self.key(topic, partition), None));
            } else {
                left = true;
            }
        }
        if !left && self.is_deletable() && ctx.store.group(&self.id).is_some() {
            changes.push((Key::Group { group: self.id.clone() }, None));
        }
        ctx.append(changes);
    }

    fn is_expired(&self, ctx: &Context<'_>, offset: &OffsetRecord) -> bool {
        let since = match (&self.protocol_type, self.state) {
            (None, _) => offset.commit_timestamp,
            (Some(_), State::Empty) => self.state_timestamp.map_or(offset.commit_timestamp, Wall::as_millis),
            (Some(_), State::Stable) if self.is_consumer_group() && self.subscribed.is_some() => {
                offset.commit_timestamp
            }
            _ => return false,
        };
        let now = ctx.wall.as_millis();
        match offset.expire_timestamp {
            Some(expire) => now >= expire,
            None => i128::from(now) - i128::from(since) >= ctx.config.offsets_retention.as_millis().cast_signed(),
        }
    }

    /// What removes every trace of the group.
    pub(crate) fn tombstones(&self, store: &Store) -> Vec<Change> {
        let offsets = store.latest_offsets(&self.id).map(|(topic, partition, _)| (self.key(topic, partition), None));
        let corrupt = store.corrupt_keys(&self.id).into_iter().flatten().map(|key| (key.clone(), None));
        let mut changes: Vec<Change> = offsets.chain(corrupt).collect();
        if store.group(&self.id).is_some() {
            changes.push((Key::Group { group: self.id.clone() }, None));
        }
        changes
    }
}

/// The refusal of a whole commit.
pub(crate) fn refuse_commit(commit: &OffsetCommit, error: ErrorCode) -> Response {
    let topic = |topic: &CommitTopic| {
        (topic.name.clone(), topic.partitions.iter().map(|partition| (partition.partition, error)).collect())
    };
    Response::OffsetCommit(commit.topics.iter().map(topic).collect())
}

fn slot<'a>(store: &'a Store, group: &str, topic: &str, partition: i32) -> Option<&'a Slot> {
    store.topics(group)?.get(topic)?.get(&partition)
}

/// What is committed for a group, which need not exist.
pub(crate) fn fetch(store: &Store, fetch: &OffsetFetch) -> OffsetFetchResponse {
    let topics = match &fetch.topics {
        None => fetch_all(store, &fetch.group),
        Some(topics) => {
            let one = |topic: &FetchTopic, partition: i32| {
                let stored = slot(store, &fetch.group, &topic.name, partition).and_then(Slot::committed);
                let same = |offset: &&OffsetRecord| {
                    let zero = Uuid::default();
                    offset.topic_id == zero || topic.id == zero || offset.topic_id == topic.id
                };
                let none = FetchedOffset::none(partition, ErrorCode::None);
                stored.filter(same).map_or(none, |offset| fetched(partition, offset))
            };
            let all = |topic: &FetchTopic| {
                (topic.name.clone(), topic.partitions.iter().map(|partition| one(topic, *partition)).collect())
            };
            topics.iter().map(all).collect()
        }
    };
    OffsetFetchResponse { error: ErrorCode::None, topics }
}

fn fetch_all(store: &Store, group: &str) -> Vec<(Arc<str>, Vec<FetchedOffset>)> {
    let mut topics = Vec::new();
    for (name, partitions) in store.topics(group).into_iter().flatten() {
        let committed = partitions.iter().filter_map(|(partition, slot)| Some(fetched(*partition, slot.committed()?)));
        let committed: Vec<FetchedOffset> = committed.collect();
        if !committed.is_empty() {
            topics.push((name.clone(), committed));
        }
    }
    topics
}

fn fetched(partition: i32, offset: &OffsetRecord) -> FetchedOffset {
    FetchedOffset {
        partition,
        offset: offset.offset,
        leader_epoch: offset.leader_epoch,
        metadata: offset.metadata.clone(),
        error: ErrorCode::None,
    }
}

/// Removes the offsets that `group` stores for a deleted topic; those stored for another topic of the same name stay.
pub(crate) fn topic_deleted(ctx: &mut Context<'_>, group: &Arc<str>, name: &Arc<str>, id: Uuid) -> Option<Ticket> {
    let zero = Uuid::default();
    let of_topic = |offset: &OffsetRecord| offset.topic_id == zero || id == zero || offset.topic_id == id;
    let partitions = ctx.store.topics(group)?.get(name)?;
    let gone = partitions.iter().filter(|(_, slot)| slot.latest().is_some_and(of_topic));
    let key = |partition: i32| Key::Offset { group: group.clone(), topic: name.clone(), partition };
    let changes = gone.map(|(partition, _)| (key(*partition), None)).collect();
    ctx.append(changes)
}
