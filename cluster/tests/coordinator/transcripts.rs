//! Stories: commands and what the shard does, one file each in `tests/transcripts/groups`.
//! `UPDATE_TRANSCRIPTS=1` rewrites what follows each `----`. Member ids are shown as `prefix#1`, `prefix#2`, in order of appearance.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use madang_cluster::coordinator::records::{self, Key, Value};
use madang_cluster::coordinator::request::{
    DeleteGroups, DescribeGroup, Heartbeat, JoinGroup, LeaveGroup, LeavingMember, OffsetCommit, OffsetFetch, SyncGroup,
};
use madang_cluster::coordinator::{Effect, ErrorCode, GroupConfig, Input, Record, Request, Response};
use madang_protocol::types::Uuid;

use crate::world::{World, blob, simple, subscription, v3};

/// Length of a UUID and the hyphen before it.
const SUFFIX: usize = 37;

struct Story {
    world: World,
    /// Full member ids by the names they are shown under.
    members: BTreeMap<String, Arc<str>>,
    verbs: Vec<String>,
}

impl Story {
    fn new() -> Self {
        Self { world: World::with(GroupConfig::default()), members: BTreeMap::new(), verbs: Vec::new() }
    }

    /// Runs one command and answers the lines that it causes.
    fn run(&mut self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let verb = words.next().expect("a verb");
        let args: BTreeMap<&str, &str> = words.filter_map(|word| word.split_once('=')).collect();
        self.world.effects.clear();
        let request = match verb {
            "advance" => {
                self.world.advance(seconds(args["by"]));
                None
            }
            "reload" => {
                self.world.restart();
                None
            }
            "topic-deleted" => {
                self.world.step(Input::TopicDeleted { name: args["topic"].into(), id: Uuid::default() });
                None
            }
            _ => Some(self.request(verb, &args)),
        };
        if let Some(body) = request {
            let who = args.get("client").or(args.get("member")).copied().unwrap_or_default();
            self.verbs.push(format!("{verb} {who}").trim_end().to_owned());
            self.world.ask(body);
        }
        let effects = std::mem::take(&mut self.world.effects);
        let mut out = String::new();
        for effect in &effects {
            self.show(effect, &mut out);
        }
        if out.is_empty() { "ok\n".to_owned() } else { out }
    }

    fn request(&self, verb: &str, args: &BTreeMap<&str, &str>) -> Request {
        let group: Arc<str> = "g".into();
        let member = self.member(args.get("member").copied().unwrap_or_default());
        let group_instance_id: Option<Arc<str>> = args.get("instance").map(|instance| Arc::from(*instance));
        let generation_id = args.get("generation").map_or(-1, |number| number.parse().expect("a generation"));
        match verb {
            "join" => Request::JoinGroup(self.join(args)),
            "sync" => {
                let pairs = args.get("assign").into_iter().flat_map(|pairs| pairs.split(','));
                let pair = |pair: &str| {
                    let (id, part) = pair.split_once(':').expect("member:part");
                    (self.member(id), blob(part))
                };
                let assignments = pairs.map(pair).collect();
                let sync =
                    SyncGroup { group, member, group_instance_id, generation_id, assignments, ..SyncGroup::default() };
                Request::SyncGroup(sync)
            }
            "heartbeat" => Request::Heartbeat(Heartbeat { group, member, group_instance_id, generation_id }),
            "leave" => {
                let members = vec![LeavingMember { member, group_instance_id }];
                Request::LeaveGroup(LeaveGroup { version: 5, group, members })
            }
            "commit" => {
                let offset = args["offset"].parse().expect("an offset");
                let commit = simple("g", args["topic"], offset);
                Request::OffsetCommit(OffsetCommit { member, group_instance_id, generation_id, ..commit })
            }
            "fetch" => Request::OffsetFetch(OffsetFetch { group, topics: None }),
            "describe" => Request::DescribeGroup(DescribeGroup { version: 6, group }),
            "delete" => Request::DeleteGroups(DeleteGroups { groups: vec![group] }),
            other => panic!("no command {other}"),
        }
    }

    fn join(&self, args: &BTreeMap<&str, &str>) -> JoinGroup {
        let protocols = args.get("protocols").copied().unwrap_or("range").split(',');
        JoinGroup {
            version: args.get("version").map_or(9, |version| version.parse().expect("a version")),
            member: self.member(args.get("member").copied().unwrap_or_default()),
            group_instance_id: args.get("instance").map(|instance| Arc::from(*instance)),
            protocols: protocols.map(|name| (Arc::from(name), subscription(&["t"]))).collect(),
            session_timeout: args.get("session").map_or(Duration::from_secs(10), |text| seconds(text)),
            rebalance_timeout: args.get("rebalance").map_or(Duration::from_secs(60), |text| seconds(text)),
            ..v3(args.get("client").copied().unwrap_or("c"))
        }
    }

    fn member(&self, name: &str) -> Arc<str> {
        self.members.get(name).cloned().unwrap_or_else(|| name.into())
    }

    /// The name under which a member id is shown.
    fn name(&mut self, id: &Arc<str>) -> String {
        if let Some((name, _)) = self.members.iter().find(|(_, known)| *known == id) {
            return name.clone();
        }
        let Some(prefix) = id.len().checked_sub(SUFFIX).map(|end| id[..end].to_owned()) else { return id.to_string() };
        let number = 1 + self.members.keys().filter(|name| name.starts_with(&format!("{prefix}#"))).count();
        let name = format!("{prefix}#{number}");
        self.members.insert(name.clone(), id.clone());
        name
    }

