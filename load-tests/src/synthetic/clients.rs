//! Readers on their own, and the members of a group, of a log that keeps its promises.
//! Invariant: a member gives a partition up before the next one gets it, or it has lost it and hears of that late.

use std::collections::{BTreeMap, BTreeSet};

use super::world::World;
use crate::history::{Found, Key, Kind, Op, Polled};

const GROUP: &str = "g";

fn polled(found: Vec<(i64, u64)>) -> Vec<Polled> {
    found.into_iter().map(|(offset, value)| Polled { offset, found: Found::Value(value) }).collect()
}

fn poll(records: BTreeMap<Key, Vec<Polled>>, log_start: BTreeMap<Key, i64>, rebalanced: Vec<Key>) -> Op {
    Op::Poll { records, log_start, high_watermark: BTreeMap::new(), rebalanced, ends: BTreeSet::new() }
}

/// Reads the keys it was assigned.
pub(super) struct Reader {
    process: u32,
    at: BTreeMap<Key, i64>,
    /// Whether it has asked and not been answered.
    polls: bool,
}

impl Reader {
    pub(super) fn new(world: &mut World<'_>) -> Self {
        let process = world.process();
        let mut reader = Self { process, at: BTreeMap::new(), polls: false };
        reader.assign(world, false);
        reader
    }

    fn assign(&mut self, world: &mut World<'_>, last_read: bool) {
        let keys: Vec<(Key, i64, i64)> =
            world.logs.iter().map(|(key, log)| (key.clone(), log.start as i64, log.end())).collect();
        self.at = keys
            .into_iter()
            .map(|(key, start, end)| {
                let far = if last_read { 0 } else { world.rng.below((end - start) as u64 / 2 + 1) as i64 };
                (key, start + far)
            })
            .collect();
        let op = Op::Assign { from: self.at.clone(), last_read };
        world.emit(self.process, Kind::Ok, op, None);
    }

    fn take(&mut self, world: &World<'_>, most: usize) -> (BTreeMap<Key, Vec<Polled>>, BTreeMap<Key, i64>) {
        let (mut records, mut starts) = (BTreeMap::new(), BTreeMap::new());
        for (key, at) in &mut self.at {
            let start = world.logs[key].start as i64;
            if *at < start {
                starts.insert(key.clone(), start);
            }
            let (found, next) = world.read(key, *at, most);
            *at = next;
            if !found.is_empty() {
                records.insert(key.clone(), polled(found));
            }
        }
        (records, starts)
    }

    /// Answers how many records it read.
    pub(super) fn step(&mut self, world: &mut World<'_>) -> u64 {
        let nothing = || poll(BTreeMap::new(), BTreeMap::new(), Vec::new());
        if !self.polls {
            if world.rng.chance(1, 40) {
                self.assign(world, false);
            }
            self.polls = true;
            world.emit(self.process, Kind::Invoke, nothing(), None);
            return 0;
        }
        self.polls = false;
        if world.rng.chance(1, 30) {
            // What an answer that was lost would have held is read again.
            let before = self.at.clone();
            let (records, starts) = self.take(world, 3);
            self.at = before;
            world.emit(self.process, Kind::Info, poll(records, starts, Vec::new()), Some("_TRANSPORT"));
            return 0;
        }
        let most = 1 + world.rng.below(12) as usize;
        let (records, starts) = self.take(world, most);
        let read = records.values().map(Vec::len).sum::<usize>() as u64;
        world.emit(self.process, Kind::Ok, poll(records, starts, Vec::new()), None);
        read
    }

    pub(super) fn end(self, world: &mut World<'_>) {
        if world.rng.chance(1, 2) {
            world.emit(self.process, Kind::Ok, Op::Crash, None);
        }
    }

    /// A fresh reader of everything.
    pub(super) fn read_all(world: &mut World<'_>) {
        let mut reader = Self { process: world.process(), at: BTreeMap::new(), polls: false };
        reader.assign(world, true);
        let mut left: BTreeSet<Key> = world.logs.keys().cloned().collect();
        while !left.is_empty() {
            let nothing = poll(BTreeMap::new(), BTreeMap::new(), Vec::new());
            world.emit(reader.process, Kind::Invoke, nothing, None);
            let (records, starts) = reader.take(world, 100);
            let mut came = poll(records, starts, Vec::new());
            if let Op::Poll { ends, .. } = &mut came {
                ends.extend(left.extract_if(.., |key| reader.at[key] >= world.logs[key].end()));
            }
            world.emit(reader.process, Kind::Ok, came, None);
        }
    }
}

/// A member of the group.
pub(super) struct Member {
    process: u32,
    owns: BTreeMap<Key, i64>,
}

impl Member {
    pub(super) fn new(world: &mut World<'_>) -> Self {
        let process = world.process();
        world.emit(process, Kind::Ok, Op::Subscribe { group: GROUP.to_owned() }, None);
        Self { process, owns: BTreeMap::new() }
    }

    fn changed(&self, generation: Option<i64>, assigned: Vec<Key>, revoked: Vec<Key>, lost: Vec<Key>) -> (u32, Op) {
        (self.process, Op::Rebalance { group: GROUP.to_owned(), generation, assigned, revoked, lost })
    }
}

/// The group.
pub(super) struct GroupOfMembers {
    members: Vec<Member>,
    committed: BTreeMap<Key, i64>,
    generation: i64,
    /// Whether clients are told generations in this history.
    tells: bool,
    /// Commits whose answer was lost and that may still come: key and offset.
    late: Vec<(Key, i64)>,
    /// Members that were thrown out and have not heard of it.
    zombies: Vec<(Member, Vec<Key>)>,
}

