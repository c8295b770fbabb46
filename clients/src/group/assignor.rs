//! Who in a group reads what. The assignors are pure, and agree with Java's and librdkafka's on what travels: their names and what members say
//! of themselves.
//! Invariant: each partition goes to at most one member, and only to one that subscribes to its topic.

mod range;
mod round_robin;
mod sticky;

use std::collections::{BTreeMap, BTreeSet};

pub use range::range_assign;

/// How the leader of a group shares out the partitions. Members offer a list, the coordinator chooses one that all of them have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignor {
    /// Per topic, members in order take neighbouring partitions. Partitions of equal number of several topics come together.
    Range,
    /// All partitions in order, to each member in turn.
    RoundRobin,
    /// Balanced, and members keep what they had as far as that allows. All stop reading during a rebalance.
    Sticky,
    /// As [`Assignor::Sticky`], but members go on with what they keep, and only what moves is given up, in two rounds (KIP-429). It works if no other
    /// kind is in the list.
    CooperativeSticky,
}

impl Assignor {
    /// Its name in Kafka.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::RoundRobin => "roundrobin",
            Self::Sticky => "sticky",
            Self::CooperativeSticky => "cooperative-sticky",
        }
    }

    /// The one of this name.
    ///
    /// ```
    /// # use madang_client::Assignor;
    /// assert_eq!(Assignor::of_name("cooperative-sticky"), Some(Assignor::CooperativeSticky));
    /// ```
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::Range, Self::RoundRobin, Self::Sticky, Self::CooperativeSticky]
            .into_iter()
            .find(|assignor| assignor.name() == name)
    }

    /// What every member gets. `partitions` says how many a topic has; a topic that is not in it is left out.
    pub(crate) fn assign(self, members: &[Subscriber], partitions: &BTreeMap<String, usize>) -> Assignments {
        match self {
            Self::Range => range::assign(members, partitions),
            Self::RoundRobin => round_robin::assign(members, partitions),
            Self::Sticky => sticky::assign(members, partitions),
            Self::CooperativeSticky => sticky::assign_cooperatively(members, partitions),
        }
    }
}

/// A member and what it says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subscriber {
    pub(crate) member_id: String,
    pub(crate) group_instance_id: Option<String>,
    pub(crate) topics: BTreeSet<String>,
    /// What it has, or had before a rebalance that made it give up everything.
    pub(crate) owned: Assignment,
    /// Since when; -1 if it does not know.
    pub(crate) generation: i32,
}

/// Topic to partitions.
pub(crate) type Assignment = BTreeMap<String, Vec<i32>>;
/// By member id.
pub(crate) type Assignments = BTreeMap<String, Assignment>;

