//! Every command of the command line against a running broker: what it prints, for people and for programs, and its exit code.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::broker::Broker;

struct Cli<'a> {
    broker: &'a Broker,
}

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    #[track_caller]
    fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        self.out
    }

    #[track_caller]
    fn json(self) -> Value {
        let out = self.ok();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// A failure says what happened and what to do next.
    #[track_caller]
    fn fails_with(self, what: &str) {
        assert_eq!(self.code, Some(1), "{}{}", self.out, self.err);
        assert!(self.err.contains(what) && self.err.contains("\n  try: "), "{}", self.err);
    }
}

fn ran(output: Output) -> Ran {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn madang(arguments: &[&str], server: &str, input: &str) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_madang"));
    command.args(arguments).env("MADANG_SERVER", server);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("the command reads its input");
    ran(child.wait_with_output().expect("the command ends"))
}

impl Cli<'_> {
    fn run(&self, line: &str) -> Ran {
        self.fed(line, "")
    }

    fn fed(&self, line: &str, input: &str) -> Ran {
        madang(&line.split(' ').collect::<Vec<_>>(), &self.broker.address, input)
    }
}

fn with_broker(test: impl FnOnce(&Cli<'_>, &Path)) {
    let data = tempfile::tempdir().expect("a folder");
    let broker = Broker::start(data.path(), &["group.initial.rebalance.delay.ms=0"]);
    test(&Cli { broker: &broker }, data.path());
    assert!(broker.stop());
}

#[test]
fn topics_are_created_listed_described_altered_and_deleted() {
    with_broker(|cli, _| {
        assert!(cli.run("topic list").ok().starts_with("no topics"));
        let created = cli.run("topic create orders --partitions 3 --config retention.ms=1000").ok();
        assert_eq!(created, "topic orders created: 3 partitions, replication factor 1\n");
        cli.run("topic create orders").fails_with("TOPIC_ALREADY_EXISTS");
        assert_eq!(cli.run("topic create orders --if-not-exists --output json").json()["created"], false);
        cli.run("topic create other --replication-factor 9").fails_with("INVALID_REPLICATION_FACTOR");
        cli.run("topic create other --config no.such.key=1").fails_with("INVALID_CONFIG");

        let altered = cli.run("topic alter orders --partitions 4 --set retention.ms=2000").ok();
        assert_eq!(altered, "topic orders altered: 1 configuration keys, 4 partitions\n");
        cli.run("topic alter orders --partitions 2").fails_with("INVALID_PARTITIONS");
        cli.run("topic alter orders").fails_with("nothing to change");

        let described = cli.run("topic describe orders --output json").json();
        assert_eq!(described[0]["configs"]["retention.ms"]["value"], "2000");
        assert_eq!(described[0]["partitions"].as_array().map(Vec::len), Some(4));
        assert_eq!(described[0]["partitions"][3]["leader"], 1);
        let text = cli.run("topic describe orders").ok();
        assert!(text.contains("config    retention.ms=2000\n") && text.contains("\n3          1 "), "{text}");
        assert_eq!(cli.run("topic list --output json").json()[0]["topic"], "orders");

        assert_eq!(cli.run("topic delete orders").ok(), "topic orders deleted\n");
        cli.run("topic describe orders").fails_with("UNKNOWN_TOPIC_OR_PARTITION");
        assert_eq!(cli.run("topic delete orders --if-exists --output json").json()[0]["deleted"], false);
    });
}

#[test]
fn lines_are_produced_with_every_codec_and_consumed_in_order() {
    with_broker(|cli, data| {
        cli.run("topic create lines --partitions 1").ok();
        for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
            let ran =
                cli.fed(&format!("produce lines --compression {codec} --key-separator ="), &format!("{codec}=x\n"));
            assert!(ran.err.starts_with("1 records, "), "{}", ran.err);
            ran.ok();
        }
        let text = cli.run("consume lines --from-beginning --max 5 --keys").ok();
        assert_eq!(text, "none\tx\ngzip\tx\nsnappy\tx\nlz4\tx\nzstd\tx\n");
        let record = cli.run("consume lines --offset 4 --max 1 --output json").json();
        assert_eq!((&record["offset"], &record["key"], &record["value"]), (&4.into(), &"zstd".into(), &"x".into()));
        let timestamp = record["timestamp"].as_i64().expect("a time");
        let by_time = cli.run(&format!("consume lines --timestamp {timestamp} --max 1 --output json")).json();
        assert!(by_time["timestamp"].as_i64().expect("a time") >= timestamp);
        cli.run("consume no-such-topic --max 1").fails_with("UNKNOWN_TOPIC_OR_PARTITION");
        cli.fed("produce lines --key-separator =", "no separator\n").fails_with("no \"=\" in the line");

        let partition = data.join("lines-0");
        let path = partition.to_str().expect("text");
        let dumped = cli.run(&format!("log dump {path} --records")).ok();
        assert!(dumped.contains("codec zstd") && dumped.contains("key \"lz4\" value \"x\""), "{dumped}");
        assert_eq!(cli.run(&format!("log verify {path} --contiguous --output json")).json()["records"], 5);
    });
}