    fn show(&mut self, effect: &Effect, out: &mut String) {
        let line = match effect {
            Effect::Append { ticket, records } => {
                let records: Vec<String> = records.iter().map(|record| self.record(record)).collect();
                format!("Append #{} {}", ticket.0, records.join(" | "))
            }
            Effect::Reply { request, response, after } => {
                let verb = self.verbs[usize::try_from(request.0).expect("a small number") - 1].clone();
                let after = after.map_or(String::new(), |ticket| format!(" after=#{}", ticket.0));
                format!("Reply {verb}: {}{after}", self.response(response))
            }
            Effect::Stop { why } => format!("Stop {why}"),
            Effect::Report { group, what } => format!("Report {group} {what}"),
        };
        writeln!(out, "{line}").expect("a string grows");
    }

    fn record(&mut self, record: &Record) -> String {
        let key = records::decode_key(&record.key).expect("a key");
        let name = match &key {
            Key::Offset { group, topic, partition } => format!("offset {group} {topic}-{partition}"),
            Key::Group { group } => format!("group {group}"),
            Key::Other(schema) => format!("schema {schema}"),
        };
        let Some(value) = &record.value else { return format!("{name} removed") };
        match records::decode_value(&key, value).expect("a value") {
            Value::Offset(offset) => format!("{name} at {}", offset.offset),
            Value::Group(group) => {
                let show = |member: &records::MemberRecord| {
                    format!("{}:{}", self.name(&member.member), String::from_utf8_lossy(&member.assignment))
                };
                let members: Vec<String> = group.members.iter().map(show).collect();
                let leader = group.leader.as_ref().map_or("-".to_owned(), |leader| self.name(leader));
                let generation = group.generation;
                format!("{name} generation={generation} leader={leader} members=[{}]", members.join(" "))
            }
        }
    }

    fn response(&mut self, response: &Response) -> String {
        match response {
            Response::JoinGroup(join) if join.error == ErrorCode::None => {
                let (member, leader) = (self.name(&join.member), self.name(&join.leader));
                let members: Vec<String> = join.members.iter().map(|member| self.name(&member.member)).collect();
                let (generation, protocol) = (join.generation_id, join.protocol_name.as_deref().unwrap_or("-"));
                let skip = if join.skip_assignment { " skip_assignment" } else { "" };
                let members = members.join(" ");
                format!(
                    "member={member} generation={generation} protocol={protocol} leader={leader} members=[{members}]{skip}"
                )
            }
            Response::JoinGroup(join) => format!("{} member={}", join.error.name(), self.name(&join.member)),
            Response::SyncGroup(sync) if sync.error == ErrorCode::None => {
                format!("assignment={}", String::from_utf8_lossy(&sync.assignment))
            }
            Response::SyncGroup(sync) => sync.error.name().to_owned(),
            Response::Heartbeat(error) => error.name().to_owned(),
            Response::LeaveGroup(left) => left.members[0].error.name().to_owned(),
            Response::OffsetCommit(topics) => topics[0].1[0].1.name().to_owned(),
            Response::OffsetFetch(fetched) => {
                let all = fetched.topics.iter().flat_map(|(topic, all)| all.iter().map(move |offset| (topic, offset)));
                let all: Vec<String> = all.map(|(t, o)| format!("{t}-{} at {}", o.partition, o.offset)).collect();
                format!("{} [{}]", fetched.error.name(), all.join(" "))
            }
            Response::DescribeGroup(group) => {
                let (error, state, data) = (group.error.name(), group.state, &group.protocol_data);
                let members: Vec<String> = group.members.iter().map(|member| self.name(&member.member)).collect();
                format!("{error} state={state} protocol_data={data} members=[{}]", members.join(" "))
            }
            Response::DeleteGroups(groups) => groups[0].1.name().to_owned(),
            other => format!("{other:?}"),
        }
    }
}

fn seconds(text: &str) -> Duration {
    Duration::from_secs(text.strip_suffix('s').expect("seconds").parse().expect("a number"))
}

/// Runs every command of a story and gives the file as it should be.
fn play(text: &str) -> String {
    let mut story = Story::new();
    let mut out = String::new();
    for block in text.split("\n\n").map(str::trim).filter(|block| !block.is_empty()) {
        if !out.is_empty() {
            out.push('\n');
        }
        let commands: Vec<&str> = block.lines().take_while(|line| *line != "----").collect();
        let mut results = String::new();
        for line in &commands {
            writeln!(out, "{line}").expect("a string grows");
            if !line.starts_with('#') {
                results += &story.run(line);
            }
        }
        if commands.iter().any(|line| !line.starts_with('#')) {
            write!(out, "----\n{results}").expect("a string grows");
        }
    }
    story.world.shard.check_all();
    out
}

#[test]
fn every_story_ends_as_it_is_told() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts/groups");
    let mut told = 0;
    for entry in std::fs::read_dir(&folder).expect("the folder of stories") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a story");
        let now = play(&text);
        told += 1;
        if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
            std::fs::write(&path, now).expect("a story to write");
        } else {
            assert_eq!(text, now, "{} is told differently; UPDATE_TRANSCRIPTS=1 rewrites it", path.display());
        }
    }
    assert!(told >= 7, "stories are missing");
}
