//! What members of a group tell each other through the coordinator, as Java's and librdkafka's clients write and read it.
//! Invariant: what another member sends is an error at worst, never a panic; what a newer member adds behind what is known here is skipped.

use bytes::Bytes;
use madang_protocol::message::{Message, encode_versioned};
use madang_protocol::messages::consumer_protocol_assignment::{self, ConsumerProtocolAssignment};
use madang_protocol::messages::consumer_protocol_subscription::{self, ConsumerProtocolSubscription};
use madang_protocol::{DecodeError, EncodeError, Reader, Writer};

use super::assignor::{Assignment, Assignor, Subscriber};

/// The newest version of subscription and assignment.
const NEWEST: i16 = 3;
/// The version that assignments are written in: all have the same fields.
const ASSIGNMENT: i16 = 1;

/// What a sticky assignor of Java's keeps in a subscription's data. Version 0 ends before the generation; no number says which it is.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-1")]
struct StickyData<'a> {
    /// What the member had.
    previous: Vec<consumer_protocol_subscription::TopicPartition<'a>>,
    /// Since when.
    #[field(versions = "1+", default = -1)]
    generation: i32,
}

/// What this member says of itself.
pub(super) struct Itself<'a> {
    pub(super) topics: &'a [String],
    /// What it has at the moment; nothing in a group whose members give up everything before they join.
    pub(super) owned: &'a Assignment,
    /// What it got last, in this generation.
    pub(super) last: &'a Assignment,
    pub(super) generation: i32,
    pub(super) rack: Option<&'a str>,
}

impl Itself<'_> {
    /// The subscription that is offered with `assignor`.
    pub(super) fn subscription(&self, assignor: Assignor) -> Result<Bytes, EncodeError> {
        let user_data = match assignor {
            Assignor::Range | Assignor::RoundRobin => None,
            // As Java: a member that never had anything says nothing.
            Assignor::Sticky if self.generation < 0 => None,
            Assignor::Sticky => {
                let mut writer = Writer::new();
                StickyData { previous: lists(self.last), generation: self.generation }.encode(&mut writer, 1)?;
                Some(writer.into_bytes()?)
            }
            Assignor::CooperativeSticky => Some(Bytes::copy_from_slice(&self.generation.to_be_bytes())),
        };
        let subscription = ConsumerProtocolSubscription {
            topics: self.topics.iter().map(|topic| topic.as_str().into()).collect(),
            user_data,
            owned_partitions: lists(self.owned),
            generation_id: self.generation,
            rack_id: self.rack.map(Into::into),
        };
        encode_versioned(&subscription, NEWEST)
    }
}

fn lists(assignment: &Assignment) -> Vec<consumer_protocol_subscription::TopicPartition<'_>> {
    let mut lists = Vec::with_capacity(assignment.len());
    for (topic, partitions) in assignment {
        let (topic, partitions) = (topic.as_str().into(), partitions.clone());
        lists.push(consumer_protocol_subscription::TopicPartition { topic, partitions });
    }
    lists
}

fn owned(lists: Vec<consumer_protocol_subscription::TopicPartition<'_>>) -> Assignment {
    let mut assignment = Assignment::new();
    for list in lists {
        assignment.entry(list.topic.into()).or_default().extend(list.partitions);
    }
    assignment
}

/// Reads a message behind its version, in the newest version that is known.
fn decode<'a, M: Message<'a>>(bytes: &'a Bytes) -> Result<(M, i16), DecodeError> {
    let mut reader = Reader::new(bytes);
    let version = reader.read_i16()?.min(NEWEST);
    Ok((M::decode(&mut reader, version)?, version))
}

/// What a member says of itself, as `assignor` needs it.
pub(crate) fn subscriber(
    assignor: Assignor,
    member_id: &str,
    group_instance_id: Option<&str>,
    metadata: &Bytes,
) -> Result<Subscriber, DecodeError> {
    let (said, version) = decode::<ConsumerProtocolSubscription<'_>>(metadata)?;
    let (owned, generation) = match (assignor, &said.user_data) {
        // Its members have given up everything when they join: only the data tell what they had.
        (Assignor::Sticky, Some(data)) if !data.is_empty() => sticky(data)?,
        (Assignor::Sticky, _) => (owned(said.owned_partitions), said.generation_id),
        (Assignor::CooperativeSticky, data) if version < 2 => {
            let number = data
                .as_ref()
                .and_then(|data| data.first_chunk::<4>())
                .filter(|_| data.as_ref().is_some_and(|data| data.len() == 4));
            (owned(said.owned_partitions), number.map_or(-1, |number| i32::from_be_bytes(*number)))
        }
        _ => (owned(said.owned_partitions), said.generation_id),
    };
    Ok(Subscriber {
        member_id: member_id.to_owned(),
        group_instance_id: group_instance_id.map(str::to_owned),
        topics: said.topics.into_iter().map(Into::into).collect(),
        owned,
        generation,
    })
}

