//! From exec to the first acknowledged record: on an empty directory, and after `kill -9` under load.

use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::kill9;
use crate::load::{Load, idempotent, poll};

/// Prints the median and the worst.
pub(crate) fn print(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let (Some(median), Some(worst)) = (times.get(times.len() / 2), times.last()) else { return };
    println!("{what}: p50 {:.1} ms, worst {:.1} ms, {} times", ms(*median), ms(*worst), times.len());
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The time from exec to the first record that a new producer gets acknowledged, which creates its topic where there is none.
fn first_acknowledged(data: &std::path::Path) -> (Duration, Broker, Load) {
    let began = Instant::now();
    let broker = kill9::launch(data).log_to(&data.with_extension("log")).start("127.0.0.1:0");
    let mut client = idempotent(&broker.address);
    // librdkafka asks for a producer id again after half a second if it has no connection at that moment, and it closes its first one itself
    // as soon as the metadata names the broker. That would be measured, whatever the broker does.
    client.set("enable.idempotence", "false");
    let load = Load::start(&client, &kill9::places());
    assert!(poll(Duration::from_secs(30), || load.outcomes().count() > 0), "a record is acknowledged");
    (began.elapsed(), broker, load)
}

/// Starts `rounds` times each way.
pub(crate) fn run(rounds: usize) {
    let (mut empty, mut killed) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let (time, broker, load) = first_acknowledged(&data);
        empty.push(time);
        assert!(load.advances_by(2_000, Duration::from_secs(60)), "the load goes on");
        broker.kill();
        load.cut();
        let (time, broker, load) = first_acknowledged(&data);
        killed.push(time);
        load.cut();
        broker.kill();
    }
    print("exec to the first acknowledged record, empty directory", empty);
    print("exec to the first acknowledged record, after kill -9 under load", killed);
}
