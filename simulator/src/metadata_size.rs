//! The metadata path alone at size: registrations, topics, a node's loss, snapshots, without a cluster around it. It measures, and judges nothing.

use std::fs;
use std::time::{Duration, Instant};

use madang_actors::prng::Prng;
use madang_cluster::configs::BrokerConfig;
use madang_cluster::controller::records::{decode_records, encode_records};
use madang_cluster::controller::{Decision, NewTopic, Outcome, Proposal, RegisterBroker, decide, dump, replay};
use madang_cluster::metadata::{Endpoint, MetadataDelta, MetadataImage, SecurityProtocol};
use madang_protocol::types::{NodeId, Uuid};

/// Partitions of each topic.
const IN_A_TOPIC: usize = 1000;
/// Racks of the nodes.
const RACKS: usize = 3;

/// What one proposal came to.
struct Cost {
    decided: Duration,
    records: usize,
    bytes: usize,
    replayed: Duration,
}

/// The leader's metadata and a follower's, which hears of it in records.
struct Two {
    leader: MetadataImage,
    follower: MetadataImage,
    defaults: BrokerConfig,
    rng: Prng,
}

impl Two {
    fn propose(&mut self, proposal: Proposal) -> (Outcome, Cost) {
        let begun = Instant::now();
        let Decision { records, image, result } = decide(&self.leader, &self.defaults, &mut self.rng, proposal);
        let mut bytes = Vec::new();
        encode_records(&records, &mut bytes).expect("records that were decided can be written");
        let decided = begun.elapsed();
        self.leader = image;
        let begun = Instant::now();
        let mut delta = MetadataDelta::default();
        let read = decode_records(&bytes).expect("what was written can be read");
        read.into_iter().for_each(|record| replay(&mut self.follower, &mut delta, record));
        let replayed = begun.elapsed();
        (result.expect("accepted"), Cost { decided, records: records.len(), bytes: bytes.len(), replayed })
    }
}

/// Memory of this process, in MiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or_default() / 1024
}

fn registration(node: usize) -> RegisterBroker {
    let number = i32::try_from(node).unwrap_or(i32::MAX);
    let endpoint = Endpoint {
        listener: "PLAINTEXT".into(),
        host: format!("broker-{node}.example").into(),
        port: 9092,
        security_protocol: SecurityProtocol::Plaintext,
    };
    RegisterBroker {
        node_id: NodeId(number),
        incarnation_id: Uuid::from_random(node as u64, 1),
        endpoints: vec![endpoint],
        rack: Some(format!("rack-{}", node % RACKS)),
        log_dirs: vec![Uuid::from_random(node as u64, 2)],
        starts: Vec::new(),
    }
}

fn say(what: &str, cost: &Cost) {
    println!(
        "{what:<44} decided in {:>7.1} ms, {:>6} records, {:>8} bytes, applied by a follower in {:>7.1} ms",
        cost.decided.as_secs_f64() * 1e3,
        cost.records,
        cost.bytes,
        cost.replayed.as_secs_f64() * 1e3
    );
}

/// Runs it with so many partitions of three replicas on so many nodes, and prints what it cost.
pub fn run(partitions: usize, nodes: usize) {
    let mut two = Two {
        leader: MetadataImage::default(),
        follower: MetadataImage::default(),
        defaults: BrokerConfig::default(),
        rng: Prng::new(1),
    };
    let mut epochs = Vec::new();
    for node in 0..nodes {
        let (outcome, _) = two.propose(Proposal::RegisterBroker(registration(node)));
        let Outcome::Registered(broker_epoch) = outcome else { continue };
        epochs.push(broker_epoch);
        let node_id = NodeId(i32::try_from(node).unwrap_or(i32::MAX));
        two.propose(Proposal::UnfenceBroker { node_id, broker_epoch });
    }
    let (empty, begun, topics) = (resident(), Instant::now(), partitions.div_ceil(IN_A_TOPIC));
    for number in 0..topics {
        let of_topic = i32::try_from(IN_A_TOPIC.min(partitions - number * IN_A_TOPIC)).unwrap_or(i32::MAX);
        let topic = NewTopic {
            name: format!("topic-{number}"),
            partitions: of_topic,
            replication_factor: 3,
            ..NewTopic::default()
        };
        let (_, cost) = two.propose(Proposal::CreateTopics { topics: vec![topic], validate_only: false });
        if number + 1 == topics {
            say("the last topic", &cost);
        }
    }
    println!(
        "{} partitions on {nodes} nodes in {:.1} s; two images take {} MiB, {} bytes a partition each",
        two.leader.partition_count(),
        begun.elapsed().as_secs_f64(),
        resident().saturating_sub(empty),
        (resident().saturating_sub(empty) << 20) / (2 * two.leader.partition_count().max(1) as u64)
    );
    lose_a_node(&mut two, nodes / 2, &epochs);
    snapshot(&two.leader);
}

fn lose_a_node(two: &mut Two, lost: usize, epochs: &[i64]) {
    let node_id = NodeId(i32::try_from(lost).unwrap_or(i32::MAX));
    let broker_epoch = epochs[lost];
    let led = |image: &MetadataImage| {
        let all = image.topics().flat_map(|topic| topic.partitions.values());
        all.filter(|state| state.leader == node_id).count()
    };
    let before = led(&two.leader);
    let (_, cost) = two.propose(Proposal::FenceBroker { node_id, broker_epoch });
    say(&format!("a node of {before} leaders is lost"), &cost);
    assert_eq!(led(&two.leader), 0, "all of them are led elsewhere");
    let (_, cost) = two.propose(Proposal::UnfenceBroker { node_id, broker_epoch });
    say("it is back", &cost);
    let begun = Instant::now();
    let copy = two.leader.clone();
    println!("{:<44} {:.1} us", "a copy of the image", begun.elapsed().as_secs_f64() * 1e6);
    drop(copy);
}

fn snapshot(image: &MetadataImage) {
    let begun = Instant::now();
    let mut bytes = Vec::new();
    encode_records(&dump(image), &mut bytes).expect("a snapshot can be written");
    let written = begun.elapsed();
    let begun = Instant::now();
    let mut copy = MetadataImage::default();
    let read = decode_records(&bytes).expect("a snapshot can be read");
    read.into_iter().for_each(|record| replay(&mut copy, &mut MetadataDelta::default(), record));
    println!(
        "{:<44} {} MiB, written in {:.2} s, loaded in {:.2} s",
        "a snapshot",
        bytes.len() >> 20,
        written.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    assert_eq!(copy.partition_count(), image.partition_count(), "all of it comes back");
}
