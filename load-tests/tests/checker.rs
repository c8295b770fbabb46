//! The checker against histories whose anomalies are known: it finds every planted one, and none in clean histories.

use std::collections::BTreeMap;
use std::time::Duration;

use madang_load_tests::checker::{Anomaly, Checker, Settings, Verdict};
use madang_load_tests::history::{Event, Op, Rejected, parse, write};
use madang_load_tests::synthetic::{clean_events, plant};
use serde_json::Map;

/// Plants of each anomaly.
const PLANTS: usize = 24;
const CLEAN: u64 = 250;
const RECORDS: u64 = 400;
const UNSEEN_WITHIN: Duration = Duration::from_secs(30);

fn check(events: &[Event]) -> Result<Verdict, Rejected> {
    let mut checker = Checker::new(Settings { unseen_within: UNSEEN_WITHIN });
    events.iter().try_for_each(|event| checker.add(event))?;
    checker.finish()
}

#[test]
fn a_clean_history_has_no_anomaly() {
    for seed in 0..CLEAN {
        let verdict = check(&clean_events(seed, RECORDS)).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        assert!(verdict.is_clean(), "seed {seed}:\n{verdict}");
        assert!(verdict.acknowledged > 20 && verdict.read_in_full == verdict.keys, "seed {seed}:\n{verdict}");
    }
}

#[test]
fn clean_histories_have_everything_that_may_happen() {
    let text: String =
        (0..20).flat_map(|seed| clean_events(seed, RECORDS)).map(|event| write(&event, &Map::new()) + "\n").collect();
    for what in [
        "\"info\"",
        "\"fail\"",
        "\"rebalance\"",
        "\"lost\":[\"",
        "\"crash\"",
        "\"generation\"",
        "\"compacted\"",
        "\"log_start\"",
    ] {
        assert!(text.contains(what), "{what}");
    }
}

#[test]
fn every_planted_anomaly_is_found() {
    for anomaly in Anomaly::ALL {
        let (mut planted, mut seed) = (0, 0);
        while planted < PLANTS {
            let mut events = clean_events(seed, RECORDS);
            if plant(anomaly, &mut events, seed, UNSEEN_WITHIN) {
                planted += 1;
                let verdict = check(&events).unwrap_or_else(|why| panic!("{anomaly:?}, seed {seed}: {why}"));
                assert!(verdict.shows(anomaly), "{anomaly:?}, seed {seed}:\n{verdict}");
            }
            seed += 1;
            assert!(seed < 2_000, "{anomaly:?}: only {planted} of {seed} histories have a place for it");
        }
    }
}

#[test]
fn a_history_is_the_same_as_lines() {
    for seed in 0..20 {
        for event in clean_events(seed, RECORDS) {
            let line = write(&event, &Map::new());
            assert_eq!(parse(&line).unwrap_or_else(|why| panic!("{line}: {why}")), event);
        }
    }
}

#[test]
fn an_error_that_nobody_classified_rejects_the_history() {
    let mut events = clean_events(1, RECORDS);
    let failed = events.iter_mut().find(|event| event.error.is_some()).expect("some operation fails");
    failed.error = Some("SOMETHING_NEW".to_owned());
    assert!(check(&events).unwrap_err().to_string().contains("not classified"));
}

#[test]
fn a_failure_that_leaves_it_open_is_no_failure() {
    let mut events = clean_events(1, RECORDS);
    let failed = events.iter_mut().find(|event| event.kind == madang_load_tests::history::Kind::Fail);
    failed.expect("some operation fails").error = Some("NOT_LEADER_OR_FOLLOWER".to_owned());
    assert!(check(&events).unwrap_err().to_string().contains("does not say that nothing happened"));
}

#[test]
fn a_last_read_that_stops_before_the_end_of_a_key_says_nothing_of_it() {
    for seed in 0..20 {
        let mut events = clean_events(seed, RECORDS);
        let last = full_read(&events);
        let full = check(&events).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        // What the checker hears is only that it reads, and nothing of what there is.
        events.truncate(last + 1);
        let verdict = check(&events).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        assert!(verdict.is_clean(), "seed {seed}:\n{verdict}");
        assert_eq!((full.read_in_full, verdict.read_in_full), (full.keys, 0), "seed {seed}:\n{verdict}");
    }
}

/// The full read once more, by another process and after the first; without the last record of some key if `short`.
fn read_again(events: &mut Vec<Event>, last: usize, short: bool) {
    let process = 1 + events.iter().map(|event| event.process).max().unwrap_or(0);
    let by = events[last].process;
    let mut again: Vec<Event> = events[last..].iter().filter(|event| event.process == by).cloned().collect();
    if short {
        let polls = again.iter_mut().rev().filter_map(|event| match &mut event.op {
            Op::Poll { records, .. } => Some(records),
            _ => None,
        });
        let of_key = polls.flat_map(BTreeMap::values_mut).find(|of_key| !of_key.is_empty());
        of_key.expect("something is read").pop();
    }
    let later = events[events.len() - 1].at_ns - again[0].at_ns + 1;
    let more = again.into_iter().map(|event| Event { process, at_ns: event.at_ns + later, ..event });
    events.extend(more.collect::<Vec<_>>());
    for (index, event) in events.iter_mut().enumerate() {
        event.index = index as u64;
    }
}

/// Where the full read begins.
fn full_read(events: &[Event]) -> usize {
    let last = events.iter().position(|event| matches!(event.op, Op::Assign { last_read: true, .. }));
    last.expect("everything is read at the end")
}

#[test]
fn another_last_read_takes_the_place_of_one_that_stopped() {
    for seed in 0..20 {
        let mut events = clean_events(seed, RECORDS);
        let last = full_read(&events);
        let whole = events.clone();
        read_again(&mut events, last, false);
        // The first of the two stops after its first poll, which came to no end.
        let (by, mut seen) = (events[last].process, 0);
        events.retain(|event| {
            seen += usize::from(event.process == by && event.index > last as u64);
            event.process != by || event.index <= last as u64 || seen <= 2
        });
        for event in events.iter_mut().filter(|event| event.process == by) {
            if let Op::Poll { ends, .. } = &mut event.op {
                ends.clear();
            }
        }
        let verdict = check(&events).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        assert!(verdict.is_clean() && verdict.read_in_full == verdict.keys, "seed {seed}:\n{verdict}");
        // Without the second, nothing was read in full, and the verdict says so.
        let stopped: Vec<Event> = whole[..=last].to_vec();
        assert_eq!(check(&stopped).unwrap_or_else(|why| panic!("seed {seed}: {why}")).read_short, verdict.keys);
    }
}

#[test]
fn what_only_an_earlier_full_read_found_is_gone() {
    let mut found = 0;
    for seed in 0..40 {
        let mut events = clean_events(seed, RECORDS);
        let last = full_read(&events);
        read_again(&mut events, last, true);
        let verdict = check(&events).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        found += u32::from(verdict.shows(Anomaly::Vanished));
    }
    // Of compacted keys records may go.
    assert!(found >= 30, "{found} of 40");
}
