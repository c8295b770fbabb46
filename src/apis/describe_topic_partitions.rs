//! DescribeTopicPartitions: topics in order of their names, page by page, with the replicas that may lead though not in sync (KIP-966).

use std::collections::BTreeSet;

use madang_cluster::controller::check_topic_name;
use madang_cluster::metadata::{MetadataImage, NO_LEADER, PartitionImage, TopicImage, is_internal};
use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
};
use madang_protocol::types::NodeId;

use crate::apis::{metadata, operations};
use crate::env::Env;

/// The broker's own limit of partitions in one answer.
const LIMIT: &str = "max.request.partition.size.limit";

/// Answers one request. A cursor that points nowhere goes on with what comes after it.
pub fn handle<E: Env>(
    env: &E,
    request: &DescribeTopicPartitionsRequest<'_>,
) -> DescribeTopicPartitionsResponse<'static> {
    let own = env.config().value(LIMIT).and_then(|limit| limit.parse().ok()).unwrap_or(2000);
    let limit = usize::try_from(request.response_partition_limit.min(own)).unwrap_or(1).max(1);
    page(&env.image(), request, limit)
}

fn page(
    image: &MetadataImage,
    request: &DescribeTopicPartitionsRequest<'_>,
    limit: usize,
) -> DescribeTopicPartitionsResponse<'static> {
    let from = request.cursor.as_ref().map(|cursor| (&*cursor.topic_name, cursor.partition_index));
    let named: BTreeSet<&str> = match request.topics.len() {
        0 => image.topics().map(|topic| &*topic.name).collect(),
        _ => request.topics.iter().map(|topic| &*topic.name).collect(),
    };
    let mut response = DescribeTopicPartitionsResponse::default();
    let mut left = limit;
    for name in named.into_iter().filter(|name| from.is_none_or(|(topic, _)| *name >= topic)) {
        if left == 0 {
            response.next_cursor = Some(cursor(name, 0));
            break;
        }
        let Some(topic) = image.topic(name) else {
            // Of all topics none is missing, so one was asked for.
            response.topics.push(missing(name));
            continue;
        };
        // A cursor's topic may be gone since, and then the next one begins at its start.
        let first = from.filter(|(topic, _)| *topic == name).map_or(0, |(_, index)| index);
        let (described, next) = described(image, topic, first, left);
        left -= described.partitions.len();
        response.topics.push(described);
        if let Some(next) = next {
            response.next_cursor = Some(cursor(name, next));
            break;
        }
    }
    response
}

fn cursor(name: &str, partition_index: i32) -> Cursor<'static> {
    Cursor { topic_name: name.to_owned().into(), partition_index }
}

fn missing(name: &str) -> DescribeTopicPartitionsResponseTopic<'static> {
    let error = match check_topic_name(name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err(_) => ErrorCode::InvalidTopicException,
    };
    DescribeTopicPartitionsResponseTopic {
        error_code: error.code(),
        name: Some(name.to_owned().into()),
        is_internal: is_internal(name),
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}

/// The topic from `first` on, as far as there is room, and where it goes on.
fn described(
    image: &MetadataImage,
    topic: &TopicImage,
    first: i32,
    room: usize,
) -> (DescribeTopicPartitionsResponseTopic<'static>, Option<i32>) {
    let mut rest = topic.partitions.iter().filter(|(index, _)| **index >= first);
    let partitions: Vec<_> = rest.by_ref().take(room).map(|(index, state)| partition(image, *index, state)).collect();
    let described = DescribeTopicPartitionsResponseTopic {
        name: Some(topic.name.to_string().into()),
        topic_id: topic.topic_id,
        is_internal: topic.is_internal(),
        partitions,
        topic_authorized_operations: operations::TOPIC,
        ..DescribeTopicPartitionsResponseTopic::default()
    };
    (described, rest.next().map(|(index, _)| *index))
}

fn partition(image: &MetadataImage, index: i32, state: &PartitionImage) -> DescribeTopicPartitionsResponsePartition {
    // Whoever describes a topic asks what the metadata has.
    let known = metadata::partition(image, &BTreeSet::new(), index, state);
    let last: Vec<NodeId> = Some(state.last_known_leader).filter(|node| *node != NO_LEADER).into_iter().collect();
    let raw = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
    DescribeTopicPartitionsResponsePartition {
        error_code: known.error_code,
        partition_index: index,
        leader_id: known.leader_id,
        leader_epoch: known.leader_epoch,
        replica_nodes: known.replica_nodes,
        isr_nodes: known.isr_nodes,
        eligible_leader_replicas: Some(raw(&state.eligible_leader_replicas)),
        last_known_elr: Some(raw(&last)),
        offline_replicas: known.offline_replicas,
    }
}

