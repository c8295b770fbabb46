//! One of two log directories fails under load: its partitions answer KAFKA_STORAGE_ERROR, the other's serve, the node lives. The second
//! directory is a file system in a file that its own kernel driver turns read-only, as it does when it meets a damaged block. Needs root.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rustix::process::Signal;

use madang::follower::EXIT_METADATA;

use crate::broker::{Broker, Launch};
use crate::cluster::{Cluster, goes_on, places};
use crate::load::{Load, Place, assert_all_there, idempotent, poll};
use crate::powercut::{Mounted, text, tool};

const PATIENCE: Duration = Duration::from_secs(30);
const PARTITIONS: i32 = 6;

fn launch(first: &Path, second: &Path, log: &Path) -> Launch {
    let directories = format!("log.dirs={},{}", first.display(), second.display());
    Launch::new(first).set(&directories).set(&format!("num.partitions={PARTITIONS}")).log_to(log)
}

/// The partitions of the load that lie in a directory.
fn places_in(directory: &Path) -> Vec<Place> {
    let places = (0..PARTITIONS).map(|partition| ("spread".to_owned(), partition));
    places.filter(|(topic, partition)| directory.join(format!("{topic}-{partition}")).is_dir()).collect()
}

/// What one attempt to produce to a partition comes to.
fn attempt(producer: &FutureProducer, place: &Place) -> Result<i64, Option<RDKafkaErrorCode>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let record = FutureRecord::<str, str>::to(&place.0).partition(place.1).payload("one attempt");
    let sent = runtime.block_on(producer.send(record, PATIENCE));
    sent.map(|delivery| delivery.offset).map_err(|(error, _)| error.rdkafka_error_code())
}

fn without_retries(address: &str) -> FutureProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("retries", "0").set("message.timeout.ms", "5000");
    config.create().expect("a producer")
}

/// Makes the kernel treat the file system as damaged; it was mounted to turn read-only then.
fn damage(mounted: &Mounted) {
    let found = Command::new("findmnt").args(["-n", "-o", "SOURCE", &text(&mounted.at)]).output().expect("findmnt");
    let device = String::from_utf8_lossy(&found.stdout).trim().trim_start_matches("/dev/").to_owned();
    std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "planted").expect("the kernel takes the error");
}

fn expect_storage_errors(address: &str, places: &[Place], log: &Path) {
    let producer = without_retries(address);
    for place in places {
        let mut last = None;
        let failed = poll(PATIENCE, || {
            last = Some(attempt(&producer, place));
            last == Some(Err(Some(RDKafkaErrorCode::KafkaStorageError)))
        });
        assert!(
            failed,
            "{place:?} in the failed directory answers {last:?}\n{}",
            std::fs::read_to_string(log).unwrap_or_default()
        );
    }
}

fn expect_service(address: &str, places: &[Place]) {
    let load = Load::start(&idempotent(address), places);
    assert!(load.advances_by(500, PATIENCE), "the other directory serves");
    let (sent, outcomes) = load.finish();
    assert_eq!(outcomes.refused, []);
    assert_eq!(sent.values().sum::<u64>(), outcomes.count() as u64);
}

/// The directory with the metadata log fails: the process ends, and says by its exit code why.
fn metadata_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = folder.path().join("disk.img");
    std::fs::File::create(&image).and_then(|file| file.set_len(256 << 20)).expect("an image");
    tool("mkfs.ext4", &["-q", "-F", &text(&image)]);
    let disk = Mounted::new(&image, &folder.path().join("first"), "loop,errors=remount-ro");
    let (data, log) = (disk.data(), folder.path().join("log"));
    let mut broker = Launch::new(&data).log_to(&log).start("127.0.0.1:0");
    let load = Load::start(&idempotent(&broker.address), &[("before".to_owned(), 0)]);
    assert!(load.advances_by(10, PATIENCE), "the load starts");
    load.cut();
    damage(&disk);
    // A topic that is not there yet: its creation is the next thing that the metadata log takes.
    let asking = Load::start(&idempotent(&broker.address), &[("after".to_owned(), 0)]);
    let code = broker.exit_code(PATIENCE);
    asking.cut();
    assert_eq!(code, Some(EXIT_METADATA), "{}", std::fs::read_to_string(&log).unwrap_or_default());
    println!("directory: the process whose metadata log has failed ends with {EXIT_METADATA}");
}

/// The segments of the load's partitions in a folder.
fn segments(data: &Path) -> Vec<PathBuf> {
    let folders = places().into_iter().map(|(topic, partition)| data.join(format!("{topic}-{partition}")));
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).expect("a folder"));
    let paths = files.map(|file| file.expect("a file").path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect()
}

