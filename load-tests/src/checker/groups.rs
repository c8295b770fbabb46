//! A partition in a group: who owned it when, and what was committed.
//! Invariant: ownership that was lost, rather than given up, is held against nobody: the owner learns of it later.

use super::{Anomaly, Verdict};

/// A commit that was or may have been taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Commit {
    pub(super) invoked_ns: u64,
    /// `u64::MAX` if nobody knows.
    pub(super) completed_ns: u64,
    pub(super) offset: i64,
}

/// A question for the committed offset, and its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lookup {
    pub(super) invoked_ns: u64,
    pub(super) completed_ns: u64,
    pub(super) offset: i64,
}

#[derive(Clone, Copy, Debug)]
struct Ownership {
    process: u32,
    from_ns: u64,
    /// `u64::MAX` until it ends.
    to_ns: u64,
    generation: Option<i64>,
    /// Whether the owner gave it up before anybody else could get it.
    orderly: bool,
}

/// A partition in a group.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) commits: Vec<Commit>,
    pub(super) lookups: Vec<Lookup>,
    owners: Vec<Ownership>,
}

impl Group {
    pub(super) fn own(&mut self, process: u32, at_ns: u64, generation: Option<i64>) {
        self.owners.push(Ownership { process, from_ns: at_ns, to_ns: u64::MAX, generation, orderly: false });
    }

    pub(super) fn give_up(&mut self, process: u32, at_ns: u64, orderly: bool) {
        let mut own = self.owners.iter_mut().rev();
        if let Some(last) = own.find(|one| one.process == process && one.to_ns == u64::MAX) {
            (last.to_ns, last.orderly) = (at_ns, orderly);
        }
    }

    pub(super) fn judge(&mut self, name: &str, verdict: &mut Verdict) {
        self.judge_owners(name, verdict);
        self.judge_commits(name, verdict);
    }

    fn judge_owners(&mut self, name: &str, verdict: &mut Verdict) {
        self.owners.sort_by_key(|owner| owner.from_ns);
        let mut active: Vec<Ownership> = Vec::new();
        for owner in &self.owners {
            active.retain(|other| other.to_ns > owner.from_ns);
            for other in active.iter().filter(|other| other.process != owner.process) {
                let same_generation = owner.generation.is_some() && owner.generation == other.generation;
                if same_generation || (owner.orderly && other.orderly) {
                    verdict.report(Anomaly::GroupOwnership, name, || {
                        format!("processes {} and {} own it at {} ns", other.process, owner.process, owner.from_ns)
                    });
                }
            }
            active.push(*owner);
        }
    }

    /// The register: a lookup gives what a commit wrote that was not overwritten before the lookup began.
    fn judge_commits(&mut self, name: &str, verdict: &mut Verdict) {
        self.commits.sort_by_key(|commit| commit.completed_ns);
        self.lookups.sort_by_key(|lookup| lookup.invoked_ns);
        let mut by_offset: Vec<Commit> = self.commits.clone();
        by_offset.sort_by_key(|commit| (commit.offset, commit.completed_ns));
        let (mut done, mut newest_begin) = (0, None);
        for lookup in &self.lookups {
            while let Some(commit) = self.commits.get(done).filter(|commit| commit.completed_ns < lookup.invoked_ns) {
                newest_begin = newest_begin.max(Some(commit.invoked_ns));
                done += 1;
            }
            let from = by_offset.partition_point(|commit| commit.offset < lookup.offset);
            let mut same = by_offset[from..].iter().take_while(|commit| commit.offset == lookup.offset);
            let current = |commit: &Commit| {
                commit.invoked_ns < lookup.completed_ns && newest_begin.is_none_or(|begin| commit.completed_ns >= begin)
            };
            let none_yet = lookup.offset < 0 && newest_begin.is_none();
            if !none_yet && !same.any(current) {
                verdict.report(Anomaly::CommittedOffset, name, || {
                    format!("{} is answered at {} ns", lookup.offset, lookup.completed_ns)
                });
            }
        }
    }
}
