//! The sticky assignors: as balanced as the subscriptions allow, and with that as few partitions moved as a greedy search finds.
//! Invariant: each partition of a topic that somebody subscribes to goes to exactly one subscriber; after `cooperative` to at most one, and to
//! nobody but its owner while it has one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Assignment, Assignments, Subscriber, in_order};

/// Assigns all partitions of all topics.
pub(super) fn assign(members: &[Subscriber], partitions: &BTreeMap<String, usize>) -> Assignments {
    let mut plan = Plan::new(members, partitions);
    plan.keep();
    plan.give();
    plan.balance();
    plan.assignments()
}

/// The same, but a partition that another member still owns goes to nobody yet: its owner gives it up first and the group rebalances again (KIP-429).
pub(super) fn assign_cooperatively(members: &[Subscriber], partitions: &BTreeMap<String, usize>) -> Assignments {
    let mut assigned = assign(members, partitions);
    let mut owners: BTreeMap<(&str, i32), BTreeSet<&str>> = BTreeMap::new();
    for member in members {
        for (topic, list) in &member.owned {
            for partition in list {
                owners.entry((topic, *partition)).or_default().insert(&member.member_id);
            }
        }
    }
    for (member_id, assignment) in &mut assigned {
        for (topic, list) in assignment.iter_mut() {
            list.retain(|partition| {
                let owners = owners.get(&(topic.as_str(), *partition));
                owners.is_none_or(|owners| owners.contains(member_id.as_str()))
            });
        }
        assignment.retain(|_, list| !list.is_empty());
    }
    assigned
}

/// Members and topics by their place.
struct Plan<'a> {
    members: Vec<&'a Subscriber>,
    topics: Vec<(&'a str, i32)>,
    /// Who subscribes, by topic.
    takers: Vec<Vec<usize>>,
    /// By member and topic.
    held: Vec<BTreeMap<usize, BTreeSet<i32>>>,
    load: Vec<usize>,
    /// Who had it before and has it by right.
    owner: BTreeMap<(usize, i32), usize>,
}

impl<'a> Plan<'a> {
    fn new(members: &'a [Subscriber], partitions: &'a BTreeMap<String, usize>) -> Self {
        let members = in_order(members);
        let count = |count: &usize| i32::try_from(*count).unwrap_or(i32::MAX);
        let topics: Vec<_> = partitions.iter().map(|(topic, found)| (topic.as_str(), count(found))).collect();
        let subscribers = |topic: &str| {
            let places = members.iter().enumerate().filter(|(_, member)| member.topics.contains(topic));
            places.map(|(place, _)| place).collect()
        };
        let takers = topics.iter().map(|(topic, _)| subscribers(topic)).collect();
        let (held, load) = (vec![BTreeMap::new(); members.len()], vec![0; members.len()]);
        Self { members, topics, takers, held, load, owner: BTreeMap::new() }
    }

    /// Each partition stays with the member that claims it from the newest generation; one that two claim from the same is nobody's.
    fn keep(&mut self) {
        let mut claims: BTreeMap<(usize, i32), (i32, Option<usize>)> = BTreeMap::new();
        for (place, member) in self.members.iter().enumerate() {
            for (topic, list) in &member.owned {
                let Ok(at) = self.topics.binary_search_by_key(&topic.as_str(), |(name, _)| name) else { continue };
                for partition in list {
                    if !member.topics.contains(topic) || !(0..self.topics[at].1).contains(partition) {
                        continue;
                    }
                    let claim = claims.entry((at, *partition)).or_insert((member.generation, Some(place)));
                    match member.generation.cmp(&claim.0) {
                        std::cmp::Ordering::Greater => *claim = (member.generation, Some(place)),
                        std::cmp::Ordering::Equal if claim.1 != Some(place) => claim.1 = None,
                        _ => {}
                    }
                }
            }
        }
        for ((topic, partition), (_, claimed_by)) in claims {
            if let Some(member) = claimed_by {
                self.owner.insert((topic, partition), member);
                self.put(member, topic, partition);
            }
        }
    }

    fn put(&mut self, member: usize, topic: usize, partition: i32) {
        self.held[member].entry(topic).or_default().insert(partition);
        self.load[member] += 1;
    }

    /// What nobody has goes to whoever has least, topics with few subscribers first.
    fn give(&mut self) {
        let mut order: Vec<usize> = (0..self.topics.len()).collect();
        order.sort_by_key(|topic| self.takers[*topic].len());
        for topic in order {
            for partition in 0..self.topics[topic].1 {
                if self.owner.contains_key(&(topic, partition)) {
                    continue;
                }
                let least = self.takers[topic].iter().copied().min_by_key(|taker| self.load[*taker]);
                if let Some(least) = least {
                    self.put(least, topic, partition);
                }
            }
        }
    }

    /// Moves partitions, over several members if need be, from who has more to who has less by at least two, until no such way is left. Each
    /// step makes the sum of the squared loads smaller, so it ends, and what it ends with cannot be balanced better.
    fn balance(&mut self) {
        while let Some(way) = self.way() {
            for (from, topic, to) in way.into_iter().rev() {
                self.shift(from, topic, to);
            }
        }
    }

    /// Steps of member, topic, next member, from one that has too much.
    fn way(&self) -> Option<Vec<(usize, usize, usize)>> {
        let least = *self.load.iter().min()?;
        let mut sources: Vec<usize> = (0..self.members.len()).filter(|place| self.load[*place] >= least + 2).collect();
        sources.sort_by_key(|place| std::cmp::Reverse(self.load[*place]));
        sources.into_iter().find_map(|source| self.way_from(source))
    }

