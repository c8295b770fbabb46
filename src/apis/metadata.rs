//! Metadata: brokers, topics, leaders. May create a topic that a client has asked for by name.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use madang_cluster::controller::{InternalTopic, NewTopic, Proposal, check_topic_name};
use madang_cluster::metadata::{MetadataImage, PartitionImage, TopicImage, is_internal};
use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic,
};
use madang_protocol::types::{NodeId, TopicId};

use crate::apis::locate::serving;
use crate::apis::operations;
use crate::env::{Client, Env};

/// The first version in which a client names topics by id, and a null name means that it did.
const BY_ID: i16 = 12;
/// How long a topic's creation in the background may take.
const CREATION_TIMEOUT: Duration = Duration::from_secs(30);

/// Answers one request.
pub fn handle<E: Env>(
    env: &E,
    client: &Client,
    request: &MetadataRequest<'_>,
    version: i16,
) -> MetadataResponse<'static> {
    if let Some(refused) = refused(request, version) {
        return refused;
    }
    let (image, gone) = (env.image(), env.gone());
    let mut response = MetadataResponse {
        brokers: brokers(&image, client),
        cluster_id: Some(image.cluster_id().to_string().into()),
        controller_id: env.node_id().0,
        ..MetadataResponse::default()
    };
    let mut missing = BTreeSet::new();
    match asked(request, version) {
        None => response.topics.extend(image.topics().map(|topic| described(&image, &gone, topic))),
        Some(topics) => {
            // A topic that is asked for twice is described once.
            let mut seen = HashSet::new();
            for topic in topics.iter().filter(|topic| seen.insert((topic.name.as_deref(), topic.topic_id))) {
                response.topics.push(one(&image, &gone, topic, version, &mut missing));
            }
        }
    }
    if request.allow_auto_topic_creation && env.config().auto_create_topics {
        create_in_background(env, missing);
    }
    if request.include_topic_authorized_operations {
        for topic in response.topics.iter_mut().filter(|topic| topic.error_code == 0) {
            topic.topic_authorized_operations = operations::TOPIC;
        }
    }
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = operations::CLUSTER;
    }
    response
}

/// The topics that are asked for; none means all. In version 0 an empty list means all, later a null does.
fn asked<'r, 'a>(request: &'r MetadataRequest<'a>, version: i16) -> Option<&'r [MetadataRequestTopic<'a>]> {
    match &request.topics {
        Some(topics) if version == 0 && topics.is_empty() => None,
        Some(topics) => Some(topics),
        None => None,
    }
}

/// The answer to a request that asks for a topic in a way that its version does not have: every topic fails and nothing else is said.
fn refused(request: &MetadataRequest<'_>, version: i16) -> Option<MetadataResponse<'static>> {
    let topics = request.topics.as_deref()?;
    let nameless = |topic: &MetadataRequestTopic<'_>| topic.name.is_none();
    let error = if version < BY_ID && topics.iter().any(|topic| nameless(topic) || !topic.topic_id.is_zero()) {
        ErrorCode::InvalidRequest
    } else if topics.iter().any(|topic| nameless(topic) && topic.topic_id.is_zero()) {
        ErrorCode::UnknownServerError
    } else {
        return None;
    };
    let failed = topics.iter().map(|topic| failed(topic.name.as_deref().or(Some("")), topic.topic_id, error));
    // Only a failure that nobody foresaw is told at the top too.
    let top = if error == ErrorCode::UnknownServerError { error.code() } else { 0 };
    Some(MetadataResponse {
        topics: failed.collect(),
        controller_id: -1,
        error_code: top,
        ..MetadataResponse::default()
    })
}

fn brokers(image: &MetadataImage, client: &Client) -> Vec<MetadataResponseBroker<'static>> {
    let named = image.live_brokers().filter_map(|broker| {
        let endpoint = broker.endpoint(&client.listener)?;
        Some(MetadataResponseBroker {
            node_id: broker.node_id.0,
            host: endpoint.host.to_string().into(),
            port: i32::from(endpoint.port),
            rack: broker.rack.as_ref().map(|rack| rack.to_string().into()),
        })
    });
    named.collect()
}

fn one(
    image: &MetadataImage,
    gone: &BTreeSet<NodeId>,
    asked: &MetadataRequestTopic<'_>,
    version: i16,
    missing: &mut BTreeSet<Arc<str>>,
) -> MetadataResponseTopic<'static> {
    if version >= BY_ID && asked.name.is_none() || !asked.topic_id.is_zero() && asked.name.is_none() {
        return match image.topic_by_id(asked.topic_id) {
            Some(topic) => described(image, gone, topic),
            None => failed(None, asked.topic_id, ErrorCode::UnknownTopicId),
        };
    }
    let name = asked.name.as_deref().unwrap_or_default();
    if let Some(topic) = image.topic(name) {
        return described(image, gone, topic);
    }
    if check_topic_name(name).is_err() {
        return failed(Some(name), TopicId::ZERO, ErrorCode::InvalidTopicException);
    }
    missing.insert(name.into());
    failed(Some(name), TopicId::ZERO, ErrorCode::UnknownTopicOrPartition)
}

