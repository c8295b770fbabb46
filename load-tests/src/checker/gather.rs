//! Takes a history in, event by event, and sorts what it says by key.
//! Invariant: what an event says is kept once, and an event that cannot be where it is ends the judgement.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::groups::{Commit, Group, Lookup};
use super::key::{KeyLog, LastRead, Mark, MarkOf, Outcome, Poll, Read, Send};
use super::{Anomaly, Settings, Verdict};
use crate::history::{Certainty, Event, Found, Key, Kind, Op, Polled, Rejected, Sent, certainty};

/// A client's life, so far.
#[derive(Debug, Default)]
struct Process {
    /// What it does, and since when; sends aside.
    open: Option<(std::mem::Discriminant<Op>, u64)>,
    /// Counts what it was assigned: what it reads after a change need not go on where it was.
    segment: u32,
    group: Option<String>,
    crashed: bool,
    owns: BTreeSet<(String, Key)>,
    at_ns: u64,
}

/// Judges one history.
#[derive(Debug, Default)]
pub struct Checker {
    settings: Settings,
    keys: HashMap<Key, usize>,
    logs: Vec<KeyLog>,
    polls: Vec<Poll>,
    processes: HashMap<u32, Process>,
    /// Sends without an outcome yet: the value, the key, the place in the key's sends.
    in_flight: HashMap<u64, (usize, usize)>,
    groups: BTreeMap<(String, Key), Group>,
    /// The newest generation of each group that somebody was told, and when it was heard first.
    generations: BTreeMap<String, Vec<(i64, u64)>>,
    healed_ns: Option<u64>,
    next_index: u64,
    verdict: Verdict,
}

impl Checker {
    /// A checker that has seen nothing.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// Takes the next event.
    ///
    /// # Errors
    /// It cannot be where it is, or has an error that nobody has classified.
    pub fn add(&mut self, event: &Event) -> Result<(), Rejected> {
        self.take(event).map_err(|why| Rejected::Event { index: event.index, why })
    }

    fn take(&mut self, event: &Event) -> Result<(), String> {
        if event.index < self.next_index {
            return Err(format!("the index is below {}", self.next_index));
        }
        self.next_index = event.index + 1;
        check_error(event)?;
        let process = self.processes.entry(event.process).or_default();
        if process.crashed && !matches!(event.op, Op::Send { .. }) {
            return Err("the process has crashed before".to_owned());
        }
        if event.at_ns < process.at_ns {
            return Err("the clock went back".to_owned());
        }
        process.at_ns = event.at_ns;
        self.verdict.operations += u64::from(event.kind == Kind::Invoke);
        if let Op::Send { sends, acks, idempotent } = &event.op {
            return match event.kind {
                Kind::Invoke => self.send(event, sends, *acks == -1, *idempotent),
                _ => self.sent(event, sends),
            };
        }
        let Some(invoked_ns) = self.invoked(event)? else { return Ok(()) };
        self.completed(event, invoked_ns)
    }

    /// When the operation was begun that this event ends; none if it is the beginning.
    fn invoked(&mut self, event: &Event) -> Result<Option<u64>, String> {
        let process = self.processes.entry(event.process).or_default();
        let single = matches!(
            event.op,
            Op::Assign { .. } | Op::Subscribe { .. } | Op::Rebalance { .. } | Op::Crash | Op::Admin { .. }
        );
        let what = std::mem::discriminant(&event.op);
        match (event.kind, process.open) {
            (Kind::Invoke, _) if single => Err("it has no beginning of its own".to_owned()),
            (Kind::Invoke, Some(_)) => Err("the process does something else".to_owned()),
            (Kind::Invoke, None) => {
                process.open = Some((what, event.at_ns));
                Ok(None)
            }
            (_, _) if single => Ok(Some(event.at_ns)),
            (_, Some((begun, at_ns))) if begun == what => {
                process.open = None;
                Ok(Some(at_ns))
            }
            (_, _) => Err("it was never begun".to_owned()),
        }
    }