/// One of three nodes cannot write its partitions any more, and lives: the others lead them. The file system refuses each write to the segments.
fn moves() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = folder.path().join("disk.img");
    std::fs::File::create(&image).and_then(|file| file.set_len(512 << 20)).expect("an image");
    tool("mkfs.ext4", &["-q", "-F", &text(&image)]);
    let disk = Mounted::new(&image, &folder.path().join("disk"), "loop");
    let cluster = Cluster::start(&disk.data(), &[&format!("num.partitions={}", places().len())]);
    let load = Load::start(&idempotent(&cluster.addresses()), &places());
    assert!(load.advances_by(100, PATIENCE) && cluster.is_whole_within(PATIENCE), "the load starts");
    let (processes, damaged) = (cluster.processes(), segments(&disk.data().join("node-2").join("data")));
    assert_eq!(damaged.len(), places().len());
    damaged.iter().for_each(|path| tool("chattr", &["+i", &text(path)]));
    let without =
        || cluster.status().is_some_and(|status| status["partitions"]["under_replicated"].as_u64() >= Some(4));
    let moved = poll(PATIENCE, without);
    let goes_on = goes_on(&load);
    damaged.iter().for_each(|path| tool("chattr", &["-i", &text(path)]));
    let log = || std::fs::read_to_string(disk.data().join("node-2").join("node.log")).unwrap_or_default();
    assert!(moved, "what node 2 cannot write is led elsewhere: {:?}\n{}", cluster.status(), log());
    assert!(goes_on, "every partition takes records: {:?}", cluster.status());
    assert_eq!(cluster.processes(), processes, "node 2 lives");
    cluster.signal(&[2], Signal::KILL);
    assert!(cluster.is_whole_within(PATIENCE), "a new process has the replicas back: {:?}", cluster.status());
    let (sent, outcomes) = load.finish();
    assert_all_there(&cluster.addresses(), &sent, &outcomes);
    cluster.stop();
    println!("directory: {} partitions of a node that cannot write them are led by others", places().len());
}

/// A directory that fails under load, and then at a start; the one that also holds the metadata; and one of a node among three.
pub(crate) fn run() {
    metadata_fails();
    moves();
    let folder = tempfile::tempdir().expect("a folder");
    let image = folder.path().join("disk.img");
    std::fs::File::create(&image).and_then(|file| file.set_len(256 << 20)).expect("an image");
    tool("mkfs.ext4", &["-q", "-F", &text(&image)]);
    let disk = Mounted::new(&image, &folder.path().join("second"), "loop,errors=remount-ro");
    let (first, second, log) = (folder.path().join("first"), disk.data(), folder.path().join("log"));
    let mut broker = launch(&first, &second, &log).start("127.0.0.1:0");
    let address = broker.address.clone();
    let all: Vec<Place> = (0..PARTITIONS).map(|partition| ("spread".to_owned(), partition)).collect();
    let load = Load::start(&idempotent(&address), &all);
    assert!(load.advances_by(500, PATIENCE), "the load starts");
    let (good, bad) = (places_in(&first), places_in(&second));
    assert!(!good.is_empty() && !bad.is_empty(), "both directories hold partitions: {good:?} and {bad:?}");
    damage(&disk);
    expect_storage_errors(&address, &bad, &log);
    load.cut();
    expect_service(&address, &good);
    assert!(broker.lives(), "the node lives");
    broker.kill();
    restarts(&launch(&first, &second, &log).start(&address), &good, &bad);
    println!(
        "directory: {} partitions of the failed one answer KAFKA_STORAGE_ERROR, {} others serve",
        bad.len(),
        good.len()
    );
    let added = [("added".to_owned(), 0)];
    let broker = launch(&first, &second, &log).start("127.0.0.1:0");
    let load = Load::start(&idempotent(&broker.address), &added);
    assert!(load.advances_by(10, PATIENCE), "a new topic goes to the good directory");
    let (sent, outcomes) = load.finish();
    assert_all_there(&broker.address, &sent, &outcomes);
}

/// The directory is still failed at the next start: the node starts without it and refuses what was in it.
fn restarts(broker: &Broker, good: &[Place], bad: &[Place]) {
    let producer = without_retries(&broker.address);
    for place in bad {
        let outcome = attempt(&producer, place);
        assert!(outcome.is_err(), "{place:?} in the failed directory answers {outcome:?}");
    }
    expect_service(&broker.address, good);
}
