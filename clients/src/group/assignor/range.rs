//! The range assignor: per topic, members in order take neighbouring partitions.

use std::collections::BTreeMap;

use super::{Assignment, Assignments, Subscriber, in_order};

/// How many of `partitions` the member at `place` of `members` takes, and from which on: the first ones take one more when it does not divide.
///
/// ```
/// # use madang_client::range_assign;
/// assert_eq!([range_assign(7, 3, 0), range_assign(7, 3, 1), range_assign(7, 3, 2)], [0..3, 3..5, 5..7]);
/// ```
#[must_use]
pub fn range_assign(partitions: usize, members: usize, place: usize) -> std::ops::Range<usize> {
    let members = members.max(1);
    let (each, more) = (partitions / members, partitions % members);
    let place = place.min(members);
    let start = place * each + place.min(more);
    start..(start + each + usize::from(place < more)).min(partitions)
}

/// Assigns all partitions of all topics.
pub(super) fn assign(members: &[Subscriber], partitions: &BTreeMap<String, usize>) -> Assignments {
    let mut assigned: Assignments =
        members.iter().map(|member| (member.member_id.clone(), Assignment::new())).collect();
    let ordered = in_order(members);
    for (topic, count) in partitions {
        let takers: Vec<_> = ordered.iter().filter(|member| member.topics.contains(topic)).collect();
        for (place, taker) in takers.iter().enumerate() {
            let range = range_assign(*count, takers.len(), place);
            if let Some(mine) = assigned.get_mut(&taker.member_id).filter(|_| !range.is_empty()) {
                mine.insert(topic.clone(), range.filter_map(|partition| i32::try_from(partition).ok()).collect());
            }
        }
    }
    assigned
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::assignor::tests::{counts, member};

    #[test]
    fn each_partition_goes_to_one_subscriber_and_shares_differ_by_one() {
        for members in 1..6_usize {
            for partitions in 0..20_usize {
                let ranges: Vec<_> = (0..members).map(|place| range_assign(partitions, members, place)).collect();
                assert_eq!(ranges.iter().cloned().flatten().collect::<Vec<_>>(), (0..partitions).collect::<Vec<_>>());
                let longest = ranges.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
                assert!(ranges.iter().all(|range| longest - range.len() <= 1));
            }
        }
    }

    #[test]
    fn members_get_only_what_they_subscribe_to() {
        let members = [member("b", None, &["t", "u"]), member("a", None, &["t"]), member("c", None, &["gone"])];
        let assigned = assign(&members, &counts(&[("t", 3), ("u", 2)]));
        assert_eq!(assigned["a"], Assignment::from([("t".into(), vec![0, 1])]));
        assert_eq!(assigned["b"], Assignment::from([("t".into(), vec![2]), ("u".into(), vec![0, 1])]));
        assert_eq!(assigned["c"], Assignment::new());
    }

    #[test]
    fn static_members_come_first_by_instance_id() {
        let members = [member("a", None, &["t"]), member("z", Some("2"), &["t"]), member("y", Some("1"), &["t"])];
        let assigned = assign(&members, &counts(&[("t", 3)]));
        let of = |id: &str| assigned[id]["t"].clone();
        assert_eq!((of("y"), of("z"), of("a")), (vec![0], vec![1], vec![2]));
    }
}
