//! Power cuts: a file system in a file, mounted so that nothing is written back by itself; the broker is killed under load and the file
//! is copied while it is still mounted. The copy holds what a disk would hold after the power failed. Needs root.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use madang_actors::prng::Prng;

use crate::broker::{Broker, Launch};
use crate::kill9;
use crate::load::{Found, Load, Outcomes, assert_all_there, idempotent, read_all};

/// Size of the file system; the file is sparse.
const IMAGE_BYTES: u64 = 1 << 30;
/// The file system commits nothing by itself for 300 s.
const OPTIONS: &str = "loop,commit=300";

/// A mounted image. Dropping it unmounts it, which frees its loop device too.
pub(crate) struct Mounted {
    pub(crate) at: PathBuf,
}

impl Mounted {
    /// `options` name `loop`, which frees the device with the unmount.
    pub(crate) fn new(image: &Path, at: &Path, options: &str) -> Self {
        std::fs::create_dir_all(at).expect("a folder");
        tool("mount", &["-o", options, &text(image), &text(at)]);
        Self { at: at.to_owned() }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.at.join("data")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        tool("umount", &[&text(&self.at)]);
    }
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().expect("the folder's name is text").to_owned()
}

pub(crate) fn tool(name: &str, arguments: &[&str]) {
    let status = Command::new(name).args(arguments).status().unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(status.success() || std::thread::panicking(), "{name} {arguments:?}: {status}");
}

/// What one cut showed.
struct Cut {
    outcomes: Outcomes,
    found: Found,
    /// What the broker said while it recovered.
    log: String,
}

/// Whether the start after the cut is told that the operating system was booted anew.
#[derive(Clone, Copy)]
enum Boot {
    Fresh(u64),
    Same,
}

/// Cuts the power under load, starts on what the disk holds, and reads everything.
fn cut(durability: &str, boot: Boot, rng: &mut Prng) -> Cut {
    let folder = tempfile::tempdir().expect("a folder");
    let image = folder.path().join("disk.img");
    std::fs::File::create(&image).and_then(|file| file.set_len(IMAGE_BYTES)).expect("an image");
    tool("mkfs.ext4", &["-q", "-F", &text(&image)]);
    let crashed = folder.path().join("crash.img");
    let outcomes = {
        let disk = Mounted::new(&image, &folder.path().join("before"), OPTIONS);
        let broker = launch(&disk.data(), durability, &folder.path().join("before.log")).start("127.0.0.1:0");
        let load = Load::start(&idempotent(&broker.address), &kill9::places());
        assert!(load.advances_by(1, Duration::from_secs(30)), "the load starts");
        assert!(load.advances_by(100 + rng.below(5_000) as usize, Duration::from_secs(120)), "the load goes on");
        broker.kill();
        let outcomes = load.cut();
        tool("cp", &["--sparse=always", &text(&image), &text(&crashed)]);
        outcomes
    };
    let disk = Mounted::new(&crashed, &folder.path().join("after"), OPTIONS);
    let log = folder.path().join("after.log");
    let mut again = launch(&disk.data(), durability, &log);
    if let Boot::Fresh(number) = boot {
        again = again.env("MADANG_TEST_BOOT_ID", &format!("test-boot-{number}"));
    }
    let broker = again.start("127.0.0.1:0");
    let found = read_all(&broker.address, &kill9::places());
    serves(&broker);
    Cut { outcomes, found, log: std::fs::read_to_string(log).expect("the log") }
}

fn launch(data: &Path, durability: &str, log: &Path) -> Launch {
    kill9::launch(data).set(&format!("madang.durability={durability}")).log_to(log)
}

/// The partitions take new records after the cut.
fn serves(broker: &Broker) {
    let places = [("after-the-cut".to_owned(), 0)];
    let load = Load::start(&idempotent(&broker.address), &places);
    assert!(load.advances_by(10, Duration::from_secs(30)), "the broker serves after the cut");
    let (sent, outcomes) = load.finish();
    assert_all_there(&broker.address, &sent, &outcomes);
}

impl Cut {
    /// Gaps, duplicates, foreign records: never, whatever was lost.
    fn assert_sound(&self, round: usize) {
        assert!(self.found.wrong.is_empty(), "round {round}: {:#?}", self.found.wrong);
    }

    fn report(&self, round: usize, mode: &str) -> usize {
        let lost = self.found.lost(&self.outcomes).len();
        println!(
            "powercut: round {round}, {mode}: {} acknowledged, {} found, {lost} lost",
            self.outcomes.count(),
            self.found.count()
        );
        lost
    }

    fn assert_lossy(&self, round: usize, mode: &str) {
        assert!(self.log.contains("Lossy"), "round {round}, {mode}: the restart is not called lossy:\n{}", self.log);
    }
}

/// `rounds` cuts in each mode.
pub(crate) fn run(rounds: usize, seed: u64) {
    println!("powercut: {rounds} rounds, seed {seed}");
    let mut rng = Prng::new(seed);
    let mut rounds_that_lost = 0;
    for round in 0..rounds {
        let fsync = cut("fsync", Boot::Fresh(rng.next_u64()), &mut rng);
        fsync.assert_sound(round);
        let lost = fsync.report(round, "fsync");
        assert_eq!(lost, 0, "round {round}: fsync lost {:?}\n{}", fsync.found.lost(&fsync.outcomes), fsync.log);
        for boot in [Boot::Fresh(rng.next_u64()), Boot::Same] {
            let mode = if matches!(boot, Boot::Same) { "page-cache, same boot id" } else { "page-cache" };
            let cached = cut("page-cache", boot, &mut rng);
            cached.assert_sound(round);
            if cached.report(round, mode) > 0 {
                rounds_that_lost += 1;
                assert!(cached.log.contains("may be lost"), "round {round}: the loss is not reported:\n{}", cached.log);
            }
            cached.assert_lossy(round, mode);
        }
    }
    assert!(rounds_that_lost > 0, "page-cache never lost anything, so the cut proves nothing");
    println!(
        "powercut: fsync lost nothing in {rounds} rounds; page-cache lost in {rounds_that_lost} of {}",
        2 * rounds
    );
}