    fn key(&mut self, key: &str) -> usize {
        if let Some(place) = self.keys.get(key) {
            return *place;
        }
        self.keys.insert(key.to_owned(), self.logs.len());
        self.logs.push(KeyLog::default());
        self.logs.len() - 1
    }

    fn send(&mut self, event: &Event, sends: &[Sent], promised: bool, idempotent: bool) -> Result<(), String> {
        for sent in sends {
            let key = self.key(&sent.key);
            let log = &mut self.logs[key];
            if self.in_flight.insert(sent.value, (key, log.sends.len())).is_some() {
                return Err(format!("the value {} is sent twice", sent.value));
            }
            log.sends.push(Send {
                value: sent.value,
                invoked_ns: event.at_ns,
                completed_ns: u64::MAX,
                offset: -1,
                process: event.process,
                outcome: Outcome::Unknown,
                promised,
                idempotent,
            });
            self.verdict.sent += 1;
        }
        Ok(())
    }

    fn sent(&mut self, event: &Event, sends: &[Sent]) -> Result<(), String> {
        for sent in sends {
            let place = self.in_flight.remove(&sent.value);
            let (key, place) = place.ok_or_else(|| format!("the value {} is not in flight", sent.value))?;
            if self.keys.get(&sent.key) != Some(&key) {
                return Err(format!("the value {} was sent to another key", sent.value));
            }
            let send = &mut self.logs[key].sends[place];
            if send.process != event.process {
                return Err(format!("the value {} was sent by another process", sent.value));
            }
            send.outcome = match event.kind {
                Kind::Ok => Outcome::Acknowledged,
                Kind::Fail => Outcome::Refused,
                _ => Outcome::Unknown,
            };
            if event.kind == Kind::Ok {
                send.completed_ns = event.at_ns;
                send.offset = sent.offset.unwrap_or(-1);
            }
        }
        Ok(())
    }

    fn completed(&mut self, event: &Event, invoked_ns: u64) -> Result<(), String> {
        match &event.op {
            Op::Poll { records, log_start, high_watermark, rebalanced, ends } => {
                let poll = self.poll(event, invoked_ns)?;
                records.iter().for_each(|(key, of_key)| self.read(poll, key, of_key));
                for key in rebalanced {
                    let key = self.key(key);
                    self.logs[key].rebalanced.insert(poll);
                }
                self.seen(poll, log_start, high_watermark);
                for key in ends {
                    let key = self.key(key);
                    let segment = self.polls[poll as usize].segment;
                    let last = self.logs[key].last_reads.get_mut(&event.process);
                    if let Some(last) = last.filter(|last| last.segment == segment) {
                        last.ended = true;
                    }
                }
            }
            Op::Assign { from, last_read } => self.assign(event, from, *last_read),
            Op::Subscribe { group } => {
                let process = self.processes.entry(event.process).or_default();
                process.segment += 1;
                process.group = Some(group.clone());
            }
            Op::Rebalance { .. } => self.rebalance(event),
            Op::Commit { group, generation, offsets } => {
                self.commit(event, invoked_ns, group, *generation, offsets);
            }
            Op::FetchOffset { group, offsets } if event.kind == Kind::Ok => {
                for (key, offset) in offsets {
                    let lookup = Lookup { invoked_ns, completed_ns: event.at_ns, offset: *offset };
                    self.groups.entry((group.clone(), key.clone())).or_default().lookups.push(lookup);
                }
            }
            Op::ListOffsets { ends } if event.kind == Kind::Ok => {
                for (key, (first, next)) in ends {
                    let key = self.key(key);
                    let log = &mut self.logs[key];
                    log.log_start = log.log_start.max(*first);
                    for (of, value) in [(MarkOf::First, *first), (MarkOf::Next, *next)] {
                        log.marks.push(Mark { of, invoked_ns, completed_ns: event.at_ns, value });
                    }
                }
            }
            Op::Crash => {
                self.lose_all(event);
                self.processes.entry(event.process).or_default().crashed = true;
            }
            Op::Admin { what, compacted } => {
                if what == "healed" {
                    self.healed_ns = Some(event.at_ns);
                }
                for key in compacted {
                    let key = self.key(key);
                    self.logs[key].compacted = true;
                }
            }
            Op::Send { .. } | Op::FetchOffset { .. } | Op::ListOffsets { .. } => {}
        }
        Ok(())
    }

