//! One key: everything that was sent to it and read from it, and what is wrong with that.
//! Invariant: a record that was sent takes 40 bytes, one that was read 24.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::versions::Versions;
use super::{Anomaly, Verdict};

/// What its writer knows of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Acknowledged,
    Refused,
    Unknown,
}

/// A record that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Send {
    pub(super) value: u64,
    pub(super) invoked_ns: u64,
    /// `u64::MAX` unless it was acknowledged.
    pub(super) completed_ns: u64,
    /// -1 if the producer was not told.
    pub(super) offset: i64,
    pub(super) process: u32,
    pub(super) outcome: Outcome,
    /// Whether the producer waited for all replicas in sync.
    pub(super) promised: bool,
    pub(super) idempotent: bool,
}

/// A record that a poll gave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    pub(super) offset: i64,
    pub(super) value: u64,
    pub(super) poll: u32,
}

/// A poll.
#[derive(Clone, Copy, Debug)]
pub(super) struct Poll {
    pub(super) process: u32,
    pub(super) segment: u32,
    pub(super) invoked_ns: u64,
    pub(super) completed_ns: u64,
    pub(super) ok: bool,
    pub(super) grouped: bool,
}

/// What never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MarkOf {
    First,
    Next,
    HighWatermark,
}

/// One look at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) of: MarkOf,
    pub(super) invoked_ns: u64,
    pub(super) completed_ns: u64,
    pub(super) value: i64,
}

/// A full read at the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastRead {
    /// Of its reader: what that reads before or after is no part of it.
    pub(super) segment: u32,
    pub(super) from: i64,
    pub(super) began_ns: u64,
    /// Whether it came to the key's end; one that stopped before says nothing of what it did not find.
    pub(super) ended: bool,
}

/// One key.
#[derive(Debug, Default)]
pub(super) struct KeyLog {
    pub(super) sends: Vec<Send>,
    pub(super) reads: Vec<Read>,
    pub(super) marks: Vec<Mark>,
    pub(super) last_reads: BTreeMap<u32, LastRead>,
    /// Polls during which the key came or went.
    pub(super) rebalanced: BTreeSet<u32>,
    /// Records below it may be gone.
    pub(super) log_start: i64,
    pub(super) compacted: bool,
}

/// Where a reader is.
#[derive(Clone, Copy)]
struct At {
    segment: u32,
    poll: u32,
    offset: i64,
    /// Where it was first in this segment.
    since: i64,
}

impl KeyLog {
    /// Reports all that is wrong. Answers the values that were never sent to this key, with the offset they were read at.
    ///
    /// # Errors
    /// A value was sent twice.
    pub(super) fn judge(
        &mut self,
        name: &str,
        polls: &[Poll],
        healed_ns: Option<u64>,
        unseen_ns: u64,
        verdict: &mut Verdict,
    ) -> Result<Vec<(u64, i64)>, String> {
        self.sends.sort_unstable_by_key(|send| send.value);
        if let Some(pair) = self.sends.windows(2).find(|pair| pair[0].value == pair[1].value) {
            return Err(format!("{name}: the value {} is sent twice", pair[0].value));
        }
        let versions = Versions::of(self, polls);
        let strangers = self.judge_reads(name, polls, verdict);
        self.judge_versions(name, &versions, verdict);
        let ranges = self.judge_polls(name, polls, &versions, verdict);
        self.judge_losses(name, polls, &versions, ranges, verdict);
        self.judge_lag(name, &versions, healed_ns, unseen_ns, verdict);
        self.judge_orders(name, &versions, verdict);
        self.judge_marks(name, verdict);
        Ok(strangers)
    }

    fn send(&self, value: u64) -> Option<&Send> {
        self.sends.binary_search_by_key(&value, |send| send.value).ok().map(|place| &self.sends[place])
    }

    fn judge_reads(&self, name: &str, polls: &[Poll], verdict: &mut Verdict) -> Vec<(u64, i64)> {
        let mut strangers = BTreeSet::new();
        let mut refused = BTreeSet::new();
        for read in &self.reads {
            match self.send(read.value) {
                None => drop(strangers.insert((read.value, read.offset))),
                Some(send) if send.outcome == Outcome::Refused && polls[read.poll as usize].ok => {
                    refused.insert((read.value, read.offset));
                }
                Some(_) => {}
            }
        }
        for (value, offset) in refused {
            verdict.report(Anomaly::AbortedRead, name, || {
                format!("offset {offset} holds the value {value}, which its writer was told was not written")
            });
        }
        strangers.into_iter().collect()
    }

