//! `madang chaos`: strikes the leader of a topic in a cluster for development, and says how long writers waited and what was lost.
//! Invariant: no process is struck but a node that `madang cluster dev` runs on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use madang_client::{
    Acks, Admin, AdminError, Client, ClientConfig, Consumer, ConsumerConfig, Offset, Producer, ProducerConfig,
    ProducerRecord,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::Failure;
use super::common::{Common, Output, block_on, print, print_json};
use super::status;
use super::tree::AdminAddress;

/// Records that are written before the leader is struck.
const RECORDS: usize = 100;
/// How long the next write may take, and then the reading of all.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);
const PARTITION: i32 = 0;

/// Strike a cluster that `madang cluster dev` runs, and see what becomes of writers.
#[derive(Debug, Args)]
pub(crate) struct Chaos {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Kill the process of the node that leads partition 0 of a topic (kill -9). It is started again.
    #[command(after_help = "Example:\n  madang chaos kill-leader orders --server 127.0.0.1:9092")]
    KillLeader(Strike),
    /// Freeze the process of the node that leads partition 0 of a topic (SIGSTOP). It is killed once it has been silent for a session.
    #[command(after_help = "Example:\n  madang chaos freeze-leader orders --server 127.0.0.1:9092")]
    FreezeLeader(Strike),
}

#[derive(Debug, Args)]
struct Strike {
    /// The topic. About a hundred records are written to its partition 0.
    topic: String,
    #[command(flatten)]
    admin: AdminAddress,
    #[command(flatten)]
    common: Common,
}

/// What came of it.
struct Outcome {
    node: i64,
    pid: i64,
    first_write: Duration,
    acknowledged: usize,
    lost: usize,
    leader: Option<i32>,
}

pub(crate) fn run(args: Chaos) -> Result<(), Failure> {
    let (strike, signal, done) = match &args.command {
        Command::KillLeader(strike) => (strike, Signal::KILL, "killed"),
        Command::FreezeLeader(strike) => (strike, Signal::STOP, "frozen"),
    };
    let outcome = block_on(strike.run(signal))?;
    let millis = outcome.first_write.as_millis();
    match strike.common.print.output {
        Output::Json => print_json(&json!({
            "node": outcome.node,
            "pid": outcome.pid,
            "what": done,
            "first_write_ms": u64::try_from(millis).unwrap_or(u64::MAX),
            "acknowledged": outcome.acknowledged,
            "lost": outcome.lost,
            "leader": outcome.leader,
        }))?,
        Output::Text => print(&format!(
            "node {} (process {}) led partition {PARTITION} of {} and was {done}\n\
             the next write was acknowledged after {millis} ms, by node {}\n\
             {} records acknowledged, {} lost\n",
            outcome.node,
            outcome.pid,
            strike.topic,
            outcome.leader.map_or_else(|| "?".to_owned(), |leader| leader.to_string()),
            outcome.acknowledged,
            outcome.lost
        ))?,
    }
    if outcome.lost > 0 {
        return Err(Failure::new(format!("{} acknowledged records are lost", outcome.lost))
            .try_this("the ends of the files node.log in the nodes' folders"));
    }
    Ok(())
}

impl Strike {
    async fn run(&self, signal: Signal) -> Result<Outcome, Failure> {
        let seen = status::seen(&self.admin, &self.common.server).await?;
        let node = self.leader().await?.ok_or_else(|| self.failed("nobody leads it"))?;
        let pid = process(&seen, node)?;
        let client = client(&seen);
        let at_once = Duration::ZERO;
        let config = ProducerConfig {
            acks: Acks::All,
            delivery_timeout: PATIENCE,
            linger: at_once,
            ..ProducerConfig::default()
        };
        let producer = Producer::new(client.clone(), config);
        let mut written = BTreeMap::new();
        for number in 0..RECORDS {
            let (offset, value) = self.write(&producer, number).await?;
            written.insert(offset, value);
        }
        // Whoever leads may have changed meanwhile; what is struck is the process that led at first, and is checked as late as can be.
        let target = struck(pid)?;
        let began = Instant::now();
        kill_process(target, signal).map_err(|error| Failure::new(format!("process {pid}: {error}")))?;
        let (offset, value) = self.write(&producer, RECORDS).await?;
        let first_write = began.elapsed();
        written.insert(offset, value);
        let lost = self.lost(client, &written).await?;
        let leader = self.leader().await.ok().flatten().and_then(|leader| i32::try_from(leader).ok());
        Ok(Outcome { node, pid, first_write, acknowledged: written.len(), lost, leader })
    }

    fn failed(&self, why: &str) -> Failure {
        Failure::new(format!("{} partition {PARTITION}: {why}", self.topic)).try_this("madang cluster status")
    }

