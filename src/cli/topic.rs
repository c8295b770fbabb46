//! `madang topic`: create, list, describe, alter, delete.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use madang_client::{Admin, AdminError, AlteredConfig, ConfigEntry, ConfigSource, ErrorCode, NewTopic, TopicMetadata};
use serde_json::{Value, json};

use super::Failure;
use super::common::{Output, Remote, block_on, key_value, list, print, print_json, table};

/// Create, list, describe, alter and delete topics.
#[derive(Debug, Args)]
pub(crate) struct Topic {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create a topic.
    #[command(after_help = "Example:\n  madang topic create orders --partitions 6 --config retention.ms=86400000")]
    Create(Create),
    /// List the topics.
    #[command(after_help = "Example:\n  madang topic list --output json")]
    List(List),
    /// Show partitions, leaders, replicas and what is configured.
    #[command(after_help = "Example:\n  madang topic describe orders --all-configs")]
    Describe(Describe),
    /// Add partitions, change configuration.
    #[command(
        after_help = "Example:\n  madang topic alter orders --partitions 12 --set retention.ms=3600000 --unset cleanup.policy"
    )]
    Alter(Alter),
    /// Delete topics and their records.
    #[command(after_help = "Example:\n  madang topic delete orders")]
    Delete(Delete),
}

#[derive(Debug, Args)]
struct Create {
    /// The topic's name.
    name: String,
    /// How many partitions; the cluster's default if absent.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// How many brokers hold each partition; the cluster's default if absent.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// A configuration key; may be given several times.
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = key_value)]
    configs: Vec<(String, String)>,
    /// A topic of this name is no failure.
    #[arg(long)]
    if_not_exists: bool,
    /// Only say whether it could be created.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    common: Remote,
}

#[derive(Debug, Args)]
struct List {
    /// The cluster's own topics too.
    #[arg(long)]
    internal: bool,
    #[command(flatten)]
    common: Remote,
}

#[derive(Debug, Args)]
struct Describe {
    /// The topics' names.
    #[arg(required = true)]
    names: Vec<String>,
    /// Every configuration key, not only those that were set.
    #[arg(long)]
    all_configs: bool,
    #[command(flatten)]
    common: Remote,
}

#[derive(Debug, Args)]
struct Alter {
    /// The topic's name.
    name: String,
    /// How many partitions it is to have; more than now.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Set a configuration key; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
    /// Go back to a key's default; may be given several times.
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
    /// Add to a list; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    append: Vec<(String, String)>,
    /// Take from a list; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    subtract: Vec<(String, String)>,
    #[command(flatten)]
    common: Remote,
}

#[derive(Debug, Args)]
struct Delete {
    /// The topics' names.
    #[arg(required = true)]
    names: Vec<String>,
    /// A missing topic is no failure.
    #[arg(long)]
    if_exists: bool,
    #[command(flatten)]
    common: Remote,
}

pub(crate) fn run(topic: Topic) -> Result<(), Failure> {
    match topic.action {
        Action::Create(args) => block_on(create(args)),
        Action::List(args) => block_on(list_all(args)),
        Action::Describe(args) => block_on(describe(args)),
        Action::Alter(args) => block_on(alter(args)),
        Action::Delete(args) => block_on(delete(args)),
    }
}

async fn create(args: Create) -> Result<(), Failure> {
    let new = NewTopic {
        name: args.name.clone(),
        partitions: args.partitions,
        replication_factor: args.replication_factor,
        configs: args.configs.into_iter().collect(),
    };
    let outcome = Admin::new(args.common.client()?).create_topic(&new, args.dry_run).await;
    let exists = matches!(&outcome, Err(AdminError::Broker { code: ErrorCode::TopicAlreadyExists, .. }));
    if exists && args.if_not_exists {
        return match args.common.print.output {
            Output::Text => print(&format!("topic {} exists\n", args.name)),
            Output::Json => print_json(&json!({ "topic": args.name, "created": false })),
        };
    }
    let created = outcome.map_err(|error| args.common.explain(&error, &args.name))?;
    match args.common.print.output {
        Output::Text => {
            let verb = if args.dry_run { "could be created" } else { "created" };
            let number = |count: Option<String>| count.unwrap_or_else(|| "?".to_owned());
            print(&format!(
                "topic {} {verb}: {} partitions, replication factor {}\n",
                created.name,
                number(created.partitions.map(|count| count.to_string())),
                number(created.replication_factor.map(|factor| factor.to_string())),
            ))
        }
        Output::Json => print_json(&json!({
            "topic": created.name,
            "created": !args.dry_run,
            "topic_id": created.id.to_string(),
            "partitions": created.partitions,
            "replication_factor": created.replication_factor,
        })),
    }
}

async fn list_all(args: List) -> Result<(), Failure> {
    let metadata = Admin::new(args.common.client()?).list_topics().await;
    let metadata = metadata.map_err(|error| args.common.explain(&error, ""))?;
    let topics: Vec<_> = metadata.topics.values().filter(|topic| args.internal || !topic.is_internal).collect();
    let replicas = |topic: &TopicMetadata| topic.partitions.first().map_or(0, |first| first.assigned_replicas.len());
    match args.common.print.output {
        Output::Text if topics.is_empty() => print("no topics; madang topic create NAME makes one\n"),
        Output::Text => {
            let row = |topic: &&TopicMetadata| {
                vec![topic.name.clone(), topic.partitions.len().to_string(), replicas(topic).to_string()]
            };
            let rows: Vec<_> = topics.iter().map(row).collect();
            print(&table(&["TOPIC", "PARTITIONS", "REPLICATION"], &rows))
        }
        Output::Json => {
            let topic = |topic: &&TopicMetadata| {
                json!({
                    "topic": topic.name,
                    "topic_id": topic.id.to_string(),
                    "partitions": topic.partitions.len(),
                    "replication_factor": replicas(topic),
                    "internal": topic.is_internal,
                })
            };
            print_json(&topics.iter().map(topic).collect())
        }
    }
}

