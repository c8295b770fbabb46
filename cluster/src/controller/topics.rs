//! Creating and deleting topics.
//! Invariant: a topic is created with all its partitions in one entry, or not at all.

use std::collections::BTreeSet;

use madang_protocol::ErrorCode;
use madang_protocol::types::{TopicId, Uuid};

use super::api::{
    ApiError, ApiResult, CreatedTopic, DeletedTopic, InternalTopic, MAX_PARTITIONS_PER_REQUEST, NewTopic, TopicRef,
};
use super::configs::checked_topic_config;
use super::draft::{Draft, duplicate};
use super::partitions::{manual, push_partition};
use super::placement::place;
use super::records::{MetadataRecord, RemoveTopicRecord, TopicRecord};
use super::replay::config_record;
use crate::metadata::{ConfigResource, MetadataImage};

/// Longest name of a topic.
const MAX_NAME: usize = 249;

pub(super) fn create(draft: &mut Draft<'_>, topics: Vec<NewTopic>) -> Vec<ApiResult<CreatedTopic>> {
    let asked = topics.iter().map(|topic| asked_partitions(draft, topic)).fold(0, usize::saturating_add);
    if asked > MAX_PARTITIONS_PER_REQUEST {
        let error = ApiError::new(ErrorCode::PolicyViolation, "Excessively large number of partitions per request.");
        return topics.iter().map(|_| Err(error.clone())).collect();
    }
    let twice = mentioned_twice(topics.iter().map(|topic| topic.name.as_str()));
    let one = |topic: NewTopic| {
        if twice.contains(&topic.name) {
            return Err(duplicate("Duplicate topic name."));
        }
        create_one(draft, topic)
    };
    topics.into_iter().map(one).collect()
}

fn asked_partitions(draft: &Draft<'_>, topic: &NewTopic) -> usize {
    match topic.partitions {
        _ if !topic.assignments.is_empty() => topic.assignments.len(),
        -1 => draft.defaults.num_partitions.unsigned_abs() as usize,
        count => usize::try_from(count).unwrap_or(0),
    }
}

/// The names that come more than once.
pub(super) fn mentioned_twice<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    names.filter(|name| !seen.insert(*name)).map(str::to_owned).collect()
}

fn create_one(draft: &mut Draft<'_>, topic: NewTopic) -> ApiResult<CreatedTopic> {
    check_name(&topic.name)
        .map_err(|why| ApiError::new(ErrorCode::InvalidTopicException, format!("Topic name is invalid: {why}")))?;
    check_free(&draft.image, &topic.name)?;
    let configs = checked_topic_config(&topic.configs)?;
    let assignments = if topic.assignments.is_empty() {
        automatic(draft, &topic)?
    } else {
        if topic.replication_factor != -1 {
            return Err(ApiError::new(
                ErrorCode::InvalidRequest,
                "A manual partition assignment was specified, but replication factor was not set to -1.",
            ));
        }
        if topic.partitions != -1 {
            return Err(ApiError::new(
                ErrorCode::InvalidRequest,
                "A manual partition assignment was specified, but numPartitions was not set to -1.",
            ));
        }
        manual(draft, topic.assignments)?
    };
    let topic_id = new_id(draft);
    draft.push(MetadataRecord::Topic(TopicRecord { topic_id: topic_id.0, name: topic.name.clone() }));
    let resource = ConfigResource::topic(&topic.name);
    for (key, value) in &configs {
        draft.push(MetadataRecord::Config(config_record(&resource, key, Some(value.to_string()))));
    }
    let replication_factor = assignments.first().map_or(0, Vec::len);
    let partitions = assignments.len();
    for (index, replicas) in (0..).zip(assignments) {
        push_partition(draft, (topic_id, &topic.name), index, replicas);
    }
    Ok(CreatedTopic {
        topic_id,
        partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
        replication_factor: i16::try_from(replication_factor).unwrap_or(i16::MAX),
        configs,
    })
}

fn automatic(draft: &mut Draft<'_>, topic: &NewTopic) -> ApiResult<Vec<Vec<madang_protocol::types::NodeId>>> {
    if topic.replication_factor < -1 || topic.replication_factor == 0 {
        return Err(ApiError::new(
            ErrorCode::InvalidReplicationFactor,
            "Replication factor must be larger than 0, or -1 to use the default value.",
        ));
    }
    if topic.partitions < -1 || topic.partitions == 0 {
        return Err(ApiError::new(
            ErrorCode::InvalidPartitions,
            "Number of partitions was set to an invalid non-positive value.",
        ));
    }
    let partitions = if topic.partitions == -1 { draft.defaults.num_partitions } else { topic.partitions };
    let factor = match topic.replication_factor {
        -1 => draft.defaults.default_replication_factor,
        factor => factor,
    };
    place(draft, partitions.unsigned_abs() as usize, factor.unsigned_abs() as usize)
}