    /// The node that leads the partition.
    async fn leader(&self) -> Result<Option<i64>, Failure> {
        let admin = Admin::new(self.common.client());
        let explained = |error: AdminError| self.common.explain(&error, &self.topic);
        let topic = admin.describe_topic(&self.topic).await.map_err(explained)?;
        Ok(topic.partition(PARTITION).and_then(|partition| partition.leader).map(|leader| leader.0.into()))
    }

    async fn write(&self, producer: &Producer, number: usize) -> Result<(i64, String), Failure> {
        let value = format!("madang chaos {} {number}", std::process::id());
        let mut record = ProducerRecord::new(self.topic.as_str()).value(value.clone());
        record.partition = Some(PARTITION);
        let failed = |error: madang_client::ProduceError| self.failed(&error.to_string());
        let delivery = producer.send(record).await.map_err(failed)?;
        let written = delivery.await.map_err(failed)?;
        Ok((written.offset.0, value))
    }

    /// How many of the records are not where they were acknowledged.
    async fn lost(&self, client: Client, written: &BTreeMap<i64, String>) -> Result<usize, Failure> {
        let (Some((first, _)), Some((last, _))) = (written.first_key_value(), written.last_key_value()) else {
            return Ok(0);
        };
        let topic: Arc<str> = self.topic.as_str().into();
        let mut consumer = Consumer::new(client, ConsumerConfig::default());
        consumer.assign_partition(&topic, PARTITION, Offset(*first));
        let (mut found, mut next, began) = (0, *first, Instant::now());
        while next <= *last {
            for record in consumer.poll(POLL).await.map_err(|error| self.failed(&error.to_string()))? {
                next = record.offset.0 + 1;
                let here = written.get(&record.offset.0).map(String::as_bytes);
                found += usize::from(here.is_some() && here == record.value.as_deref());
            }
            if began.elapsed() > PATIENCE {
                return Err(self.failed("what was written cannot be read to its end"));
            }
        }
        Ok(written.len() - found)
    }
}

/// A client that knows every node, as the one it would begin with may be the one that is struck.
fn client(seen: &Value) -> Client {
    let nodes = seen["nodes"].as_array().into_iter().flatten();
    let mut config = ClientConfig::new(nodes.filter_map(|node| node["listener"].as_str()));
    config.client_id = "madang-chaos".to_owned();
    Client::new(config)
}

/// The process of a node, if it is one of a cluster for development on this machine.
fn process(seen: &Value, node: i64) -> Result<i64, Failure> {
    let nodes = seen["nodes"].as_array().into_iter().flatten();
    let found = nodes.into_iter().find(|one| one["id"] == node);
    let pid = found.and_then(|one| one["pid"].as_i64());
    let pid = pid.ok_or_else(|| refused(&format!("node {node} does not say which process it is")))?;
    struck(pid).map(|_| pid)
}

fn refused(why: &str) -> Failure {
    Failure::new(format!("{why}: only nodes that madang cluster dev runs on this machine are struck"))
        .try_this("madang cluster dev --nodes 3, and --server of one of its nodes")
}

/// The process, if its parent is `madang cluster dev`.
fn struck(pid: i64) -> Result<Pid, Failure> {
    let why = || refused(&format!("process {pid} is not one of them"));
    let parent = parent(pid).ok_or_else(why)?;
    let line = fs::read(format!("/proc/{parent}/cmdline")).map_err(|_| why())?;
    let same = fs::read_link(format!("/proc/{pid}/exe")).ok() == fs::read_link(format!("/proc/{parent}/exe")).ok();
    if !same || !runs_cluster_dev(&line) {
        return Err(why());
    }
    i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(why)
}

fn parent(pid: i64) -> Option<i64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may hold anything: the state, then the parent.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Whether a command line, its words ended by zeros, is that of `madang cluster dev`.
fn runs_cluster_dev(line: &[u8]) -> bool {
    let mut words = line.split(|byte| *byte == 0).skip(1);
    words.next() == Some(b"cluster") && words.next() == Some(b"dev")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cluster_dev_is_cluster_dev() {
        assert!(runs_cluster_dev(b"target/debug/madang\0cluster\0dev\0--nodes\x003\0"));
        for other in [&b"madang\0start\0--supervise\0"[..], b"madang\0cluster\0status\0", b"cluster\0dev\0", b""] {
            assert!(!runs_cluster_dev(other));
        }
    }

    #[test]
    fn a_process_that_no_cluster_runs_is_refused() {
        let own = i64::from(std::process::id());
        let why = struck(own).unwrap_err();
        assert!(format!("{why:?}").contains("only nodes that madang cluster dev runs"), "{why:?}");
        let seen = json!({ "nodes": [{ "id": 1, "pid": own }, { "id": 2, "pid": null }] });
        assert!(process(&seen, 1).is_err() && process(&seen, 2).is_err() && process(&seen, 3).is_err());
    }
}