    fn poll(&mut self, event: &Event, invoked_ns: u64) -> Result<u32, String> {
        let place = u32::try_from(self.polls.len()).map_err(|_| "more polls than can be counted".to_owned())?;
        let process = self.processes.entry(event.process).or_default();
        self.polls.push(Poll {
            process: event.process,
            segment: process.segment,
            invoked_ns,
            completed_ns: event.at_ns,
            ok: event.kind == Kind::Ok,
            grouped: process.group.is_some(),
        });
        Ok(place)
    }

    fn read(&mut self, poll: u32, name: &str, polled: &[Polled]) {
        let key = self.key(name);
        self.verdict.read += polled.len() as u64;
        for Polled { offset, found } in polled {
            match found {
                Found::Value(value) => self.logs[key].reads.push(Read { offset: *offset, value: *value, poll }),
                Found::Damaged(why) => {
                    self.verdict.report(Anomaly::Corrupt, name, || format!("offset {offset}: {why}"));
                }
            }
        }
    }

    fn seen(&mut self, poll: u32, log_start: &BTreeMap<Key, i64>, high_watermark: &BTreeMap<Key, i64>) {
        let Poll { invoked_ns, completed_ns, .. } = self.polls[poll as usize];
        for (key, first) in log_start {
            let key = self.key(key);
            let log = &mut self.logs[key];
            log.log_start = log.log_start.max(*first);
        }
        for (key, value) in high_watermark {
            let key = self.key(key);
            let mark = Mark { of: MarkOf::HighWatermark, invoked_ns, completed_ns, value: *value };
            self.logs[key].marks.push(mark);
        }
    }

    fn assign(&mut self, event: &Event, from: &BTreeMap<Key, i64>, last_read: bool) {
        let process = self.processes.entry(event.process).or_default();
        process.segment += 1;
        process.group = None;
        let segment = process.segment;
        for (key, from) in from.iter().filter(|_| last_read) {
            let key = self.key(key);
            let last = LastRead { segment, from: *from, began_ns: event.at_ns, ended: false };
            self.logs[key].last_reads.insert(event.process, last);
        }
    }

    fn rebalance(&mut self, event: &Event) {
        let Op::Rebalance { group, generation, assigned, revoked, lost } = &event.op else { return };
        if let Some(generation) = generation {
            self.generations.entry(group.clone()).or_default().push((*generation, event.at_ns));
        }
        let process = self.processes.entry(event.process).or_default();
        process.segment += 1;
        for (keys, orderly) in [(revoked, true), (lost, false)] {
            for key in keys {
                process.owns.remove(&(group.clone(), key.clone()));
                let of_group = self.groups.entry((group.clone(), key.clone())).or_default();
                of_group.give_up(event.process, event.at_ns, orderly);
            }
        }
        for key in assigned {
            process.owns.insert((group.clone(), key.clone()));
            let of_group = self.groups.entry((group.clone(), key.clone())).or_default();
            of_group.own(event.process, event.at_ns, *generation);
        }
    }

    fn lose_all(&mut self, event: &Event) {
        let process = self.processes.entry(event.process).or_default();
        for owned in std::mem::take(&mut process.owns) {
            self.groups.entry(owned).or_default().give_up(event.process, event.at_ns, false);
        }
    }