    fn judge_versions(&self, name: &str, versions: &Versions, verdict: &mut Verdict) {
        for pair in versions.all.windows(2).filter(|pair| pair[0].offset == pair[1].offset) {
            verdict.report(Anomaly::InconsistentOffset, name, || {
                format!("offset {} holds the values {} and {}", pair[0].offset, pair[0].value, pair[1].value)
            });
        }
        for (value, one, other) in versions.duplicates() {
            verdict.duplicates += 1;
            if self.send(value).is_some_and(|send| send.idempotent) {
                verdict.report(Anomaly::Duplicate, name, || {
                    format!("the value {value} is at the offsets {one} and {other}")
                });
            }
        }
    }

    /// Goes along with every reader. Answers the ranges of offsets that readers went through without a break.
    fn judge_polls(&self, name: &str, polls: &[Poll], versions: &Versions, verdict: &mut Verdict) -> Vec<(i64, i64)> {
        let mut readers: HashMap<u32, At> = HashMap::new();
        let mut ranges = Vec::new();
        for read in &self.reads {
            let poll = polls[read.poll as usize];
            if !poll.ok {
                continue;
            }
            let last = readers.get(&poll.process).copied().filter(|at| at.segment == poll.segment);
            let internal = last.is_some_and(|at| at.poll == read.poll);
            let judged = if internal { !self.rebalanced.contains(&read.poll) } else { !poll.grouped };
            let mut broken = last.is_none();
            if let Some(at) = last.filter(|_| judged) {
                let before = polls[at.poll as usize];
                broken = self.judge_step(name, versions, at, read, before.invoked_ns, verdict);
            }
            let since = last.filter(|_| !broken && judged).map_or(read.offset, |at| at.since);
            ranges.push((since, read.offset));
            let at = At { segment: poll.segment, poll: read.poll, offset: read.offset, since };
            readers.insert(poll.process, at);
            // Ranges of one reader that grow are one range.
            if ranges.len() > 1 && ranges[ranges.len() - 2].0 == since {
                let longest = ranges.pop().map_or(0, |range| range.1);
                if let Some(range) = ranges.last_mut() {
                    range.1 = range.1.max(longest);
                }
            }
        }
        ranges.sort_unstable();
        ranges
    }

    /// One step of a reader from one record to the next; true if it went back.
    fn judge_step(
        &self,
        name: &str,
        versions: &Versions,
        at: At,
        read: &Read,
        began_ns: u64,
        verdict: &mut Verdict,
    ) -> bool {
        let anomaly = if at.poll == read.poll { Anomaly::InternalPoll } else { Anomaly::ExternalPoll };
        if read.offset <= at.offset {
            verdict.report(anomaly, name, || format!("offset {} is read after {}", read.offset, at.offset));
            return true;
        }
        if self.compacted || read.offset == at.offset + 1 {
            return false;
        }
        let missing = versions.from((at.offset + 1).max(self.log_start))..versions.from(read.offset);
        if missing.is_empty() {
            return false;
        }
        let first = versions.all[missing.start];
        verdict.report(anomaly, name, || {
            format!("offset {} is read after {}, without {}", read.offset, at.offset, first.offset)
        });
        for place in missing.filter(|place| versions.first_read_ns[*place] < began_ns) {
            let version = versions.all[place];
            verdict.report(Anomaly::Vanished, name, || {
                format!("offset {} was read before, with the value {}, and is left out", version.offset, version.value)
            });
        }
        false
    }

    /// Acknowledged records that nobody found though readers came by, and those that are not there at the end.
    fn judge_losses(
        &self,
        name: &str,
        polls: &[Poll],
        versions: &Versions,
        mut ranges: Vec<(i64, i64)>,
        verdict: &mut Verdict,
    ) {
        ranges.dedup_by(|next, kept| {
            let joined = next.0 <= kept.1;
            kept.1 = if joined { kept.1.max(next.1) } else { kept.1 };
            joined
        });
        let mut at_the_end = vec![false; versions.all.len()];
        // The latest one alone: what an earlier one has found may be gone since.
        let full = self.last_reads.iter().filter(|(_, last)| last.ended).max_by_key(|(_, last)| last.began_ns);
        let of_full = |poll: &Poll| full.is_some_and(|(by, last)| (*by, last.segment) == (poll.process, poll.segment));
        for read in self.reads.iter().filter(|read| of_full(&polls[read.poll as usize])) {
            if let Some(place) = versions.place(read.offset, read.value) {
                at_the_end[place] = true;
            }
        }
        let full = full.map(|(_, last)| (last.from, last.began_ns));
        let within = |offset: i64| full.is_some_and(|(from, _)| from <= offset) && offset >= self.log_start;
        verdict.read_in_full += u64::from(full.is_some());
        verdict.read_short += u64::from(full.is_none() && !self.last_reads.is_empty());
        for send in &self.sends {
            match send.outcome {
                Outcome::Acknowledged => verdict.acknowledged += 1,
                Outcome::Refused => verdict.refused += 1,
                Outcome::Unknown => verdict.unknown += 1,
            }
            if send.outcome != Outcome::Acknowledged || self.compacted {
                continue;
            }
            let is_read = versions.places(send.value).iter().any(|place| {
                if within(send.offset) {
                    at_the_end[*place as usize]
                } else {
                    versions.first_read_ns[*place as usize] < u64::MAX
                }
            });
            let passed = ranges[..ranges.partition_point(|range| range.0 <= send.offset)].last();
            let passed = passed.is_some_and(|range| range.1 >= send.offset) && send.offset >= self.log_start;
            let unplaced = send.offset < 0 && full.is_some_and(|(from, _)| from == 0) && self.log_start == 0;
            if !is_read && (within(send.offset) || passed || unplaced) {
                verdict.lost += 1;
                if send.promised {
                    verdict.report(Anomaly::LostWrite, name, || {
                        format!("the value {} was acknowledged at offset {} and is not there", send.value, send.offset)
                    });
                }
            }
        }
        let Some((_, began_ns)) = full.filter(|_| !self.compacted) else { return };
        for (place, version) in versions.all.iter().enumerate() {
            if within(version.offset) && !at_the_end[place] && versions.first_read_ns[place] < began_ns {
                verdict.report(Anomaly::Vanished, name, || {
                    format!(
                        "offset {} was read, with the value {}, and is not there at the end",
                        version.offset, version.value
                    )
                });
            }
        }
    }

