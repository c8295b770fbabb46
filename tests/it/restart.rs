//! What a node makes of its log directory when it starts again: each log is opened once, and what the system still has is believed.

use std::path::Path;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;

use crate::broker::{Broker, Launch};
use crate::client::run;
use crate::load::{Load, Place, assert_all_there, idempotent};

const PATIENCE: Duration = Duration::from_secs(60);

fn launch(data: &Path, durability: &str) -> Launch {
    let durability = format!("madang.durability={durability}");
    Launch::new(data).set("num.partitions=3").set(&durability).log_to(&data.with_extension("log"))
}

fn places() -> Vec<Place> {
    (0..3).map(|partition| ("restarted".to_owned(), partition)).collect()
}

/// Leaves some records in each partition.
fn filled(broker: &Broker) {
    let load = Load::start(&idempotent(&broker.address), &places());
    assert!(load.advances_by(300, PATIENCE), "records are acknowledged");
    let (sent, outcomes) = load.finish();
    assert_all_there(&broker.address, &sent, &outcomes);
}

fn logs_opened(broker: &Broker) -> Option<String> {
    let page = broker.page("/metrics");
    page.lines().find_map(|line| line.strip_prefix("madang_logs_opened_total ")).map(str::to_owned)
}

/// Folders of partitions, those of internal topics too.
fn partitions(data: &Path) -> usize {
    let folders = std::fs::read_dir(data).expect("the directory");
    folders.filter(|folder| folder.as_ref().expect("an entry").path().join("partition.metadata").exists()).count()
}

#[test]
fn each_log_is_opened_once_at_a_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let broker = launch(&data, "fsync").start("127.0.0.1:0");
    filled(&broker);
    broker.kill();
    for _ in 0..2 {
        let broker = launch(&data, "fsync").start("127.0.0.1:0");
        assert_eq!(logs_opened(&broker), Some(partitions(&data).to_string()));
        assert!(broker.stop(), "an orderly end");
    }
}

#[test]
fn a_node_that_deleted_a_topic_still_ends_clean() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let broker = launch(&data, "fsync").start("127.0.0.1:0");
    filled(&broker);
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &broker.address).create().expect("an admin client");
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let gone = run(admin.delete_topics(&["restarted"], &options)).expect("answered");
    assert_eq!(gone, [Ok("restarted".to_owned())]);
    assert!(broker.stop(), "an orderly end");
    assert!(data.join("clean-shutdown").exists(), "every log that was left was closed");
}

#[test]
fn a_kill_in_page_cache_mode_loses_nothing_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    for notes in ["/dev/shm", "none"] {
        let data = folder.path().join(notes.trim_matches('/').replace('/', "-"));
        let notes = format!("madang.notes.dir={notes}");
        let broker = launch(&data, "page-cache").set(&notes).start("127.0.0.1:0");
        let load = Load::start(&idempotent(&broker.address), &places());
        assert!(load.advances_by(300, PATIENCE), "records are acknowledged");
        let began = std::fs::read_to_string(data.with_extension("log")).expect("the log");
        assert!(!began.contains("may be lost"), "a partition that begins has lost nothing: {began}");
        broker.kill();
        let outcomes = load.cut();
        let broker = launch(&data, "page-cache").set(&notes).start("127.0.0.1:0");
        let found = crate::load::read_all(&broker.address, &places());
        assert!(found.lost(&outcomes).is_empty() && found.wrong.is_empty());
        let said = std::fs::read_to_string(data.with_extension("log")).expect("the log");
        let known = notes.ends_with("shm") && said.contains("SameBoot");
        // Without notes, or where the kernel cannot name a mount for good, nobody knows that nothing was lost.
        assert_eq!(said.contains("may be lost"), !known, "{said}");
        assert!(known || said.contains("Lossy"), "{said}");
    }
}

/// What the first process noted says nothing of what the second left, though it is of this boot and mount.
#[test]
fn notes_are_not_believed_over_a_process_that_kept_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let killed = |notes: &str| {
        let broker = launch(&data, "page-cache").set(&format!("madang.notes.dir={notes}")).start("127.0.0.1:0");
        let load = Load::start(&idempotent(&broker.address), &places());
        assert!(load.advances_by(100, PATIENCE), "records are acknowledged");
        broker.kill();
        drop(load.cut());
        let log = data.with_extension("log");
        let said = std::fs::read_to_string(&log).expect("the log");
        std::fs::remove_file(log).expect("removes");
        said
    };
    if killed("/dev/shm").contains("no notes are kept") {
        return;
    }
    assert!(killed("/dev/shm").contains("SameBoot"));
    assert!(killed("none").contains("Lossy"));
    let after = killed("/dev/shm");
    assert!(after.contains("Lossy") && !after.contains("SameBoot"), "{after}");
    assert!(killed("/dev/shm").contains("SameBoot"));
}

/// A shell allows 1,024 open files and often fewer, and a node has more partitions: it takes what the system lets it have.
#[test]
fn more_partitions_than_a_shell_allows_open_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let launch = Launch::with_open_files(&folder.path().join("data"), 64);
    let broker = launch.set("num.partitions=150").start("127.0.0.1:0");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", broker.pid())).expect("limits");
    let open_files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a line of it");
    let soft = open_files.split_whitespace().next().and_then(|soft| soft.parse().ok()).unwrap_or(u64::MAX);
    assert!(soft > 64, "{open_files}");
    let places: Vec<Place> = (0..150).map(|partition| ("wide".to_owned(), partition)).collect();
    let load = Load::start(&idempotent(&broker.address), &places);
    assert!(load.advances_by(1_000, Duration::from_secs(60)), "every partition takes records");
    let (sent, outcomes) = load.finish();
    assert_eq!(outcomes.acknowledged.len(), 150);
    assert_all_there(&broker.address, &sent, &outcomes);
    assert!(broker.stop());
}
