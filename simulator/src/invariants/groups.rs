//! G3 to G5: generations never go back, an old generation commits nothing, a read sees the last durable commit.

use madang_actors::clock::Mono;

use crate::sim::Sim;

/// How a commit ended, as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is stored.
    Stored,
    /// It is not, and never will be.
    Refused,
    /// Nobody told.
    Unknown,
}

/// One commit.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    partition: i32,
    offset: i64,
    stale: bool,
    began: Mono,
    ended: Option<Mono>,
    fate: Fate,
}

/// What is known of the group.
#[derive(Clone, Debug, Default)]
pub struct GroupHistory {
    /// The highest generation in which a member has its assignment.
    generation: i32,
    /// How often it has counted from the start.
    lives: u32,
    /// Whether a commit was stored, so that the group outlives its members.
    stored: bool,
    commits: Vec<Commit>,
}

/// The highest generation that any member has heard of, in which life of the group.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    life: u32,
    generation: i32,
}

/// What any member has heard of.
#[must_use]
pub fn heard(sim: &Sim) -> Heard {
    let group = &sim.history.borrow().group;
    Heard { life: group.lives, generation: group.generation }
}

/// A member that knew of `heard` when it asked has joined. The group may have gone since, and another one of its name begun.
pub fn joined(sim: &Sim, heard: Heard, generation: i32) {
    let lost = offsets_lost(sim) > 0;
    let history = sim.history.borrow();
    let group = &history.group;
    let another = heard.life != group.lives;
    sim.require(lost || !group.stored || another || generation >= heard.generation, "G3", || {
        format!("joined generation {generation} after {heard:?} was heard of")
    });
}

/// A member has its assignment, so the generation is stored.
pub fn synced(sim: &Sim, generation: i32) {
    let mut history = sim.history.borrow_mut();
    // A group without a commit goes with its last member, and the next one of its name counts from the start.
    let group = &mut history.group;
    if !group.stored && generation < group.generation {
        group.lives += 1;
        group.generation = 0;
    }
    group.generation = group.generation.max(generation);
}

/// How often the offsets topic lost records as page-cache durability allows.
fn offsets_lost(sim: &Sim) -> u64 {
    let history = sim.history.borrow();
    history.partitions.values().filter(|known| known.internal).map(|known| known.losses).sum()
}

/// A commit is about to be sent; the answer names it.
pub fn commit_begins(sim: &Sim, partition: i32, offset: i64, generation: i32) -> usize {
    let began = sim.now();
    let mut history = sim.history.borrow_mut();
    let stale = generation < history.group.generation;
    let commits = &mut history.group.commits;
    commits.push(Commit { partition, offset, stale, began, ended: None, fate: Fate::Unknown });
    commits.len() - 1
}

/// A commit was answered, or not.
pub fn commit_ends(sim: &Sim, commit: usize, fate: Fate) {
    let lost = offsets_lost(sim) > 0;
    let now = sim.now();
    let mut history = sim.history.borrow_mut();
    history.group.stored |= fate == Fate::Stored;
    let Some(commit) = history.group.commits.get_mut(commit) else { return };
    commit.ended = Some(now);
    commit.fate = fate;
    sim.require(lost || !(commit.stale && fate == Fate::Stored), "G4", || {
        format!("the commit of {} was stored for an old generation", commit.offset)
    });
}

/// A read of the committed offsets is about to be sent.
#[must_use]
pub fn read_begins(sim: &Sim) -> Mono {
    sim.now()
}

/// G5: what a read that began at `before` may have seen.
pub fn read_ends(sim: &Sim, before: Mono, partition: i32, offset: i64) {
    if offsets_lost(sim) > 0 {
        return;
    }
    let history = sim.history.borrow();
    let of_it = || history.group.commits.iter().filter(|commit| commit.partition == partition);
    let stored_before =
        |commit: &&Commit| commit.fate == Fate::Stored && commit.ended.is_some_and(|ended| ended < before);
    if offset < 0 {
        let lost = of_it().find(stored_before).copied();
        sim.require(lost.is_none(), "G5", || format!("no committed offset, after {lost:?}"));
        return;
    }
    let Some(seen) = of_it().find(|commit| commit.offset == offset).copied() else {
        return sim.violate("G5", format!("offset {offset} was never committed"));
    };
    sim.require(seen.fate != Fate::Refused, "G5", || format!("read the refused {seen:?}"));
    let Some(ended) = seen.ended.filter(|_| seen.fate == Fate::Stored) else { return };
    let over = of_it().filter(stored_before).find(|later| later.began > ended).copied();
    sim.require(over.is_none(), "G5", || format!("read {seen:?}, after {over:?}"));
}
