//! `kill -9` under load, again and again on the same data: nothing that was acknowledged is lost, doubled or moved.

use std::path::Path;
use std::time::{Duration, Instant};

use madang_actors::prng::Prng;

use crate::broker::{Broker, Launch};
use crate::load::{Load, Place, assert_all_there, idempotent};

/// Partitions that are written at once.
pub(crate) const PARTITIONS: i32 = 4;
const TOPIC: &str = "numbers";

/// The partitions of the load.
pub(crate) fn places() -> Vec<Place> {
    (0..PARTITIONS).map(|partition| (TOPIC.to_owned(), partition)).collect()
}

/// Settings with which the load's topic comes into being.
pub(crate) fn launch(data: &Path) -> Launch {
    Launch::new(data).set(&format!("num.partitions={PARTITIONS}"))
}

/// How long each restart took, from exec to the first acknowledgement after it.
pub(crate) fn rounds(rounds: usize, seed: u64, data: &Path) -> Vec<Duration> {
    eprintln!("kill9: {rounds} rounds, seed {seed}");
    let log = data.with_extension("log");
    let mut rng = Prng::new(seed);
    let mut broker = launch(data).log_to(&log).start("127.0.0.1:0");
    let address = broker.address.clone();
    let load = Load::start(&idempotent(&address), &places());
    assert!(load.advances_by(1, Duration::from_secs(30)), "the load starts");
    let mut restarts = Vec::new();
    for round in 0..rounds {
        // Under load for a random while, so that the kill meets a random moment.
        assert!(
            load.advances_by(rng.below(3_000) as usize, Duration::from_secs(60)),
            "round {round}: the load goes on"
        );
        broker.kill();
        let began = Instant::now();
        broker = launch(data).log_to(&log).start(&address);
        assert!(load.advances_by(1, Duration::from_secs(30)), "round {round}: the load goes on after the restart");
        let first = load.outcomes().last.expect("acknowledged");
        restarts.push(first.duration_since(began));
    }
    let (sent, outcomes) = load.finish();
    assert_all_there(&broker.address, &sent, &outcomes);
    assert!(broker.stop(), "an orderly end");
    let again = Broker::start(data, &[]);
    assert_all_there(&again.address, &sent, &outcomes);
    eprintln!("kill9: {} acknowledged records, each there once at its offset", outcomes.count());
    restarts
}

#[test]
fn what_was_acknowledged_survives_kill_9_under_load() {
    let folder = tempfile::tempdir().expect("a folder");
    rounds(10, 1, &folder.path().join("data"));
}