/// Static members come first and by their instance id, so that a restart of one changes nothing.
fn in_order(members: &[Subscriber]) -> Vec<&Subscriber> {
    let mut ordered: Vec<_> = members.iter().collect();
    ordered.sort_by_key(|member| {
        let instance = member.group_instance_id.as_deref();
        (instance.is_none(), instance.unwrap_or(&member.member_id), &member.member_id)
    });
    ordered
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(super) fn member(id: &str, instance: Option<&str>, topics: &[&str]) -> Subscriber {
        Subscriber {
            member_id: id.to_owned(),
            group_instance_id: instance.map(str::to_owned),
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            owned: Assignment::new(),
            generation: -1,
        }
    }

    pub(super) fn counts(topics: &[(&str, usize)]) -> BTreeMap<String, usize> {
        topics.iter().map(|(topic, count)| ((*topic).to_owned(), *count)).collect()
    }

    /// Partitions of each member, by its id.
    pub(super) fn sizes(assigned: &Assignments) -> Vec<usize> {
        assigned.values().map(|lists| lists.values().map(Vec::len).sum()).collect()
    }

    const TOPICS: [&str; 4] = ["t", "u", "v", "w"];

    fn groups() -> impl Strategy<Value = (Vec<Subscriber>, BTreeMap<String, usize>)> {
        let owned = prop::collection::btree_map(0..TOPICS.len(), prop::collection::vec(-1..9_i32, 0..5), 0..4);
        let topics = prop::collection::btree_set(0..TOPICS.len(), 1..5);
        let member = (topics, owned, -1..3_i32, any::<bool>());
        let members = prop::collection::vec(member, 1..7);
        let counts = prop::collection::btree_map(0..TOPICS.len(), 0..9_usize, 1..5);
        (members, counts).prop_map(|(members, counts)| {
            let name = |at: usize| TOPICS[at].to_owned();
            let members =
                members.into_iter().enumerate().map(|(place, (topics, owned, generation, is_static))| Subscriber {
                    member_id: format!("m{place}"),
                    group_instance_id: is_static.then(|| format!("i{}", 9 - place)),
                    topics: topics.into_iter().map(name).collect(),
                    owned: owned.into_iter().map(|(topic, list)| (name(topic), list)).collect(),
                    generation,
                });
            (members.collect(), counts.into_iter().map(|(topic, count)| (name(topic), count)).collect())
        })
    }

    /// By topic and partition; fails if one has two or goes to somebody who did not ask for it.
    fn holders(members: &[Subscriber], assigned: &Assignments) -> BTreeMap<(String, i32), String> {
        let mut holders = BTreeMap::new();
        for member in members {
            for (topic, list) in &assigned[&member.member_id] {
                assert!(member.topics.contains(topic), "{} does not subscribe to {topic}", member.member_id);
                for partition in list {
                    let before = holders.insert((topic.clone(), *partition), member.member_id.clone());
                    assert_eq!(before, None, "{topic}-{partition} goes to two");
                }
            }
        }
        holders
    }

    /// What members say after they took what they were given.
    fn after(members: &[Subscriber], assigned: &Assignments, generation: i32) -> Vec<Subscriber> {
        let next = |member: &Subscriber| {
            let owned = assigned[&member.member_id].clone();
            Subscriber { owned, generation, ..member.clone() }
        };
        members.iter().map(next).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

        #[test]
        fn each_partition_that_somebody_wants_goes_to_one_who_does((members, counts) in groups()) {
            for assignor in [Assignor::Range, Assignor::RoundRobin, Assignor::Sticky] {
                let holders = holders(&members, &assignor.assign(&members, &counts));
                for (topic, count) in &counts {
                    let is_wanted = members.iter().any(|member| member.topics.contains(topic));
                    let held = holders.keys().filter(|(held, _)| held == topic).count();
                    prop_assert_eq!(held, if is_wanted { *count } else { 0 }, "{}: {}", assignor.name(), topic);
                }
            }
        }

        #[test]
        fn sticky_is_as_balanced_as_can_be_and_moves_nothing_in_a_second_round((members, counts) in groups()) {
            let assigned = Assignor::Sticky.assign(&members, &counts);
            let size = |id: &str| -> usize { assigned[id].values().map(Vec::len).sum() };
            for ((topic, _), holder) in holders(&members, &assigned) {
                for other in members.iter().filter(|member| member.topics.contains(&topic)) {
                    prop_assert!(size(&holder) <= size(&other.member_id) + 1, "{topic} could move from {holder}");
                }
            }
            prop_assert_eq!(&Assignor::Sticky.assign(&after(&members, &assigned, 9), &counts), &assigned);
        }

        #[test]
        fn with_equal_subscriptions_only_the_surplus_moves(owned in prop::collection::vec(0..5_usize, 12), members in 1..6_usize) {
            let mut all: Vec<Subscriber> = (0..members).map(|at| Subscriber { generation: 1, ..member(&format!("m{at}"), None, &["t"]) }).collect();
            for (partition, owner) in (0..).zip(&owned) {
                if let Some(owner) = all.get_mut(*owner) {
                    owner.owned.entry("t".into()).or_default().push(partition);
                }
            }
            let assigned = Assignor::Sticky.assign(&all, &counts(&[("t", 12)]));
            let had: Vec<usize> = all.iter().map(|member| member.owned.get("t").map_or(0, Vec::len)).collect();
            // As many members as the division leaves a rest may keep one more than the others.
            let mut surplus: usize = had.iter().map(|had| had.saturating_sub(12 / members)).sum();
            surplus -= had.iter().filter(|had| **had > 12 / members).count().min(12 % members);
            let kept = |member: &Subscriber| {
                let now = assigned[&member.member_id].get("t").cloned().unwrap_or_default();
                member.owned.get("t").map_or(0, |had| had.iter().filter(|at| now.contains(at)).count())
            };
            let moved = had.iter().sum::<usize>() - all.iter().map(kept).sum::<usize>();
            prop_assert_eq!(moved, surplus, "{:?} {:?}", had, assigned);
        }

        #[test]
        fn cooperative_takes_from_nobody_and_settles_where_sticky_is((members, counts) in groups()) {
            // In a group that works, nobody claims what is not its own.
            let began = Assignor::Sticky.assign(&members, &counts);
            let members = after(&members[..members.len() / 2], &began, 1).into_iter().chain(
                members[members.len() / 2..].iter().map(|late| Subscriber { owned: Assignment::new(), generation: -1, ..late.clone() }),
            ).collect::<Vec<_>>();
            let wanted = Assignor::Sticky.assign(&members, &counts);
            let first = Assignor::CooperativeSticky.assign(&members, &counts);
            for ((topic, partition), holder) in holders(&members, &first) {
                let owner = members.iter().find(|member| member.owned.get(&topic).is_some_and(|list| list.contains(&partition)));
                prop_assert!(owner.is_none_or(|owner| owner.member_id == holder));
            }
            let settled = Assignor::CooperativeSticky.assign(&after(&members, &first, 2), &counts);
            prop_assert_eq!(holders(&members, &settled).len(), holders(&members, &wanted).len());
            let mut sizes = (sizes(&settled), sizes(&wanted));
            sizes.0.sort_unstable();
            sizes.1.sort_unstable();
            prop_assert_eq!(sizes.0, sizes.1);
        }
    }
}