async fn describe(args: Describe) -> Result<(), Failure> {
    let admin = Admin::new(args.common.client()?);
    let mut texts = Vec::new();
    let mut values = Vec::new();
    for name in &args.names {
        let failed = |error: AdminError| args.common.explain(&error, name);
        let topic = admin.describe_topic(name).await.map_err(failed)?;
        let mut configs = admin.topic_configs(name).await.map_err(failed)?;
        configs.retain(|config| args.all_configs || config.source == ConfigSource::Topic);
        texts.push(described_text(&topic, &configs));
        values.push(described_json(&topic, &configs));
    }
    match args.common.print.output {
        Output::Text => print(&texts.join("\n")),
        Output::Json => print_json(&Value::Array(values)),
    }
}

fn described_text(topic: &TopicMetadata, configs: &[ConfigEntry]) -> String {
    let mut text = format!("topic     {}\nid        {}\n", topic.name, topic.id);
    for config in configs {
        let value = config.value.as_deref().unwrap_or("(secret)");
        let note = if config.source == ConfigSource::Topic { "" } else { config.source.name() };
        text.push_str(format!("config    {}={value}  {note}", config.name).trim_end());
        text.push('\n');
    }
    let rows: Vec<_> = topic
        .partitions
        .iter()
        .map(|partition| {
            vec![
                partition.partition.to_string(),
                partition.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string()),
                partition.leader_epoch.to_string(),
                list(&partition.assigned_replicas),
                list(&partition.in_sync_replicas),
            ]
        })
        .collect();
    text.push_str(&table(&["PARTITION", "LEADER", "EPOCH", "REPLICAS", "IN SYNC"], &rows));
    text
}

fn described_json(topic: &TopicMetadata, configs: &[ConfigEntry]) -> Value {
    let config =
        |config: &ConfigEntry| (config.name.clone(), json!({ "value": config.value, "source": config.source.name() }));
    let ids = |nodes: &[madang_client::NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
    let partitions: Vec<_> = topic
        .partitions
        .iter()
        .map(|partition| {
            json!({
                "partition": partition.partition,
                "leader": partition.leader.map(|leader| leader.0),
                "leader_epoch": partition.leader_epoch.0,
                "replicas": ids(&partition.assigned_replicas),
                "in_sync_replicas": ids(&partition.in_sync_replicas),
                "offline_replicas": ids(&partition.offline_replicas),
                "error": partition.error.map(ErrorCode::name),
            })
        })
        .collect();
    json!({
        "topic": topic.name,
        "topic_id": topic.id.to_string(),
        "internal": topic.is_internal,
        "configs": configs.iter().map(config).collect::<BTreeMap<_, _>>(),
        "partitions": partitions,
    })
}

async fn alter(args: Alter) -> Result<(), Failure> {
    let mut changes: Vec<AlteredConfig> = Vec::new();
    changes.extend(args.set.into_iter().map(|(key, value)| AlteredConfig::Set(key, value)));
    changes.extend(args.unset.into_iter().map(AlteredConfig::Delete));
    changes.extend(args.append.into_iter().map(|(key, value)| AlteredConfig::Append(key, value)));
    changes.extend(args.subtract.into_iter().map(|(key, value)| AlteredConfig::Subtract(key, value)));
    if changes.is_empty() && args.partitions.is_none() {
        return Err(Failure::new("nothing to change")
            .try_this(format!("madang topic alter {} --partitions N, or --set KEY=VALUE", args.name)));
    }
    let admin = Admin::new(args.common.client()?);
    let failed = |error: AdminError| args.common.explain(&error, &args.name);
    if !changes.is_empty() {
        admin.alter_topic_configs(&args.name, &changes).await.map_err(failed)?;
    }
    if let Some(total) = args.partitions {
        let grown = admin.create_partitions(&args.name, total).await;
        grown.map_err(|error| {
            let failure = failed(error);
            if changes.is_empty() { failure } else { failure.noting("the configuration was changed all the same") }
        })?;
    }
    match args.common.print.output {
        Output::Text => {
            let partitions = args.partitions.map(|total| format!(", {total} partitions")).unwrap_or_default();
            print(&format!("topic {} altered: {} configuration keys{partitions}\n", args.name, changes.len()))
        }
        Output::Json => print_json(&json!({
            "topic": args.name,
            "configs_changed": changes.len(),
            "partitions": args.partitions,
        })),
    }
}

async fn delete(args: Delete) -> Result<(), Failure> {
    let admin = Admin::new(args.common.client()?);
    let mut outcomes = Vec::new();
    let mut text = String::new();
    for name in &args.names {
        let deleted = match admin.delete_topic(name).await {
            Ok(()) => true,
            Err(error) if args.if_exists && Admin::is_unknown_topic(&error) => false,
            Err(error) => return Err(args.common.explain(&error, name)),
        };
        text.push_str(&format!("topic {name} {}\n", if deleted { "deleted" } else { "does not exist" }));
        outcomes.push(json!({ "topic": name, "deleted": deleted }));
    }
    match args.common.print.output {
        Output::Text => print(&text),
        Output::Json => print_json(&Value::Array(outcomes)),
    }
}