/// Version 1 of a sticky assignor's data, or else version 0.
fn sticky(data: &Bytes) -> Result<(Assignment, i32), DecodeError> {
    let newer = StickyData::decode(&mut Reader::new(data), 1);
    let data = newer.or_else(|_| StickyData::decode(&mut Reader::new(data), 0))?;
    Ok((owned(data.previous), data.generation))
}

/// Writes what a member gets.
pub(super) fn encode_assignment(assignment: Assignment) -> Result<Bytes, EncodeError> {
    let list = |(topic, partitions): (String, _)| consumer_protocol_assignment::TopicPartition {
        topic: topic.into(),
        partitions,
    };
    let assigned_partitions = assignment.into_iter().map(list).collect();
    encode_versioned(&ConsumerProtocolAssignment { assigned_partitions, user_data: None }, ASSIGNMENT)
}

/// Reads what this member gets. Nothing at all is nothing.
pub(crate) fn assignment(bytes: &Bytes) -> Result<Assignment, DecodeError> {
    if bytes.is_empty() {
        return Ok(Assignment::new());
    }
    let (found, _) = decode::<ConsumerProtocolAssignment<'_>>(bytes)?;
    let mut assignment = Assignment::new();
    for list in found.assigned_partitions {
        assignment.entry(list.topic.into()).or_default().extend(list.partitions);
    }
    assignment.values_mut().for_each(|list| {
        list.sort_unstable();
        list.dedup();
    });
    Ok(assignment)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn itself<'a>(topics: &'a [String], has: &'a Assignment, generation: i32) -> Itself<'a> {
        Itself { topics, owned: has, last: has, generation, rack: None }
    }

    #[test]
    fn what_a_member_says_is_what_the_leader_reads() {
        let (topics, has) = (["t".to_owned()], Assignment::from([("t".into(), vec![0, 2])]));
        for assignor in [Assignor::Range, Assignor::RoundRobin, Assignor::Sticky, Assignor::CooperativeSticky] {
            let bytes = itself(&topics, &has, 7).subscription(assignor).expect("written");
            let read = subscriber(assignor, "m", Some("i"), &bytes).expect("read");
            assert_eq!((read.owned, read.generation), (has.clone(), 7), "{}", assignor.name());
            assert_eq!(read.topics.into_iter().collect::<Vec<_>>(), topics);
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_java_client() {
        let (topics, has) = (["t".to_owned()], Assignment::from([("t".into(), vec![1])]));
        let start = [0, 3, 0, 0, 0, 1, 0, 1, b't'];
        let list = [0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 1];
        let (generation, no_rack) = ([0, 0, 0, 5], [0xff, 0xff]);
        let cooperative = itself(&topics, &has, 5).subscription(Assignor::CooperativeSticky).expect("written");
        let data = [0, 0, 0, 4, 0, 0, 0, 5];
        assert_eq!(cooperative[..], [&start[..], &data, &list, &generation, &no_rack].concat());
        // The data of the sticky one are the list and the generation, 19 bytes.
        let sticky = Itself { owned: &Assignment::new(), ..itself(&topics, &has, 5) };
        let data = [&[0, 0, 0, 19][..], &list, &generation].concat();
        let nothing = [0, 0, 0, 0];
        let expected = [&start[..], &data, &nothing, &generation, &no_rack].concat();
        assert_eq!(sticky.subscription(Assignor::Sticky).expect("written")[..], expected);
    }

    #[test]
    fn older_and_newer_members_are_read() {
        // Version 0, data of version 0 of the sticky assignor: no generation.
        let data = [0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 1];
        let old = [&[0, 0, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 15][..], &data].concat();
        let read = subscriber(Assignor::Sticky, "m", None, &old.into()).expect("read");
        assert_eq!((read.owned, read.generation), (Assignment::from([("t".into(), vec![1])]), -1));
        // Version 1 with a generation in the data, as Java's cooperative assignor wrote it before the field came.
        let v1 = [&[0, 1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 9][..], &data].concat();
        let read = subscriber(Assignor::CooperativeSticky, "m", None, &v1.into()).expect("read");
        assert_eq!(read.generation, 9);
        // A version that is not known yet, with more behind what is known.
        let newer =
            [&[0, 9, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff][..], &data, &[0, 0, 0, 2, 0xff, 0xff, 1, 2, 3]].concat();
        let read = subscriber(Assignor::CooperativeSticky, "m", None, &newer.into()).expect("read");
        assert_eq!(read.generation, 2);
        assert!(subscriber(Assignor::Range, "m", None, &Bytes::from_static(&[0xff, 0xff, 0, 0])).is_err());
    }
}
