//! `madang cluster join`, `leave` and `raise-replication`: nodes that come to vote on the metadata or no longer do, and more replicas of every
//! partition.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::Args;
use madang_client::{Admin, AdminError, Broker, Metadata, NodeId, http};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Failure;
use super::common::{Common, Output, block_on, list, print, print_json};
use super::tree::AdminAddress;

/// How soon what is not yet so is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How long one answer may take.
const ONE_ANSWER: Duration = Duration::from_secs(15);
/// Most bytes of an answer.
const MAX_ANSWER: usize = 1 << 16;
/// What the leader of the quorum answers as long as something has to happen first.
const NOT_YET: [&str; 5] =
    ["NotEnoughReplicas", "VoterNotFound", "NotController", "ReassignmentInProgress", "RequestTimedOut"];

/// Let nodes vote on the metadata that copy it already: they were started with this cluster's voters in their files.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  madang cluster join --nodes 2,3")]
pub(crate) struct Join {
    #[command(flatten)]
    members: Members,
}

/// Let nodes no longer vote on the metadata, nor copy it: they are dead, or will be stopped.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  madang cluster leave --nodes 1 --server b:9092 --admin b:10092")]
pub(crate) struct Leave {
    #[command(flatten)]
    members: Members,
}

#[derive(Debug, Args)]
struct Members {
    /// The nodes, all in one change.
    #[arg(long, value_name = "ID,...", value_delimiter = ',', required = true, value_parser = clap::value_parser!(i32).range(0..))]
    nodes: Vec<i32>,
    /// Seconds to wait until they may, or until somebody leads who can let them.
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    timeout: u64,
    #[command(flatten)]
    admin: AdminAddress,
    #[command(flatten)]
    common: Common,
}

/// Give every partition that has fewer replicas as many as this, those of internal topics too, and wait until they are in sync.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  madang cluster raise-replication 3\n  madang cluster raise-replication 3 --topic orders"
)]
pub(crate) struct RaiseReplication {
    /// Replicas of each partition.
    #[arg(value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    replicas: u16,
    /// The topic; every one if absent.
    #[arg(long)]
    topic: Option<String>,
    /// Seconds to wait until they are in sync.
    #[arg(long, value_name = "SECONDS", default_value = "3600")]
    timeout: u64,
    #[command(flatten)]
    common: Common,
}

pub(crate) fn join(args: Join) -> Result<(), Failure> {
    block_on(async {
        change(&args.members, &json!({ "voters": args.members.nodes })).await?;
        told(&args.members, "vote on the metadata", "voters")
    })
}

pub(crate) fn leave(args: Leave) -> Result<(), Failure> {
    block_on(async {
        change(&args.members, &json!({ "gone": args.members.nodes })).await?;
        told(&args.members, "are no members of the metadata quorum", "gone")
    })
}

fn told(members: &Members, what: &str, key: &str) -> Result<(), Failure> {
    match members.common.print.output {
        Output::Text => {
            let nodes: Vec<String> = members.nodes.iter().map(ToString::to_string).collect();
            print(&format!("nodes {} {what}\n", nodes.join(",")))
        }
        Output::Json => print_json(&json!({ key: members.nodes })),
    }
}

