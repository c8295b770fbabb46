//! How long clients of three nodes wait when one of them dies, hangs or stops in order, or all are killed.

use rustix::process::Signal;

use crate::cluster::{Ballast, under_load_with};
use crate::load::idempotent_by_default;
use crate::startup::print;

/// `rounds` of each fault, beside a topic of `partitions` partitions that nobody writes to.
pub(crate) fn run(rounds: usize, partitions: i32) {
    let ballast = Ballast { partitions };
    let node = |round: usize| i64::try_from(round % 3).expect("small") + 1;
    let each = |what: &str, rounds: usize, fault: &dyn Fn(usize) -> (Vec<i64>, Signal)| {
        let folder = tempfile::tempdir().expect("a folder");
        let times = under_load_with(idempotent_by_default, &ballast, rounds, folder.path(), |cluster, round| {
            let (nodes, signal) = fault(round);
            cluster.signal(&nodes, signal);
        });
        print(
            &format!("{what}, to 100 more acknowledgements of every partition, {partitions} partitions beside"),
            times,
        );
    };
    each("one node killed (kill -9)", rounds, &|round| (vec![node(round)], Signal::KILL));
    each("one node restarted in order", rounds, &|round| (vec![node(round)], Signal::TERM));
    each("one node frozen (SIGSTOP)", rounds.div_ceil(3), &|round| (vec![node(round)], Signal::STOP));
    each("all three killed at once", rounds.div_ceil(3), &|_| (vec![1, 2, 3], Signal::KILL));
}