    fn judge_lag(
        &self,
        name: &str,
        versions: &Versions,
        healed_ns: Option<u64>,
        unseen_ns: u64,
        verdict: &mut Verdict,
    ) {
        for send in self.sends.iter().filter(|send| send.outcome == Outcome::Acknowledged) {
            let read_ns = versions.places(send.value).iter().map(|place| versions.first_read_ns[*place as usize]).min();
            let Some(read_ns) = read_ns.filter(|read_ns| *read_ns < u64::MAX) else { continue };
            verdict.worst_lag_ns = verdict.worst_lag_ns.max(read_ns.saturating_sub(send.completed_ns));
            let Some(healed_ns) = healed_ns.filter(|_| send.promised) else { continue };
            let lag_ns = read_ns.saturating_sub(send.completed_ns.max(healed_ns));
            if lag_ns > unseen_ns {
                verdict.report(Anomaly::Unseen, name, || {
                    format!("the value {} was unread for {} ms after all was healed", send.value, lag_ns / 1_000_000)
                });
            }
        }
    }

    /// The order of each producer, and the order in time of all of them.
    fn judge_orders(&self, name: &str, versions: &Versions, verdict: &mut Verdict) {
        let mut placed: Vec<(i64, &Send)> = Vec::new();
        for send in &self.sends {
            // A value that is at two places is reported as that.
            if let [place] = versions.places(send.value) {
                placed.push((versions.all[*place as usize].offset, send));
            }
        }
        placed.sort_unstable_by_key(|(offset, send)| (*offset, send.value));
        let (mut latest_ns, mut latest) = (0, 0);
        for (offset, send) in &placed {
            if send.completed_ns < latest_ns {
                verdict.report(Anomaly::AppendOrder, name, || {
                    format!("offset {offset} was acknowledged before the record at offset {latest} was sent")
                });
            }
            if send.invoked_ns > latest_ns {
                (latest_ns, latest) = (send.invoked_ns, *offset);
            }
        }
        // By offset, the times at which one producer sent only rise.
        let mut newest: HashMap<u32, (u64, i64)> = HashMap::new();
        for (offset, send) in placed.into_iter().filter(|(_, send)| send.idempotent) {
            let (sent_ns, before) = newest.get(&send.process).copied().unwrap_or((0, 0));
            if send.invoked_ns < sent_ns {
                verdict.report(Anomaly::SendOrder, name, || {
                    format!("process {} sent what is at offset {offset} before what is at {before}", send.process)
                });
            }
            newest.insert(send.process, (send.invoked_ns.max(sent_ns), offset));
        }
    }

    fn judge_marks(&mut self, name: &str, verdict: &mut Verdict) {
        for of in [MarkOf::First, MarkOf::Next, MarkOf::HighWatermark] {
            let mut begun: Vec<Mark> = self.marks.iter().filter(|mark| mark.of == of).copied().collect();
            let mut ended = begun.clone();
            begun.sort_unstable_by_key(|mark| mark.invoked_ns);
            ended.sort_unstable_by_key(|mark| mark.completed_ns);
            let (mut done, mut highest) = (0, i64::MIN);
            for mark in begun {
                while let Some(before) = ended.get(done).filter(|before| before.completed_ns < mark.invoked_ns) {
                    highest = highest.max(before.value);
                    done += 1;
                }
                if mark.value < highest {
                    verdict.report(Anomaly::WatermarkRegress, name, || {
                        format!("{of:?} is {} at {} ns, and was {highest} before", mark.value, mark.completed_ns)
                    });
                }
            }
        }
    }
}
