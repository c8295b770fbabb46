//! Which brokers hold new partitions.
//! Invariant: a partition's replicas are distinct, in as many racks as there are, and on a fenced broker only where too few others are.

use madang_protocol::ErrorCode;
use madang_protocol::types::NodeId;

use super::api::{ApiError, ApiResult};
use super::draft::Draft;
use crate::metadata::BrokerRegistration;

/// A broker, and the number of its rack; those that name none are in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    node: NodeId,
    rack: usize,
}

/// Replicas of `partitions` new partitions, spread evenly from a random start, so that leaders are too.
pub(super) fn place(draft: &mut Draft<'_>, partitions: usize, factor: usize) -> ApiResult<Vec<Vec<NodeId>>> {
    let refuse = |why: &str| {
        let message = format!("Unable to replicate the partition {factor} time(s): {why}");
        Err(ApiError::new(ErrorCode::InvalidReplicationFactor, message))
    };
    let mut racks = Vec::new();
    let (live, fenced) = {
        let (live, fenced): (Vec<_>, Vec<_>) = draft.image.brokers().partition(|broker| !broker.fenced);
        (interleaved(&live, &mut racks), interleaved(&fenced, &mut racks))
    };
    if live.is_empty() {
        return refuse("All brokers are currently fenced, or have all their log directories cordoned.");
    }
    if factor > live.len() + fenced.len() {
        return refuse(&format!(
            "The target replication factor of {factor} cannot be reached because only {} broker(s) are registered or \
             some brokers have all their log directories cordoned.",
            live.len() + fenced.len()
        ));
    }
    let start = draft.rng.below(live.len() as u64) as usize;
    Ok((0..partitions).map(|partition| replicas(&live, &fenced, start, partition, factor)).collect())
}

/// The brokers by node, one of each rack in turn. `racks` are the names of the racks by number; it grows.
fn interleaved(
    brokers: &[&std::sync::Arc<BrokerRegistration>],
    racks: &mut Vec<Option<std::sync::Arc<str>>>,
) -> Vec<Place> {
    let mut turns = Vec::with_capacity(brokers.len());
    let mut seen = Vec::new();
    for broker in brokers {
        let rack = racks.iter().position(|rack| *rack == broker.rack).unwrap_or_else(|| {
            racks.push(broker.rack.clone());
            racks.len() - 1
        });
        seen.resize(racks.len(), 0_usize);
        turns.push((seen[rack], Place { node: broker.node_id, rack }));
        seen[rack] += 1;
    }
    turns.sort_by_key(|(turn, place)| (*turn, place.node));
    turns.into_iter().map(|(_, place)| place).collect()
}

/// Leaders go round the live brokers. Followers are those after the leader, and shift by one each round, so that a lost leader's load does not
/// fall on one other.
fn replicas(live: &[Place], fenced: &[Place], start: usize, partition: usize, factor: usize) -> Vec<NodeId> {
    let (first, round) = (start + partition, partition / live.len());
    let mut chosen = vec![live[first % live.len()]];
    let others = live.len() - 1;
    let after = (0..others).map(|n| live[(first + 1 + (n + round) % others) % live.len()]);
    let last = (0..fenced.len()).map(|n| fenced[(first + n) % fenced.len()]);
    take(&mut chosen, factor, after);
    take(&mut chosen, factor, last);
    chosen.into_iter().map(|place| place.node).collect()
}

/// Takes of `places` until there are `factor`: first those in racks that have none.
fn take(chosen: &mut Vec<Place>, factor: usize, places: impl Iterator<Item = Place> + Clone) {
    for new_rack in [true, false] {
        for place in places.clone() {
            if chosen.len() == factor {
                return;
            }
            let free = if new_rack {
                chosen.iter().all(|taken| taken.rack != place.rack)
            } else {
                chosen.iter().all(|taken| taken.node != place.node)
            };
            if free {
                chosen.push(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// Nodes 1 and on, by the numbers of their racks.
    fn places(racks: &[usize]) -> Vec<Place> {
        let mut turns: Vec<(usize, Place)> = Vec::new();
        for (at, rack) in racks.iter().copied().enumerate() {
            let turn = racks[..at].iter().filter(|other| **other == rack).count();
            turns.push((turn, Place { node: NodeId(i32::try_from(at).unwrap() + 1), rack }));
        }
        turns.sort_by_key(|(turn, place)| (*turn, place.node));
        turns.into_iter().map(|(_, place)| place).collect()
    }

    fn counts(all: impl Iterator<Item = NodeId>) -> BTreeMap<NodeId, usize> {
        let mut counts = BTreeMap::new();
        all.for_each(|node| *counts.entry(node).or_default() += 1);
        counts
    }

    #[test]
    fn each_partition_is_in_as_many_racks_as_it_can_be_and_every_node_leads_as_much() {
        for racks in [&[0, 0, 0, 1, 1, 1, 2, 2, 2][..], &[0, 1, 2], &[0, 0, 1, 1], &[0, 0, 0, 1], &[0, 0, 0, 0, 0]] {
            let (live, distinct) = (places(racks), racks.iter().collect::<BTreeSet<_>>().len());
            for factor in 1..=racks.len() {
                let all: Vec<_> = (0..60).map(|partition| replicas(&live, &[], 1, partition, factor)).collect();
                for nodes in &all {
                    assert_eq!(nodes.iter().collect::<BTreeSet<_>>().len(), factor, "{nodes:?}");
                    let rack = |node: &NodeId| racks[usize::try_from(node.0).unwrap() - 1];
                    let spanned = nodes.iter().map(rack).collect::<BTreeSet<_>>().len();
                    assert_eq!(spanned, factor.min(distinct), "{nodes:?} in {racks:?}");
                }
                let leaders = counts(all.iter().map(|nodes| nodes[0]));
                assert!(leaders.values().max().unwrap() - leaders.values().min().unwrap() <= 1, "{leaders:?}");
            }
        }
    }

    #[test]
    fn racks_of_one_size_have_evenly_loaded_nodes_and_a_leaders_followers_differ() {
        let live = places(&[0, 0, 0, 1, 1, 1, 2, 2, 2]);
        let all: Vec<_> = (0..90).map(|partition| replicas(&live, &[], 4, partition, 3)).collect();
        let held = counts(all.iter().flatten().copied());
        assert!(held.values().all(|count| (24..=36).contains(count)), "30 each: {held:?}");
        let of_first = all.iter().filter(|nodes| nodes[0] == NodeId(1)).map(|nodes| &nodes[1..]);
        assert!(of_first.collect::<BTreeSet<_>>().len() > 2);
    }

    #[test]
    fn fenced_brokers_hold_replicas_only_where_too_few_others_are_and_lead_nothing() {
        let (live, fenced) =
            (places(&[0, 1]), vec![Place { node: NodeId(9), rack: 2 }, Place { node: NodeId(8), rack: 0 }]);
        for partition in 0..8 {
            assert!(replicas(&live, &fenced, 0, partition, 2).iter().all(|node| node.0 < 8));
            let three = replicas(&live, &fenced, 0, partition, 3);
            assert!(three[0].0 < 8 && three[1].0 < 8, "{three:?}");
            assert_eq!(three[2], NodeId(9), "a rack of its own first");
            assert_eq!(replicas(&live, &fenced, 0, partition, 4).len(), 4);
        }
    }
}
