//! `madang cluster reassign`, `elect-leaders` and `forget`: which nodes hold partitions, which of them lead, and which are no more.

use clap::Args;
use madang_client::{Admin, AdminError, Election, ErrorCode, NodeId, Reassignment};
use serde_json::{Value, json};

use super::Failure;
use super::common::{Output, Remote, block_on, list, print, print_json, table};

/// Move partitions to other nodes, see how far that is, or give it up.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  madang cluster reassign --topic orders --partition 0 --replicas 1,2,3\n  madang cluster reassign --list\n  madang cluster reassign --topic orders --cancel"
)]
pub(crate) struct Reassign {
    /// The topic.
    #[arg(long, required_unless_present = "list")]
    topic: Option<String>,
    /// The partition; every one of the topic if absent.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// The nodes that are to hold it, the preferred leader first.
    #[arg(long, value_name = "ID,...", value_delimiter = ',', required_unless_present_any = ["list", "cancel"])]
    replicas: Vec<i32>,
    /// Give up what is in progress.
    #[arg(long, conflicts_with_all = ["replicas", "list"])]
    cancel: bool,
    /// Show what is in progress.
    #[arg(long, conflicts_with_all = ["topic", "partition", "replicas"])]
    list: bool,
    #[command(flatten)]
    common: Remote,
}

/// Have partitions led by their preferred leaders, or by any replica that is alive.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  madang cluster elect-leaders\n  madang cluster elect-leaders --topic orders --partition 0 --unclean"
)]
pub(crate) struct ElectLeaders {
    /// The topic; every partition of every topic if absent.
    #[arg(long)]
    topic: Option<String>,
    /// The partition; every one of the topic if absent.
    #[arg(long, value_name = "N", requires = "topic", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Where nobody may lead, any replica that is alive: records that it does not have are lost.
    #[arg(long, requires = "topic")]
    unclean: bool,
    #[command(flatten)]
    common: Remote,
}

/// Have a node forgotten that is not to come back. Move its partitions first.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  madang cluster forget --node 4")]
pub(crate) struct Forget {
    /// The node.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i32).range(0..))]
    node: i32,
    /// Also if it holds partitions: what it alone has is lost to them.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    common: Remote,
}

pub(crate) fn reassign(args: Reassign) -> Result<(), Failure> {
    block_on(async {
        let admin = Admin::new(args.common.client()?);
        let Some(topic) = args.topic.clone().filter(|_| !args.list) else { return show(&admin, &args.common).await };
        let failed = |error: AdminError| explain(&args.common, &error, &topic);
        let nodes: Vec<NodeId> = args.replicas.iter().copied().map(NodeId).collect();
        let mut partitions = Vec::new();
        for partition in partitions_of(&admin, &args.common, &topic, args.partition).await? {
            let done = admin.reassign(&topic, partition, (!args.cancel).then_some(&nodes)).await;
            let nothing = matches!(&done, Err(AdminError::Broker { code: ErrorCode::NoReassignmentInProgress, .. }));
            // Of a whole topic only some partitions may be on their way.
            if nothing && args.partition.is_none() {
                continue;
            }
            done.map_err(failed)?;
            partitions.push(partition);
        }
        match args.common.print.output {
            Output::Text if args.cancel => print(&format!("{topic}: {} moves given up\n", partitions.len())),
            Output::Text => print(&format!(
                "{topic}: {} partitions move to {}; madang cluster reassign --list says how far they are\n",
                partitions.len(),
                list(&nodes)
            )),
            Output::Json => print_json(&json!({
                "topic": topic, "partitions": partitions, "cancelled": args.cancel, "replicas": args.replicas,
            })),
        }
    })
}

/// The partitions that are meant.
async fn partitions_of(admin: &Admin, common: &Remote, topic: &str, one: Option<i32>) -> Result<Vec<i32>, Failure> {
    if let Some(partition) = one {
        return Ok(vec![partition]);
    }
    let described = admin.describe_topic(topic).await.map_err(|error| common.explain(&error, topic))?;
    Ok(described.partitions.iter().map(|partition| partition.partition).collect())
}

