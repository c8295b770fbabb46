//! The checker against histories whose anomalies are known: it finds every planted one, and none in clean histories.

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
        let last = events.iter().position(|event| matches!(event.op, Op::Assign { last_read: true, .. }));
        let last = last.unwrap_or_else(|| panic!("seed {seed}: everything is read at the end"));
        let full = check(&events).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        // What the checker hears is only that it reads, and nothing of what there is.
        events.truncate(last + 1);
        let verdict = check(&events).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        assert!(verdict.is_clean(), "seed {seed}:\n{verdict}");
        assert_eq!((full.read_in_full, verdict.read_in_full), (full.keys, 0), "seed {seed}:\n{verdict}");
    }
}

#[test]
fn another_last_read_takes_the_place_of_one_that_stopped() {
    for seed in 0..20 {
        let mut events = clean_events(seed, RECORDS);
        let last = events.iter().position(|event| matches!(event.op, Op::Assign { last_read: true, .. }));
        let last = last.unwrap_or_else(|| panic!("seed {seed}: everything is read at the end"));
        let mut stopped = events[last].clone();
        stopped.process = 1 + events.iter().map(|event| event.process).max().unwrap_or(0);
        events.insert(last, stopped);
        for (index, event) in events.iter_mut().enumerate() {
            event.index = index as u64;
        }
        let verdict = check(&events).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        assert!(verdict.is_clean() && verdict.read_in_full == verdict.keys, "seed {seed}:\n{verdict}");
    }
}