/// Asks until it is so, or cannot be.
async fn change(members: &Members, asked: &Value) -> Result<(), Failure> {
    let address = members.admin.resolve(&members.common.server)?;
    let until = Instant::now() + Duration::from_secs(members.timeout);
    loop {
        let why = match http::post(&address, "/quorum", &asked.to_string(), MAX_ANSWER, ONE_ANSWER).await {
            Ok(answer) if answer.status == 200 => return Ok(()),
            Ok(answer) if answer.status == 409 => {
                let refused: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                let (error, message) = (text(&refused["error"]), text(&refused["message"]));
                let why = if message.is_empty() { error.clone() } else { message };
                if !NOT_YET.contains(&error.as_str()) {
                    return Err(Failure::new(why).try_this("madang cluster status: who is there, and who votes"));
                }
                why
            }
            Ok(answer) => {
                return Err(Failure::new(format!("{address}/quorum answers with status {}", answer.status))
                    .try_this("--admin HOST:PORT of a Madang node"));
            }
            Err(error) => {
                return Err(Failure::new(error.to_string())
                    .try_this("--admin HOST:PORT as `madang start` prints it, or --server of another node"));
            }
        };
        if Instant::now() >= until {
            return Err(Failure::new(format!("not within {} s: {why}", members.timeout))
                .try_this("madang cluster status; the same again"));
        }
        sleep(LOOK_AGAIN).await;
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub(crate) fn raise_replication(args: RaiseReplication) -> Result<(), Failure> {
    block_on(async {
        let admin = Admin::new(args.common.client());
        let failed = |error: AdminError| args.common.explain(&error, args.topic.as_deref().unwrap_or_default());
        let mut metadata = admin.list_topics().await.map_err(failed)?;
        if let Some(topic) = &args.topic {
            metadata.topic(topic).map_err(|error| failed(error.into()))?;
            metadata.topics.retain(|name, _| name == topic);
        }
        let wanted = usize::from(args.replicas);
        if metadata.brokers.len() < wanted {
            return Err(Failure::new(format!(
                "{} nodes serve, and {wanted} replicas are wanted",
                metadata.brokers.len()
            ))
            .try_this("madang cluster status"));
        }
        let plan = plan(&metadata, wanted);
        for (topic, partition, replicas) in &plan {
            admin.reassign(topic, *partition, Some(replicas)).await.map_err(failed)?;
        }
        let until = Instant::now() + Duration::from_secs(args.timeout);
        loop {
            let moving = admin.reassignments().await.map_err(failed)?;
            let open = |(topic, partition, _): &&Planned| {
                moving.iter().any(|one| one.topic == *topic && one.partition == *partition)
            };
            let left = plan.iter().filter(open).count();
            if left == 0 {
                break;
            }
            if Instant::now() >= until {
                return Err(Failure::new(format!("{left} of {} partitions still copy", plan.len()))
                    .try_this("madang cluster reassign --list"));
            }
            sleep(LOOK_AGAIN).await;
        }
        match args.common.print.output {
            Output::Text => print(&format!("{} partitions have {wanted} replicas now\n", plan.len())),
            Output::Json => {
                let one = |(topic, partition, replicas): &Planned| json!({ "topic": topic, "partition": partition, "replicas": list(replicas) });
                print_json(&plan.iter().map(one).collect::<Value>())
            }
        }
    })
}

/// A partition, and the nodes that are to hold it.
type Planned = (String, i32, Vec<NodeId>);

/// Those that hold it stay; the nodes that come are the ones with the fewest replicas, in racks of their own as far as there are. Who is to lead is
/// spread over all of them.
fn plan(metadata: &Metadata, wanted: usize) -> Vec<Planned> {
    let mut held: BTreeMap<NodeId, usize> = metadata.brokers.keys().map(|node| (*node, 0)).collect();
    let mut preferred = held.clone();
    let partitions = || {
        let of = |topic| move |partition| (topic, partition);
        metadata.topics.values().flat_map(move |topic| topic.partitions.iter().map(of(topic)))
    };
    for (_, partition) in partitions() {
        for node in &partition.assigned_replicas {
            *held.entry(*node).or_default() += 1;
        }
        if let Some(first) = partition.assigned_replicas.first().filter(|_| partition.assigned_replicas.len() >= wanted)
        {
            *preferred.entry(*first).or_default() += 1;
        }
    }
    let mut plan = Vec::new();
    for (topic, partition) in partitions().filter(|(_, partition)| partition.assigned_replicas.len() < wanted) {
        let mut replicas = partition.assigned_replicas.clone();
        while replicas.len() < wanted {
            let Some(next) = next(&metadata.brokers, &held, &replicas) else { break };
            *held.entry(next).or_default() += 1;
            replicas.push(next);
        }
        let count = |node: &NodeId| preferred.get(node).copied().unwrap_or_default();
        if let Some(first) = replicas.iter().copied().min_by_key(count) {
            *preferred.entry(first).or_default() += 1;
            replicas.retain(|node| *node != first);
            replicas.insert(0, first);
        }
        plan.push((topic.name.clone(), partition.partition, replicas));
    }
    plan
}

fn next(brokers: &BTreeMap<NodeId, Broker>, held: &BTreeMap<NodeId, usize>, replicas: &[NodeId]) -> Option<NodeId> {
    let rack = |node: &NodeId| brokers.get(node).and_then(|broker| broker.rack.as_deref());
    let taken: BTreeSet<&str> = replicas.iter().filter_map(rack).collect();
    let free = brokers.keys().copied().filter(|node| !replicas.contains(node));
    free.min_by_key(|node| (rack(node).is_some_and(|rack| taken.contains(rack)), held.get(node).copied(), *node))
}

#[cfg(test)]
mod tests {
    use madang_client::LeaderEpoch;
    use madang_client::{PartitionMetadata, TopicMetadata};

    use super::*;

    fn metadata(racks: &[&str], partitions: &[&[i32]]) -> Metadata {
        let broker = |(node, rack): (usize, &&str)| {
            let node_id = NodeId(i32::try_from(node).unwrap() + 1);
            let rack = Some(rack.to_string()).filter(|rack| !rack.is_empty());
            (node_id, Broker { node_id, host: "h".into(), port: 1, rack })
        };
        let partition = |(number, nodes): (usize, &&[i32])| PartitionMetadata {
            partition: i32::try_from(number).unwrap(),
            error: None,
            leader: None,
            leader_epoch: LeaderEpoch(0),
            assigned_replicas: nodes.iter().copied().map(NodeId).collect(),
            in_sync_replicas: Vec::new(),
            offline_replicas: Vec::new(),
        };
        let partitions = partitions.iter().enumerate().map(partition).collect();
        let topic = TopicMetadata { name: "t".into(), id: Default::default(), is_internal: false, partitions };
        Metadata {
            brokers: racks.iter().enumerate().map(broker).collect(),
            topics: [("t".to_owned(), topic)].into(),
            ..Metadata::default()
        }
    }

    #[test]
    fn replicas_are_added_where_there_are_fewest_and_leaders_are_spread() {
        let planned = plan(&metadata(&["", "", ""], &[&[1], &[1], &[1]]), 2);
        let mut firsts: Vec<i32> = planned.iter().map(|(_, _, replicas)| replicas[0].0).collect();
        assert!(planned.iter().all(|(_, _, replicas)| replicas.len() == 2 && replicas.contains(&NodeId(1))));
        let on = |node| planned.iter().filter(|(_, _, replicas)| replicas.contains(&NodeId(node))).count();
        assert!([(2, 1), (1, 2)].contains(&(on(2), on(3))));
        firsts.sort_unstable();
        assert_eq!(firsts, [1, 2, 3]);
    }

    #[test]
    fn a_rack_of_its_own_goes_before_an_emptier_node_and_what_has_enough_is_left_alone() {
        let planned = plan(&metadata(&["a", "a", "b"], &[&[1], &[3, 1], &[3, 1]]), 2);
        assert_eq!(planned, [("t".to_owned(), 0, vec![NodeId(1), NodeId(3)])]);
    }
}
