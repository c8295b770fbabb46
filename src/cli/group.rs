//! `madang group`: list, describe, reset-offsets, delete.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use madang_client::{Admin, AdminError, CommittedOffset, GroupDescription, Offset, OffsetReset, StartAt};
use serde_json::{Value, json};

use super::Failure;
use super::common::{Output, Remote, block_on, print, print_json, table};

/// List, describe and delete consumer groups, and set where they go on.
#[derive(Debug, Args)]
pub(crate) struct Group {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the groups.
    #[command(after_help = "Example:\n  madang group list")]
    List(List),
    /// Show members, committed offsets and lag.
    #[command(after_help = "Example:\n  madang group describe billing")]
    Describe(Describe),
    /// Set where a group without members goes on.
    #[command(after_help = "Example:\n  madang group reset-offsets billing --topic orders --to-earliest --dry-run")]
    ResetOffsets(Reset),
    /// Delete groups without members, and their offsets.
    #[command(after_help = "Example:\n  madang group delete billing")]
    Delete(Delete),
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    common: Remote,
}

#[derive(Debug, Args)]
struct Describe {
    /// The group's id.
    group: String,
    #[command(flatten)]
    common: Remote,
}

#[derive(Debug, Args)]
struct Reset {
    /// The group's id.
    group: String,
    /// The topic.
    #[arg(long, value_name = "TOPIC")]
    topic: String,
    /// One partition instead of all.
    #[arg(long, value_name = "N")]
    partition: Option<i32>,
    #[command(flatten)]
    to: Target,
    /// Only show what would be set.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    common: Remote,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// The log start offset.
    #[arg(long)]
    to_earliest: bool,
    /// The end: only records still to come.
    #[arg(long)]
    to_latest: bool,
    /// This offset, moved into the log where it is outside.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// The first record that is not older, in milliseconds since 1970.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(i64).range(0..))]
    to_timestamp: Option<i64>,
}

#[derive(Debug, Args)]
struct Delete {
    /// The groups' ids.
    #[arg(required = true)]
    groups: Vec<String>,
    #[command(flatten)]
    common: Remote,
}

pub(crate) fn run(group: Group) -> Result<(), Failure> {
    match group.action {
        Action::List(args) => block_on(list(args)),
        Action::Describe(args) => block_on(describe(args)),
        Action::ResetOffsets(args) => block_on(reset(args)),
        Action::Delete(args) => block_on(delete(args)),
    }
}

async fn list(args: List) -> Result<(), Failure> {
    let groups = Admin::new(args.common.client()?).list_groups().await;
    let groups = groups.map_err(|error| args.common.explain(&error, ""))?;
    match args.common.print.output {
        Output::Text if groups.is_empty() => print("no groups; madang consume TOPIC --group NAME starts one\n"),
        Output::Text => {
            let rows: Vec<_> = groups
                .iter()
                .map(|group| vec![group.group.clone(), group.state.clone(), group.protocol_type.clone()])
                .collect();
            print(&table(&["GROUP", "STATE", "PROTOCOL TYPE"], &rows))
        }
        Output::Json => {
            let value = groups.iter().map(|group| {
                json!({
                    "group": group.group,
                    "state": group.state,
                    "protocol_type": group.protocol_type,
                    "type": group.group_type,
                })
            });
            print_json(&value.collect())
        }
    }
}

/// One partition that a group has committed or is assigned.
struct Row {
    topic: String,
    partition: i32,
    committed: Option<CommittedOffset>,
    end: Option<Offset>,
    member: Option<String>,
}

impl Row {
    fn lag(&self) -> Option<i64> {
        Some((self.end? - self.committed.as_ref()?.offset).max(0))
    }
}

async fn describe(args: Describe) -> Result<(), Failure> {
    let admin = Admin::new(args.common.client()?);
    let failed = |error: AdminError| args.common.explain(&error, &args.group);
    let group = admin.describe_group(&args.group).await.map_err(failed)?;
    let committed = admin.committed_offsets(&args.group).await.map_err(failed)?;
    let mut rows: BTreeMap<(String, i32), Row> = BTreeMap::new();
    let empty =
        |key: &(String, i32)| Row { topic: key.0.clone(), partition: key.1, committed: None, end: None, member: None };
    for (key, offset) in committed {
        rows.entry(key.clone()).or_insert_with(|| empty(&key)).committed = Some(offset);
    }
    for member in &group.members {
        for (topic, partitions) in &member.assignment {
            for partition in partitions {
                let key = (topic.clone(), *partition);
                rows.entry(key.clone()).or_insert_with(|| empty(&key)).member = Some(member.member_id.clone());
            }
        }
    }
    // Topic by topic: one that was deleted must not hide the others' ends.
    let mut by_topic: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in rows.keys() {
        by_topic.entry(topic.clone()).or_default().push(*partition);
    }
    for (topic, partitions) in by_topic {
        let asked = BTreeMap::from([(topic, partitions)]);
        for (key, listed) in admin.offsets(&asked, StartAt::Latest).await.unwrap_or_default() {
            if let Some(row) = rows.get_mut(&key) {
                row.end = Some(listed.offset);
            }
        }
    }
    let rows: Vec<Row> = rows.into_values().collect();
    match args.common.print.output {
        Output::Text => print(&described_text(&group, &rows)),
        Output::Json => print_json(&described_json(&group, &rows)),
    }
}