    fn way_from(&self, source: usize) -> Option<Vec<(usize, usize, usize)>> {
        let mut came: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        let mut seen = BTreeSet::from([source]);
        let mut topics_seen = BTreeSet::new();
        let mut queue = VecDeque::from([source]);
        while let Some(from) = queue.pop_front() {
            let mut best: Option<usize> = None;
            for topic in self.held[from].keys() {
                // Who reached the topic first has reached all its subscribers.
                if !topics_seen.insert(*topic) {
                    continue;
                }
                for to in &self.takers[*topic] {
                    if seen.insert(*to) {
                        came.insert(*to, (from, *topic));
                        queue.push_back(*to);
                        let is_light = self.load[*to] + 2 <= self.load[source];
                        if is_light && best.is_none_or(|best| self.load[*to] < self.load[best]) {
                            best = Some(*to);
                        }
                    }
                }
            }
            if let Some(mut at) = best {
                let mut way = Vec::new();
                while let Some((before, topic)) = came.get(&at).copied() {
                    way.push((before, topic, at));
                    at = before;
                }
                way.reverse();
                return Some(way);
            }
        }
        None
    }

    fn shift(&mut self, from: usize, topic: usize, to: usize) {
        let Some(list) = self.held[from].get_mut(&topic) else { return };
        let owner = |partition: &i32| self.owner.get(&(topic, *partition)).copied();
        // Best what comes home; then what is not at home here anyway.
        let home = list.iter().copied().find(|partition| owner(partition) == Some(to));
        let stray = || list.iter().copied().find(|partition| owner(partition) != Some(from));
        let Some(partition) = home.or_else(stray).or_else(|| list.last().copied()) else { return };
        list.remove(&partition);
        if list.is_empty() {
            self.held[from].remove(&topic);
        }
        self.load[from] -= 1;
        self.put(to, topic, partition);
    }

    fn assignments(self) -> Assignments {
        let of = |held: BTreeMap<usize, BTreeSet<i32>>| -> Assignment {
            let lists = held.into_iter().map(|(topic, list)| (self.topics[topic].0.to_owned(), list));
            lists.map(|(topic, list)| (topic, list.into_iter().collect())).collect()
        };
        self.members.iter().map(|member| member.member_id.clone()).zip(self.held.into_iter().map(of)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::assignor::tests::{counts, member, sizes};

    fn owning(id: &str, topics: &[&str], owned: &[(&str, &[i32])], generation: i32) -> Subscriber {
        let owned = owned.iter().map(|(topic, list)| ((*topic).to_owned(), list.to_vec())).collect();
        Subscriber { owned, generation, ..member(id, None, topics) }
    }

    #[test]
    fn a_newcomer_gets_its_share_and_the_others_keep_the_rest() {
        let members = [
            owning("a", &["t"], &[("t", &[0, 1, 2])], 1),
            owning("b", &["t"], &[("t", &[3, 4, 5])], 1),
            member("c", None, &["t"]),
        ];
        let assigned = assign(&members, &counts(&[("t", 6)]));
        assert_eq!(sizes(&assigned), [2, 2, 2]);
        assert!(assigned["a"]["t"].iter().all(|at| *at < 3) && assigned["b"]["t"].iter().all(|at| *at >= 3));
    }

    #[test]
    fn what_is_left_behind_is_shared_and_nothing_else_moves() {
        let members = [owning("a", &["t"], &[("t", &[0, 3])], 4), owning("b", &["t"], &[("t", &[1, 4])], 4)];
        let assigned = assign(&members, &counts(&[("t", 6)]));
        assert_eq!(sizes(&assigned), [3, 3]);
        assert!(assigned["a"]["t"].contains(&0) && assigned["a"]["t"].contains(&3));
        assert!(assigned["b"]["t"].contains(&1) && assigned["b"]["t"].contains(&4));
    }

    #[test]
    fn the_newest_generation_wins_a_claim() {
        let members = [owning("a", &["t"], &[("t", &[0, 1])], 3), owning("b", &["t"], &[("t", &[0])], 5)];
        let assigned = assign(&members, &counts(&[("t", 2)]));
        assert_eq!((assigned["b"]["t"].clone(), assigned["a"]["t"].clone()), (vec![0], vec![1]));
    }

    #[test]
    fn partitions_travel_over_others_where_subscriptions_differ() {
        // Only over b does a part of the load of a reach c.
        let members = [
            owning("a", &["t"], &[("t", &[0, 1, 2, 3])], 1),
            owning("b", &["t", "u"], &[("u", &[0, 1])], 1),
            member("c", None, &["u"]),
        ];
        let assigned = assign(&members, &counts(&[("t", 4), ("u", 2)]));
        assert_eq!(sizes(&assigned), [2, 2, 2], "{assigned:?}");
    }

    #[test]
    fn a_cooperative_move_takes_two_rounds() {
        let partitions = counts(&[("t", 4)]);
        let first = [owning("a", &["t"], &[("t", &[0, 1, 2, 3])], 1), member("b", None, &["t"])];
        let assigned = assign_cooperatively(&first, &partitions);
        assert_eq!(sizes(&assigned), [2, 0], "b waits for what a has to give up");
        let kept = assigned["a"]["t"].clone();
        let second = [owning("a", &["t"], &[("t", &kept)], 2), owning("b", &["t"], &[], 2)];
        let assigned = assign_cooperatively(&second, &partitions);
        assert_eq!((sizes(&assigned), &assigned["a"]["t"]), (vec![2, 2], &kept));
    }
}
