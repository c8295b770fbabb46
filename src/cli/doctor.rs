//! `madang doctor`: what is wrong with a broker, or with the machine that it runs on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use madang_client::{Admin, Client, ClientConfig, Metadata};
use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};

use super::Failure;
use super::common::{Common, Output, block_on, print, print_json};
use super::tree::{AdminAddress, page};
use crate::server::sync_time;

/// Where `madang start` keeps its data unless told otherwise.
const DEFAULT_DATA: &str = "madang-data";
/// Connections and partitions need a descriptor each.
const FEW_FILES: u64 = 65_536;
const SLOW_SYNC: Duration = Duration::from_millis(20);

/// Check that a broker answers, that its partitions are well, and that the machine suits it. Exit code 1 if something is wrong.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  madang doctor --data /var/lib/madang")]
pub(crate) struct Doctor {
    /// Measure this data directory's sync time. Default: ./madang-data, if it is there.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    admin: AdminAddress,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warning,
    Wrong,
}

impl Verdict {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Wrong => "wrong",
        }
    }
}

struct Check {
    name: &'static str,
    verdict: Verdict,
    detail: String,
    next: Option<String>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, detail: detail.into(), next: None }
    }

    fn warning(name: &'static str, detail: impl Into<String>, next: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warning, detail: detail.into(), next: Some(next.into()) }
    }

    fn wrong(name: &'static str, detail: impl Into<String>, next: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Wrong, detail: detail.into(), next: Some(next.into()) }
    }
}

pub(crate) fn run(args: Doctor) -> Result<(), Failure> {
    let mut checks = block_on(async {
        let mut checks = cluster(&args.common).await;
        checks.push(health(&args).await);
        Ok(checks)
    })?;
    checks.push(open_files(getrlimit(Resource::Nofile).maximum));
    checks.extend(disk(args.data.as_deref()));
    match args.common.print.output {
        Output::Text => print(&text(&checks))?,
        Output::Json => print_json(&checks.iter().map(to_json).collect())?,
    }
    let wrong = checks.iter().filter(|check| check.verdict == Verdict::Wrong).count();
    if wrong == 0 { Ok(()) } else { Err(Failure::new(format!("{wrong} of {} checks are wrong", checks.len()))) }
}

async fn cluster(common: &Common) -> Vec<Check> {
    let mut config = ClientConfig::new([common.server.as_str()]);
    config.client_id = "madang-doctor".to_owned();
    config.request_timeout = Duration::from_secs(10);
    config.retry_timeout = Duration::from_secs(5);
    let admin = Admin::new(Client::new(config));
    let described = match admin.describe_cluster().await {
        Ok(described) => described,
        Err(error) => {
            let next = format!("madang start --listen {}, or --server HOST:PORT of a broker that runs", common.server);
            return vec![Check::wrong("connection", error.to_string(), next)];
        }
    };
    let brokers: Vec<_> =
        described.brokers.iter().map(|broker| format!("{} at {}", broker.node_id, broker.address())).collect();
    let detail = format!("cluster {}, brokers {}", described.cluster_id, brokers.join(", "));
    let mut checks = vec![Check::ok("connection", detail)];
    match admin.list_topics().await {
        Ok(metadata) => checks.extend(partitions(&metadata)),
        Err(error) => checks.push(Check::wrong("partitions", error.to_string(), "the same again in a moment")),
    }
    checks
}