fn described_text(group: &GroupDescription, rows: &[Row]) -> String {
    let mut text = format!("group     {}\nstate     {}\n", group.group, group.state);
    if !group.protocol.is_empty() {
        text.push_str(&format!("protocol  {}\n", group.protocol));
    }
    for member in &group.members {
        text.push_str(&format!("member    {} at {}\n", member.member_id, member.client_host));
    }
    let number = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let cells: Vec<_> = rows
        .iter()
        .map(|row| {
            vec![
                row.topic.clone(),
                row.partition.to_string(),
                number(row.committed.as_ref().map(|committed| committed.offset.to_string())),
                number(row.end.map(|end| end.to_string())),
                number(row.lag().map(|lag| lag.to_string())),
                number(row.member.clone()),
            ]
        })
        .collect();
    text.push_str(&table(&["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "MEMBER"], &cells));
    text
}

fn described_json(group: &GroupDescription, rows: &[Row]) -> Value {
    let members: Vec<_> = group
        .members
        .iter()
        .map(|member| {
            json!({
                "member_id": member.member_id,
                "group_instance_id": member.group_instance_id,
                "client_id": member.client_id,
                "client_host": member.client_host,
                "assignment": member.assignment,
            })
        })
        .collect();
    let offsets: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "topic": row.topic,
                "partition": row.partition,
                "committed_offset": row.committed.as_ref().map(|committed| committed.offset.0),
                "metadata": row.committed.as_ref().map(|committed| committed.metadata.clone()),
                "end_offset": row.end.map(|end| end.0),
                "lag": row.lag(),
                "member_id": row.member,
            })
        })
        .collect();
    json!({
        "group": group.group,
        "state": group.state,
        "protocol_type": group.protocol_type,
        "protocol": group.protocol,
        "members": members,
        "offsets": offsets,
    })
}

async fn reset(args: Reset) -> Result<(), Failure> {
    let admin = Admin::new(args.common.client()?);
    let failed_topic = |error: AdminError| args.common.explain(&error, &args.topic);
    let topic = admin.describe_topic(&args.topic).await.map_err(failed_topic)?;
    let mut partitions: Vec<i32> = topic.partitions.iter().map(|partition| partition.partition).collect();
    if let Some(one) = args.partition {
        partitions.retain(|partition| *partition == one);
        if partitions.is_empty() {
            return Err(Failure::new(format!("topic {} has no partition {one}", args.topic))
                .try_this(format!("madang topic describe {}", args.topic)));
        }
    }
    let asked = BTreeMap::from([(args.topic.clone(), partitions)]);
    let earliest = admin.offsets(&asked, StartAt::Earliest).await.map_err(failed_topic)?;
    let latest = admin.offsets(&asked, StartAt::Latest).await.map_err(failed_topic)?;
    let by_time = match args.to.to_timestamp {
        Some(timestamp) => admin.offsets(&asked, StartAt::Timestamp(timestamp)).await.map_err(failed_topic)?,
        None => BTreeMap::new(),
    };
    let mut offsets = OffsetReset::new();
    for (key, first) in &earliest {
        let last = latest.get(key).map_or(first.offset, |last| last.offset);
        let offset = if args.to.to_earliest {
            first.offset
        } else if let Some(offset) = args.to.to_offset {
            Offset(offset).max(first.offset).min(last)
        } else {
            // No record that is as young as asked: the end.
            by_time.get(key).map(|found| found.offset).filter(|found| *found >= Offset::ZERO).unwrap_or(last)
        };
        offsets.entry(key.0.clone()).or_default().push((key.1, offset));
    }
    if !args.dry_run {
        let outcome = admin.reset_offsets(&args.group, &offsets).await;
        outcome.map_err(|error| args.common.explain(&error, &args.group))?;
    }
    print_reset(&args, &offsets)
}

fn print_reset(args: &Reset, offsets: &OffsetReset) -> Result<(), Failure> {
    let all = offsets.iter().flat_map(|(topic, list)| list.iter().map(move |(partition, at)| (topic, partition, at)));
    match args.common.print.output {
        Output::Text => {
            let rows: Vec<_> =
                all.map(|(topic, partition, at)| vec![topic.clone(), partition.to_string(), at.to_string()]).collect();
            let note = if args.dry_run { "not set, because of --dry-run\n" } else { "" };
            print(&format!("{}{note}", table(&["TOPIC", "PARTITION", "OFFSET"], &rows)))
        }
        Output::Json => {
            let all: Vec<_> = all
                .map(|(topic, partition, at)| json!({ "topic": topic, "partition": partition, "offset": at.0 }))
                .collect();
            print_json(&json!({ "group": args.group, "set": !args.dry_run, "offsets": all }))
        }
    }
}

async fn delete(args: Delete) -> Result<(), Failure> {
    let admin = Admin::new(args.common.client()?);
    let mut text = String::new();
    let mut deleted = Vec::new();
    for group in &args.groups {
        admin.delete_group(group).await.map_err(|error| args.common.explain(&error, group))?;
        text.push_str(&format!("group {group} deleted\n"));
        deleted.push(json!({ "group": group, "deleted": true }));
    }
    match args.common.print.output {
        Output::Text => print(&text),
        Output::Json => print_json(&Value::Array(deleted)),
    }
}