/// Whether a name may be a topic's; the error is Kafka's text of what is wrong with it.
///
/// # Errors
/// What is wrong.
pub fn check_name(name: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() {
        return Err("the empty string is not allowed".to_owned());
    }
    if matches!(name, "." | "..") {
        return Err(format!("'{name}' is not allowed"));
    }
    if name.len() > MAX_NAME {
        return Err(format!("the length of '{name}' is longer than the max allowed length {MAX_NAME}"));
    }
    if !name.bytes().all(allowed) {
        return Err(format!(
            "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
        ));
    }
    Ok(())
}

fn check_free(image: &MetadataImage, name: &str) -> ApiResult<()> {
    if name == "__cluster_metadata" {
        return Err(ApiError::new(
            ErrorCode::InvalidRequest,
            "Creation of internal topic __cluster_metadata is prohibited.",
        ));
    }
    if image.topic(name).is_some() {
        return Err(ApiError::new(ErrorCode::TopicAlreadyExists, format!("Topic '{name}' already exists.")));
    }
    match image.colliding_topic(name) {
        Some(other) => Err(ApiError::new(
            ErrorCode::InvalidTopicException,
            format!("Topic '{name}' collides with existing topic: {other}"),
        )),
        None => Ok(()),
    }
}

fn new_id(draft: &mut Draft<'_>) -> TopicId {
    loop {
        let id = Uuid::from_random(draft.rng.next_u64(), draft.rng.next_u64());
        if draft.image.topic_by_id(id).is_none() && !draft.image.is_deleted(id) {
            return id;
        }
    }
}

pub(super) fn create_internal(draft: &mut Draft<'_>, topic: InternalTopic) -> ApiResult<TopicId> {
    if let Some(topic_id) = draft.image.topic_id(topic.name()) {
        return Ok(topic_id);
    }
    let defaults = draft.defaults;
    let own = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
    let (partitions, factor, configs) = match topic {
        InternalTopic::ConsumerOffsets => (
            defaults.offsets_topic_partitions,
            defaults.offsets_topic_replication_factor,
            vec![
                own("cleanup.policy", "compact"),
                own("compression.type", "producer"),
                own("segment.bytes", &defaults.offsets_topic_segment_bytes.to_string()),
            ],
        ),
        InternalTopic::TransactionState => (
            defaults.transaction_topic_partitions,
            defaults.transaction_topic_replication_factor,
            vec![
                own("cleanup.policy", "compact"),
                own("compression.type", "uncompressed"),
                own("min.insync.replicas", &defaults.transaction_topic_min_isr.to_string()),
                own("segment.bytes", &defaults.transaction_topic_segment_bytes.to_string()),
                own("unclean.leader.election.enable", "false"),
            ],
        ),
    };
    // Not at the nodes that live now: whoever asks while the others start would have one replica for ever.
    let nodes = draft.image.brokers().count().max(defaults.quorum_voters.len());
    let nodes = i16::try_from(nodes).unwrap_or(i16::MAX);
    let new = NewTopic {
        name: topic.name().to_owned(),
        partitions,
        replication_factor: factor.min(nodes).max(1),
        assignments: Vec::new(),
        configs,
    };
    create_one(draft, new).map(|created| created.topic_id)
}

pub(super) fn delete(draft: &mut Draft<'_>, topics: Vec<TopicRef>) -> Vec<ApiResult<DeletedTopic>> {
    let enabled = draft.defaults.delete_topics;
    let named = topics.iter().filter_map(|topic| match topic {
        TopicRef::Name(name) => Some(name.as_str()),
        TopicRef::Id(_) => None,
    });
    let twice = mentioned_twice(named);
    let mut ids = BTreeSet::new();
    let one = |topic: TopicRef| {
        let topic_id = match topic {
            _ if !enabled => return Err(ErrorCode::TopicDeletionDisabled.into()),
            TopicRef::Name(name) if twice.contains(&name) => return Err(duplicate("Duplicate topic name.")),
            TopicRef::Name(name) => draft.image.topic_id(&name).ok_or(ErrorCode::UnknownTopicOrPartition)?,
            TopicRef::Id(id) if id.is_zero() => return Err(duplicate("Neither topic name nor id were specified.")),
            TopicRef::Id(id) => id,
        };
        if !ids.insert(topic_id) {
            return Err(duplicate("Duplicate topic id."));
        }
        let name = draft.image.topic_name(topic_id).cloned().ok_or(ErrorCode::UnknownTopicId)?;
        draft.push(MetadataRecord::RemoveTopic(RemoveTopicRecord { topic_id: topic_id.0 }));
        Ok(DeletedTopic { name, topic_id })
    };
    topics.into_iter().map(one).collect()
}