fn partitions(metadata: &Metadata) -> [Check; 2] {
    let (mut total, mut offline, mut behind) = (0, Vec::new(), Vec::new());
    for topic in metadata.topics.values() {
        for partition in &topic.partitions {
            total += 1;
            let name = format!("{}-{}", topic.name, partition.partition);
            if partition.leader.is_none() {
                offline.push(name);
            } else if partition.in_sync_replicas.len() < partition.assigned_replicas.len() {
                behind.push(name);
            }
        }
    }
    let some = |names: &[String]| {
        let shown = names.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        let more = if names.len() > 5 { ", …" } else { "" };
        format!("{} of {total}: {shown}{more}", names.len())
    };
    [
        if offline.is_empty() {
            Check::ok("offline partitions", format!("none of {total}"))
        } else {
            Check::wrong("offline partitions", some(&offline), "the broker's log says why; then start it again")
        },
        if behind.is_empty() {
            Check::ok("under-replicated partitions", format!("none of {total}"))
        } else {
            Check::warning("under-replicated partitions", some(&behind), "start the brokers that are missing")
        },
    ]
}

async fn health(args: &Doctor) -> Check {
    const NAME: &str = "health";
    let hidden =
        "--admin HOST:PORT as `madang start` prints it; without it, only what Kafka's protocol shows is checked";
    let address = match args.admin.resolve(&args.common.server) {
        Ok(address) => address,
        Err(failure) => return Check::warning(NAME, failure.what, hidden),
    };
    let answer = match page(&address, "/health").await {
        Ok(answer) => answer,
        Err(error) => return Check::warning(NAME, error.to_string(), hidden),
    };
    let Ok(health) = serde_json::from_slice::<Value>(&answer.body) else {
        return Check::warning(NAME, format!("{address} is not Madang's admin listener"), hidden);
    };
    let field = |name: &str| health.get(name).and_then(Value::as_str).unwrap_or("unknown").to_owned();
    let (status, theirs, ours) = (field("status"), field("version"), env!("CARGO_PKG_VERSION"));
    let detail = format!("{status}, version {theirs}");
    match status.as_str() {
        "ok" if theirs == ours => Check::ok(NAME, detail),
        "ok" => {
            Check::warning(NAME, format!("{detail}; this program is {ours}"), "use the program of the broker's version")
        }
        "starting" => Check::warning(NAME, detail, "the same again in a moment"),
        _ => Check::wrong(NAME, detail, format!("madang tree --admin {address}, and the broker's log")),
    }
}

/// The hard limit of this process, which is the broker's if it is started from here: a broker raises the soft one as far as that lets it.
fn open_files(hard_limit: Option<u64>) -> Check {
    const NAME: &str = "open files";
    match hard_limit {
        Some(limit) if limit < FEW_FILES => Check::warning(
            NAME,
            format!("this shell's hard limit is {limit}"),
            format!("ulimit -Hn {FEW_FILES} as root before `madang start`, or LimitNOFILE= in its service"),
        ),
        Some(limit) => Check::ok(NAME, format!("this shell's hard limit is {limit}")),
        None => Check::ok(NAME, "no limit"),
    }
}

fn disk(given: Option<&Path>) -> Option<Check> {
    const NAME: &str = "disk sync";
    let path = given.unwrap_or(Path::new(DEFAULT_DATA));
    if given.is_none() && !path.is_dir() {
        return None;
    }
    let shown = path.display();
    Some(match sync_time(path) {
        Err(error) => Check::wrong(NAME, format!("{shown}: {error}"), "--data DIR of a directory that can be written"),
        Ok(time) => {
            let detail = format!("{shown}: one sync takes {:.2} ms", time.as_secs_f64() * 1000.0);
            if time > SLOW_SYNC {
                Check::warning(
                    NAME,
                    detail,
                    "a disk with power-loss protection, or madang.durability=page-cache with its risk",
                )
            } else {
                Check::ok(NAME, detail)
            }
        }
    })
}

fn text(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        text.push_str(&format!("{:8} {}: {}\n", check.verdict.name(), check.name, check.detail));
        if let Some(next) = &check.next {
            text.push_str(&format!("{:8}   try: {next}\n", ""));
        }
    }
    text
}

fn to_json(check: &Check) -> Value {
    json!({ "check": check.name, "verdict": check.verdict.name(), "detail": check.detail, "try": check.next })
}
