//! Breadth first over the states of a cluster, each once, from one situation.
//! Invariant: the first broken invariant found has no shorter path from its situation.

use std::collections::{BTreeSet, VecDeque};

use super::situations::{SITUATIONS, Situation};
use super::{Cluster, Event, Setup};
use crate::sim::Violation;

/// What was explored.
#[derive(Clone, Debug, Default)]
pub struct Explored {
    /// Different states.
    pub states: u64,
    /// Paths replayed.
    pub paths: u64,
    /// The longest path from the situation.
    pub depth: usize,
    /// The first broken invariant and the path to it.
    pub failed: Option<(Violation, Vec<Event>)>,
}

fn replay(setup: Setup, situation: &Situation, path: &[Event]) -> Result<Cluster, (Violation, Vec<Event>)> {
    let told = |violation| (violation, path.to_vec());
    let mut cluster = Cluster::new(Setup { faults: usize::MAX, ..setup }).map_err(told)?;
    for event in situation.events {
        if !cluster.events().contains(event) {
            let what = format!("{event:?} cannot happen in the situation {:?}", situation.name);
            return Err((Violation { code: "EVENT", what }, path.to_vec()));
        }
        cluster.apply(*event).map_err(told)?;
    }
    cluster.begin(setup.faults);
    for event in path {
        cluster.apply(*event).map_err(told)?;
    }
    Ok(cluster)
}

/// Explores every order of at most `depth` events after `situation`.
#[must_use]
pub fn run(setup: Setup, situation: &Situation, depth: usize) -> Explored {
    let mut explored = Explored::default();
    let mut seen = BTreeSet::new();
    let mut frontier: VecDeque<(Vec<Event>, Vec<Event>)> = VecDeque::new();
    match replay(setup, situation, &[]) {
        Ok(cluster) => frontier.push_back((Vec::new(), cluster.events())),
        Err(failed) => explored.failed = Some(failed),
    }
    while let Some((path, events)) = frontier.pop_front() {
        for event in events {
            let mut longer = path.clone();
            longer.push(event);
            explored.paths += 1;
            let cluster = match replay(setup, situation, &longer) {
                Ok(cluster) => cluster,
                Err(failed) => {
                    explored.failed = Some(failed);
                    return explored;
                }
            };
            if !seen.insert(cluster.digest()) {
                continue;
            }
            explored.states += 1;
            explored.depth = longer.len();
            if longer.len() < depth {
                frontier.push_back((longer, cluster.events()));
            }
        }
    }
    explored
}

/// Explores every situation in its durability modes, at most `depth` events each; reports what was explored, up to the first that fails, and
/// answers whether none does.
pub fn run_all(faults: usize, depth: usize, mut report: impl FnMut(&Situation, Setup, &Explored)) -> bool {
    for situation in SITUATIONS {
        for durability in situation.durabilities {
            let setup = Setup { durability: *durability, faults };
            let explored = run(setup, situation, depth.saturating_sub(situation.spared));
            report(situation, setup, &explored);
            if explored.failed.is_some() {
                return false;
            }
        }
    }
    true
}
