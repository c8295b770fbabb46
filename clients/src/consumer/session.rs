//! A fetch session with one broker (KIP-227): after the first request only what changes travels. Pure.
//! Invariant: what the broker has of the session is what was in the last request that it answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use madang_protocol::messages::fetch::{FetchPartition, FetchRequest, FetchTopic, ForgottenTopic};
use madang_protocol::types::{Offset, TopicId};

use super::{ConsumerConfig, IsolationLevel};

/// Topic and partition by name.
pub(super) type Key = (Arc<str>, i32);

/// Where one partition is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) topic_id: TopicId,
    pub(super) leader_epoch: i32,
    pub(super) offset: Offset,
}

/// What one broker is asked for.
pub(super) type Wanted = BTreeMap<Key, Place>;

/// What the broker knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Session {
    /// 0 while there is none.
    id: i32,
    /// The number of the next request in it.
    epoch: i32,
    partitions: Wanted,
}

impl Session {
    /// The next request for `wanted`: all of it without a session, else what has changed and what is no longer wanted.
    pub(super) fn request(&self, wanted: &Wanted, config: &ConsumerConfig) -> FetchRequest<'static> {
        let is_new = |key: &Key, place: &Place| self.id == 0 || self.partitions.get(key) != Some(place);
        let mut topics: Vec<FetchTopic<'static>> = Vec::new();
        for (key, place) in wanted.iter().filter(|(key, place)| is_new(key, place)) {
            let partition = FetchPartition {
                partition: key.1,
                current_leader_epoch: place.leader_epoch,
                fetch_offset: place.offset.0,
                partition_max_bytes: config.max_partition_bytes,
                ..FetchPartition::default()
            };
            match topics.last_mut() {
                Some(last) if *last.topic == *key.0 && last.topic_id == place.topic_id => {
                    last.partitions.push(partition)
                }
                _ => topics.push(FetchTopic {
                    topic: key.0.to_string().into(),
                    topic_id: place.topic_id,
                    partitions: vec![partition],
                }),
            }
        }
        let is_gone = |key: &Key, place: &Place| wanted.get(key).is_none_or(|now| now.topic_id != place.topic_id);
        let mut forgotten: Vec<ForgottenTopic<'static>> = Vec::new();
        for (key, place) in self.partitions.iter().filter(|(key, place)| self.id != 0 && is_gone(key, place)) {
            match forgotten.last_mut() {
                Some(last) if *last.topic == *key.0 && last.topic_id == place.topic_id => last.partitions.push(key.1),
                _ => forgotten.push(ForgottenTopic {
                    topic: key.0.to_string().into(),
                    topic_id: place.topic_id,
                    partitions: vec![key.1],
                }),
            }
        }
        FetchRequest {
            min_bytes: config.min_bytes,
            max_bytes: config.max_bytes,
            isolation_level: i8::from(config.isolation == IsolationLevel::ReadCommitted),
            session_id: self.id,
            session_epoch: self.epoch,
            topics,
            forgotten_topics_data: forgotten,
            ..FetchRequest::default()
        }
    }

    /// The broker has answered the request for `wanted`, within the session `id`, or within none.
    pub(super) fn answered(&mut self, id: i32, wanted: &Wanted) {
        if id <= 0 {
            *self = Self::default();
            return;
        }
        // Epochs count from 1 to the largest number and go on with 1.
        let epoch = if id == self.id { self.epoch.checked_add(1).unwrap_or(1) } else { 1 };
        *self = Self { id, epoch, partitions: wanted.clone() };
    }

    /// What the broker has is unknown, or gone.
    pub(super) fn lost(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(places: &[(&str, i32, i64)]) -> Wanted {
        let place = |offset| Place { topic_id: TopicId::ZERO, leader_epoch: 0, offset: Offset(offset) };
        places.iter().map(|(topic, partition, offset)| (((*topic).into(), *partition), place(*offset))).collect()
    }

    fn asked(request: &FetchRequest<'_>) -> Vec<(String, i32, i64)> {
        let of = |topic: &FetchTopic<'_>| -> Vec<_> {
            let name = topic.topic.to_string();
            topic.partitions.iter().map(|at| (name.clone(), at.partition, at.fetch_offset)).collect()
        };
        request.topics.iter().flat_map(of).collect()
    }

    #[test]
    fn only_what_changed_is_asked_for_again() {
        let config = ConsumerConfig::default();
        let mut session = Session::default();
        let first = wanted(&[("t", 0, 5), ("t", 1, 0), ("u", 0, 9)]);
        let request = session.request(&first, &config);
        assert_eq!((request.session_id, request.session_epoch, asked(&request).len()), (0, 0, 3));
        session.answered(77, &first);
        let second = wanted(&[("t", 0, 6), ("t", 1, 0)]);
        let request = session.request(&second, &config);
        assert_eq!((request.session_id, request.session_epoch), (77, 1));
        assert_eq!(asked(&request), [("t".to_owned(), 0, 6)]);
        assert_eq!(request.forgotten_topics_data.len(), 1);
        assert_eq!(request.forgotten_topics_data[0].topic, "u");
        session.answered(77, &second);
        let request = session.request(&second, &config);
        assert!((request.session_epoch, request.topics.len(), request.forgotten_topics_data.len()) == (2, 0, 0));
        session.lost();
        let request = session.request(&second, &config);
        assert_eq!((request.session_id, request.session_epoch, asked(&request).len()), (0, 0, 2));
        session.answered(0, &second);
        assert_eq!(asked(&session.request(&second, &config)).len(), 2, "a broker without sessions is asked for all");
    }

    #[test]
    fn a_topic_that_was_made_anew_leaves_the_session_and_comes_again() {
        let (mut session, config) = (Session::default(), ConsumerConfig::default());
        let before = wanted(&[("t", 0, 5)]);
        session.answered(3, &before);
        let mut after = before.clone();
        after.values_mut().for_each(|place| place.topic_id = TopicId::from_random(8, 8));
        let request = session.request(&after, &config);
        assert_eq!((request.topics.len(), request.forgotten_topics_data.len()), (1, 1));
        assert!(request.forgotten_topics_data[0].topic_id.is_zero());
    }
}