    fn commit(
        &mut self,
        event: &Event,
        invoked_ns: u64,
        group: &str,
        generation: Option<i64>,
        offsets: &BTreeMap<Key, i64>,
    ) {
        if event.kind == Kind::Fail {
            return;
        }
        let ok = event.kind == Kind::Ok;
        let completed_ns = if ok { event.at_ns } else { u64::MAX };
        if let (Some(generation), true) = (generation, ok) {
            let newer = self.generations.get(group).into_iter().flatten();
            if newer.clone().any(|(other, heard_ns)| *other > generation && *heard_ns < invoked_ns) {
                let what = || format!("a commit of generation {generation} was taken after a newer one had begun");
                self.verdict.report(Anomaly::CommittedOffset, group, what);
            }
        }
        for (key, offset) in offsets {
            let commit = Commit { invoked_ns, completed_ns, offset: *offset };
            self.groups.entry((group.to_owned(), key.clone())).or_default().commits.push(commit);
        }
    }

    /// Judges all of it.
    ///
    /// # Errors
    /// A value was sent twice.
    pub fn finish(mut self) -> Result<Verdict, Rejected> {
        let mut names: Vec<(Key, usize)> = self.keys.drain().collect();
        names.sort();
        let mut strangers: HashMap<u64, Vec<(Key, i64)>> = HashMap::new();
        self.verdict.keys = names.len() as u64;
        let unseen_ns = u64::try_from(self.settings.unseen_within.as_nanos()).unwrap_or(u64::MAX);
        for (name, place) in &names {
            let judged = self.logs[*place].judge(name, &self.polls, self.healed_ns, unseen_ns, &mut self.verdict);
            let found = judged.map_err(|why| Rejected::Event { index: self.next_index, why })?;
            // What a key's judgement took is given back before the next one's.
            self.logs[*place].reads = Vec::new();
            for (value, offset) in found {
                strangers.entry(value).or_default().push((name.clone(), offset));
            }
        }
        self.judge_strangers(strangers, &names);
        for ((group, key), of_group) in &mut self.groups {
            of_group.judge(&format!("{group} {key}"), &mut self.verdict);
        }
        Ok(self.verdict)
    }

    /// Values that were read under a key to which nobody sent them.
    fn judge_strangers(&mut self, strangers: HashMap<u64, Vec<(Key, i64)>>, names: &[(Key, usize)]) {
        if strangers.is_empty() {
            return;
        }
        let mut homes: HashMap<u64, &str> = HashMap::new();
        for (name, place) in names {
            let sends = self.logs[*place].sends.iter();
            homes.extend(sends.filter(|send| strangers.contains_key(&send.value)).map(|send| (send.value, &**name)));
        }
        for (value, places) in strangers {
            for (key, offset) in places {
                match homes.get(&value) {
                    Some(home) => self.verdict.report(Anomaly::Misrouted, &key, || {
                        format!("offset {offset} holds the value {value} that was sent to {home}")
                    }),
                    None => self.verdict.report(Anomaly::Phantom, &key, || {
                        format!("offset {offset} holds the value {value} that nobody sent")
                    }),
                }
            }
        }
    }
}

/// An outcome that is not ok says why, and the reason says whether it is known that nothing happened.
fn check_error(event: &Event) -> Result<(), String> {
    let Some(error) = &event.error else {
        // Who crashed, and what was never answered, need not say why.
        return match event.kind {
            Kind::Fail => Err("a failure without an error".to_owned()),
            _ => Ok(()),
        };
    };
    match (certainty(error), event.kind) {
        (None, _) => Err(format!("the error {error} is not classified")),
        (Some(Certainty::Indefinite), Kind::Fail) => Err(format!("{error} does not say that nothing happened")),
        (Some(_), Kind::Ok | Kind::Invoke) => Err(format!("an error, {error}, of what has not failed")),
        (Some(_), _) => Ok(()),
    }
}