fn failed(name: Option<&str>, topic_id: TopicId, error: ErrorCode) -> MetadataResponseTopic<'static> {
    MetadataResponseTopic {
        error_code: error.code(),
        name: name.map(|name| name.to_owned().into()),
        topic_id,
        is_internal: name.is_some_and(is_internal),
        ..MetadataResponseTopic::default()
    }
}

fn described(image: &MetadataImage, gone: &BTreeSet<NodeId>, topic: &TopicImage) -> MetadataResponseTopic<'static> {
    MetadataResponseTopic {
        name: Some(topic.name.to_string().into()),
        topic_id: topic.topic_id,
        is_internal: topic.is_internal(),
        partitions: topic.partitions.iter().map(|(&index, state)| partition(image, gone, index, state)).collect(),
        ..MetadataResponseTopic::default()
    }
}

/// One partition, as the metadata has it; nobody leads what a node leads that is `gone`.
pub(super) fn partition(
    image: &MetadataImage,
    gone: &BTreeSet<NodeId>,
    partition_index: i32,
    state: &PartitionImage,
) -> MetadataResponsePartition {
    let is_live = |node| serving(image, gone, node).is_some();
    let led = is_live(state.leader);
    let offline = state.assigned_replicas.iter().filter(|&&node| !is_live(node) || state.is_given_up(node));
    MetadataResponsePartition {
        error_code: if led { ErrorCode::None } else { ErrorCode::LeaderNotAvailable }.code(),
        partition_index,
        leader_id: if led { state.leader.0 } else { -1 },
        leader_epoch: state.leader_epoch.0,
        replica_nodes: state.assigned_replicas.iter().map(|node| node.0).collect(),
        isr_nodes: state.in_sync_replicas.iter().map(|node| node.0).collect(),
        offline_replicas: offline.map(|node| node.0).collect(),
    }
}

/// The client is told that the topic is unknown and asks again; meanwhile it is created.
fn create_in_background<E: Env>(env: &E, names: BTreeSet<Arc<str>>) {
    for proposal in creations(names) {
        let created = env.propose(proposal, env.now() + CREATION_TIMEOUT);
        env.in_background(Box::pin(async move {
            // Whatever went wrong, the client's next request finds out.
            drop(created.await);
        }));
    }
}

/// What creates the topics of these names: an internal one has partitions and settings of its own, whoever asks for it first.
fn creations(names: BTreeSet<Arc<str>>) -> Vec<Proposal> {
    let (internal, plain): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| is_internal(name));
    // One that nothing here would use is left alone.
    let own = [InternalTopic::ConsumerOffsets, InternalTopic::TransactionState].into_iter();
    let mut proposals: Vec<_> = own
        .filter(|topic| internal.iter().any(|name| &**name == topic.name()))
        .map(Proposal::CreateInternalTopic)
        .collect();
    let defaults = |name: Arc<str>| NewTopic {
        name: name.to_string(),
        partitions: -1,
        replication_factor: -1,
        ..NewTopic::default()
    };
    let topics: Vec<_> = plain.into_iter().map(defaults).collect();
    if !topics.is_empty() {
        proposals.push(Proposal::CreateTopics { topics, validate_only: false });
    }
    proposals
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(name: Option<&'static str>, topic_id: TopicId) -> MetadataRequest<'static> {
        let topic = MetadataRequestTopic { topic_id, name: name.map(Into::into) };
        MetadataRequest { topics: Some(vec![topic]), ..MetadataRequest::default() }
    }

    #[test]
    fn a_topic_is_asked_for_by_id_from_version_12_on() {
        let id = TopicId::from_random(7, 9);
        let code =
            |request: &MetadataRequest<'_>, version| refused(request, version).map(|all| all.topics[0].error_code);
        assert_eq!(code(&asking(None, id), 11), Some(ErrorCode::InvalidRequest.code()));
        assert_eq!(code(&asking(None, id), 12), None);
        assert_eq!(code(&asking(None, TopicId::ZERO), 12), Some(ErrorCode::UnknownServerError.code()));
        assert_eq!(code(&asking(Some("t"), TopicId::ZERO), 10), None);
        assert_eq!(code(&asking(Some("t"), TopicId::ZERO), 0), None);
    }

    #[test]
    fn an_internal_topic_that_is_asked_for_by_name_is_created_as_one() {
        let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
        let created = creations(names(&["__consumer_offsets", "b", "a"]));
        let [Proposal::CreateInternalTopic(InternalTopic::ConsumerOffsets), Proposal::CreateTopics { topics, .. }] =
            &created[..]
        else {
            panic!("{created:?}")
        };
        assert_eq!(topics.iter().map(|topic| &*topic.name).collect::<Vec<_>>(), ["a", "b"]);
        assert!(creations(names(&["__share_group_state"])).is_empty());
        assert!(creations(names(&[])).is_empty());
    }
}