async fn show(admin: &Admin, common: &Remote) -> Result<(), Failure> {
    let moving = admin.reassignments().await.map_err(|error| common.explain(&error, ""))?;
    match common.print.output {
        Output::Text if moving.is_empty() => print("nothing is being moved\n"),
        Output::Text => {
            let row = |one: &Reassignment| {
                let numbers = [list(&one.replicas), list(&one.adding), list(&one.removing)];
                [vec![one.topic.clone(), one.partition.to_string()], numbers.to_vec()].concat()
            };
            let rows: Vec<_> = moving.iter().map(row).collect();
            print(&table(&["TOPIC", "PARTITION", "REPLICAS", "ADDING", "REMOVING"], &rows))
        }
        Output::Json => {
            let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
            let one = |one: &Reassignment| {
                json!({
                    "topic": one.topic,
                    "partition": one.partition,
                    "replicas": ids(&one.replicas),
                    "adding": ids(&one.adding),
                    "removing": ids(&one.removing),
                })
            };
            print_json(&moving.iter().map(one).collect::<Value>())
        }
    }
}

pub(crate) fn elect_leaders(args: ElectLeaders) -> Result<(), Failure> {
    block_on(async {
        let admin = Admin::new(args.common.client()?);
        let thing = args.topic.clone().unwrap_or_default();
        let named = match &args.topic {
            Some(topic) => {
                let partitions = partitions_of(&admin, &args.common, topic, args.partition).await?;
                Some(partitions.into_iter().map(|partition| (topic.clone(), partition)).collect::<Vec<_>>())
            }
            None => None,
        };
        let elections = admin.elect_leaders(args.unclean, named.as_deref()).await;
        let elections = elections.map_err(|error| explain(&args.common, &error, &thing))?;
        let not_needed = |election: &&Election| election.error == Some(ErrorCode::ElectionNotNeeded);
        match args.common.print.output {
            Output::Text => {
                let (fine, others): (Vec<_>, Vec<_>) = elections.iter().partition(not_needed);
                let row = |one: &&Election| {
                    let result = one.error.map_or("elected", ErrorCode::name).to_owned();
                    vec![one.topic.clone(), one.partition.to_string(), result]
                };
                let rows: Vec<_> = others.iter().map(row).collect();
                if rows.is_empty() {
                    return print(&format!("no election was needed ({} partitions asked)\n", fine.len()));
                }
                print(&table(&["TOPIC", "PARTITION", "RESULT"], &rows))?;
            }
            Output::Json => {
                let one = |one: &Election| json!({ "topic": one.topic, "partition": one.partition, "error": one.error.map(ErrorCode::name) });
                print_json(&elections.iter().map(one).collect::<Value>())?;
            }
        }
        let failed = elections.iter().find(|one| one.error.is_some_and(|code| code != ErrorCode::ElectionNotNeeded));
        match failed {
            Some(one) => Err(Failure::new(format!("{}-{} has no such leader to elect", one.topic, one.partition))
                .try_this(format!("madang topic describe {}: who is in sync", one.topic))),
            None => Ok(()),
        }
    })
}

pub(crate) fn forget(args: Forget) -> Result<(), Failure> {
    block_on(async {
        let admin = Admin::new(args.common.client()?);
        let node = NodeId(args.node);
        let failed = |error: AdminError| explain(&args.common, &error, "");
        let metadata = admin.list_topics().await.map_err(failed)?;
        let held = metadata.topics.values().flat_map(|topic| &topic.partitions);
        let held = held.filter(|partition| partition.assigned_replicas.contains(&node)).count();
        if held > 0 && !args.force {
            return Err(Failure::new(format!("node {node} is still to hold {held} partitions"))
                .try_this("madang cluster reassign for each of its topics, or --force"));
        }
        admin.unregister_broker(node).await.map_err(failed)?;
        match args.common.print.output {
            Output::Text => print(&format!("node {node} is forgotten; started again it would come back\n")),
            Output::Json => print_json(&json!({ "node": args.node, "forgotten": true })),
        }
    })
}

fn explain(common: &Remote, error: &AdminError, thing: &str) -> Failure {
    let AdminError::Broker { code, .. } = error else { return common.explain(error, thing) };
    let failure = Failure::new(error.to_string());
    match code {
        ErrorCode::InvalidReplicaAssignment => {
            failure.try_this("nodes that madang cluster status lists, each once; what is in progress stays as it is")
        }
        ErrorCode::NoReassignmentInProgress => failure.try_this("madang cluster reassign --list"),
        ErrorCode::BrokerIdNotRegistered => failure.try_this("madang cluster status"),
        _ => common.explain(error, thing),
    }
}
