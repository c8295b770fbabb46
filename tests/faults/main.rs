//! Faults against a running broker, longer than a test may take: `cargo test --test faults -- kill9|startup|powercut|directory|failover [ROUNDS] [SEED]`,
//! and with the feature `failpoints` also `panics [CASE]` and `crash [GIB] [ROUNDS]`.
//! Each prints its seed, and ends with an error if something that was promised does not hold.

#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../it/broker.rs"]
mod broker;
#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../it/cluster.rs"]
mod cluster;
#[cfg(feature = "failpoints")]
mod crash;
mod directory;
mod failover;
#[path = "../it/kill9.rs"]
mod kill9;
#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../it/load.rs"]
mod load;
#[cfg(feature = "failpoints")]
mod panics;
mod powercut;
#[cfg(feature = "failpoints")]
mod raw;
mod startup;
#[cfg(feature = "failpoints")]
mod stir;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let mut number = |default: u64| arguments.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    match &*what {
        "kill9" => {
            let (rounds, seed) = (number(50), number(1));
            let folder = tempfile::tempdir().expect("a folder");
            let times = kill9::rounds(rounds as usize, seed, &folder.path().join("data"));
            startup::print("exec to the next acknowledgement of a producer that was there before", times);
        }
        "startup" => startup::run(number(20) as usize),
        "powercut" => powercut::run(number(1) as usize, number(1)),
        "directory" => directory::run(),
        "failover" => failover::run(number(3) as usize, i32::try_from(number(0)).expect("so many partitions")),
        #[cfg(feature = "failpoints")]
        "crash" => crash::run(number(1) as usize, number(10) as usize),
        #[cfg(feature = "failpoints")]
        "panics" => panics::run(),
        _ => {
            eprintln!(
                "usage: cargo test --test faults -- kill9|startup|powercut|directory|failover|panics|crash [ROUNDS|GIB] [SEED|ROUNDS]"
            );
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
