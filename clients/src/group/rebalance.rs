//! Partitions that come to a member and go from it.
//! Invariant: the listener hears of every partition that comes once, and once that it goes: revoked or lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use madang_protocol::ErrorCode;
use tokio::time::Instant;

use super::assignor::Assignment;
use super::membership::{End, Heartbeats, Member, Membership};
use super::{GroupConsumer, TOPICS_ARE_CHECKED, TopicPartition};
use crate::backoff::Backoff;
use crate::consumer::{OutOfRange, StartAt, list_offsets};
use crate::error::GroupError;

/// What is in `these` and not in `those`.
fn without(these: &Assignment, those: &Assignment) -> Assignment {
    let rest = |(topic, list): (&String, &Vec<i32>)| {
        let others = those.get(topic).map_or(&[][..], Vec::as_slice);
        let rest: Vec<i32> = list.iter().copied().filter(|partition| !others.contains(partition)).collect();
        (!rest.is_empty()).then(|| (topic.clone(), rest))
    };
    these.iter().filter_map(rest).collect()
}

fn named(assignment: &Assignment) -> Vec<TopicPartition> {
    let of_topic = |(topic, list): (&String, &Vec<i32>)| {
        let topic: Arc<str> = topic.as_str().into();
        let named = |partition: &i32| TopicPartition { topic: Arc::clone(&topic), partition: *partition };
        list.iter().map(named).collect::<Vec<_>>()
    };
    assignment.iter().flat_map(of_topic).collect()
}

impl GroupConsumer {
    pub(super) fn fenced(&self) -> GroupError {
        let group_instance_id = self.config.group_instance_id.clone().unwrap_or_default();
        GroupError::Fenced { group: self.config.group.clone(), group_instance_id }
    }

    /// The generation is over.
    pub(super) async fn ended(&mut self, end: End) -> Result<(), GroupError> {
        match end {
            // Who stays in the group tells of what it has when it joins again.
            End::Rebalance => {}
            End::Lost => self.lost(),
            End::Fenced => {
                self.lost();
                self.is_fenced = true;
                return Err(self.fenced());
            }
        }
        self.heartbeats = None;
        Ok(())
    }

    /// Others may have what this member had.
    fn lost(&mut self) {
        self.heartbeats = None;
        let owned = named(&self.owned());
        self.consumer.unassign_all();
        self.member = Member { id: String::new(), generation_id: -1, ..std::mem::take(&mut self.member) };
        if !owned.is_empty() {
            self.listener.lost(&owned);
        }
    }

    /// Gives partitions up, with what is to be committed of them.
    pub(super) async fn revoke(&mut self, partitions: Assignment) {
        if partitions.is_empty() {
            return;
        }
        let mut offsets = self.listener.revoked(&named(&partitions));
        if self.commits.is_automatic() {
            let is_going =
                |(topic, partition): &(String, i32)| partitions.get(topic).is_some_and(|list| list.contains(partition));
            for (key, at) in self.here() {
                if is_going(&key) {
                    offsets.entry(key).or_insert(at);
                }
            }
        }
        // If that fails the next owner reads some records again; the partitions have to go all the same.
        drop(self.commits.commit(&self.member, offsets).await);
        for (topic, list) in &partitions {
            for partition in list {
                self.consumer.unassign_partition(topic, *partition);
            }
        }
    }

    pub(super) async fn join(&mut self) -> Result<(), GroupError> {
        let mut backoff =
            Backoff::within(self.client.config().retry_timeout.saturating_add(self.config.max_poll_interval));
        loop {
            let error = match self.join_once().await {
                Ok(true) => return Ok(()),
                // What was given up is to be shared out.
                Ok(false) => continue,
                Err(error) => error,
            };
            self.heartbeats = None;
            if let GroupError::Broker { code, .. } = &error
                && let Some(end) = End::of(*code)
            {
                self.ended(end).await?;
                continue;
            }
            if !error.is_retriable() || !backoff.wait().await {
                return Err(error);
            }
        }
    }

