//! The round-robin assignor: all partitions of all topics in order, one to each member in turn that subscribes to the topic.

use std::collections::BTreeMap;

use super::{Assignment, Assignments, Subscriber, in_order};

/// Assigns all partitions of all topics.
pub(super) fn assign(members: &[Subscriber], partitions: &BTreeMap<String, usize>) -> Assignments {
    let mut assigned: Assignments =
        members.iter().map(|member| (member.member_id.clone(), Assignment::new())).collect();
    let ordered = in_order(members);
    let mut turn = 0;
    for (topic, count) in partitions {
        if !ordered.iter().any(|member| member.topics.contains(topic)) {
            continue;
        }
        for partition in 0..i32::try_from(*count).unwrap_or(i32::MAX) {
            while !ordered[turn].topics.contains(topic) {
                turn = (turn + 1) % ordered.len();
            }
            if let Some(mine) = assigned.get_mut(&ordered[turn].member_id) {
                mine.entry(topic.clone()).or_default().push(partition);
            }
            turn = (turn + 1) % ordered.len();
        }
    }
    assigned
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::assignor::tests::{counts, member};

    #[test]
    fn turns_go_on_over_topics_and_skip_who_does_not_subscribe() {
        let all = ["t", "u"];
        let members = [member("a", None, &all), member("b", None, &all)];
        let assigned = assign(&members, &counts(&[("t", 3), ("u", 3)]));
        assert_eq!(assigned["a"], Assignment::from([("t".into(), vec![0, 2]), ("u".into(), vec![1])]));
        assert_eq!(assigned["b"], Assignment::from([("t".into(), vec![1]), ("u".into(), vec![0, 2])]));
        // From the documentation of Java's assignor: three topics, of which each member reads one more than the one before.
        let members = [member("0", None, &["0"]), member("1", None, &["0", "1"]), member("2", None, &["0", "1", "2"])];
        let assigned = assign(&members, &counts(&[("0", 1), ("1", 2), ("2", 3)]));
        assert_eq!(assigned["0"], Assignment::from([("0".into(), vec![0])]));
        assert_eq!(assigned["1"], Assignment::from([("1".into(), vec![0])]));
        assert_eq!(assigned["2"], Assignment::from([("1".into(), vec![1]), ("2".into(), vec![0, 1, 2])]));
    }
}