#[test]
fn a_group_commits_is_described_reset_and_deleted() {
    with_broker(|cli, _| {
        cli.run("topic create orders --partitions 2").ok();
        let input: String = (0..10).map(|number| format!("{number}\n")).collect();
        cli.fed("produce orders", &input).ok();
        assert_eq!(cli.run("consume orders --from-beginning --group billing --max 10").ok().lines().count(), 10);
        let described = cli.run("group describe billing --output json").json();
        assert_eq!(described["state"], "Empty");
        let offsets = described["offsets"].as_array().expect("offsets");
        assert_eq!(offsets.iter().filter_map(|row| row["committed_offset"].as_i64()).sum::<i64>(), 10);
        assert!(offsets.iter().all(|row| row["lag"] == 0), "{described}");
        assert!(cli.run("group list").ok().contains("billing  Empty"));
        let dry = cli.run("group reset-offsets billing --topic orders --to-earliest --dry-run").ok();
        assert!(dry.ends_with("not set, because of --dry-run\n"), "{dry}");
        cli.run("group reset-offsets billing --topic orders --to-offset 0").ok();
        assert_eq!(cli.run("consume orders --group billing --max 10").ok().lines().count(), 10);
        assert_eq!(cli.run("group delete billing").ok(), "group billing deleted\n");
        cli.run("group describe billing").fails_with("GROUP_ID_NOT_FOUND");
    });
}

#[test]
fn tree_and_doctor_show_a_well_node_and_say_what_to_do_without_one() {
    with_broker(|cli, data| {
        let admin = &cli.broker.admin;
        let tree = cli.run(&format!("tree --admin {admin}")).ok();
        assert!(tree.starts_with("node") && tree.contains("listeners"), "{tree}");
        assert_eq!(cli.run(&format!("tree --admin {admin} --output json")).json()["id"], "node");
        let doctor = format!("doctor --admin {admin} --data {} --output json", data.display());
        let checks = cli.run(&doctor).json();
        let checks = checks.as_array().expect("checks");
        assert!(checks.iter().all(|check| check["verdict"] != "wrong"), "{checks:?}");
        assert!(checks.iter().any(|check| check["check"] == "disk sync"));
    });
    let nobody = "127.0.0.1:1";
    madang(&["topic", "list"], nobody, "").fails_with("cannot connect to 127.0.0.1:1");
    madang(&["produce", "t"], nobody, "x\n").fails_with("cannot connect to 127.0.0.1:1");
    madang(&["tree"], nobody, "").fails_with("cannot connect to 127.0.0.1:1001");
    let doctor = madang(&["doctor"], nobody, "");
    assert_eq!(doctor.code, Some(1));
    assert!(doctor.out.contains("wrong    connection"), "{}", doctor.out);
}

/// The broker raises its own soft limit, so that of the shell is nothing to be warned of.
#[test]
fn doctor_judges_open_files_by_what_a_broker_may_have() {
    let limited = |limits: &str| {
        let doctor = format!("{limits} && exec \"$0\" doctor --output json --server 127.0.0.1:1");
        let output = Command::new("sh").args(["-c", &doctor, env!("CARGO_BIN_EXE_madang")]).output().expect("sh runs");
        let checks: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let files = checks.as_array().expect("checks").iter().find(|check| check["check"] == "open files").cloned();
        files.expect("a check of open files")
    };
    let soft = limited("ulimit -Sn 256");
    assert!(!soft["detail"].as_str().expect("a text").ends_with(" 256"), "{soft}");
    let hard = limited("ulimit -n 256");
    assert_eq!(hard["verdict"], "warning");
    assert!(hard["detail"].as_str().expect("a text").ends_with("hard limit is 256"), "{hard}");
}

#[test]
fn verify_finds_a_changed_byte_and_a_torn_end() {
    with_broker(|cli, data| {
        cli.run("topic create t --partitions 1").ok();
        cli.fed("produce t", "first\n").ok();
        cli.fed("produce t", "second\n").ok();
        let copy = data.join("00000000000000000000.log");
        let bytes = std::fs::read(data.join("t-0/00000000000000000000.log")).expect("the segment");
        let verify = format!("log verify {}", copy.display());
        std::fs::write(&copy, &bytes).expect("a copy");
        assert!(cli.run(&verify).ok().ends_with("no damage\n"));
        let mut changed = bytes.clone();
        changed[70] ^= 1;
        std::fs::write(&copy, &changed).expect("a copy");
        cli.run(&verify).fails_with("1 problems found");
        std::fs::write(&copy, &bytes[..bytes.len() - 1]).expect("a copy");
        cli.run(&verify).fails_with("1 problems found");
        std::fs::remove_file(&copy).expect("the copy goes");
    });
}

#[test]
fn a_cluster_whose_id_begins_with_a_hyphen_has_certificates() {
    let folder = tempfile::tempdir().expect("a folder");
    let id = madang_protocol::types::Uuid([0xf8; 16]).to_string();
    assert!(id.starts_with('-'));
    let at = folder.path().join("authority");
    let arguments = ["cert", "authority", "--dir", at.to_str().expect("text"), "--cluster-id", &id];
    assert!(madang(&arguments, "", "").ok().contains(&id));
}

#[test]
fn every_command_has_an_example() {
    for line in [
        "start",
        "topic create",
        "topic list",
        "topic describe",
        "topic alter",
        "topic delete",
        "group list",
        "group describe",
        "group reset-offsets",
        "group delete",
        "produce",
        "consume",
        "tree",
        "doctor",
        "log dump",
        "log verify",
    ] {
        let arguments: Vec<&str> = line.split(' ').chain(["--help"]).collect();
        let help = madang(&arguments, "127.0.0.1:1", "").ok();
        assert!(help.contains(&format!("Example:\n  madang {line}")) || help.contains("| madang produce"), "{help}");
    }
}