impl GroupOfMembers {
    pub(super) fn new(world: &mut World<'_>) -> Self {
        let (many, tells) = (2 + world.rng.below(2), world.rng.chance(1, 2));
        let members = world.members(many);
        let (committed, late, zombies) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut group = Self { members, committed, generation: 0, tells, late, zombies };
        group.rebalance(world);
        group
    }

    fn told(&self) -> Option<i64> {
        self.tells.then_some(self.generation)
    }

    /// Everybody gives up what it has, or has lost it; then everybody gets something.
    fn rebalance(&mut self, world: &mut World<'_>) {
        if !self.zombies.is_empty() {
            return;
        }
        let silent = world.rng.chance(1, 3).then(|| world.rng.below(self.members.len() as u64) as usize);
        for place in 0..self.members.len() {
            let had: Vec<Key> = std::mem::take(&mut self.members[place].owns).into_keys().collect();
            if silent == Some(place) {
                let gone = std::mem::replace(&mut self.members[place], Member::new(world));
                self.zombies.push((gone, had));
            } else if !had.is_empty() {
                let (process, op) = self.members[place].changed(None, Vec::new(), had, Vec::new());
                world.emit(process, Kind::Ok, op, None);
            }
        }
        self.generation += 1;
        let keys: Vec<Key> = world.logs.keys().cloned().collect();
        let shift = world.rng.below(3) as usize;
        for place in 0..self.members.len() {
            let many = self.members.len();
            let of = keys.iter().enumerate().filter(|(number, _)| (number + shift) % many == place);
            let assigned: Vec<Key> = of.map(|(_, key)| key.clone()).collect();
            let at = |key: &Key| (key.clone(), self.committed.get(key).copied().unwrap_or(0));
            self.members[place].owns = assigned.iter().map(at).collect();
            let (process, op) = self.members[place].changed(self.told(), assigned, Vec::new(), Vec::new());
            world.emit(process, Kind::Ok, op, None);
        }
        for (zombie, had) in std::mem::take(&mut self.zombies) {
            if world.rng.chance(1, 2) {
                world.emit(zombie.process, Kind::Ok, Op::Crash, None);
            } else if !had.is_empty() {
                let (process, op) = zombie.changed(None, Vec::new(), Vec::new(), had);
                world.emit(process, Kind::Ok, op, None);
            }
        }
    }

    /// Answers how many records were read.
    pub(super) fn step(&mut self, world: &mut World<'_>) -> u64 {
        match world.rng.below(20) {
            0 => self.rebalance(world),
            1..5 => self.commit(world),
            5..8 => self.look_up(world),
            8 => {
                if let Some((key, offset)) = self.late.pop() {
                    self.committed.insert(key, offset);
                }
            }
            _ => return self.poll(world),
        }
        0
    }

    fn poll(&mut self, world: &mut World<'_>) -> u64 {
        let place = world.rng.below(self.members.len() as u64) as usize;
        let process = self.members[place].process;
        world.emit(process, Kind::Invoke, poll(BTreeMap::new(), BTreeMap::new(), Vec::new()), None);
        let mut records = BTreeMap::new();
        for (key, at) in &mut self.members[place].owns {
            let (found, next) = world.read(key, *at, 8);
            *at = next;
            records.insert(key.clone(), polled(found));
        }
        let read = records.values().map(Vec::len).sum::<usize>() as u64;
        world.emit(process, Kind::Ok, poll(records, BTreeMap::new(), Vec::new()), None);
        read
    }

    fn commit(&mut self, world: &mut World<'_>) {
        let place = world.rng.below(self.members.len() as u64) as usize;
        let (process, offsets) = (self.members[place].process, self.members[place].owns.clone());
        let generation = self.told();
        let of = |offsets| Op::Commit { group: GROUP.to_owned(), generation, offsets };
        world.emit(process, Kind::Invoke, of(offsets.clone()), None);
        match world.rng.below(10) {
            0 => world.emit(process, Kind::Fail, of(offsets), Some("ILLEGAL_GENERATION")),
            1 => {
                world.emit(process, Kind::Info, of(offsets.clone()), Some("_TIMED_OUT"));
                // It was taken, will be, or never is.
                match world.rng.below(3) {
                    0 => self.committed.extend(offsets),
                    1 => self.late.extend(offsets),
                    _ => {}
                }
            }
            _ => {
                self.committed.extend(offsets.clone());
                world.emit(process, Kind::Ok, of(offsets), None);
            }
        }
    }

    fn look_up(&mut self, world: &mut World<'_>) {
        let process = world.process();
        let of = |offsets| Op::FetchOffset { group: GROUP.to_owned(), offsets };
        world.emit(process, Kind::Invoke, of(BTreeMap::new()), None);
        let keys: BTreeSet<Key> = world.logs.keys().cloned().collect();
        let offsets = keys.into_iter().map(|key| (self.committed.get(&key).copied().unwrap_or(-1), key));
        let offsets = offsets.map(|(offset, key)| (key, offset)).collect();
        world.emit(process, Kind::Ok, of(offsets), None);
    }

    pub(super) fn end(mut self, world: &mut World<'_>) {
        for member in &mut self.members {
            let had: Vec<Key> = std::mem::take(&mut member.owns).into_keys().collect();
            let (process, op) = member.changed(None, Vec::new(), had, Vec::new());
            world.emit(process, Kind::Ok, op, None);
        }
    }
}