#[cfg(test)]
mod tests {
    use madang_actors::prng::Prng;
    use madang_cluster::configs::BrokerConfig;
    use madang_cluster::controller::{NewTopic, Outcome, Proposal, RegisterBroker, decide};
    use madang_protocol::messages::describe_topic_partitions::TopicRequest;
    use madang_protocol::types::Uuid;

    use super::*;

    fn image() -> MetadataImage {
        let (config, mut rng, mut image) = (BrokerConfig::default(), Prng::new(1), MetadataImage::default());
        let mut ask = |proposal| {
            let decision = decide(&image, &config, &mut rng, proposal);
            image = decision.image;
            decision.result.expect("decided")
        };
        let registered = ask(Proposal::RegisterBroker(RegisterBroker {
            node_id: NodeId(1),
            incarnation_id: Uuid([9; 16]),
            endpoints: Vec::new(),
            rack: None,
            log_dirs: Vec::new(),
            starts: Vec::new(),
        }));
        let Outcome::Registered(broker_epoch) = registered else { panic!("{registered:?}") };
        ask(Proposal::UnfenceBroker { node_id: NodeId(1), broker_epoch });
        let topic = |name: &str, partitions| NewTopic {
            name: name.into(),
            partitions,
            replication_factor: 1,
            ..NewTopic::default()
        };
        let topics = vec![topic("a", 3), topic("b", 2), topic("c", 1)];
        ask(Proposal::CreateTopics { topics, validate_only: false });
        image
    }

    /// What pages of `limit` partitions say: topics with their partitions and errors.
    fn pages(names: &[&'static str], limit: usize) -> Vec<Vec<(String, Vec<i32>, i16)>> {
        let image = image();
        let topics = names.iter().map(|name| TopicRequest { name: (*name).into() }).collect();
        let mut request = DescribeTopicPartitionsRequest { topics, ..Default::default() };
        let mut pages = Vec::new();
        loop {
            let page = page(&image, &request, limit);
            let topic = |topic: &DescribeTopicPartitionsResponseTopic<'_>| {
                let partitions = topic.partitions.iter().map(|one| one.partition_index).collect();
                (topic.name.as_deref().unwrap_or_default().to_owned(), partitions, topic.error_code)
            };
            pages.push(page.topics.iter().map(topic).collect());
            assert!(pages.len() < 20, "it ends");
            match page.next_cursor {
                Some(next) => request.cursor = Some(next),
                None => return pages,
            }
        }
    }

    fn row(name: &str, partitions: &[i32]) -> (String, Vec<i32>, i16) {
        (name.to_owned(), partitions.to_vec(), 0)
    }

    #[test]
    fn pages_follow_each_other_without_a_gap() {
        let whole = vec![row("a", &[0, 1, 2]), row("b", &[0, 1]), row("c", &[0])];
        assert_eq!(pages(&[], 2000), [whole]);
        let by_two =
            [vec![row("a", &[0, 1])], vec![row("a", &[2]), row("b", &[0])], vec![row("b", &[1]), row("c", &[0])]];
        assert_eq!(pages(&[], 2), by_two);
        assert_eq!(pages(&["c", "a", "c"], 3), [vec![row("a", &[0, 1, 2])], vec![row("c", &[0])]]);
    }

    #[test]
    fn what_is_asked_for_and_missing_has_an_error_and_a_lost_cursor_goes_on_after_its_topic() {
        let unknown = ErrorCode::UnknownTopicOrPartition.code();
        let invalid = ErrorCode::InvalidTopicException.code();
        let expected = vec![("a!".to_owned(), vec![], invalid), ("aa".to_owned(), vec![], unknown), row("c", &[0])];
        assert_eq!(pages(&["c", "aa", "a!"], 9), [expected]);
        let gone = DescribeTopicPartitionsRequest { cursor: Some(cursor("aa", 7)), ..Default::default() };
        let page = page(&image(), &gone, 9);
        assert_eq!(page.topics.iter().map(|topic| topic.partitions.len()).collect::<Vec<_>>(), [2, 1]);
    }
}