    /// Joins the next generation. `false` if the group has to rebalance once more because this member has given something up.
    async fn join_once(&mut self) -> Result<bool, GroupError> {
        self.heartbeats = None;
        if !self.config.is_cooperative() {
            self.revoke(self.owned()).await;
        }
        let owned = self.owned();
        let membership = Membership {
            client: &self.client,
            config: &self.config,
            topics: &self.topics,
            coordinator: &self.coordinator,
            owned: &owned,
        };
        membership.join(&mut self.member).await?;
        self.heartbeats = Some(Heartbeats::start(&self.client, &self.config, &self.member));
        self.topics_checked = Instant::now();
        let assigned = self.member.last.clone();
        let (going, coming) = (without(&owned, &assigned), without(&assigned, &owned));
        let is_settled = going.is_empty();
        self.revoke(going).await;
        self.start_reading(&coming).await?;
        if !coming.is_empty() {
            self.listener.assigned(&named(&coming));
        }
        Ok(is_settled)
    }

    /// Starts at the committed offsets, and where there is none at the end that the configuration says. Tries until the generation is over.
    async fn start_reading(&mut self, coming: &Assignment) -> Result<(), GroupError> {
        let mut backoff = Backoff::within(self.client.config().retry_timeout);
        loop {
            let error = match self.find_starts(coming).await {
                Ok(starts) => {
                    for (topic, partition, offset) in starts {
                        self.consumer.assign_partition(&topic, partition, offset);
                    }
                    return Ok(());
                }
                Err(error) => error,
            };
            if let Some(Err(end)) = self.heartbeats.as_ref().map(Heartbeats::polled) {
                self.ended(end).await?;
                return Err(GroupError::Broker {
                    group: self.config.group.clone(),
                    code: ErrorCode::RebalanceInProgress,
                });
            }
            if !error.is_retriable() || !backoff.wait().await {
                return Err(error);
            }
        }
    }

    async fn find_starts(
        &self,
        coming: &Assignment,
    ) -> Result<Vec<(Arc<str>, i32, madang_protocol::types::Offset)>, GroupError> {
        if coming.is_empty() {
            return Ok(Vec::new());
        }
        let topics: Vec<&str> = coming.keys().map(String::as_str).collect();
        self.client.usable_metadata(&topics, false).await?;
        let committed = self.coordinator.fetch_offsets(Some(coming)).await?;
        let mut starts = Vec::new();
        let mut missing: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        for (topic, partitions) in coming {
            let name: Arc<str> = topic.as_str().into();
            for partition in partitions {
                match committed.get(&(topic.clone(), *partition)) {
                    Some(found) => starts.push((Arc::clone(&name), *partition, found.offset)),
                    None => missing.entry(topic.clone()).or_default().push(*partition),
                }
            }
        }
        if missing.is_empty() {
            return Ok(starts);
        }
        let start = match self.config.consumer.out_of_range {
            OutOfRange::Earliest => StartAt::Earliest,
            OutOfRange::Latest => StartAt::Latest,
            OutOfRange::Fail => {
                return Err(GroupError::Broker { group: self.config.group.clone(), code: ErrorCode::OffsetOutOfRange });
            }
        };
        let listed = list_offsets(&self.client, &missing, start, self.config.consumer.isolation).await?;
        starts.extend(listed.into_iter().map(|((topic, partition), found)| (topic.into(), partition, found.offset)));
        Ok(starts)
    }

    /// The member that assigned has the group rebalance when there are other partitions to assign.
    pub(super) async fn check_topics(&mut self) -> Result<(), GroupError> {
        let Some(led) = &self.member.led else { return Ok(()) };
        if self.topics_checked.elapsed() < TOPICS_ARE_CHECKED {
            return Ok(());
        }
        self.topics_checked = Instant::now();
        let topics: Vec<&str> = led.keys().map(String::as_str).collect();
        // If nobody answers now, the next look will do.
        let Ok(metadata) = self.client.metadata(&topics, false).await else { return Ok(()) };
        let count = |topic: &String| metadata.topics.get(topic).map_or(0, |found| found.partitions.len());
        if led.iter().any(|(topic, assigned)| count(topic) != *assigned) {
            return self.join().await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_goes_is_the_difference() {
        let before = Assignment::from([("t".into(), vec![0, 1]), ("u".into(), vec![0])]);
        let after = Assignment::from([("t".into(), vec![1, 2])]);
        assert_eq!(without(&before, &after), Assignment::from([("t".into(), vec![0]), ("u".into(), vec![0])]));
        assert_eq!(named(&without(&after, &before)), [TopicPartition { topic: "t".into(), partition: 2 }]);
    }
}
