//! What becomes of a datagram on its way from one node to another. Pure.
//! Invariant: the same seed and the same rules give each directed link the same fates.

use std::collections::BTreeMap;
use std::time::Duration;

use madang_actors::prng::Prng;

/// How a directed link is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Nothing comes through, and the sender is not told.
    pub(crate) cut: bool,
    /// Datagrams of a thousand that are lost.
    pub(crate) lost: u64,
    /// Datagrams of a thousand that arrive twice.
    pub(crate) doubled: u64,
    /// How long a datagram takes at most; each another time, so that they overtake each other.
    pub(crate) delay: Duration,
}

/// What becomes of one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Lost,
    Arrives { after: Duration, copies: u8 },
}

/// The links of a cluster, by who sends and who is to receive; 0 stands for whoever is no node.
#[derive(Debug)]
pub(crate) struct Links {
    seed: u64,
    rules: BTreeMap<(u8, u8), Rule>,
    dice: BTreeMap<(u8, u8), Prng>,
    lost: BTreeMap<(u8, u8), u64>,
}

impl Links {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, rules: BTreeMap::new(), dice: BTreeMap::new(), lost: BTreeMap::new() }
    }

    pub(crate) fn set(&mut self, from: u8, to: u8, rule: Rule) {
        self.rules.insert((from, to), rule);
    }

    /// Every link is whole again.
    pub(crate) fn heal(&mut self) {
        self.rules.clear();
    }

    /// Datagrams that a link has lost so far.
    pub(crate) fn lost(&self, from: u8, to: u8) -> u64 {
        self.lost.get(&(from, to)).copied().unwrap_or(0)
    }

    pub(crate) fn fate(&mut self, from: u8, to: u8) -> Fate {
        let rule = self.rules.get(&(from, to)).copied().unwrap_or_default();
        if rule == Rule::default() {
            return Fate::Arrives { after: Duration::ZERO, copies: 1 };
        }
        let seed = self.seed ^ (u64::from(from) << 8 | u64::from(to));
        let dice = self.dice.entry((from, to)).or_insert_with(|| Prng::new(seed));
        if rule.cut || dice.chance(rule.lost, 1000) {
            *self.lost.entry((from, to)).or_default() += 1;
            return Fate::Lost;
        }
        let copies = if dice.chance(rule.doubled, 1000) { 2 } else { 1 };
        let micros = u64::try_from(rule.delay.as_micros()).unwrap_or(u64::MAX);
        Fate::Arrives { after: Duration::from_micros(dice.below(micros.saturating_add(1))), copies }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_of_one_direction_and_ends_when_it_is_healed() {
        let mut links = Links::new(1);
        links.set(1, 2, Rule { cut: true, ..Rule::default() });
        let whole = Fate::Arrives { after: Duration::ZERO, copies: 1 };
        assert_eq!((links.fate(1, 2), links.fate(2, 1)), (Fate::Lost, whole));
        assert_eq!((links.lost(1, 2), links.lost(2, 1)), (1, 0));
        links.heal();
        assert_eq!(links.fate(1, 2), whole);
    }

    #[test]
    fn a_bad_link_loses_doubles_and_delays_as_its_seed_says() {
        let rule = Rule { lost: 100, doubled: 50, delay: Duration::from_millis(10), ..Rule::default() };
        let fates = |seed| {
            let mut links = Links::new(seed);
            links.set(1, 2, rule);
            (0..1000).map(|_| links.fate(1, 2)).collect::<Vec<_>>()
        };
        assert_eq!(fates(7), fates(7));
        assert_ne!(fates(7), fates(8));
        let lost = fates(7).iter().filter(|fate| **fate == Fate::Lost).count();
        assert!((50..200).contains(&lost), "{lost} of 1000");
        let arrives = |fate: &Fate| match fate {
            Fate::Arrives { after, .. } => *after <= rule.delay,
            Fate::Lost => true,
        };
        assert!(fates(7).iter().all(arrives));
        assert!(fates(7).iter().any(|fate| matches!(fate, Fate::Arrives { copies: 2, .. })));
    }
}
